//! QEMU's monitor: what happens to the board from outside, such as a cable that is pulled.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::process::PATIENCE;

/// One guest's monitor, spoken to one command at a time.
pub(crate) struct Monitor {
    lines: BufReader<UnixStream>,
    /// Events that came between a command and its answer.
    events: Vec<Value>,
}

impl Monitor {
    /// Takes QEMU's greeting and leaves the negotiation behind.
    #[track_caller]
    pub(crate) fn greet(stream: UnixStream) -> Result<Self, Failure> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut monitor = Self { lines: BufReader::new(stream), events: Vec::new() };
        monitor.read()?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Has QEMU do something, and waits until it has.
    #[track_caller]
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, Failure> {
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        self.lines.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut answer = self.read()?;
            if !answer["error"].is_null() {
                return Err(Failure::new(format!("QEMU refuses {command}: {}", answer["error"]["desc"])));
            }
            if !answer["return"].is_null() {
                return Ok(answer["return"].take());
            }
            self.events.push(answer);
        }
    }

    /// Waits for an event of this name with such a device; those that came before it are forgotten.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, event: &str, device: &str) -> Result<(), Failure> {
        let wanted = |seen: &Value| seen["event"] == event && seen["data"]["device"] == device;
        if let Some(at) = self.events.iter().position(wanted) {
            self.events.drain(..=at);
            return Ok(());
        }
        self.events.clear();
        while !wanted(&self.read()?) {}
        Ok(())
    }

    #[track_caller]
    fn read(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => Err(Failure::new("QEMU's monitor has closed")),
            Ok(_) => Ok(serde_json::from_str(&line)?),
            Err(error) => Err(Failure::new(format!("QEMU's monitor says nothing: {error}"))),
        }
    }
}
