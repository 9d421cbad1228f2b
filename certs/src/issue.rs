//! What a folder issues: its CA, the server's certificate and the devices'.

use std::path::{Path, PathBuf};
use std::{fs, io};

use moorline_protocol::Imei;
use time::OffsetDateTime;

use crate::authority::{Authority, AuthorityError, Issued};
use crate::files;
use crate::folder::{Folder, FolderError, failed, is_there, make_directory, read_if_there, replace};
use crate::index::Entry;
use crate::key::{PrivateKey, PublicKey};
use crate::names::ServerNames;
use crate::serial::Serial;
use crate::validity::Validity;

/// What was written for a certificate.
#[derive(Clone, Debug)]
pub struct Written {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file, when the key was made here.
    pub key: Option<PathBuf>,
    /// The serial number.
    pub serial: Serial,
    /// From when to when it holds.
    pub validity: Validity,
}

impl Folder {
    /// Makes the CA.
    ///
    /// # Errors
    /// There is one already, or [`FolderError`] says what cannot be written.
    pub fn make_authority(&self, name: &str, now: OffsetDateTime, days: u32) -> Result<Written, FolderError> {
        let (certificate, key) = (self.file("ca.pem"), self.file("ca.key"));
        for file in [&key, &certificate] {
            if is_there(file)? {
                return Err(FolderError::AuthorityExists(file.clone()));
            }
        }
        let (serial, validity) = (Serial::random()?, Validity::days(now, days));
        let authority = Authority::create(
            name,
            PrivateKey::generate().map_err(|error| FolderError::Key(key.clone(), error))?,
            &serial,
            validity,
        )
        .map_err(|error| FolderError::Authority(certificate.clone(), error))?;
        self.write_key(&key, &authority.key_pem())?;
        keep_or_remove(&key, replace(&certificate, authority.certificate_pem()))?;
        Ok(Written { certificate, key: Some(key), serial, validity })
    }

    /// Issues the server's certificate: for a new key, or for `given`.
    ///
    /// # Errors
    /// The key is there already, or [`FolderError`] says what cannot be read, signed or written.
    pub fn issue_server(
        &self,
        names: &ServerNames,
        given: Option<PublicKey>,
        now: OffsetDateTime,
        days: u32,
    ) -> Result<Written, FolderError> {
        let subject = format!("/CN={}", names.common_name().unwrap_or_default());
        self.issue("server", &subject, given, now, |authority, key, serial| {
            authority.issue_server(names, key, serial, Validity::days(now, days))
        })
    }

    /// Issues a device's certificate: for a new key, or for `given`.
    ///
    /// # Errors
    /// As [`Self::issue_server`].
    pub fn issue_device(
        &self,
        imei: Imei,
        given: Option<PublicKey>,
        now: OffsetDateTime,
        days: u32,
    ) -> Result<Written, FolderError> {
        self.issue(
            &format!("devices/{imei}"),
            &format!("/CN={imei}"),
            given,
            now,
            |authority, key, serial| authority.issue_device(imei, key, serial, Validity::days(now, days)),
        )
    }

    fn issue(
        &self,
        stem: &str,
        subject: &str,
        given: Option<PublicKey>,
        now: OffsetDateTime,
        sign: impl FnOnce(&Authority, &PublicKey, Serial) -> Result<Issued, AuthorityError>,
    ) -> Result<Written, FolderError> {
        let certificate = self.file(&format!("{stem}.pem"));
        let authority = self.authority_in_force(now)?;
        let (public, key) = match given {
            Some(public) => (public, None),
            None => {
                let file = self.file(&format!("{stem}.key"));
                let key = PrivateKey::generate().map_err(|error| FolderError::Key(file.clone(), error))?;
                (key.public(), Some((file, key.pem())))
            }
        };
        let issued = sign(&authority, &public, self.unused_serial()?)
            .map_err(|error| FolderError::Authority(certificate.clone(), error))?;
        // Only devices' certificates lie in a directory of their own.
        if let Some(parent) = certificate.parent() {
            make_directory(parent, 0o755)?;
        }
        if let Some((file, pem)) = &key {
            self.write_key(file, pem)?;
        }
        let entry = Entry::new(issued.serial.clone(), issued.validity.not_after, subject);
        let written = self.append_entry(&entry).and_then(|()| replace(&certificate, &issued.pem));
        let key = key.map(|(file, _)| file);
        match &key {
            Some(file) => keep_or_remove(file, written)?,
            None => written?,
        }
        Ok(Written { certificate, key, serial: issued.serial, validity: issued.validity })
    }

    pub(crate) fn authority_in_force(&self, now: OffsetDateTime) -> Result<Authority, FolderError> {
        let authority = self.authority()?;
        if authority.not_after() <= now {
            return Err(FolderError::AuthorityExpired(self.file("ca.pem"), authority.not_after()));
        }
        Ok(authority)
    }

    fn unused_serial(&self) -> Result<Serial, FolderError> {
        let index = self.index()?;
        loop {
            let serial = Serial::random()?;
            if index.find(&serial).is_none() {
                return Ok(serial);
            }
        }
    }

    fn append_entry(&self, entry: &Entry) -> Result<(), FolderError> {
        self.end_last_line()?;
        self.append_line(entry)
    }

    /// A line of the index that an editor left without its end must not run into the next one.
    pub(crate) fn end_last_line(&self) -> Result<(), FolderError> {
        let file = self.file("index.txt");
        let unended = read_if_there(&file)?.is_some_and(|text| !text.is_empty() && !text.ends_with('\n'));
        if unended { files::append(&file, "\n").map_err(failed("write", &file)) } else { Ok(()) }
    }

    pub(crate) fn append_line(&self, entry: &Entry) -> Result<(), FolderError> {
        let file = self.file("index.txt");
        files::append(&file, &format!("{entry}\n")).map_err(failed("write", &file))
    }

    fn write_key(&self, file: &Path, pem: &str) -> Result<(), FolderError> {
        files::create_key(file, pem).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => FolderError::KeyExists(file.to_owned()),
            _ => failed("write", file)(error),
        })
    }
}

/// A key is of no use, and in the next one's way, when what was to come with it could not be written.
fn keep_or_remove(key: &Path, written: Result<(), FolderError>) -> Result<(), FolderError> {
    if written.is_err() {
        let _ = fs::remove_file(key);
    }
    written
}
