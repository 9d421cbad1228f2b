//! A simulated modem on a real pseudo-terminal: it answers from a script, and misbehaves as its script says.
//!
//! It knows nothing of the agent. A thread waits for commands and ends with the value.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::failure::Failure;

/// What a modem does. The default answers nothing at all.
#[derive(Clone, Debug, Default)]
pub struct Script {
    echo: bool,
    answers: Vec<(String, Vec<Step>)>,
    otherwise: Vec<Step>,
    spew: Vec<u8>,
}

/// One thing that a modem does when it is asked.
#[derive(Clone, Debug)]
enum Step {
    Say(Vec<u8>),
    /// Vanishes from its bus.
    Unplug,
}

impl Script {
    /// A modem that answers nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::default()
    }

    /// A modem that answers OK to `AT` and `ATE0` and ERROR to whatever else it is not told to answer.
    #[must_use]
    pub fn obliging() -> Self {
        Self::silent().answer("AT", "\r\nOK\r\n").answer("ATE0", "\r\nOK\r\n").otherwise("\r\nERROR\r\n")
    }

    /// An obliging modem that tells `imei` and its name when it is asked as most are.
    #[must_use]
    pub fn ordinary(imei: &str) -> Self {
        Self::obliging()
            .answer("AT+CGSN", format!("\r\n{imei}\r\n\r\nOK\r\n"))
            .answer("AT+CGMI", "\r\nQuectel\r\n\r\nOK\r\n")
            .answer("AT+CGMM", "\r\nEC25\r\n\r\nOK\r\n")
    }

    /// A port that sends `bytes` without end and listens to nobody.
    #[must_use]
    pub fn spewing(bytes: &[u8]) -> Self {
        Self { spew: bytes.to_owned(), ..Self::default() }
    }

    /// Answers `command` with `response` from now on; a second answer to the same command is for the second time it is
    /// sent, and the last one stays.
    #[must_use]
    pub fn answer(self, command: &str, response: impl Into<Vec<u8>>) -> Self {
        self.answer_steps(command, vec![Step::Say(response.into())])
    }

    /// Answers `command` in pieces, each written by itself.
    #[must_use]
    pub fn answer_in_pieces(self, command: &str, pieces: &[Vec<u8>]) -> Self {
        self.answer_steps(command, pieces.iter().cloned().map(Step::Say).collect())
    }

    /// Begins to answer `command` with `beginning`, and is unplugged.
    #[must_use]
    pub fn unplugged_after(self, command: &str, beginning: &str) -> Self {
        self.answer_steps(command, vec![Step::Say(beginning.into()), Step::Unplug])
    }

    /// Answers every other command with `response`.
    #[must_use]
    pub fn otherwise(mut self, response: impl Into<Vec<u8>>) -> Self {
        self.otherwise = vec![Step::Say(response.into())];
        self
    }

    /// Sends every command back before its answer, until `ATE0`.
    #[must_use]
    pub const fn echoing(mut self) -> Self {
        self.echo = true;
        self
    }

    fn answer_steps(mut self, command: &str, steps: Vec<Step>) -> Self {
        self.answers.push((command.to_owned(), steps));
        self
    }

    /// What to do about `command`, in upper or lower case. An answer that another follows is given once.
    fn take(&mut self, command: &str) -> Vec<Step> {
        let of_it = |(known, _): &&(String, Vec<Step>)| known.eq_ignore_ascii_case(command);
        let several = self.answers.iter().filter(of_it).count() > 1;
        let at = self.answers.iter().position(|answer| of_it(&answer));
        match at {
            Some(at) if several => self.answers.remove(at).1,
            Some(at) => self.answers.get(at).map(|(_, steps)| steps.clone()).unwrap_or_default(),
            None => self.otherwise.clone(),
        }
    }
}

/// A running modem.
#[derive(Debug)]
pub struct Modem {
    path: PathBuf,
    asked: Arc<Asked>,
    /// Its end ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Modem {
    /// Plugs a modem in.
    ///
    /// # Errors
    /// There is no pseudo-terminal to be had.
    #[track_caller]
    pub fn start(script: Script) -> Result<Self, Failure> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let path = PathBuf::from(ptsname(&master, Vec::new())?.into_string()?);
        let port = open_raw(&path)?;
        let (stop, stopped) = UnixStream::pair()?;
        let asked = Arc::<Asked>::default();
        let modem = Running { script, master, _port: port, line: Vec::new(), asked: Arc::clone(&asked) };
        let thread = thread::spawn(move || modem.run(&stopped));
        Ok(Self { path, asked, stop: Some(stop), thread: Some(thread) })
    }

    /// The port's name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every command so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.commands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it was asked this.
    ///
    /// # Errors
    /// It is not within `patience`.
    #[track_caller]
    pub fn wait_asked(&self, command: &str, patience: Duration) -> Result<(), Failure> {
        let commands = self.asked.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let lacking = |commands: &mut Vec<String>| !commands.iter().any(|asked| asked == command);
        let waited = self.asked.news.wait_timeout_while(commands, patience, lacking);
        let (commands, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return Err(Failure::new(format!("nobody asks {command} within {patience:?}: {commands:?}")));
        }
        Ok(())
    }
}

/// Every command so far, and word of each.
#[derive(Debug, Default)]
struct Asked {
    commands: Mutex<Vec<String>>,
    news: Condvar,
}

impl Asked {
    fn push(&self, command: String) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        self.news.notify_all();
    }
}

impl Drop for Modem {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// The port's other end, raw as a modem's is, so that nothing is echoed by the terminal.
fn open_raw(path: &Path) -> Result<OwnedFd, Errno> {
    let port = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut modes = tcgetattr(&port)?;
    modes.make_raw();
    tcsetattr(&port, OptionalActions::Now, &modes)?;
    Ok(port)
}

/// The modem within its thread.
struct Running {
    script: Script,
    master: OwnedFd,
    /// Open as long as the modem is plugged in: with the last reader gone a pseudo-terminal would seem unplugged.
    _port: OwnedFd,
    line: Vec<u8>,
    asked: Arc<Asked>,
}

impl Running {
    /// Until it is stopped or unplugged.
    fn run(mut self, stopped: &UnixStream) {
        while let Ok(ready) = self.wait(stopped)
            && self.turn(ready).is_ok()
        {}
    }

    /// What the port is ready for.
    ///
    /// # Errors
    /// It is to stop.
    fn wait(&self, stopped: &UnixStream) -> io::Result<PollFlags> {
        let wanted = if self.script.spew.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds = [PollFd::new(&self.master, wanted), PollFd::new(stopped, PollFlags::IN)];
        poll(&mut fds, None)?;
        let [port, stop] = fds;
        if stop.revents().is_empty() { Ok(port.revents()) } else { Err(io::ErrorKind::Interrupted.into()) }
    }

    fn turn(&mut self, ready: PollFlags) -> io::Result<()> {
        if ready.contains(PollFlags::OUT) {
            self.say(&self.script.spew)?;
        }
        let mut buffer = [0; 256];
        let read = match rustix::io::read(&self.master, &mut buffer) {
            Ok(read) => read,
            Err(Errno::AGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        for byte in buffer.into_iter().take(read) {
            match byte {
                b'\r' => self.on_command()?,
                byte => self.line.push(byte),
            }
        }
        Ok(())
    }

    fn on_command(&mut self) -> io::Result<()> {
        let command = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        self.asked.push(command.clone());
        if self.script.echo {
            self.say(format!("{command}\r").as_bytes())?;
        }
        self.script.echo &= !command.eq_ignore_ascii_case("ATE0");
        for step in self.script.take(&command) {
            match step {
                Step::Say(bytes) => self.say(&bytes)?,
                Step::Unplug => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        Ok(())
    }

    /// What nobody reads is lost, as on a real line.
    fn say(&self, bytes: &[u8]) -> io::Result<()> {
        match rustix::io::write(&self.master, bytes) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Sends `command` and reads until `end` comes.
    fn ask(port: &mut File, command: &str, end: &str) -> String {
        port.write_all(command.as_bytes()).unwrap();
        let (mut heard, mut buffer) = (String::new(), [0; 64]);
        while !heard.ends_with(end) {
            let read = port.read(&mut buffer).unwrap();
            heard.push_str(str::from_utf8(&buffer[..read]).unwrap());
        }
        heard
    }

    fn open(modem: &Modem) -> File {
        File::options().read(true).write(true).open(modem.path()).unwrap()
    }

    #[test]
    fn script_is_followed() {
        let script = Script::ordinary("869731052403821").answer("AT+CGSN", "\r\nERROR\r\n").echoing();
        let modem = Modem::start(script).unwrap();
        let mut port = open(&modem);
        assert_eq!(ask(&mut port, "ATE0\r", "OK\r\n"), "ATE0\r\r\nOK\r\n");
        assert_eq!(ask(&mut port, "at+cgsn\r", "OK\r\n"), "\r\n869731052403821\r\n\r\nOK\r\n");
        assert_eq!(ask(&mut port, "AT+CGSN\r", "ERROR\r\n"), "\r\nERROR\r\n");
        assert_eq!(ask(&mut port, "AT+CGSN\r", "ERROR\r\n"), "\r\nERROR\r\n");
        assert_eq!(modem.asked(), ["ATE0", "at+cgsn", "AT+CGSN", "AT+CGSN"]);
    }

    #[test]
    fn unplugged_modem_is_gone() {
        let modem = Modem::start(Script::silent().unplugged_after("AT", "\r\nO")).unwrap();
        let mut port = open(&modem);
        port.write_all(b"AT\r").unwrap();
        let mut heard = Vec::new();
        // The end is an error or an end, as the kernel likes.
        let _ = port.read_to_end(&mut heard);
        assert!(b"\r\nO".starts_with(&heard));
    }

    #[test]
    fn spewing_modem_stops_with_the_value() {
        let modem = Modem::start(Script::spewing(b"\xff\xff\xff\xfe")).unwrap();
        let mut buffer = [0; 4];
        open(&modem).read_exact(&mut buffer).unwrap();
        assert_eq!(buffer, *b"\xff\xff\xff\xfe");
    }
}
