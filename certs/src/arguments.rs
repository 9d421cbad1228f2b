//! What can be asked of `moorline-certs`, and the help that says so.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use clap::{Args, Parser, Subcommand};
use moorline_certs::{Reason, Serial};
use moorline_protocol::Imei;

/// Makes the certificates of a fleet: its CA, the server's, each device's, and the revocation list.
#[derive(Debug, Parser)]
#[command(name = "moorline-certs", version, after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The folder that holds the CA and everything it issues
    #[arg(long, value_name = "FOLDER", default_value = ".", global = true)]
    pub(crate) dir: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the CA: ca.pem, and ca.key, which whoever has it can make devices with
    #[command(after_help = "Example:\n  moorline-certs ca --dir fleet --name \"Example fleet CA\"")]
    Ca {
        /// The CA's name, which logs show as the issuer of each certificate
        #[arg(long, default_value = "Moorline CA")]
        name: String,
        /// For how many days it is valid; nothing it issues is valid for longer
        #[arg(long, default_value_t = 7300, value_parser = days())]
        days: u32,
    },
    /// Issue the server's certificate: server.pem and server.key
    Server(ServerArguments),
    /// Issue a device's certificate: devices/IMEI.pem and devices/IMEI.key
    Device(DeviceArguments),
    /// Issue the certificates of many devices, whose IMEIs stand in a CSV file
    #[command(after_help = DEVICES)]
    Devices(DevicesArguments),
    /// Revoke certificates, and write the revocation list that says so
    Revoke(RevokeArguments),
    /// Write the revocation list ca.crl anew, before the last one is due
    #[command(after_help = "Example:\n  moorline-certs crl --dir fleet --days 365")]
    Crl {
        /// In how many days the next list is due
        #[arg(long, default_value_t = LIST_DAYS, value_parser = days())]
        days: u32,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  moorline-certs server --dir fleet --dns gw.example.com --ip 203.0.113.7")]
pub(crate) struct ServerArguments {
    /// A host name under which devices look for the server; several are possible
    #[arg(long, value_name = "NAME", num_args = 1.., required_unless_present = "ip")]
    pub(crate) dns: Vec<String>,
    /// An address under which devices look for the server; several are possible
    #[arg(long, value_name = "ADDRESS", num_args = 1..)]
    pub(crate) ip: Vec<IpAddr>,
    /// For how many days it is valid
    #[arg(long, default_value_t = 825, value_parser = days())]
    pub(crate) days: u32,
    #[command(flatten)]
    pub(crate) key: KeyArguments,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  moorline-certs device --dir fleet --imei 869731052403821\n  \
    moorline-certs device --dir fleet --imei 869731052403821 --public-key request.csr")]
pub(crate) struct DeviceArguments {
    /// The device's IMEI: 15 digits; `moorline-agent imei` shows it
    #[arg(long)]
    pub(crate) imei: Imei,
    /// For how many days it is valid
    #[arg(long, default_value_t = 3650, value_parser = days())]
    pub(crate) days: u32,
    #[command(flatten)]
    pub(crate) key: KeyArguments,
}

#[derive(Args, Debug)]
pub(crate) struct DevicesArguments {
    /// A table with a device in each line: its IMEI in the column `imei`, or in the first when no column has a name
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: PathBuf,
    /// Where certificates and keys go, as IMEI.pem and IMEI.key [default: devices in the CA's folder]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// For how many days they are valid
    #[arg(long, default_value_t = 3650, value_parser = days())]
    pub(crate) days: u32,
}

#[derive(Args, Debug)]
pub(crate) struct KeyArguments {
    /// Certify the key in this PEM file instead of making one: a certificate request, a certificate (an older one
    /// whose key is to be kept) or a public key
    #[arg(long, value_name = "FILE")]
    pub(crate) public_key: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  moorline-certs revoke --dir fleet --imei 869731052403821 --reason keyCompromise\n  \
    moorline-certs revoke --dir fleet old/869731052403821.pem\n  \
    moorline-certs revoke --dir fleet --serial 5F1C0A7E33B2\n  \
    moorline-certs revoke --dir fleet --csv stolen.csv --reason keyCompromise"
)]
pub(crate) struct RevokeArguments {
    /// Certificates of this CA, in PEM files, issued here or elsewhere
    #[arg(value_name = "FILE", required_unless_present_any = ["imei", "serial", "csv"])]
    pub(crate) certificates: Vec<PathBuf>,
    /// All certificates in force of the device with this IMEI
    #[arg(long)]
    pub(crate) imei: Vec<Imei>,
    /// The certificate with this serial number, in hexadecimal
    #[arg(long, value_name = "NUMBER")]
    pub(crate) serial: Vec<Serial>,
    /// All certificates in force of the devices in this table, as for `devices`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["certificates", "imei", "serial"])]
    pub(crate) csv: Option<PathBuf>,
    /// Revoke serial numbers too that index.txt does not list
    #[arg(long, requires = "serial")]
    pub(crate) unlisted: bool,
    /// Why; the list says so
    #[arg(long, value_parser = reason())]
    pub(crate) reason: Option<Reason>,
    /// In how many days the next list is due
    #[arg(long, default_value_t = LIST_DAYS, value_parser = days())]
    pub(crate) days: u32,
}

/// A century at most: what is to hold for longer is a mistyped number.
fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_525)
}

fn reason() -> impl clap::builder::TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.map(Reason::as_str)).try_map(|text| text.parse::<Reason>())
}

/// An expired list is used and warned about, so a quarter leaves time to act.
const LIST_DAYS: u32 = 90;

const DEVICES: &str = "\
Example:
  moorline-certs devices --dir fleet --csv imeis.csv --out to-the-factory

All lines are looked at before the first key is made. It may be broken off at any time: what is there is whole, and the
same command goes on from there.";

const EXAMPLE: &str = "\
Example, from nothing to a device:
  moorline-certs ca     --dir fleet --name \"Example fleet CA\"
  moorline-certs server --dir fleet --dns gw.example.com
  moorline-certs device --dir fleet --imei 869731052403821

The folder:
  ca.pem ca.key           the CA; the key stays here
  server.pem server.key   the server's
  devices/IMEI.pem .key   the devices'
  ca.crl                  the revocation list
  index.txt crlnumber     what was issued and revoked, as `openssl ca` keeps it

Exit codes: 0 done, 1 refused or failed (nothing was overwritten), 2 wrong arguments.";
