//! `moorline-certs`: arguments, what is to be done, what was done, exit code. The library does it.

#![forbid(unsafe_code)]

mod arguments;
mod progress;
mod report;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use clap::Parser as _;
use moorline_certs::{
    AuthorityError, BulkError, Folder, FolderError, PublicKey, Row, ServerNames, Target, read_table,
};
use time::OffsetDateTime;

use arguments::{
    Arguments, Command, DeviceArguments, DevicesArguments, KeyArguments, RevokeArguments, ServerArguments,
};
use progress::Bar;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, OffsetDateTime::now_utc()) {
        Ok(report) => {
            // What was asked for is done; that nobody reads on does not undo it.
            let _ = io::stdout().write_all(report.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("moorline-certs: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked for; what is to be said about it.
fn run(arguments: &Arguments, now: OffsetDateTime) -> Result<String, String> {
    let dir = arguments.dir.as_path();
    match &arguments.command {
        Command::Ca { name, days } => {
            let made = Folder::create(dir).and_then(|folder| folder.make_authority(name, now, *days));
            made.map(|made| report::authority(dir, name, &made)).map_err(text)
        }
        Command::Server(server) => issue_server(dir, server, now),
        Command::Device(device) => issue_device(dir, device, now),
        Command::Devices(devices) => issue_devices(dir, devices, now),
        Command::Revoke(revoke) => revoke_and_list(dir, revoke, now),
        Command::Crl { days } => {
            let list = Folder::open(dir).and_then(|folder| folder.write_list(now, *days));
            list.map(|list| report::list(dir, &list)).map_err(text)
        }
    }
}

fn issue_server(dir: &Path, arguments: &ServerArguments, now: OffsetDateTime) -> Result<String, String> {
    let names = ServerNames::new(&arguments.dns, arguments.ip.iter().copied())
        .map_err(|error: AuthorityError| error.to_string())?;
    let given = given_key(&arguments.key)?;
    let folder = Folder::open(dir).map_err(text)?;
    let written = folder.issue_server(&names, given, now, arguments.days).map_err(text)?;
    Ok(report::server(&written))
}

fn issue_device(dir: &Path, arguments: &DeviceArguments, now: OffsetDateTime) -> Result<String, String> {
    let given = given_key(&arguments.key)?;
    let folder = Folder::open(dir).map_err(text)?;
    let written = folder.issue_device(arguments.imei, given, now, arguments.days).map_err(text)?;
    Ok(report::device(arguments.imei, &written))
}

fn issue_devices(dir: &Path, arguments: &DevicesArguments, now: OffsetDateTime) -> Result<String, String> {
    let rows = read_rows(&arguments.csv)?;
    let folder = Folder::open(dir).map_err(text)?;
    let mut bar = Bar::new(rows.len());
    let issue =
        folder.issue_devices(&rows, arguments.out.as_deref(), (now, arguments.days), |done| bar.show(done));
    bar.end();
    issue.map(|issue| report::devices(&issue)).map_err(|error| in_table(&arguments.csv, error))
}

/// The table's rows; all that is wrong with it in one text.
fn read_rows(csv: &Path) -> Result<Vec<Row>, String> {
    let bytes = fs::read(csv).map_err(|error| format!("cannot read {}: {error}", csv.display()))?;
    match read_table(&bytes) {
        Ok(rows) if rows.is_empty() => Err(format!("{}: there is no IMEI in it", csv.display())),
        Ok(rows) => Ok(rows),
        Err(bad) => Err(in_table(csv, BulkError::Lines(bad))),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn in_table(csv: &Path, error: BulkError) -> String {
    match &error {
        BulkError::Lines(lines) => report::bad_lines(csv, lines, &error),
        BulkError::Folder(_) | BulkError::Stopped { .. } => error.to_string(),
    }
}

fn revoke_and_list(dir: &Path, arguments: &RevokeArguments, now: OffsetDateTime) -> Result<String, String> {
    if let Some(csv) = &arguments.csv {
        let rows = read_rows(csv)?;
        let folder = Folder::open(dir).map_err(text)?;
        let revoked =
            folder.revoke_devices(&rows, arguments.reason, now).map_err(|error| in_table(csv, error))?;
        let list = folder.write_list(now, arguments.days).map_err(text)?;
        return Ok(report::revoked_devices(rows.len(), revoked) + &report::list(dir, &list));
    }
    let files = arguments.certificates.iter().cloned().map(Target::Certificate);
    let imeis = arguments.imei.iter().copied().map(Target::Imei);
    let unlisted = arguments.unlisted;
    let serials = arguments.serial.iter().cloned().map(|serial| Target::Serial { serial, unlisted });
    let targets: Vec<_> = files.chain(imeis).chain(serials).collect();
    let folder = Folder::open(dir).map_err(text)?;
    let revocations = folder.revoke(&targets, arguments.reason, now).map_err(text)?;
    let list = folder.write_list(now, arguments.days).map_err(text)?;
    Ok(report::revocations(&revocations) + &report::list(dir, &list))
}

fn given_key(arguments: &KeyArguments) -> Result<Option<PublicKey>, String> {
    let Some(file) = &arguments.public_key else { return Ok(None) };
    let pem = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    PublicKey::from_pem(&pem).map(Some).map_err(|error| format!("{}: {error}", file.display()))
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn text(error: FolderError) -> String {
    error.to_string()
}
