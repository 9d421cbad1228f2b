//! `moorline-agent imei`: asks the modem and prints the IMEI. The field technician's tool: standard output holds the IMEI
//! and nothing else, standard error says which port answered and how, and what is wrong with every other.

use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, poll};
use rustix::io::Errno;

use crate::clock;
use crate::config::Modem;
use crate::exit::Exit;
use crate::modem::{Event, Found, Search, manager};

/// The end, whatever the ports do; half a minute is promised.
const LIMIT: Duration = Duration::from_secs(28);

/// Asks `ports` in turn, at the speed of `baud`. Where they are not given, the configuration in `file` gives them.
#[must_use]
pub fn run(file: &Path, ports: Vec<String>, baud: Option<u32>) -> Exit {
    let modem = if ports.is_empty() { configured(file) } else { Modem { ports, ..Modem::default() } };
    ask(&modem.ports, baud.unwrap_or(modem.baud))
}

/// A device that has no configuration yet has a modem all the same.
fn configured(file: &Path) -> Modem {
    Modem::read(file).unwrap_or_else(|mistakes| {
        for mistake in &mistakes {
            say(format_args!("{mistake}"));
        }
        let modem = Modem::default();
        say(format_args!("asking the default ports: {}", modem.ports.join(", ")));
        modem
    })
}

fn ask(patterns: &[String], baud: u32) -> Exit {
    let mut search = Search::new(patterns, baud, LIMIT, clock::now().instant);
    loop {
        while let Some(event) = search.poll_event() {
            match event {
                Event::Found(found) => return print(&found),
                Event::PortFailed { port, why } => say(format_args!("{}: {why}", port.display())),
                Event::Exhausted => {
                    say(format_args!("no IMEI: none of the ports told one"));
                    if manager::is_running() {
                        say(format_args!("{}", manager::HOW_TO_SHARE));
                    }
                    return Exit::Failure;
                }
            }
        }
        if let Err(error) = turn(&mut search) {
            say(format_args!("cannot wait for the port: {error}"));
            return Exit::Failure;
        }
    }
}

/// Waits for the port or the deadline, and tells the search.
fn turn(search: &mut Search) -> Result<(), Errno> {
    let ready = wait(search)?;
    let now = clock::now().instant;
    if ready {
        search.handle_ready(now);
    }
    search.handle_timeout(now);
    Ok(())
}

/// Whether the port is ready; not so after a deadline or a signal.
fn wait(search: &Search) -> Result<bool, Errno> {
    let timeout = search.poll_timeout().map(|at| clock::wait_until(at, clock::now().instant));
    let mut port = search.interest().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
    match poll(port.as_mut_slice(), timeout.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error),
    }
}

fn print(found: &Found) -> Exit {
    let Found { imei, port, command, modem } = found;
    let between = if modem.is_empty() { "" } else { ", " };
    say(format_args!("{}{between}{modem}: answered {imei} to {command}", port.display()));
    match writeln!(io::stdout(), "{imei}") {
        Ok(()) => Exit::Asked,
        Err(error) => {
            say(format_args!("the IMEI cannot be written to standard output: {error}"));
            Exit::Failure
        }
    }
}

/// A line for people; when standard error is gone, there is nobody left to tell.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}
