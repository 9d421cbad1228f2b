//! systemd's part in socket activation (sd_listen_fds(3)): two listening sockets that outlive the servers they are handed
//! to.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Command;

use crate::failure::Failure;
use crate::process::Program;
use crate::rig::{ServerSetup, host};

/// The program finds the sockets as its descriptors 3 and 4, and its own id in `LISTEN_PID`.
const HAND_OVER: &str = "exec 3<&0 4<&1 </dev/null >&2; export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$@\"";

/// Two sockets that listen on ports of their own; they close with the value.
pub struct HeldSockets([TcpListener; 2]);

impl HeldSockets {
    /// On free ports.
    ///
    /// # Errors
    /// There are none.
    pub fn new() -> Result<Self, Failure> {
        #[expect(clippy::disallowed_methods, reason = "in systemd's place")]
        let listen = || TcpListener::bind(SocketAddr::new(host(), 0));
        Ok(Self([listen()?, listen()?]))
    }

    /// Where they listen, in the order in which they are handed over.
    ///
    /// # Errors
    /// They have no address.
    pub fn addresses(&self) -> Result<[SocketAddr; 2], Failure> {
        let [first, second] = &self.0;
        Ok([first.local_addr()?, second.local_addr()?])
    }

    /// Starts a server that is handed both.
    ///
    /// # Errors
    /// It cannot be started.
    #[track_caller]
    pub fn start(&self, server: &ServerSetup) -> Result<Program, Failure> {
        let server = server.command()?;
        let mut shell = Command::new("sh");
        shell.args(["-c", HAND_OVER, "sh"]).arg(server.get_program()).args(server.get_args());
        let [first, second] = &self.0;
        let (first, second) = (OwnedFd::from(first.try_clone()?), OwnedFd::from(second.try_clone()?));
        Program::start_between(&mut shell, first, second)
    }
}
