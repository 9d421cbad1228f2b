//! Eclipse Mosquitto as the distribution ships it: found, or fetched beside the build, never installed, for an installed
//! one starts a broker on the machine.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use crate::failure::Failure;
use crate::left_out::left_out;
use crate::programs::distribution;
use crate::rig::{Rig, free_address};

/// How it is started, and where it then listens; `None` where it is not to be had.
pub(super) fn command(rig: &Rig, tickets: u32) -> Result<Option<(Command, SocketAddr)>, Failure> {
    let Some(program) = find_or_fetch()? else {
        left_out("mosquitto is neither installed nor to be fetched by apt-get: no figures of it");
        return Ok(None);
    };
    let address = free_address()?;
    let folder = rig.folder().join(format!("mosquitto-{}", address.port()));
    fs::create_dir(&folder)?;
    let (settings, openssl) = (folder.join("mosquitto.conf"), folder.join("openssl.cnf"));
    fs::write(&settings, configuration(rig, address)?)?;
    // Mosquitto has no such setting; OpenSSL takes it for every context from its own file.
    fs::write(
        &openssl,
        format!(
            "openssl_conf = main\n[main]\nssl_conf = ssl\n[ssl]\nsystem_default = all\n[all]\nNumTickets = {tickets}\n"
        ),
    )?;
    let mut command = Command::new(&program);
    command.arg("-c").arg(settings).env("OPENSSL_CONF", openssl).env("LD_LIBRARY_PATH", libraries(&program));
    Ok(Some((command, address)))
}

/// The version that is tried.
pub(super) fn version() -> Option<String> {
    let program = find_or_fetch().ok()??;
    let mut command = Command::new(&program);
    let output = command.arg("-h").env("LD_LIBRARY_PATH", libraries(&program)).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

fn configuration(rig: &Rig, address: SocketAddr) -> Result<String, Failure> {
    let server = rig.pki().server()?;
    let mut text = format!(
        "listener {} {}\ncafile {}\ncertfile {}\nkeyfile {}\n",
        address.port(),
        address.ip(),
        rig.pki().ca().display(),
        server.certificate.display(),
        server.key.display(),
    );
    text.push_str(
        "require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\n\
         max_connections -1\npersistence false\nset_tcp_nodelay true\n",
    );
    // It would give root's rights up, and then could not read its key.
    if geteuid().is_root() {
        let _ = writeln!(text, "user root");
    }
    Ok(text)
}

fn find_or_fetch() -> Result<Option<PathBuf>, Failure> {
    let fetched = folder();
    let found =
        |places: &[&Path]| places.iter().map(|place| place.join("mosquitto")).find(|file| file.exists());
    let places = [Path::new("/usr/sbin"), Path::new("/usr/local/sbin"), &fetched.join("usr/sbin")];
    if let Some(program) = found(&places) {
        return Ok(Some(program));
    }
    fetch(&fetched)?;
    Ok(found(&places))
}

fn folder() -> PathBuf {
    distribution().with_file_name("tools").join("mosquitto")
}

/// Has apt-get fetch the package with what it needs and lays them out in a folder of their own.
fn fetch(folder: &Path) -> Result<(), Failure> {
    let archives = folder.join("archives");
    fs::create_dir_all(archives.join("partial"))?;
    let mut place = std::ffi::OsString::from("Dir::Cache::archives=");
    place.push(&archives);
    let options =
        ["install", "--download-only", "--yes", "--no-install-recommends", "-o", "Debug::NoLocking=1", "-o"];
    let fetched = Command::new("apt-get")
        .args(options)
        .args([place.as_os_str(), OsStr::new("mosquitto")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    if !fetched.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    for file in fs::read_dir(&archives)? {
        let file = file?.path();
        if file.extension() == Some(OsStr::new("deb")) {
            Command::new("dpkg-deb").arg("--extract").args([&file, &folder.to_owned()]).status()?;
        }
    }
    Ok(())
}

/// Where a fetched one has its libraries.
fn libraries(program: &Path) -> PathBuf {
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    program.ancestors().nth(2).unwrap_or_else(|| Path::new("/")).join("lib").join(machine)
}
