//! What is remembered of the modem: the last IMEI that it told, with port, command and time, in one small file of the state
//! folder. With it a dead modem does not stop a session.
//!
//! The modem that is there now has the last word: when it tells another IMEI than before, that one holds, as a swapped
//! modem is what the device is from now on, and the certificate, which names the IMEI, is what the server believes. But it
//! is never taken silently: the change is reported, and the file keeps the former one.
//!
//! A file that cannot be read or written is told and stops nothing.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use moorline_protocol::Imei;

use super::Found;
use crate::clock::Utc;
use crate::file;

/// The first line of the file: what it is, and in which form.
const HEAD: &str = "moorline modem identity 1";

/// A file that is longer was not written by us.
const MAX_FILE: u64 = 4096;

/// The last IMEI that a modem told, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The IMEI.
    pub imei: Imei,
    /// The port that told it.
    pub port: String,
    /// The command that it answered.
    pub command: String,
    /// When, UTC milliseconds.
    pub at_ms: i64,
    /// Maker and model, empty when not told.
    pub modem: String,
    /// The IMEI before this one, when it has changed.
    pub previous: Option<Imei>,
}

/// How what a modem tells now stands to what was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing was kept.
    First,
    /// It is the same.
    Same,
    /// It is another one than this.
    From(Imei),
}

impl Kept {
    /// What is to be kept after a modem told its IMEI, and whether that is news.
    #[must_use]
    pub fn after(found: &Found, utc_ms: i64, before: Option<&Self>) -> (Self, Change) {
        let change = match before {
            None => Change::First,
            Some(before) if before.imei == found.imei => Change::Same,
            Some(before) => Change::From(before.imei),
        };
        let kept = Self {
            imei: found.imei,
            port: one_line(&found.port.to_string_lossy()),
            command: found.command.to_owned(),
            at_ms: utc_ms,
            modem: one_line(&found.modem),
            previous: match change {
                Change::From(former) => Some(former),
                Change::First | Change::Same => before.and_then(|before| before.previous),
            },
        };
        (kept, change)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        // What steers a terminal was not written by us, and would be shown.
        if lines.next()? != HEAD || text.chars().any(|c| c.is_control() && c != '\n') {
            return None;
        }
        // The last line ends the file: what was cut off lacks it.
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix('=');
        let kept = Self {
            imei: value("imei")?.parse().ok()?,
            port: value("port")?.to_owned(),
            command: value("command")?.to_owned(),
            at_ms: value("at_ms")?.parse().ok()?,
            modem: value("modem")?.to_owned(),
            previous: match value("previous")? {
                "" => None,
                digits => Some(digits.parse().ok()?),
            },
        };
        (lines.next() == Some("end")).then_some(kept)
    }

    fn to_text(&self) -> String {
        let Self { imei, port, command, at_ms, modem, previous } = self;
        let previous = previous.map(|imei| imei.to_string()).unwrap_or_default();
        format!(
            "{HEAD}\nimei={imei}\nport={port}\ncommand={command}\nat_ms={at_ms}\nmodem={modem}\n\
             previous={previous}\nend\n"
        )
    }
}

/// Where it came from, for people.
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { imei, port, command, at_ms, .. } = self;
        write!(f, "{imei}, which {port} answered to {command} at {}", Utc(*at_ms))
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct IdentityFile(PathBuf);

impl IdentityFile {
    /// The file in `state_dir`; nothing is touched.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("modem"))
    }

    /// What it holds; `None` when there is no file.
    ///
    /// # Errors
    /// It cannot be read, or it holds something else. It counts as absent then; the next [`Self::write`] mends it.
    pub fn read(&self) -> Result<Option<Kept>, IdentityError> {
        let fault = |fault| IdentityError { file: self.0.clone(), fault };
        let unreadable = |error| fault(Fault::Unreadable(error));
        let length = match fs::metadata(&self.0) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        if length > MAX_FILE {
            return Err(fault(Fault::Damaged));
        }
        let bytes = fs::read(&self.0).map_err(unreadable)?;
        let kept = str::from_utf8(&bytes).ok().and_then(Kept::parse);
        kept.map(Some).ok_or_else(|| fault(Fault::Damaged))
    }

    /// Replaces what it holds, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written; what it held stays.
    pub fn write(&self, kept: &Kept) -> Result<(), IdentityError> {
        file::replace(&self.0, &kept.to_text())
            .map_err(|error| IdentityError { file: self.0.clone(), fault: Fault::Unwritable(error) })
    }
}

/// What is wrong with the file.
#[derive(Debug)]
pub struct IdentityError {
    file: PathBuf,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    Unreadable(io::Error),
    Damaged,
    Unwritable(io::Error),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.fault {
            Fault::Unreadable(error) => write!(f, "{file}: the kept IMEI cannot be read: {error}"),
            Fault::Damaged => {
                write!(f, "{file}: damaged, and ignored; it is written anew with the next IMEI")
            }
            Fault::Unwritable(error) => {
                write!(f, "{file}: the IMEI cannot be kept for when the modem is dead: {error}")
            }
        }
    }
}

impl std::error::Error for IdentityError {}

fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("moorline-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn found(imei: &str) -> Found {
        Found {
            imei: imei.parse().unwrap(),
            port: "/dev/ttyUSB2".into(),
            command: "AT+CGSN",
            modem: "Quectel EC25".try_into().unwrap(),
        }
    }

    #[test]
    fn kept_imei_comes_back_with_its_source() {
        let folder = Folder::new("identity-kept");
        let file = IdentityFile::new(&folder.0);
        assert_eq!(file.read().unwrap(), None);
        let (kept, change) = Kept::after(&found("869731052403821"), 1_767_225_600_000, None);
        assert_eq!(change, Change::First);
        file.write(&kept).unwrap();
        assert_eq!(file.read().unwrap(), Some(kept.clone()));
        assert_eq!(
            kept.to_string(),
            "869731052403821, which /dev/ttyUSB2 answered to AT+CGSN at 2026-01-01T00:00:00Z"
        );
    }

    #[test]
    fn other_imei_is_told_and_the_former_one_kept() {
        let (first, _) = Kept::after(&found("869731052403821"), 1, None);
        let (second, change) = Kept::after(&found("862095062526113"), 2, Some(&first));
        assert_eq!(change, Change::From(first.imei));
        assert_eq!(second.previous, Some(first.imei));
        let (third, change) = Kept::after(&found("862095062526113"), 3, Some(&second));
        assert_eq!(change, Change::Same);
        assert_eq!(third.previous, Some(first.imei));
    }

    #[test]
    fn damaged_file_is_told_and_mended() {
        let folder = Folder::new("identity-damaged");
        let file = IdentityFile::new(&folder.0);
        let (kept, _) = Kept::after(&found("869731052403821"), 1, None);
        let text = kept.to_text();
        for bytes in [b"".as_slice(), b"\xff\xfe", b"moorline modem identity 1\n", &[b'x'; 5000]] {
            fs::write(&file.0, bytes).unwrap();
            assert!(file.read().unwrap_err().to_string().contains("damaged"));
        }
        for cut in 0..text.len() - 1 {
            fs::write(&file.0, &text[..cut]).unwrap();
            assert!(file.read().is_err(), "cut at {cut}");
        }
        for (right, wrong) in [("imei=869731052403821", "imei=869731052403820"), ("Quectel", "\u{1b}[2J")] {
            fs::write(&file.0, text.replace(right, wrong)).unwrap();
            assert!(file.read().is_err(), "{wrong:?}");
        }
        file.write(&kept).unwrap();
        assert_eq!(file.read().unwrap(), Some(kept));
    }

    #[test]
    fn missing_folder_is_told() {
        let file = IdentityFile::new(Path::new("/nowhere/at/all"));
        assert_eq!(file.read().unwrap(), None);
        let (kept, _) = Kept::after(&found("869731052403821"), 1, None);
        let fault = file.write(&kept).unwrap_err().to_string();
        assert!(fault.contains("/nowhere/at/all/modem: the IMEI cannot be kept"), "{fault}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = str::from_utf8(&bytes).ok().and_then(Kept::parse);
        }
    }
}
