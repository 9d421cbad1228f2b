//! A real program, started, listened to line by line, and never left behind.
//!
//! It knows nothing of Moorline. Waiting is for a line or an end, never for a time to pass; a time only says how long
//! a tale is ready to wait before it fails.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::failure::Failure;
use crate::lines::{Found, Lines, Source};

/// How long a tale waits for what takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running program; it ends with the value.
pub struct Program {
    name: String,
    child: Child,
    /// How it ended, once that is known; its id may be another program's then.
    ended: Option<ExitStatus>,
    output: Arc<Lines>,
    /// Where the next [`Self::wait_for`] begins to look in each of the two outputs.
    next: [usize; 2],
}

impl Program {
    /// Starts `command` with both of its outputs read.
    ///
    /// # Errors
    /// It cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        Self::start_heard(command, |_| ())
    }

    /// As [`Self::start`], with each line also given to `hear` as it comes.
    ///
    /// # Errors
    /// It cannot be started.
    #[track_caller]
    pub fn start_heard(
        command: &mut Command,
        hear: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        Self::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()), hear)
    }

    /// Starts `command` with these for its standard input and output; what it says is heard from its standard error alone.
    ///
    /// # Errors
    /// It cannot be started.
    #[track_caller]
    pub fn start_between(
        command: &mut Command,
        input: impl Into<Stdio>,
        output: impl Into<Stdio>,
    ) -> Result<Self, Failure> {
        Self::spawn(command.stdin(input).stdout(output), |_| ())
    }

    #[track_caller]
    fn spawn(command: &mut Command, hear: impl Fn(&str) + Send + Sync + 'static) -> Result<Self, Failure> {
        let name = name(command);
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::new(format!("cannot start {name}: {error}")))?;
        let output = Arc::new(Lines::default());
        let hear = Arc::new(hear);
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let source = output.open();
            let (output, hear) = (Arc::clone(&output), Arc::clone(&hear));
            thread::spawn(move || read(stream, source, &output, &*hear));
        }
        Ok(Self { name, child, ended: None, output, next: [0; 2] })
    }

    /// Waits for a line that holds `text` and comes after the last one waited for in the same output.
    ///
    /// # Errors
    /// It did not come within [`PATIENCE`], or the program ended without it.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> Result<String, Failure> {
        self.wait_for_within(text, PATIENCE)
    }

    /// As [`Self::wait_for`], but not longer than `patience`.
    ///
    /// # Errors
    /// It did not come in time, or the program ended without it.
    #[track_caller]
    pub fn wait_for_within(&mut self, text: &str, patience: Duration) -> Result<String, Failure> {
        self.find(text, patience, |line| line.contains(text).then(|| line.to_owned()))
    }

    /// Waits for the first line after the last one waited for in its output of which `pick` makes something; `what` names it.
    ///
    /// # Errors
    /// It did not come in time, or the program ended without it.
    #[track_caller]
    pub fn find<T>(
        &mut self,
        what: &str,
        patience: Duration,
        pick: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Failure> {
        match self.output.find(&mut self.next, patience, pick) {
            Found::Yes(found) => Ok(found),
            Found::Ended => {
                let status = self.wait_exit(PATIENCE)?;
                Err(self.failure(&format!("ended with {} and without {what:?}", Ended(status))))
            }
            Found::Silent => Err(self.failure(&format!("is silent about {what:?} for {patience:?}"))),
        }
    }

    /// Whether a line so far holds `text`.
    #[must_use]
    pub fn said(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    /// Every line so far, of both outputs in the order they came.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.output.all()
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The program is gone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        if let Some(status) = self.ended {
            return Err(self.failure(&format!("ended before its time, with {}", Ended(status))));
        }
        Ok(kill_process(self.pid(), signal)?)
    }

    /// Waits for its end and for its last lines.
    ///
    /// # Errors
    /// It still runs after `patience`.
    #[track_caller]
    pub fn wait_exit(&mut self, patience: Duration) -> Result<ExitStatus, Failure> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let descriptor = pidfd_open(self.pid(), PidfdFlags::empty())?;
        let timeout = Timespec::try_from(patience)?;
        if poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout))? == 0 {
            return Err(self.failure(&format!("still runs after {patience:?}")));
        }
        let status = self.child.wait()?;
        self.ended = Some(status);
        self.output.wait_end(PATIENCE);
        Ok(status)
    }

    /// Sends SIGTERM and waits for exit code 0.
    ///
    /// # Errors
    /// It is gone already, still runs after `patience`, or ended in another way.
    #[track_caller]
    pub fn stop(&mut self, patience: Duration) -> Result<(), Failure> {
        self.signal(Signal::TERM)?;
        match self.wait_exit(patience)? {
            status if status.success() => Ok(()),
            status => Err(self.failure(&format!("was asked to stop and ended with {}", Ended(status)))),
        }
    }

    /// Ends it as a power cut does, without a word.
    ///
    /// # Errors
    /// It is gone already.
    #[track_caller]
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.signal(Signal::KILL)?;
        self.wait_exit(PATIENCE).map(drop)
    }

    /// A failure of this program's, with all it said.
    #[track_caller]
    #[must_use]
    pub fn failure(&self, what: &str) -> Failure {
        let mut text = format!("{} {what}; it said:", self.name);
        for line in self.lines() {
            let _ = write!(text, "\n    {line}");
        }
        Failure::new(text)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Program {
    /// Killed and reaped; both fail only when it is gone and reaped already.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program's name without its folder.
fn name(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    program.file_name().map_or_else(|| program.to_string_lossy(), OsStr::to_string_lossy).into_owned()
}

/// How a program ended, in words.
struct Ended(ExitStatus);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => write!(f, "{}", self.0),
        }
    }
}

/// A reader's thread, until its stream ends. Bytes that are no UTF-8 are shown as such and end nothing.
fn read(stream: impl Read, source: Source, lines: &Lines, hear: &dyn Fn(&str)) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        hear(&line);
        lines.push(source, line);
    }
    lines.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::start(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn lines_are_found_in_order() {
        let mut program = shell("echo one; echo two >&2; echo one again");
        assert_eq!(program.wait_for("one").unwrap(), "one");
        assert_eq!(program.wait_for("one").unwrap(), "one again");
        assert!(program.wait_exit(PATIENCE).unwrap().success());
        assert!(program.said("two"));
    }

    #[test]
    fn outputs_do_not_wait_for_each_other() {
        let mut program = shell("echo first; echo second; echo aside >&2");
        program.wait_for("aside").unwrap();
        program.wait_for("first").unwrap();
        program.wait_for("second").unwrap();
    }

    #[test]
    fn silence_fails_with_all_that_was_said() {
        let mut program = shell("echo hello; sleep 60");
        program.wait_for("hello").unwrap();
        let failure = program.wait_for_within("goodbye", Duration::from_millis(10)).unwrap_err();
        assert!(failure.to_string().contains("sh is silent about \"goodbye\""), "{failure}");
        assert!(failure.to_string().ends_with("\n    hello"), "{failure}");
    }

    #[test]
    fn end_is_noticed_before_patience_is_over() {
        let failure = shell("echo hello; exit 3").wait_for("goodbye").unwrap_err();
        assert!(
            failure.to_string().contains("sh ended with exit code 3 and without \"goodbye\""),
            "{failure}"
        );
    }

    #[test]
    fn stop_wants_exit_code_0() {
        let mut program = shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done");
        program.wait_for("ready").unwrap();
        program.stop(PATIENCE).unwrap();
        let failure = shell("exec sleep 60").stop(PATIENCE).unwrap_err();
        assert!(failure.to_string().contains("ended with signal 15"), "{failure}");
    }

    #[test]
    fn end_of_the_value_ends_the_program() {
        let program = shell("exec sleep 60");
        let pid = program.pid();
        drop(program);
        assert!(kill_process(pid, Signal::TERM).is_err());
    }
}
