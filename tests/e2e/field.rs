//! Agents in the field: behind carriers' NATs and on bad lines, in network namespaces. The field is proven first, with
//! plain TCP: a NAT forgets as it says, a line is as slow as it says.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use moorline_testbed::failure::Failure;
use moorline_testbed::field::{Field, Forgetting, Nat, Quality, Version, may_have_fields};
use moorline_testbed::left_out::left_out;

const SOON: Duration = Duration::from_secs(2);

#[test]
fn silent_nat_drops_both_sides() -> Result<(), Failure> {
    let Some(mut pair) = Pair::forgotten(Forgetting::Silent)? else { return Ok(()) };
    pair.server.write_all(b"down")?;
    assert_eq!(heard(&mut pair.device)?, "silence");
    pair.device.write_all(b"up")?;
    assert_eq!(heard(&mut pair.server)?, "silence");
    Ok(())
}

#[test]
fn remapping_nat_makes_the_server_reset() -> Result<(), Failure> {
    let Some(mut pair) = Pair::forgotten(Forgetting::Remapping)? else { return Ok(()) };
    pair.server.write_all(b"down")?;
    assert_eq!(heard(&mut pair.device)?, "silence");
    pair.device.write_all(b"up")?;
    assert_eq!(heard(&mut pair.device)?, "reset");
    Ok(())
}

#[test]
fn healing_nat_is_mended_by_the_device() -> Result<(), Failure> {
    let Some(mut pair) = Pair::forgotten(Forgetting::Healing)? else { return Ok(()) };
    pair.server.write_all(b"down")?;
    assert_eq!(heard(&mut pair.device)?, "silence");
    pair.device.write_all(b"up")?;
    assert_eq!(heard(&mut pair.server)?, "up");
    assert_eq!(heard(&mut pair.device)?, "down");
    Ok(())
}

#[test]
fn flow_that_is_not_silent_is_kept() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let field = Field::behind(NAT)?;
    let mut pair = Pair::over(&field)?;
    for _ in 0..4 {
        assert_eq!(listen(&mut pair.device, NAT.after / 2)?, "silence");
        pair.server.write_all(b"down")?;
        assert_eq!(heard(&mut pair.device)?, "down");
    }
    Ok(())
}

#[test]
fn line_is_as_slow_as_it_says() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let field = Field::new(Version::V6)?;
    let mut pair = Pair::over(&field)?;
    field.line.set(Quality::EDGE);
    let begun = now();
    pair.device.write_all(&[b'x'; 1000])?;
    let mut all = [0; 1000];
    pair.server.set_read_timeout(Some(10 * SOON))?;
    pair.server.read_exact(&mut all)?;
    // 1,072 bytes with their headers at 50 kbit/s, and the latency.
    let took = now() - begun;
    assert!(took >= Duration::from_millis(171 + 350), "{took:?}");
    Ok(())
}

const NAT: Nat = Nat { forgetting: Forgetting::Silent, after: Duration::from_secs(2) };

fn allowed() -> bool {
    let allowed = may_have_fields();
    if !allowed {
        left_out("fields need root, ip, nft and /dev/net/tun");
    }
    allowed
}

/// Two plain sockets, one at each end of a field.
struct Pair {
    device: TcpStream,
    server: TcpStream,
    _field: Option<Field>,
}

impl Pair {
    /// A pair whose flow the carrier has forgotten.
    fn forgotten(forgetting: Forgetting) -> Result<Option<Self>, Failure> {
        if !allowed() {
            return Ok(None);
        }
        let field = Field::behind(Nat { forgetting, ..NAT })?;
        let mut pair = Self::over(&field)?;
        pair._field = Some(field);
        assert_eq!(listen(&mut pair.device, NAT.after + Duration::from_secs(1))?, "silence");
        Ok(Some(pair))
    }

    #[expect(clippy::disallowed_methods, reason = "plain sockets prove the field")]
    fn over(field: &Field) -> Result<Self, Failure> {
        let address = SocketAddr::new(field.server_address(), 0);
        let listener = field.server.within(|| Ok(TcpListener::bind(address)?))?;
        let address = listener.local_addr()?;
        let mut device = field.device.within(|| Ok(TcpStream::connect(address)?))?;
        let (mut server, _) = listener.accept()?;
        device.write_all(b"hello")?;
        assert_eq!(heard(&mut server)?, "hello");
        Ok(Self { device, server, _field: None })
    }
}

fn heard(stream: &mut TcpStream) -> Result<String, Failure> {
    listen(stream, SOON)
}

/// What comes within `patience`, in words.
fn listen(stream: &mut TcpStream, patience: Duration) -> Result<String, Failure> {
    stream.set_read_timeout(Some(patience))?;
    let mut buffer = [0; 64];
    match stream.read(&mut buffer) {
        Ok(len) => Ok(String::from_utf8_lossy(&buffer[..len]).into_owned()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok("silence".to_owned()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok("reset".to_owned()),
        Err(error) => Err(error.into()),
    }
}

#[expect(clippy::disallowed_methods, reason = "a line's latency is measured")]
fn now() -> Instant {
    Instant::now()
}
