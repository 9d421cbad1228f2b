//! What `moorlinectl` decides of devices: whether they are let in, what they are called, which are to come.

use std::fs;
use std::io::{self, Read as _, Write};
use std::path::Path;

use moorline_protocol::Imei;
use serde_json::json;

use super::client::{Client, Query};
use super::failure::Failure;
use super::{show, table, write_device};

/// Shows the device as it is then.
pub(super) fn set_state(
    client: &Client,
    imei: Imei,
    state: &str,
    reason: &str,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let body = json!({"state": state, "reason": reason});
    write_device(&client.put(&format!("/api/devices/{imei}/state"), &body)?, json, out)
}

pub(super) fn label(
    client: &Client,
    imei: Imei,
    label: &str,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    write_device(&client.put(&format!("/api/devices/{imei}/label"), &json!({"label": label}))?, json, out)
}

pub(super) fn drop_session(
    client: &Client,
    imei: Imei,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let answer = client.post(&format!("/api/devices/{imei}/drop"))?;
    if json {
        writeln!(out, "{answer}")?;
    } else if answer["dropped"] == true {
        writeln!(out, "the session of {imei} has ended")?;
    } else {
        writeln!(out, "{imei} was not online")?;
    }
    Ok(())
}

/// `file` is `-` for standard input.
pub(super) fn add(client: &Client, file: &Path, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let read = if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(file)
    };
    let bytes = read.map_err(|fault| Failure::File(format!("{}: {fault}", file.display())))?;
    let answer = client.upload("/api/devices", "text/csv", bytes)?;
    if json {
        writeln!(out, "{answer}")?;
    } else {
        let [added, known, labelled] = ["added", "known", "labelled"].map(|name| &answer[name]);
        writeln!(out, "{added} added, {known} known already, {labelled} of these labelled anew")?;
    }
    Ok(())
}

pub(super) fn fleet(client: &Client, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let fleet = client.get(&Query::new("/api/fleet").with("hours", Some(1)))?;
    if json {
        writeln!(out, "{fleet}")?;
    } else {
        let names = ["known", "online", "offline", "never_seen", "blocked", "quarantined"];
        let pairs = names.map(|name| (title(name), fleet[name].to_string()));
        table::write_pairs(out, &pairs)?;
    }
    Ok(())
}

pub(super) fn nodes(client: &Client, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let answer = client.get(&Query::new("/api/nodes"))?;
    let nodes = answer["nodes"].as_array().ok_or_else(|| client.stranger())?;
    if json {
        return Ok(nodes.iter().try_for_each(|node| writeln!(out, "{node}"))?);
    }
    if nodes.is_empty() {
        writeln!(out, "this server shares its fleet with no other")?;
        return Ok(());
    }
    let rows: Vec<_> = nodes
        .iter()
        .map(|node| {
            let heard = if node["heard"] == true { "yes" } else { "no" };
            let answers = if node["answers"] == true { "answers" } else { "" };
            [
                node["name"].as_str().unwrap_or_default().to_owned(),
                heard.to_owned(),
                node["online"].to_string(),
                answers.to_owned(),
            ]
        })
        .collect();
    table::write(out, &["NODE", "HEARD", "ONLINE", ""], &rows)?;
    Ok(())
}

pub(super) fn history(
    client: &Client,
    imei: Imei,
    days: u32,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let query = Query::new(&format!("/api/devices/{imei}/history")).with("days", Some(days));
    let answer = client.get(&query)?;
    let hours = answer["hours"].as_array().ok_or_else(|| client.stranger())?;
    if json {
        return Ok(hours.iter().try_for_each(|hour| writeln!(out, "{hour}"))?);
    }
    let rows: Vec<_> = hours.iter().map(show::hour_row).collect();
    table::write(out, &show::HOUR_HEAD, &rows)?;
    Ok(())
}

fn title(name: &str) -> &str {
    match name {
        "known" => "Known",
        "online" => "Online",
        "offline" => "Offline",
        "never_seen" => "Never seen",
        "blocked" => "Blocked",
        _ => "Quarantined",
    }
}
