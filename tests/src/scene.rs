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
    /// What the board is switched on with, but for its modem.
    pub setup: GuestSetup,
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
        scene.come_online()?;
        Ok(scene)
    }

    /// Switches the board on again after its power was cut, with its modem not plugged in, and waits until it has come online.
    ///
    /// # Errors
    /// It does not come online within [`BOOT`].
    #[track_caller]
    pub fn switch_on_again(&mut self) -> Result<(), Failure> {
        self.guest = self.setup.clone().boot()?;
        self.guest.wait_shell()?;
        self.come_online()
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
        let with_modem = setup.clone();
        let mut guest = if plugged { with_modem.modem(modem.path()) } else { with_modem }.boot()?;
        guest.wait_shell()?;
        Ok(Self { guest, modem, server, rig, setup })
    }

    #[track_caller]
    fn come_online(&mut self) -> Result<(), Failure> {
        self.guest.wait_journal(board::UNIT, "registered", BOOT)?;
        self.server.operators().wait_online(IMEI, true).map(drop)
    }
}
