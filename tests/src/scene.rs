//! A tale's whole cast: a board with Moorline on it, the modem that it has or will have, and the server that it looks for.

use moorline_protocol::Imei;

use crate::board;
use crate::failure::Failure;
use crate::guest::{BOOT, Board, Guest, GuestSetup};
use crate::modem::{Modem, Script};
use crate::rig::{IMEI, Rig, Server};

/// A board, its modem and its server; all end with the value.
pub struct Scene {
    /// The board.
    pub guest: Guest,
    /// The modem, plugged in or not.
    pub modem: Modem,
    /// The server.
    pub server: Server,
    /// Their certificates.
    pub rig: Rig,
}

impl Scene {
    /// A board that boots, with its modem not plugged in.
    ///
    /// # Errors
    /// Its shell does not answer within [`BOOT`].
    #[track_caller]
    pub fn new(board: Board) -> Result<Self, Failure> {
        Self::boot(board, false, |setup| setup)
    }

    /// A board that has come online.
    ///
    /// # Errors
    /// It does not come online within [`BOOT`].
    #[track_caller]
    pub fn online(board: Board) -> Result<Self, Failure> {
        Self::online_with(board, |setup| setup)
    }

    /// A board that has come online, with something about it changed before it is switched on.
    ///
    /// # Errors
    /// It does not come online within [`BOOT`].
    #[track_caller]
    pub fn online_with(board: Board, change: impl FnOnce(GuestSetup) -> GuestSetup) -> Result<Self, Failure> {
        let mut scene = Self::boot(board, true, change)?;
        scene.guest.wait_journal(board::UNIT, "registered", BOOT)?;
        scene.server.operators().wait_online(IMEI, true)?;
        Ok(scene)
    }

    #[track_caller]
    fn boot(
        board: Board,
        plugged: bool,
        change: impl FnOnce(GuestSetup) -> GuestSetup,
    ) -> Result<Self, Failure> {
        let rig = Rig::new()?;
        let server = rig.server()?.start()?;
        let modem = Modem::start(Script::ordinary(IMEI))?;
        let device = rig.pki().device(IMEI.parse::<Imei>()?)?;
        let setup = change(board::with_agent(board, rig.pki(), &device)?.server(server.devices()));
        let mut guest = if plugged { setup.modem(modem.path()) } else { setup }.boot()?;
        guest.wait_shell()?;
        Ok(Self { guest, modem, server, rig })
    }
}
