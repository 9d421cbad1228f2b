//! The command line: what is asked for, or what is wrong with it. Pure.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::DEFAULT_FILE;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run until asked to stop.
    Run {
        /// The configuration.
        file: PathBuf,
    },
    /// Validate the configuration and say what it would do.
    Check {
        /// The configuration.
        file: PathBuf,
    },
    /// Ask the modem for the IMEI.
    Imei {
        /// The configuration that names the ports when none is given.
        file: PathBuf,
        /// Ports and patterns of ports, in their order.
        ports: Vec<String>,
        /// Bits per second.
        baud: Option<u32>,
    },
    /// Show what the running agent last wrote.
    Status,
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// What `--help` prints.
pub const HELP: &str = "\
moorline-agent keeps this device reachable: one mutually authenticated session with its server, whatever happens.

Usage:
  moorline-agent [-c FILE]         runs until SIGTERM or SIGINT; SIGHUP reads configuration and certificates anew
  moorline-agent check [-c FILE]   reports every mistake in the configuration and the files it names, and what it would do
  moorline-agent imei [-p PORT]    asks the modem and prints the IMEI; which port told it, and what is wrong with the
                                   others, goes to standard error
  moorline-agent status            shows what the running agent last wrote of itself

Options:
  -c, --config FILE   the configuration (default: /etc/moorline/agent.toml)
  -p, --port PORT     imei: a port or a pattern of ports to ask, several in turn (default: as configured)
  -b, --baud BAUD     imei: bits per second, which USB modems ignore (default: as configured)
  -h, --help          this text
  -V, --version       the version

Exit codes: 0 asked to stop or all is well, 78 wrong configuration or command line, 1 anything else.

Examples:
  moorline-agent check -c ./agent.toml
  moorline-agent imei --port '/dev/ttyUSB*'
  systemctl reload moorline-agent    after new certificates were put in place
";

/// Reads the arguments, without the program's name.
///
/// # Errors
/// What cannot be understood, and what to do.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter();
    let (mut command, mut file) = (None, None);
    let (mut ports, mut baud) = (Vec::new(), None);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("-h" | "--help") => return Ok(Command::Help),
            Some("-V" | "--version") => return Ok(Command::Version),
            Some("-c" | "--config") => {
                let path = arguments.next().ok_or("-c needs the name of a file after it")?;
                file = Some(PathBuf::from(path));
            }
            Some("-p" | "--port") => {
                let port = arguments.next().and_then(|port| port.into_string().ok());
                ports.push(port.ok_or("--port needs the name of a port after it")?);
            }
            Some("-b" | "--baud") => {
                let speed = arguments.next().and_then(|speed| speed.to_str()?.parse().ok());
                baud = Some(
                    speed.filter(|speed| *speed > 0).ok_or("--baud needs a number after it, as in 115200")?,
                );
            }
            Some(word @ ("check" | "imei" | "status")) if command.is_none() => {
                command = Some(word.to_owned());
            }
            _ => {
                return Err(format!("{argument:?} is not understood here; see moorline-agent --help"));
            }
        }
    }
    if command.as_deref() != Some("imei") && (baud.is_some() || !ports.is_empty()) {
        return Err("--port and --baud belong to the command imei".to_owned());
    }
    let or_default = |file: Option<PathBuf>| file.unwrap_or_else(|| DEFAULT_FILE.into());
    match (command.as_deref(), file) {
        (Some("status"), Some(_)) => Err("status takes no configuration".to_owned()),
        (Some("status"), None) => Ok(Command::Status),
        (Some("imei"), file) => Ok(Command::Imei { file: or_default(file), ports, baud }),
        (Some(_), file) => Ok(Command::Check { file: or_default(file) }),
        (None, file) => Ok(Command::Run { file: or_default(file) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_command_is_understood() {
        let file = || PathBuf::from("a.toml");
        let cases = [
            ("", Command::Run { file: DEFAULT_FILE.into() }),
            ("-c a.toml", Command::Run { file: file() }),
            ("check --config a.toml", Command::Check { file: file() }),
            ("-c a.toml check", Command::Check { file: file() }),
            ("imei", Command::Imei { file: DEFAULT_FILE.into(), ports: Vec::new(), baud: None }),
            (
                "imei --port /dev/a -p b* --baud 9600 -c a.toml",
                Command::Imei {
                    file: file(),
                    ports: vec!["/dev/a".to_owned(), "b*".to_owned()],
                    baud: Some(9600),
                },
            ),
            ("status", Command::Status),
            ("check --help", Command::Help),
            ("-V", Command::Version),
        ];
        for (line, command) in cases {
            assert_eq!(parsed(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, part) in [
            ("--conifg a.toml", "--conifg"),
            ("check twice", "twice"),
            ("check status", "status"),
            ("-c", "needs the name"),
            ("status -c a.toml", "no configuration"),
            ("imei --port", "name of a port"),
            ("imei --baud fast", "needs a number"),
            ("--port /dev/ttyUSB2", "belong to the command imei"),
        ] {
            let fault = parsed(line).unwrap_err();
            assert!(fault.contains(part), "{line}: {fault}");
        }
    }
}
