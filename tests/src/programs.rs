//! The workspace's programs, built as they are shipped: each crate by itself, so that no other crate's features are in
//! them. Or another machine's agent in place of this machine's: see [`OTHER_AGENT`].

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::failure::Failure;

/// The variable that names an agent which `packaging/build` has made, as TRIPLE/FLAVOUR. Every test then has that one in
/// place of the one that is built here, and starts it as any program: it runs under QEMU where it is foreign.
pub const OTHER_AGENT: &str = "MOORLINE_AGENT";

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
    if let Some(other) = env::var_os(OTHER_AGENT).filter(|_| name == "moorline-agent") {
        if other.as_encoded_bytes().ends_with(b"smallest") && !features.is_empty() {
            return Err(Failure::new(format!("the smallest agent is built without {}", features.join(", "))));
        }
        return shipped_agent(&other);
    }
    program_with_in(name, features, this_profile())
}

/// As [`program_with`], of such a profile.
///
/// # Errors
/// The compiler refused it.
#[track_caller]
pub fn program_with_in(name: &str, features: &[&str], profile: &str) -> Result<PathBuf, Failure> {
    let shelf = shelf()?;
    // Cargo puts one crate's programs at one path whatever their features; so they are taken from there before another
    // process builds them in another way.
    let lock = File::create(shelf.join("lock"))?;
    lock.lock()?;
    let built = build(name, features, profile)?;
    let place = shelf.join(if features.is_empty() { "default".to_owned() } else { features.join("+") });
    let place = if profile == this_profile() { place } else { place.join(profile) };
    fs::create_dir_all(&place)?;
    link(&built, &place.join(name))
}

/// The profile of the program that runs now.
const fn this_profile() -> &'static str {
    if cfg!(debug_assertions) { "dev" } else { "release" }
}

/// As [`program`], of such a profile.
///
/// # Errors
/// The compiler refused it.
#[track_caller]
pub fn program_in(name: &str, profile: &str) -> Result<PathBuf, Failure> {
    build(name, &[], profile)
}

/// What starts the agent that `packaging/build` has made as `agent`, TRIPLE/FLAVOUR.
///
/// # Errors
/// It has not made it.
#[track_caller]
pub fn shipped_agent(agent: impl AsRef<Path>) -> Result<PathBuf, Failure> {
    let starter = distribution().join("run").join(agent).join("moorline-agent");
    if starter.exists() {
        return Ok(starter);
    }
    Err(Failure::new(format!("{}: there is no such agent yet: ./packaging/build", starter.display())))
}

/// The folder where `packaging/build` leaves what is shipped, as TRIPLE/FLAVOUR/PROGRAM.
#[must_use]
pub fn distribution() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from).join("dist")
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
    let mut command = cargo("build");
    command
        .args(["--quiet", "--message-format=json-render-diagnostics", "--profile", profile])
        .args(["--package", package(name), "--bin", name, "--features", &features.join(",")])
        .stderr(Stdio::inherit());
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

/// cargo as a shell would start it for the testbed.
#[must_use]
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args([subcommand, "--locked"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    for (variable, _) in env::vars_os().filter(|(variable, _)| is_of_this_crate(variable)) {
        command.env_remove(variable);
    }
    command
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
