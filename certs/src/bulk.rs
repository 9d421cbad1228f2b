//! Certificates for a table of devices: all of them, however often the work is broken off.
//!
//! A device is done once its certificate is there, which is the last step of it: key, certificate under another name, line
//! of the index, certificate. Whatever a run left behind in between is gone on with: a key without a certificate is certified,
//! a certificate that the index knows is put in its place. So no number is given twice, and none is left without a certificate.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use moorline_protocol::Imei;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::authority::Authority;
use crate::files;
use crate::folder::{Folder, FolderError, failed, is_there, make_directory, read_if_there, replace};
use crate::index::Entry;
use crate::key::{PrivateKey, PublicKey, blocks};
use crate::reason::Reason;
use crate::serial::Serial;
use crate::validity::Validity;
use moorline_config::{BadLine, Row, count_lines};

/// What came of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// So many certificates are new.
    pub issued: usize,
    /// So many were there already.
    pub before: usize,
    /// Where they are.
    pub out: PathBuf,
}

/// Why a table's certificates were not issued, or not revoked.
#[derive(Debug)]
pub enum BulkError {
    /// Lines that nothing can be made of: nothing was done for any.
    Lines(Vec<BadLine>),
    /// Nothing was done.
    Folder(FolderError),
    /// It stopped at this device; what was done before it is whole.
    Stopped {
        /// The device.
        imei: Imei,
        /// How many were issued before it.
        issued: usize,
        /// Why.
        error: FolderError,
    },
}

impl From<FolderError> for BulkError {
    fn from(error: FolderError) -> Self {
        Self::Folder(error)
    }
}

impl fmt::Display for BulkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines(lines) => write!(f, "{} are wrong, so nothing was done", count_lines(lines)),
            Self::Folder(error) => error.fmt(f),
            Self::Stopped { imei, issued, error } => {
                write!(f, "{error}; it stopped at {imei}, {issued} are issued: run it again to go on")
            }
        }
    }
}

impl std::error::Error for BulkError {}

/// What there is of a device.
enum Found {
    Nothing,
    /// A key without a certificate.
    Key(PublicKey),
    /// A certificate that is not in its place yet.
    Unplaced,
    Whole,
}

impl Folder {
    /// Issues a certificate with a new key for each device of `rows` that has none: to `out`, or where the folder keeps
    /// devices. `progress` is told how many of them are done.
    ///
    /// # Errors
    /// [`BulkError`]; before the first key is made everything is looked at that may be wrong with any device.
    pub fn issue_devices(
        &self,
        rows: &[Row],
        out: Option<&Path>,
        (now, days): (OffsetDateTime, u32),
        mut progress: impl FnMut(usize),
    ) -> Result<Issue, BulkError> {
        let authority = self.authority_in_force(now)?;
        let index = self.index()?;
        let out = out.map_or_else(|| self.file("devices"), Path::to_owned);
        let listed = index.iter().map(|entry| (entry.serial(), entry.revoked_at().is_some())).collect();
        let place = Place { out: &out, authority: &authority, listed, now };
        let mut work = Vec::new();
        let mut bad = Vec::new();
        for row in rows {
            match place.look(row.imei)? {
                Ok(Found::Whole) => {}
                Ok(found) => work.push((row.imei, found)),
                Err(reason) => bad.push(BadLine::of(row, reason)),
            }
        }
        if !bad.is_empty() {
            return Err(BulkError::Lines(bad));
        }
        make_directory(&out, if out == self.file("devices") { 0o755 } else { 0o700 })?;
        self.end_last_line()?;
        let before = rows.len() - work.len();
        let mut serials: HashSet<Serial> = index.iter().map(|entry| entry.serial().clone()).collect();
        for (issued, (imei, found)) in work.iter().enumerate() {
            progress(before + issued);
            let validity = Validity::days(now, days);
            self.issue_one(&authority, &out, (*imei, found), validity, &mut serials)
                .map_err(|error| BulkError::Stopped { imei: *imei, issued, error })?;
        }
        progress(rows.len());
        Ok(Issue { issued: work.len(), before, out })
    }

    fn issue_one(
        &self,
        authority: &Authority,
        out: &Path,
        (imei, found): (Imei, &Found),
        validity: Validity,
        serials: &mut HashSet<Serial>,
    ) -> Result<(), FolderError> {
        let files = Files::of(out, imei);
        // A run that was killed right after it had placed the key left the key's other name.
        files::remove_if_there(&files.unplaced_key).map_err(failed("remove", &files.unplaced_key))?;
        let public = match found {
            Found::Whole | Found::Unplaced => None,
            Found::Key(public) => Some(public.clone()),
            Found::Nothing => {
                let key =
                    PrivateKey::generate().map_err(|error| FolderError::Key(files.key.clone(), error))?;
                files::place_key(&files.key, &files.unplaced_key, &key.pem())
                    .map_err(failed("write", &files.key))?;
                Some(key.public())
            }
        };
        if let Some(public) = public {
            let serial = loop {
                let serial = Serial::random()?;
                if serials.insert(serial.clone()) {
                    break serial;
                }
            };
            let issued = authority
                .issue_device(imei, &public, serial, validity)
                .map_err(|error| FolderError::Authority(files.certificate.clone(), error))?;
            files::write_synced(&files.unplaced, &issued.pem).map_err(failed("write", &files.unplaced))?;
            self.append_line(&Entry::new(issued.serial, issued.validity.not_after, &format!("/CN={imei}")))?;
        }
        fs::rename(&files.unplaced, &files.certificate).map_err(failed("write", &files.certificate))?;
        files::sync_directory(out).map_err(failed("write", out))
    }

    /// Revokes all certificates in force of the devices of `rows`: how many there were. The next list tells the server.
    ///
    /// # Errors
    /// [`BulkError`]: of one of the devices the index knows no certificate, and then none is revoked; or the index cannot
    /// be read or written.
    pub fn revoke_devices(
        &self,
        rows: &[Row],
        reason: Option<Reason>,
        now: OffsetDateTime,
    ) -> Result<usize, BulkError> {
        self.authority()?;
        let mut index = self.index()?;
        let known: HashSet<_> = index.iter().filter_map(Entry::imei).collect();
        let unknown = |row: &&Row| !known.contains(&row.imei);
        let bad: Vec<_> = rows
            .iter()
            .filter(unknown)
            .map(|row| BadLine::of(row, "index.txt has no certificate of it".to_owned()))
            .collect();
        if !bad.is_empty() {
            return Err(BulkError::Lines(bad));
        }
        let wanted: HashSet<_> = rows.iter().map(|row| row.imei).collect();
        let revoked =
            index.revoke_where(now, reason, |entry| entry.imei().is_some_and(|imei| wanted.contains(&imei)));
        replace(&self.file("index.txt"), &index.to_string())?;
        Ok(revoked)
    }
}

/// A device's files.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    unplaced: PathBuf,
    unplaced_key: PathBuf,
}

impl Files {
    fn of(out: &Path, imei: Imei) -> Self {
        let file = |end: &str| out.join(format!("{imei}.{end}"));
        Self {
            certificate: file("pem"),
            key: file("key"),
            unplaced: file("pem.new"),
            unplaced_key: file("key.new"),
        }
    }
}

/// Where certificates go, and what is known of those that are there.
struct Place<'a> {
    out: &'a Path,
    authority: &'a Authority,
    /// The certificates in the index, and whether they are revoked.
    listed: HashMap<&'a Serial, bool>,
    now: OffsetDateTime,
}

impl Place<'_> {
    /// What there is of a device, or why nothing can be issued for it.
    fn look(&self, imei: Imei) -> Result<Result<Found, String>, FolderError> {
        let files = Files::of(self.out, imei);
        if let Some(text) = read_if_there(&files.certificate)? {
            let whole = self.judge(imei, &text).map(|_| Found::Whole);
            let moved = |fault| format!("{}: {fault}; move it and its key away", files.certificate.display());
            return Ok(whole.map_err(moved));
        }
        if !is_there(&files.key)? {
            return Ok(Ok(Found::Nothing));
        }
        let key = read_if_there(&files.key)?.unwrap_or_default();
        let public = match PrivateKey::from_pem(&key) {
            Ok(key) => key.public(),
            Err(fault) => return Ok(Err(format!("{}: {fault}; move it away", files.key.display()))),
        };
        let unplaced = read_if_there(&files.unplaced)?.and_then(|text| self.judge(imei, &text).ok());
        let fits = unplaced.is_some_and(|(serial, key)| self.listed.contains_key(&serial) && key == public);
        Ok(Ok(if fits { Found::Unplaced } else { Found::Key(public) }))
    }

    /// Whether a certificate is this device's, of this CA and in force: its number and key.
    fn judge(&self, imei: Imei, text: &str) -> Result<(Serial, PublicKey), String> {
        let block =
            blocks(text).find(|block| block.label == "CERTIFICATE").ok_or("there is no certificate in it")?;
        let (_, x509) = X509Certificate::from_der(&block.contents).map_err(|_| "it cannot be read")?;
        if !self.authority.signed(&x509) {
            return Err(format!("another CA signed it, `{}`", x509.issuer()));
        }
        let mut names = x509.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        if !names.any(|name| name == imei.to_string()) {
            return Err(format!("it is of another device, `{}`", x509.subject()));
        }
        if x509.validity().not_after.to_datetime() <= self.now {
            return Err("it has expired".to_owned());
        }
        let serial = Serial::from_octets(x509.raw_serial());
        if self.listed.get(&serial) == Some(&true) {
            return Err("it is revoked".to_owned());
        }
        let key = PublicKey::from_der(x509.public_key().raw).map_err(|fault| fault.to_string())?;
        Ok((serial, key))
    }
}
