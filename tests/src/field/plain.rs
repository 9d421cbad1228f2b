//! Two plain sockets, one at each end of a field: they prove that it is what it says, before anybody is tried in it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::{Field, Forgetting, Nat};
use crate::failure::Failure;

/// How long nothing has to come until it is silence.
const SOON: Duration = Duration::from_secs(2);

/// See the module.
pub struct Pair {
    /// The device's.
    pub device: TcpStream,
    /// The server's.
    pub server: TcpStream,
}

impl Pair {
    /// Connected, and the first word said.
    ///
    /// # Errors
    /// It does not get through.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "plain sockets prove the field")]
    pub fn over(field: &Field) -> Result<Self, Failure> {
        let address = SocketAddr::new(field.server_address(), 0);
        let listener = field.server.within(|| Ok(TcpListener::bind(address)?))?;
        let address = listener.local_addr()?;
        let mut device = field.device.within(|| Ok(TcpStream::connect(address)?))?;
        let (mut server, _) = listener.accept()?;
        device.write_all(b"hello")?;
        expect("server", &mut server, "hello")?;
        Ok(Self { device, server })
    }

    /// Is silent for a second longer than `nat` bears, and sees that the flow is forgotten in the NAT's own way.
    ///
    /// # Errors
    /// It is not.
    #[track_caller]
    pub fn prove(mut self, nat: Nat) -> Result<(), Failure> {
        let silence = listen(&mut self.device, nat.after + Duration::from_secs(1))?;
        if silence != SILENCE {
            return Err(Failure::new(format!("nothing was sent, and {silence:?} came")));
        }
        self.server.write_all(b"down")?;
        expect("device", &mut self.device, SILENCE)?;
        self.device.write_all(b"up")?;
        match nat.forgetting {
            Forgetting::Silent => expect("server", &mut self.server, SILENCE),
            Forgetting::Remapping => expect("device", &mut self.device, "reset"),
            Forgetting::Healing => {
                expect("server", &mut self.server, "up")?;
                expect("device", &mut self.device, "down")
            }
        }
    }
}

const SILENCE: &str = "silence";

#[track_caller]
fn expect(whom: &str, stream: &mut TcpStream, wanted: &str) -> Result<(), Failure> {
    let heard = heard(stream)?;
    if heard == wanted {
        return Ok(());
    }
    Err(Failure::new(format!("{whom} heard {heard:?} instead of {wanted:?}")))
}

/// What comes soon, in words.
///
/// # Errors
/// The socket fails in another way than by a reset.
pub fn heard(stream: &mut TcpStream) -> Result<String, Failure> {
    listen(stream, SOON)
}

/// What comes within `patience`, in words.
///
/// # Errors
/// The socket fails in another way than by a reset.
pub fn listen(stream: &mut TcpStream, patience: Duration) -> Result<String, Failure> {
    stream.set_read_timeout(Some(patience))?;
    let mut buffer = [0; 64];
    match stream.read(&mut buffer) {
        Ok(len) => Ok(String::from_utf8_lossy(&buffer[..len]).into_owned()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(SILENCE.to_owned()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok("reset".to_owned()),
        Err(error) => Err(error.into()),
    }
}
