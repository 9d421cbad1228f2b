//! Debian packages as files: those that `packaging/deb` has made, and taken apart, changed and put together again as a
//! later version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::failure::Failure;
use crate::programs::distribution;

/// A package for an architecture, by Debian's name of it.
///
/// # Errors
/// `packaging/deb` has not made it.
#[track_caller]
pub fn shipped(package: &str, architecture: &str) -> Result<PathBuf, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let deb = distribution().join("deb").join(format!("{package}_{version}-1_{architecture}.deb"));
    if deb.exists() {
        return Ok(deb);
    }
    Err(Failure::new(format!(
        "{}: there is no such package yet: ./packaging/deb {architecture}",
        deb.display()
    )))
}

/// A package that is taken apart; it ends with the value.
pub struct Deb(TempDir);

impl Deb {
    /// Takes a package apart.
    ///
    /// # Errors
    /// It is none.
    #[track_caller]
    pub fn unpack(deb: &Path) -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        dpkg_deb(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(folder.path()))?;
        Ok(Self(folder))
    }

    /// What it would install, and its control files in `DEBIAN`.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.0.path()
    }

    /// Gives it another version.
    ///
    /// # Errors
    /// It has no control file.
    #[track_caller]
    pub fn set_version(&self, version: &str) -> Result<(), Failure> {
        let control = self.root().join("DEBIAN/control");
        let lines = fs::read_to_string(&control)?;
        let lines = lines.lines().map(|line| match line.strip_prefix("Version: ") {
            Some(_) => format!("Version: {version}\n"),
            None => format!("{line}\n"),
        });
        Ok(fs::write(&control, lines.collect::<String>())?)
    }

    /// Puts it together again.
    ///
    /// # Errors
    /// dpkg-deb refuses it.
    #[track_caller]
    pub fn build(&self, deb: &Path) -> Result<(), Failure> {
        dpkg_deb(
            Command::new("dpkg-deb")
                .args(["--root-owner-group", "-Zgzip", "--build"])
                .arg(self.root())
                .arg(deb),
        )
    }
}

#[track_caller]
fn dpkg_deb(command: &mut Command) -> Result<(), Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))))
}
