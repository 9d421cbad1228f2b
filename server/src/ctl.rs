//! The operator's tool: asks a running server through its HTTP and shows the answer, as a table to people and as JSON lines
//! to programs. It knows the API alone, nothing of the server's inside.

mod backup;
mod client;
mod events;
mod failure;
mod heartbeat;
mod reach;
mod show;
mod steer;
mod stream;
mod table;
mod times;
mod upload;
mod usage;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use moorline_protocol::Imei;
use serde_json::Value;

use crate::clock;
use client::{Client, Query};
pub use failure::Failure;
use reach::Reach;

/// Names the server when no option does.
pub const SERVER_VARIABLE: &str = "MOORLINE_SERVER";
/// Names the file with the token when no option does.
pub const TOKEN_VARIABLE: &str = "MOORLINE_TOKEN_FILE";
/// How many devices are asked for at a time.
const PAGE: usize = 1000;

/// Shows what a moorline-server knows of its fleet, and sets what a device is granted.
///
/// Ends with 0 when done, 1 when the server cannot be asked, 2 when the arguments are wrong, 3 when there is no such device.
#[derive(Debug, Parser)]
#[command(
    name = "moorlinectl",
    version,
    after_help = "The server is asked at MOORLINE_SERVER when --server is not given, and shown the token in the file \
                  MOORLINE_TOKEN_FILE when --token-file is not."
)]
pub struct Arguments {
    #[command(flatten)]
    reaching: Reaching,
    /// JSON for programs: one object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// How the server is reached.
#[derive(Debug, Default, Args)]
struct Reaching {
    /// The server's address for operators, as http://HOST:PORT, https://HOST:PORT or unix:PATH [default:
    /// unix:/run/moorline-server/operators.sock where there is one, else http://127.0.0.1:9090]
    #[arg(long, global = true, value_name = "ADDRESS")]
    server: Option<String>,
    /// The file with the token that the server asks for
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Who vouches for the server over https, in PEM [default: whom this machine trusts]
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The operator's certificate that the server asks for over https, in PEM
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, global = true, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

/// What the environment says of how the server is reached.
#[derive(Debug, Default)]
pub struct Environment {
    /// Where it is.
    pub server: Option<String>,
    /// The file with the token.
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists devices
    Devices(Devices),
    /// Shows all that is known of one device
    Device {
        /// Its IMEI, 15 digits
        imei: Imei,
    },
    /// Shows how many devices there are
    Fleet,
    /// Shows the servers that share the fleet
    Nodes,
    /// Shows what a device told over time, hour by hour
    History {
        /// Its IMEI, 15 digits
        imei: Imei,
        /// How far back
        #[arg(long, value_name = "NUMBER", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3653))]
        days: u32,
    },
    /// Adds devices that are to come, from a CSV file: all of them, or none where a line is wrong
    Add {
        /// A line is an IMEI, then perhaps a comma and a label; - reads standard input
        file: PathBuf,
    },
    /// Keeps a device out: its session ends within moments, and it is let in no more
    Block(Hold),
    /// Keeps a device out until somebody has looked, as the server itself does with copied keys
    Quarantine(Hold),
    /// Lets a device in again that was blocked or quarantined
    Unblock {
        /// Its IMEI, 15 digits
        imei: Imei,
    },
    /// Ends a device's session; it may come back at once
    Drop {
        /// Its IMEI, 15 digits
        imei: Imei,
    },
    /// Names a device
    Label {
        /// Its IMEI, 15 digits
        imei: Imei,
        /// Up to 64 bytes; an empty one takes its name away
        label: String,
    },
    /// Bounds the longest silence that one device is granted, instead of the fleet's bounds
    Heartbeat(Heartbeat),
    /// Takes a backup of the fleet's database while the server runs; moorline-server restore puts it back
    Backup {
        /// Where to: a file that is not there yet
        file: PathBuf,
    },
    /// Shows what happened, the newest last
    Events(Events),
    /// Writes a script that completes these commands in a shell
    Completions {
        /// Which one
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Hold {
    /// Its IMEI, 15 digits
    imei: Imei,
    /// Why, for whoever looks later: up to 256 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, Args)]
struct Devices {
    /// Only devices that are online
    #[arg(long, conflicts_with = "offline")]
    online: bool,
    /// Only devices that are not
    #[arg(long)]
    offline: bool,
    /// Only devices that were added and never came
    #[arg(long, conflicts_with_all = ["online", "offline"])]
    never_seen: bool,
    /// Only devices that are let in, or are kept out so
    #[arg(long, value_name = "STATE", value_parser = ["active", "blocked", "quarantined"])]
    state: Option<String>,
    /// Only devices that speak it, or spoke it last
    #[arg(long, value_name = "PROTOCOL", value_parser = ["native", "classic"])]
    protocol: Option<String>,
    /// Only devices whose agent is of just this version
    #[arg(long, value_name = "VERSION")]
    agent_version: Option<String>,
    /// Only devices that last told of a signal below this, as in -105
    #[arg(long, value_name = "DBM", allow_negative_numbers = true, value_parser = clap::value_parser!(i16).range(-200..=0))]
    signal_below: Option<i16>,
    /// Only devices whose certificate ends within 30 days, or has ended
    #[arg(long, value_name = "HOW", value_parser = ["expiring", "expired"])]
    certificate: Option<String>,
    /// Only devices with this in their IMEI, label, address, modem, operator, version, application id or certificate serial
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// At most so many [default: all]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Devices {
    fn online(&self) -> Option<bool> {
        (self.online || self.offline).then_some(self.online)
    }
}

/// Bounds the longest silence that one device is granted, instead of the fleet's bounds.
///
/// What is said here takes the place of what was set before: a bound that is not given is the fleet's. It comes before the
/// device's own configuration and outlives the server; a device that is online registers anew for it.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("bounds").required(true).multiple(true))]
struct Heartbeat {
    /// Its IMEI, 15 digits
    imei: Imei,
    /// It is to be silent for so long at least, as in 60s or 5m
    #[arg(long, value_name = "DURATION", group = "bounds", value_parser = heartbeat::seconds)]
    min: Option<u64>,
    /// It is to be silent for so long at most
    #[arg(long, value_name = "DURATION", group = "bounds", value_parser = heartbeat::seconds)]
    max: Option<u64>,
    /// The fleet's bounds hold again
    #[arg(long, group = "bounds", conflicts_with_all = ["min", "max"])]
    clear: bool,
}

#[derive(Debug, Args)]
struct Events {
    /// Goes on showing what happens, until it is interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only what happened to this device
    #[arg(long)]
    imei: Option<Imei>,
    /// All that came after the event with this number [default: the newest 100]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
}

/// Does what the arguments say.
///
/// # Errors
/// The server cannot be asked, there is no such device, or `out` cannot be written.
pub fn run(arguments: &Arguments, environment: &Environment, out: &mut impl Write) -> Result<(), Failure> {
    if let Command::Completions { shell } = arguments.command {
        clap_complete::generate(shell, &mut Arguments::command(), "moorlinectl", out);
        return Ok(());
    }
    let client = Client::new(Reach::new(&arguments.reaching, environment)?)?;
    let json = arguments.json;
    match &arguments.command {
        Command::Devices(wanted) => list_devices(&client, wanted, json, out),
        Command::Device { imei } => show_device(&client, *imei, json, out),
        Command::Fleet => steer::fleet(&client, json, out),
        Command::Nodes => steer::nodes(&client, json, out),
        Command::History { imei, days } => steer::history(&client, *imei, *days, json, out),
        Command::Add { file } => steer::add(&client, file, json, out),
        Command::Block(Hold { imei, reason }) => {
            steer::set_state(&client, *imei, "blocked", reason, json, out)
        }
        Command::Quarantine(Hold { imei, reason }) => {
            steer::set_state(&client, *imei, "quarantined", reason, json, out)
        }
        Command::Unblock { imei } => steer::set_state(&client, *imei, "active", "", json, out),
        Command::Drop { imei } => steer::drop_session(&client, *imei, json, out),
        Command::Label { imei, label } => steer::label(&client, *imei, label, json, out),
        // It needs no server.
        Command::Completions { .. } => Ok(()),
        Command::Heartbeat(wanted) => heartbeat::set(&client, wanted, json, out),
        Command::Backup { file } => backup::make(&client, file, out),
        Command::Events(wanted) => events::show(&client, wanted, json, out),
    }
}

fn list_devices(client: &Client, wanted: &Devices, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut left = wanted.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut after: Option<String> = None;
    loop {
        let query = Query::new("/api/devices")
            .with("limit", Some(left.min(PAGE)))
            .with("after", after.as_deref())
            .with("online", wanted.online())
            .with("seen", (wanted.never_seen || wanted.offline).then_some(wanted.offline))
            .with("state", wanted.state.as_deref())
            .with("protocol", wanted.protocol.as_deref())
            .with("agent_version", wanted.agent_version.as_deref())
            .with("signal_below", wanted.signal_below)
            .with("certificate", wanted.certificate.as_deref())
            .with("search", wanted.search.as_deref());
        let page = client.get(&query)?;
        let devices = page["devices"].as_array().ok_or_else(|| client.stranger())?;
        for device in devices {
            if json {
                writeln!(out, "{device}")?;
            } else {
                rows.push(show::device_row(device, clock::now().utc_ms));
            }
        }
        left = left.saturating_sub(devices.len());
        after = page["next"].as_str().map(str::to_owned);
        if left == 0 || after.is_none() || devices.is_empty() {
            if !json {
                table::write(out, &show::DEVICE_HEAD, &rows)?;
                writeln!(out, "{} of {} devices", rows.len(), page["total"])?;
            }
            return Ok(());
        }
    }
}

fn show_device(client: &Client, imei: Imei, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let device = client.get(&Query::new(&format!("/api/devices/{imei}")))?;
    write_device(&device, json, out)
}

fn write_device(device: &Value, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        writeln!(out, "{device}")?;
    } else {
        table::write_pairs(out, &show::device(device, clock::now().utc_ms))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
