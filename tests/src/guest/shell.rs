//! root's shell within the guest, on a serial line of its own.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::failure::Failure;

/// What no command prints: it stands around the exit code that ends an answer.
const MARK: char = '\u{1e}';

/// A text as one word of a command, whatever is in it.
pub(crate) fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The shell, one command at a time.
pub(crate) struct Shell {
    line: UnixStream,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Both of its outputs, without the white space around them.
    pub text: String,
    /// Its exit code.
    pub code: i32,
}

impl Shell {
    pub(crate) const fn new(line: UnixStream) -> Self {
        Self { line }
    }

    /// Waits until the guest has come so far that its shell prompts; what is typed before that is lost.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self, patience: Duration) -> Result<(), Failure> {
        self.read_until("# ", patience)?;
        // Neither prompts nor what is typed: nothing but answers comes from now on.
        self.run("stty --file /dev/hvc0 raw -echo; PS1= PS2=", patience).map(drop)
    }

    /// Runs a command; it may take as long as `patience`.
    #[track_caller]
    pub(crate) fn run(&mut self, command: &str, patience: Duration) -> Result<Answer, Failure> {
        writeln!(self.line, "{{ {command}\n}} 2>&1 </dev/null; printf '\\036%d\\036' $?")?;
        let text = self.read_until(&MARK.to_string(), patience)?;
        let code = self.read_until(&MARK.to_string(), patience)?;
        Ok(Answer { text: text.trim().to_owned(), code: code.parse()? })
    }

    /// Reads up to `end` and returns what came before it.
    #[track_caller]
    fn read_until(&mut self, end: &str, patience: Duration) -> Result<String, Failure> {
        self.line.set_read_timeout(Some(patience))?;
        let (mut heard, mut byte) = (Vec::new(), [0]);
        while !heard.ends_with(end.as_bytes()) {
            match self.line.read(&mut byte) {
                Ok(0) => return Err(Failure::new("the guest's shell has closed")),
                Ok(_) => heard.extend(byte),
                Err(error) => {
                    let heard = String::from_utf8_lossy(&heard).into_owned();
                    return Err(Failure::new(format!(
                        "the guest's shell says nothing: {error}; so far {heard:?}"
                    )));
                }
            }
        }
        heard.truncate(heard.len() - end.len());
        // The line's own ends are not the command's.
        Ok(String::from_utf8_lossy(&heard).replace('\r', ""))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn word_is_what_the_shell_makes_of_it() {
        for text in ["the server's time", "$HOME `id` \\ \"", ""] {
            let said =
                Command::new("sh").args(["-c", &format!("printf %s {}", word(text))]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text);
        }
    }
}
