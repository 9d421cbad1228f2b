//! A program's wall clock that a tale sets, while the program runs: the machine's own stays as it is, and so do the clocks that never
//! jump.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::preload;

/// The clock of one program; right at first.
pub struct WrongClock {
    library: PathBuf,
    /// By how many seconds it is ahead. Programs have it mapped: it is never cut.
    ahead: PathBuf,
}

impl WrongClock {
    /// A clock whose files are in `folder`.
    ///
    /// # Errors
    /// They cannot be made.
    #[track_caller]
    pub fn new(folder: &Path) -> Result<Self, Failure> {
        let library = preload::library("wrong_clock.c", folder)?;
        let ahead = tempfile::Builder::new().prefix("clock-").tempfile_in(folder)?.into_temp_path().keep()?;
        fs::write(&ahead, 0_i64.to_ne_bytes())?;
        Ok(Self { library, ahead })
    }

    /// From now on it is so many seconds ahead of the machine's, or behind.
    ///
    /// # Errors
    /// The file cannot be written.
    #[track_caller]
    pub fn set_ahead(&self, seconds: i64) -> Result<(), Failure> {
        Ok(fs::File::options().write(true).open(&self.ahead)?.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }

    /// By which a program comes to have it.
    pub(crate) fn environment(&self) -> [(&'static str, OsString); 2] {
        [("LD_PRELOAD", self.library.clone().into()), ("MOORLINE_CLOCK", self.ahead.clone().into())]
    }
}
