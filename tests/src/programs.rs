//! The workspace's programs, built as they are shipped: each crate by itself, so that no other crate's features are in
//! them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::failure::Failure;

/// The path of one of the workspace's programs, built when it is not fresh.
///
/// # Errors
/// The compiler refused it.
#[track_caller]
pub fn program(name: &str) -> Result<PathBuf, Failure> {
    program_with(name, &[])
}

/// As [`program`], with cargo features of its crate.
///
/// # Errors
/// The compiler refused it.
#[track_caller]
pub fn program_with(name: &str, features: &[&str]) -> Result<PathBuf, Failure> {
    let shelf = shelf()?;
    // Cargo puts one crate's programs at one path whatever their features; so they are taken from there before another
    // process builds them in another way.
    let lock = File::create(shelf.join("lock"))?;
    lock.lock()?;
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let built = build(name, features, profile)?;
    let place = shelf.join(if features.is_empty() { "default".to_owned() } else { features.join("+") });
    fs::create_dir_all(&place)?;
    link(&built, &place.join(name))
}

/// As [`program`], of such a profile.
///
/// # Errors
/// The compiler refused it.
#[track_caller]
pub fn program_in(name: &str, profile: &str) -> Result<PathBuf, Failure> {
    build(name, &[], profile)
}

/// The folder for the programs that tests run: beside the program that runs now.
fn shelf() -> Result<PathBuf, Failure> {
    let here = env::current_exe()?;
    let folder = here.parent().ok_or_else(|| Failure::new("this program is in no folder"))?;
    // Tests are in `deps`, the demo one above.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let shelf = folder.join("testbed");
    fs::create_dir_all(&shelf)?;
    Ok(shelf)
}

/// Has cargo build `name` and says where cargo put it.
#[track_caller]
fn build(name: &str, features: &[&str], profile: &str) -> Result<PathBuf, Failure> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--locked", "--message-format=json-render-diagnostics"])
        .args(["--profile", profile])
        .args(["--package", package(name), "--bin", name, "--features", &features.join(",")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit());
    for (variable, _) in env::vars_os().filter(|(variable, _)| is_of_this_crate(variable)) {
        command.env_remove(variable);
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(Failure::new(format!("cargo cannot build {name}: {}", output.status)));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| Failure::new(format!("cargo built {name} and does not say where")))
}

/// Whether cargo or nextest set the variable to tell this program about its own crate. Build scripts that watch such a
/// variable would run again, and ring be compiled again, each time a test's cargo follows a shell's.
fn is_of_this_crate(variable: &OsStr) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_", "NEXTEST"]
        .iter()
        .any(|prefix| variable.as_encoded_bytes().starts_with(prefix.as_bytes()))
}

/// The crate that a program belongs to.
fn package(program: &str) -> &str {
    if program == "moorlinectl" { "moorline-server" } else { program }
}

/// Gives `built` a second name, in one step even when programs of the old one run.
fn link(built: &Path, place: &Path) -> Result<PathBuf, Failure> {
    let unfinished = place.with_extension("new");
    let _ = fs::remove_file(&unfinished);
    fs::hard_link(built, &unfinished)?;
    fs::rename(&unfinished, place)?;
    // Renaming one name of a file to another of the same file does nothing and leaves both.
    let _ = fs::remove_file(&unfinished);
    Ok(place.to_owned())
}
