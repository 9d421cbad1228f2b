//! `moorlinectl events`: what happened, and on wish what happens.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use super::Events;
use super::client::{Client, Query};
use super::failure::Failure;
use super::stream::Message;
use super::{show, table};

/// How long a server that does not answer is left alone.
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
    let mut watch = Watch { client, wanted, after: wanted.after, silent: false };
    watch.show_rest(json, out)?;
    if !wanted.follow {
        return Ok(());
    }
    loop {
        out.flush()?;
        match watch.follow(json, out) {
            // A restart of the server is no reason to stop watching it.
            Err(Failure::Unreachable(text)) => watch.lose_sight(&text),
            other => other?,
        }
        pause();
    }
}

/// A look at the server's events that goes on where it ended.
struct Watch<'a> {
    client: &'a Client,
    wanted: &'a Events,
    /// What was shown last; `None`: begin with the newest there are.
    after: Option<i64>,
    /// The server did not answer the last time.
    silent: bool,
}

impl Watch<'_> {
    /// Shows all events that there are by now.
    fn show_rest(&mut self, json: bool, out: &mut impl Write) -> Result<(), Failure> {
        loop {
            let page = self.next_page()?;
            let numbers = (page["events"].as_array(), page["next"].as_i64(), page["newest"].as_i64());
            let (Some(events), Some(next), Some(newest)) = numbers else {
                return Err(self.client.stranger());
            };
            events.iter().try_for_each(|event| write(event, json, out))?;
            self.after = Some(next);
            if next >= newest || events.is_empty() {
                return Ok(());
            }
        }
    }

    fn next_page(&self) -> Result<Value, Failure> {
        let query = Query::new("/api/events")
            .with("after", self.after)
            .with("imei", self.wanted.imei)
            .with("limit", self.after.map(|_| PAGE));
        self.client.get(&query)
    }

    /// Shows what happens, until the server is lost.
    fn follow(&mut self, json: bool, out: &mut impl Write) -> Result<(), Failure> {
        let query = Query::new("/api/events/stream").with("imei", self.wanted.imei);
        let mut stream = self.client.stream(&query, self.after)?;
        if std::mem::take(&mut self.silent) {
            eprintln!("moorlinectl: the server answers again");
        }
        loop {
            for Message { event, data } in stream.next()? {
                match event.as_str() {
                    "" => self.show_one(&data, json, out)?,
                    "anew" => {
                        eprintln!("moorlinectl: the server's events begin anew");
                        self.after = Some(0);
                    }
                    // What this tool has no use for.
                    _ => {}
                }
            }
            out.flush()?;
        }
    }

    fn show_one(&mut self, data: &str, json: bool, out: &mut impl Write) -> Result<(), Failure> {
        let event: Value = serde_json::from_str(data).map_err(|_| self.client.stranger())?;
        self.after = Some(event["id"].as_i64().ok_or_else(|| self.client.stranger())?);
        write(&event, json, out)
    }

    fn lose_sight(&mut self, text: &str) {
        if !std::mem::replace(&mut self.silent, true) {
            eprintln!("moorlinectl: {text}. Asking again until it answers");
        }
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

#[expect(clippy::disallowed_methods, reason = "a server that is away brings no event to wait for")]
fn pause() {
    std::thread::sleep(PACE);
}
