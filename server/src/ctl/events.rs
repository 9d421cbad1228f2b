//! `moorlinectl events`: what happened, and on wish what happens.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use super::Events;
use super::client::{Client, Query};
use super::failure::Failure;
use super::{show, table};

/// How often the server is asked for more.
const PACE: Duration = Duration::from_secs(1);
/// How many events are asked for at a time.
const PAGE: usize = 1000;

pub(super) fn show(
    client: &Client,
    wanted: &Events,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    if !json {
        table::write_row(out, &show::EVENT_HEAD, &show::EVENT_WIDTHS)?;
    }
    let after = show_rest(client, wanted, wanted.after, json, out)?;
    if wanted.follow { follow(client, wanted, after, json, out) } else { Ok(()) }
}

fn follow(
    client: &Client,
    wanted: &Events,
    after: i64,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (mut after, mut reachable) = (after, true);
    loop {
        out.flush()?;
        pause();
        match show_rest(client, wanted, Some(after), json, out) {
            Ok(next) => {
                if !std::mem::replace(&mut reachable, true) {
                    eprintln!("moorlinectl: the server answers again");
                }
                after = next;
            }
            // A restart of the server is no reason to stop watching it.
            Err(Failure::Unreachable(text)) => {
                if std::mem::replace(&mut reachable, false) {
                    eprintln!("moorlinectl: {text}. Asking again until it answers");
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Shows all events after one, and returns what to ask for next.
fn show_rest(
    client: &Client,
    wanted: &Events,
    after: Option<i64>,
    json: bool,
    out: &mut impl Write,
) -> Result<i64, Failure> {
    let mut after = after;
    loop {
        let query = Query::new("/api/events")
            .with("after", after)
            .with("imei", wanted.imei)
            .with("limit", after.map(|_| PAGE));
        let page = client.get(&query)?;
        let numbers = (page["events"].as_array(), page["next"].as_i64(), page["newest"].as_i64());
        let (Some(events), Some(next), Some(newest)) = numbers else { return Err(client.stranger()) };
        if wanted.follow && after.is_some_and(|after| newest < after) {
            eprintln!("moorlinectl: the server's events begin anew");
            after = Some(0);
            continue;
        }
        events.iter().try_for_each(|event| write(event, json, out))?;
        if next >= newest || events.is_empty() {
            return Ok(next);
        }
        after = Some(next);
    }
}

fn write(event: &Value, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        writeln!(out, "{event}")?;
    } else {
        let cells = show::event_row(event).map(|cell| table::harmless(&cell));
        table::write_row(out, &cells.each_ref().map(String::as_str), &show::EVENT_WIDTHS)?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "HTTP brings no event to wait for")]
fn pause() {
    std::thread::sleep(PACE);
}
