//! Small libraries of C that change what a dynamically linked program asks of the system, as `LD_PRELOAD`. A static program has all that
//! in itself and is not reached so.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

/// Compiles `source`, a file of `tests/src`, into `folder`.
pub(crate) fn library(source: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(source);
    let library = folder.join(source.file_name().unwrap_or_default()).with_extension("so");
    if !library.exists() {
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-shared", "-fPIC", "-o"]).args([&library, &source]);
        if !compiler.status()?.success() {
            return Err(Failure::new(format!("cc cannot compile {}", source.display())));
        }
    }
    Ok(library)
}
