//! Moorline on a guest: what its package puts on a board, and what its owner puts into /etc/moorline.

use std::fs;
use std::path::{Path, PathBuf};

use crate::certs::{Credentials, Pki};
use crate::failure::Failure;
use crate::guest::{self, Board, GuestSetup};
use crate::programs::distribution;
use crate::rig::SERVER_NAME;
use crate::settings::Settings;

/// The agent's unit.
pub const UNIT: &str = "moorline-agent.service";

/// Asks how often systemd had to start the agent again, and whether it runs: "0 active" when all is well.
pub const RESTARTS: &str = "systemctl show --value -p NRestarts,ActiveState moorline-agent | xargs";

/// A board with the smallest agent, which asks its modem who it is and finds its server at [`guest::SERVER`].
///
/// # Errors
/// The agent is not built for it, or a file cannot be read.
#[track_caller]
pub fn with_agent(board: Board, pki: &Pki, device: &Credentials) -> Result<GuestSetup, Failure> {
    Ok(owned(board, pki, device)?
        .file("usr/bin/moorline-agent", 0o755, fs::read(agent(board)?)?)
        .file(
            "usr/lib/systemd/system/moorline-agent.service",
            0o644,
            source("systemd/moorline-agent.service")?,
        )
        .file(
            "usr/lib/systemd/system/moorline-agent-stopped.service",
            0o644,
            source("systemd/moorline-agent-stopped.service")?,
        )
        .file(
            "usr/lib/sysusers.d/moorline-agent.conf",
            0o644,
            source("systemd/sysusers.d/moorline-agent.conf")?,
        )
        .file(
            "usr/lib/tmpfiles.d/moorline-agent.conf",
            0o644,
            source("systemd/tmpfiles.d/moorline-agent.conf")?,
        )
        .link(
            "etc/systemd/system/multi-user.target.wants/moorline-agent.service",
            "/usr/lib/systemd/system/moorline-agent.service",
        )
        .file(
            "usr/lib/modules-load.d/moorline-modem.conf",
            0o644,
            source("systemd/modules-load.d/moorline-modem.conf")?,
        ))
}

/// A board with what is its owner's alone: a configuration, the CA, the device's certificate and its key.
///
/// # Errors
/// A file cannot be read.
#[track_caller]
pub fn owned(board: Board, pki: &Pki, device: &Credentials) -> Result<GuestSetup, Failure> {
    Ok(GuestSetup::new(board)
        .file("etc/moorline/agent.toml", 0o644, settings().to_string())
        .file("etc/moorline/ca.pem", 0o644, fs::read(pki.ca())?)
        .file("etc/moorline/device.pem", 0o644, fs::read(&device.certificate)?)
        .file("etc/moorline/device.key", 0o600, fs::read(&device.key)?))
}

/// What is in its configuration, for a test that changes it.
#[must_use]
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.set("server.address", guest::SERVER);
    settings.set("server.name", SERVER_NAME);
    settings.set("server.trust", "/etc/moorline/ca.pem");
    settings.set("identity.certificate", "/etc/moorline/device.pem");
    settings.set("modem.port", "/dev/ttyUSB*");
    settings.set("heartbeat.interval", "1s");
    settings.set("heartbeat.timeout", "4s");
    settings.set("reconnect.first", "200ms");
    settings.set("reconnect.max", "2s");
    settings
}

/// The smallest agent for a board, as `packaging/build` has left it.
#[track_caller]
fn agent(board: Board) -> Result<PathBuf, Failure> {
    let triple = match board {
        Board::Armhf => "armv7-unknown-linux-musleabihf",
        Board::Arm64 => "aarch64-unknown-linux-musl",
    };
    let agent = distribution().join(triple).join("smallest/moorline-agent");
    if agent.exists() {
        return Ok(agent);
    }
    Err(Failure::new(format!("no agent for the board yet: ./packaging/build --flavour smallest {triple}")))
}

#[track_caller]
fn source(path: &str) -> Result<Vec<u8>, Failure> {
    Ok(fs::read(repository().join(path))?)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
