//! A TLS handshake in memory: the server's own TLS, a device made of rustls, and no socket.

use std::sync::Arc;

use moorline_server::tls::{self, Progress, Pump, Refusal, TlsSource};
use rustls::{ClientConfig, ClientConnection};

use crate::failure::Failure;
use crate::rig::SERVER_NAME;

/// Runs it to its end, and says why the server refuses the device, if it does. The device keeps its ticket.
///
/// # Errors
/// The device does not go on with it.
pub fn shaken(source: &TlsSource, config: &Arc<ClientConfig>) -> Result<Result<Pump, Refusal>, Failure> {
    let mut client = ClientConnection::new(Arc::clone(config), SERVER_NAME.try_into()?)?;
    let mut server = source.accept()?;
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    loop {
        while client.wants_write() {
            client.write_tls(&mut incoming)?;
        }
        let (taken, progress) = match server.take(&mut incoming, &mut outgoing, |_| ()) {
            Ok(step) => step,
            Err(error) => return Ok(Err(tls::explain(&error))),
        };
        incoming.drain(..taken);
        let mut answer = outgoing.as_slice();
        while !answer.is_empty() {
            client.read_tls(&mut answer)?;
            client.process_new_packets()?;
        }
        outgoing.clear();
        if progress == Progress::Open {
            return Ok(Ok(server));
        }
    }
}
