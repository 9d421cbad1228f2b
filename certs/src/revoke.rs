//! Whom a folder revokes, and the list that says so to the server.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use moorline_protocol::Imei;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::authority::{Authority, Revoked};
use crate::folder::{Folder, FolderError, read, read_if_there, replace};
use crate::index::{Entry, Index};
use crate::key::blocks;
use crate::list::LastList;
use crate::reason::Reason;
use crate::serial::Serial;
use crate::validity::Validity;

/// A certificate to revoke.
#[derive(Clone, Debug)]
pub enum Target {
    /// The one in this PEM file, issued here or elsewhere by the same CA.
    Certificate(PathBuf),
    /// All of this device's.
    Imei(Imei),
    /// The one with this serial number.
    Serial {
        /// The number.
        serial: Serial,
        /// Whether the index may not know it.
        unlisted: bool,
    },
}

/// A certificate that is now revoked.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// Its serial number.
    pub serial: Serial,
    /// When it had been revoked, if it had been already.
    pub before: Option<OffsetDateTime>,
}

/// The revocation list that was written.
#[derive(Clone, Debug)]
pub struct List {
    /// Its file.
    pub file: PathBuf,
    /// Its number, larger than that of every one before.
    pub number: u64,
    /// How many certificates it revokes.
    pub revoked: usize,
    /// When the next one is due.
    pub next_update: OffsetDateTime,
}

impl Folder {
    /// Revokes all of `targets` or, when one of them is not to be found, none. The next list tells the server.
    ///
    /// # Errors
    /// [`FolderError`] says which target is not to be found, or what cannot be read or written.
    pub fn revoke(
        &self,
        targets: &[Target],
        reason: Option<Reason>,
        now: OffsetDateTime,
    ) -> Result<Vec<Revocation>, FolderError> {
        let authority = self.authority()?;
        let mut index = self.index()?;
        let mut revocations = Vec::new();
        for target in targets {
            for serial in find(target, &authority, &mut index)? {
                let before = index.find(&serial).and_then(Entry::revoked_at);
                index.revoke(&Revoked { serial: serial.clone(), at: now, reason });
                revocations.push(Revocation { serial, before });
            }
        }
        replace(&self.file("index.txt"), &index.to_string())?;
        Ok(revocations)
    }

    /// Writes the next revocation list, which is due again after `days`.
    ///
    /// Whom the last list revokes stays revoked, also when another program wrote it.
    ///
    /// # Errors
    /// [`FolderError`] says what cannot be read, signed or written.
    pub fn write_list(&self, now: OffsetDateTime, days: u32) -> Result<List, FolderError> {
        let authority = self.authority()?;
        let mut index = self.index()?;
        let (file, counter) = (self.file("ca.crl"), self.file("crlnumber"));
        let least = self.take_over_last_list(&file, &authority, &mut index)?;
        let number = next_number(&counter)?.max(least);
        let after = number.checked_add(1).ok_or_else(|| FolderError::Number(counter.clone()))?;
        let revoked = index.revoked();
        let validity = Validity { not_before: now, ..Validity::days(now, days) };
        let text = authority.crl(number, &revoked, validity);
        let text = text.map_err(|error| FolderError::Authority(file.clone(), error))?;
        // The number first: should the list fail to be written, one is left out and none is used twice.
        replace(&counter, &format!("{}\n", Serial::from_octets(&after.to_be_bytes())))?;
        replace(&file, &text)?;
        Ok(List { file, number, revoked: revoked.len(), next_update: validity.not_after })
    }

    /// Adds to the index whom the last list revokes and it does not; the least number for the next one.
    fn take_over_last_list(
        &self,
        file: &Path,
        authority: &Authority,
        index: &mut Index,
    ) -> Result<u64, FolderError> {
        let Some(text) = read_if_there(file)? else { return Ok(1) };
        let last =
            LastList::from_pem(&text, authority).ok_or_else(|| FolderError::NoList(file.to_owned()))?;
        let known: HashSet<_> = index.revoked().into_iter().map(|revoked| revoked.serial).collect();
        let missing: Vec<_> =
            last.revoked.iter().filter(|revoked| !known.contains(&revoked.serial)).collect();
        for revoked in &missing {
            if !index.revoke(revoked) {
                index.add(Entry::new(revoked.serial.clone(), authority.not_after(), "/CN=unknown"));
                index.revoke(revoked);
            }
        }
        if !missing.is_empty() {
            replace(&self.file("index.txt"), &index.to_string())?;
        }
        Ok(last.number.saturating_add(1))
    }
}

fn next_number(counter: &Path) -> Result<u64, FolderError> {
    let Some(text) = read_if_there(counter)? else { return Ok(1) };
    u64::from_str_radix(text.trim(), 16).map_err(|_| FolderError::Number(counter.to_owned()))
}

/// The serial numbers of a target; one that is new to the index is added to it.
fn find(target: &Target, authority: &Authority, index: &mut Index) -> Result<Vec<Serial>, FolderError> {
    match target {
        Target::Certificate(file) => Ok(vec![find_certificate(file, authority, index)?]),
        Target::Imei(imei) => find_imei(*imei, index),
        Target::Serial { serial, unlisted } => {
            if index.find(serial).is_none() {
                if !unlisted {
                    return Err(FolderError::UnknownSerial(serial.clone()));
                }
                index.add(Entry::new(serial.clone(), authority.not_after(), "/CN=unknown"));
            }
            Ok(vec![serial.clone()])
        }
    }
}

fn find_certificate(file: &Path, authority: &Authority, index: &mut Index) -> Result<Serial, FolderError> {
    let text = read(file)?;
    let no_certificate = || FolderError::NoCertificate(file.to_owned());
    let block = blocks(&text).find(|block| block.label == "CERTIFICATE").ok_or_else(no_certificate)?;
    let (_, x509) = X509Certificate::from_der(&block.contents).map_err(|_| no_certificate())?;
    if !authority.signed(&x509) {
        return Err(FolderError::NotSigned { file: file.to_owned(), issuer: x509.issuer().to_string() });
    }
    let serial = Serial::from_octets(x509.raw_serial());
    if index.find(&serial).is_none() {
        let subject = format!("/{}", x509.subject().to_string().replace(", ", "/"));
        index.add(Entry::new(serial.clone(), x509.validity().not_after.to_datetime(), &subject));
    }
    Ok(serial)
}

/// Those in force; when there are none, those that were.
fn find_imei(imei: Imei, index: &Index) -> Result<Vec<Serial>, FolderError> {
    let (revoked, in_force): (Vec<_>, Vec<_>) =
        index.of_imei(imei).partition(|entry| entry.revoked_at().is_some());
    let found = if in_force.is_empty() { revoked } else { in_force };
    if found.is_empty() {
        return Err(FolderError::UnknownImei(imei));
    }
    Ok(found.into_iter().map(|entry| entry.serial().clone()).collect())
}
