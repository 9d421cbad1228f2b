//! The operator's tool: asks a running server through its HTTP and shows the answer, as a table to people and as JSON lines
//! to programs. It knows the API alone, nothing of the server's inside.

mod backup;
mod client;
mod events;
mod failure;
mod heartbeat;
mod reach;
mod show;
mod stream;
mod table;
mod times;
mod usage;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
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
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, global = true, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
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
    /// Bounds the longest silence that one device is granted, instead of the fleet's bounds
    Heartbeat(Heartbeat),
    /// Takes a backup of the fleet's database while the server runs; moorline-server restore puts it back
    Backup {
        /// Where to: a file that is not there yet
        file: PathBuf,
    },
    /// Shows what happened, the newest last
    Events(Events),
}

#[derive(Debug, Args)]
struct Devices {
    /// Only devices that are online
    #[arg(long, conflicts_with = "offline")]
    online: bool,
    /// Only devices that are not
    #[arg(long)]
    offline: bool,
    /// Only devices with this in their IMEI, address, modem, version, application id or certificate serial
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// At most so many [default: all]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Devices {
    fn state(&self) -> Option<bool> {
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
    let client = Client::new(Reach::new(&arguments.reaching, environment)?)?;
    match &arguments.command {
        Command::Devices(wanted) => list_devices(&client, wanted, arguments.json, out),
        Command::Device { imei } => show_device(&client, *imei, arguments.json, out),
        Command::Heartbeat(wanted) => heartbeat::set(&client, wanted, arguments.json, out),
        Command::Backup { file } => backup::make(&client, file, out),
        Command::Events(wanted) => events::show(&client, wanted, arguments.json, out),
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
            .with("online", wanted.state())
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
