//! Server-sent events, as they come.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::failure::Failure;

/// The server says something every 15 s. A line that is silent for this long is dead.
const SILENCE: Duration = Duration::from_secs(45);
/// The longest line: far more than any event.
const LONGEST_LINE: usize = 64 * 1024;

/// A stream that is open.
pub(super) struct Stream<'r> {
    runtime: &'r Runtime,
    body: Incoming,
    messages: Messages,
}

/// One message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) event: String,
    pub(super) data: String,
}

impl<'r> Stream<'r> {
    pub(super) fn new(runtime: &'r Runtime, body: Incoming) -> Self {
        Self { runtime, body, messages: Messages::default() }
    }

    /// The messages that come next, one at least.
    pub(super) fn next(&mut self) -> Result<Vec<Message>, Failure> {
        self.runtime.block_on(async {
            loop {
                let frame = match timeout(SILENCE, self.body.frame()).await {
                    Ok(Some(Ok(frame))) => frame,
                    Ok(None) => return Err(lost("the server ended it")),
                    Ok(Some(Err(fault))) => return Err(lost(&fault.to_string())),
                    Err(_) => return Err(lost("nothing comes any more")),
                };
                let messages = self.messages.hear(frame.data_ref().map_or(&[][..], |data| data))?;
                if !messages.is_empty() {
                    return Ok(messages);
                }
            }
        })
    }
}

fn lost(why: &str) -> Failure {
    Failure::Unreachable(format!("the stream of events was lost ({why})"))
}

/// Takes bytes apart, however they are cut.
#[derive(Debug, Default)]
struct Messages {
    line: Vec<u8>,
    message: Message,
}

impl Messages {
    fn hear(&mut self, bytes: &[u8]) -> Result<Vec<Message>, Failure> {
        let mut whole = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > LONGEST_LINE {
                    return Err(Failure::Answer(
                        "the stream holds what is no event: a line without end".to_owned(),
                    ));
                }
                continue;
            }
            whole.extend(self.take_line());
            self.line.clear();
        }
        Ok(whole)
    }

    fn take_line(&mut self) -> Option<Message> {
        let line = String::from_utf8_lossy(&self.line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                let message = std::mem::take(&mut self.message);
                return (!message.data.is_empty()).then_some(message);
            }
            "event" => value.clone_into(&mut self.message.event),
            "data" => value.clone_into(&mut self.message.data),
            // Comments, and what this tool has no use for.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_heard_however_they_are_cut() {
        let text = b": alive\n\nid: 7\ndata: {\"id\":7}\n\nevent: fleet\ndata: {}\n\n: alive\n\ndata:{\"id\":8}\n\nid: 9\n";
        let wanted = [("", "{\"id\":7}"), ("fleet", "{}"), ("", "{\"id\":8}")];
        for size in [1, 2, 3, 7, text.len()] {
            let mut messages = Messages::default();
            let heard: Vec<_> = text.chunks(size).flat_map(|bytes| messages.hear(bytes).unwrap()).collect();
            let heard: Vec<_> =
                heard.iter().map(|message| (message.event.as_str(), message.data.as_str())).collect();
            assert_eq!(heard, wanted, "{size}");
        }
    }

    #[test]
    fn line_without_an_end_is_not_kept() {
        let mut messages = Messages::default();
        assert!((0..100).any(|_| messages.hear(&[b'x'; 4096]).is_err()));
        assert!(messages.line.len() <= LONGEST_LINE + 1);
    }
}
