//! The directory that holds a CA: its certificate and key, what it issued, and who is revoked.
//!
//! ```text
//! ca.pem  ca.key             the CA
//! server.pem  server.key     the server
//! devices/IMEI.pem  .key     the devices
//! ca.crl                     the revocation list
//! index.txt  crlnumber       what was issued and revoked; the next list's number: as `openssl ca` keeps them
//! ```
//! One program at a time works in it. A key is never written over, and every other file is there wholly or not at all.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use moorline_protocol::Imei;
use time::OffsetDateTime;

use crate::authority::{Authority, AuthorityError};
use crate::files;
use crate::index::{Index, IndexError};
use crate::key::KeyError;
use crate::serial::{Serial, SerialError};

/// A CA's directory, locked against other programs while the value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens `path`, made when it is not there, for its owner alone.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub fn create(path: &Path) -> Result<Self, FolderError> {
        make_directory(path, 0o700)?;
        Self::open(path)
    }

    /// Opens `path`, waiting while another program works in it.
    ///
    /// # Errors
    /// It is not there or cannot be opened.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let lock = File::open(path).map_err(failed("open", path))?;
        lock.lock().map_err(failed("lock", path))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn authority(&self) -> Result<Authority, FolderError> {
        let (certificate, key) = (self.file("ca.pem"), self.file("ca.key"));
        let (Some(certificate_text), Some(key_text)) = (read_if_there(&certificate)?, read_if_there(&key)?)
        else {
            return Err(FolderError::NoAuthority(self.path.clone()));
        };
        Authority::from_pem(&certificate_text, &key_text).map_err(|error| match error {
            AuthorityError::Key(error) => FolderError::Key(key, error),
            error => FolderError::Authority(certificate, error),
        })
    }

    pub(crate) fn index(&self) -> Result<Index, FolderError> {
        let file = self.file("index.txt");
        let text = read_if_there(&file)?.unwrap_or_default();
        Index::parse(&text).map_err(|error| FolderError::Index(file, error))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Makes a directory unless it is there.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), FolderError> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("create", path)(error)),
        _ => Ok(()),
    }
}

/// A link that leads nowhere is there too: nothing can be created in its place.
pub(crate) fn is_there(file: &Path) -> Result<bool, FolderError> {
    match file.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look at", file)(error)),
    }
}

pub(crate) fn read(file: &Path) -> Result<String, FolderError> {
    fs::read_to_string(file).map_err(failed("read", file))
}

pub(crate) fn read_if_there(file: &Path) -> Result<Option<String>, FolderError> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(failed("read", file)),
    }
}

pub(crate) fn replace(file: &Path, text: &str) -> Result<(), FolderError> {
    files::replace(file, text).map_err(failed("write", file))
}

/// Says what could not be done with which file.
pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |error| FolderError::Io { doing, path, error }
}

/// Why something could not be done in a [`Folder`].
#[derive(Debug)]
pub enum FolderError {
    /// The operating system refused.
    Io {
        /// A verb.
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// There is no CA in this directory.
    NoAuthority(PathBuf),
    /// There is a CA already: its file that was found.
    AuthorityExists(PathBuf),
    /// A key is there already.
    KeyExists(PathBuf),
    /// The CA's time is over.
    AuthorityExpired(PathBuf, OffsetDateTime),
    /// The CA, or what it was to sign, is not as it should be.
    Authority(PathBuf, AuthorityError),
    /// A key is not.
    Key(PathBuf, KeyError),
    /// The index is not.
    Index(PathBuf, IndexError),
    /// The number of the next list is none.
    Number(PathBuf),
    /// The last list is none of this CA's.
    NoList(PathBuf),
    /// There is no certificate in a file.
    NoCertificate(PathBuf),
    /// Another CA signed the certificate to revoke.
    NotSigned {
        /// Its file.
        file: PathBuf,
        /// Who it says signed it.
        issuer: String,
    },
    /// The index has no certificate for this IMEI.
    UnknownImei(Imei),
    /// The index has no certificate with this serial number.
    UnknownSerial(Serial),
    /// There is no new serial number.
    Serial(SerialError),
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, path, error } => write!(f, "cannot {doing} {}: {error}", path.display()),
            Self::NoAuthority(path) => write!(
                f,
                "{0} holds no CA (ca.pem and ca.key); name its folder with --dir, or make one: \
                 moorline-certs ca --dir {0}",
                path.display()
            ),
            Self::AuthorityExists(path) => write!(
                f,
                "{} exists, so this folder has a CA, which is never overwritten; choose another folder with --dir",
                path.display()
            ),
            Self::KeyExists(path) => write!(
                f,
                "{} exists, and a key is never overwritten; to certify the same key again add --public-key {}, \
                 for a new key move the old one away",
                path.display(),
                path.with_extension("pem").display()
            ),
            Self::AuthorityExpired(path, end) => {
                write!(
                    f,
                    "{}: the CA expired on {}; make a new one in another folder",
                    path.display(),
                    end.date()
                )
            }
            Self::Authority(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Key(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Index(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Number(path) => write!(
                f,
                "{}: the next list's number, hexadecimal and of at most 64 bits, should stand in it",
                path.display()
            ),
            Self::NoList(path) => write!(
                f,
                "{}: this is no revocation list of this CA in PEM; put the last one there, whose entries the next \
                 one keeps, or move the file away",
                path.display()
            ),
            Self::NoCertificate(path) => {
                write!(f, "{}: there is no certificate in PEM in it", path.display())
            }
            Self::NotSigned { file, issuer } => {
                write!(f, "{}: this CA did not sign it; its issuer is `{issuer}`", file.display())
            }
            Self::UnknownImei(imei) => write!(
                f,
                "no certificate for IMEI {imei} is in index.txt; if it was issued elsewhere, revoke it by its file"
            ),
            Self::UnknownSerial(serial) => write!(
                f,
                "no certificate with the serial number {serial} is in index.txt; if it was issued elsewhere, \
                 revoke it by its file, or add --unlisted when there is none"
            ),
            Self::Serial(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FolderError {}

impl From<SerialError> for FolderError {
    fn from(error: SerialError) -> Self {
        Self::Serial(error)
    }
}
