//! `moorlinectl backup`: takes a copy of the fleet's file home. It is there under its name only once it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::client::Client;
use super::failure::Failure;

const CHUNK: usize = 64 * 1024;

/// # Errors
/// The file is there already or cannot be written, or the server cannot be asked.
pub(super) fn make(client: &Client, file: &Path, out: &mut impl Write) -> Result<(), Failure> {
    if file.exists() {
        return Err(Failure::File(format!("{} is there already: name another file", file.display())));
    }
    let (whole, mut body) = client.backup()?;
    let unfinished = unfinished(file);
    let mut copy = create(&unfinished)?;
    let taken = take(&mut body, &mut copy, whole).and_then(|taken| {
        copy.sync_all()?;
        fs::hard_link(&unfinished, file)?;
        Ok(taken)
    });
    // Its content has the other name now, or is of no use.
    let _ = fs::remove_file(&unfinished);
    let taken = taken.map_err(|fault| Failure::File(format!("{}: {fault}", file.display())))?;
    writeln!(out, "{}: {taken} bytes", file.display())?;
    Ok(())
}

fn unfinished(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}

fn create(path: &Path) -> Result<File, Failure> {
    let created = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    created.map_err(|fault| Failure::File(format!("{}: {fault}", path.display())))
}

/// Copies with a line of progress for people.
fn take(body: &mut impl Read, copy: &mut File, whole: Option<u64>) -> io::Result<u64> {
    let shown = io::stderr().is_terminal();
    let (mut taken, mut chunk) = (0, vec![0; CHUNK]);
    loop {
        let len = body.read(&mut chunk)?;
        if len == 0 {
            break;
        }
        copy.write_all(chunk.get(..len).unwrap_or_default())?;
        taken += len as u64;
        if shown {
            let percent = whole.map_or(0, |whole| taken * 100 / whole.max(1));
            eprint!("\r{percent:3} % of {} bytes", whole.unwrap_or_default());
        }
    }
    if shown {
        eprint!("\r\x1b[K");
    }
    match whole {
        Some(whole) if whole != taken => Err(io::Error::other(format!("{taken} of {whole} bytes came"))),
        _ => Ok(taken),
    }
}
