//! A name server that knows one name, and can be struck dumb (RFC 1035).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::failure::Failure;

/// The name that it knows: any, as nothing else is asked for.
pub const NAME: &str = "gw.field.example";

/// A running one; it ends soon after the value.
pub struct NameServer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    dumb: AtomicBool,
    asked: AtomicUsize,
}

impl NameServer {
    /// Answers on port 53 of `at`, in the calling thread's network namespace, that every name is at `at`.
    ///
    /// # Errors
    /// The port cannot be had.
    #[track_caller]
    pub fn start(at: IpAddr) -> Result<Self, Failure> {
        #[expect(clippy::disallowed_methods, reason = "the name server's one socket")]
        let socket = UdpSocket::bind(SocketAddr::new(at, 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let shared = Arc::new(Shared::default());
        let alive = Arc::downgrade(&shared);
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Some(shared) = alive.upgrade() {
                let Ok((len, client)) = socket.recv_from(&mut buffer) else { continue };
                shared.asked.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = answer(&buffer[..len], at)
                    && !shared.dumb.load(Ordering::SeqCst)
                {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Ok(Self(shared))
    }

    /// From now on it answers nobody, or everybody.
    pub fn set_dumb(&self, dumb: bool) {
        self.0.dumb.store(dumb, Ordering::SeqCst);
    }

    /// How many questions came so far.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }
}

/// The question again, and one record for it where it asks for an address of this kind.
fn answer(question: &[u8], address: IpAddr) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name = question.get(HEADER..)?.iter().position(|&byte| byte == 0)?;
    let end = HEADER + name + 5;
    let kind = u16::from_be_bytes([*question.get(end - 4)?, *question.get(end - 3)?]);
    let data = match address {
        IpAddr::V4(v4) if kind == 1 => v4.octets().to_vec(),
        IpAddr::V6(v6) if kind == 28 => v6.octets().to_vec(),
        _ => Vec::new(),
    };
    let records = u8::from(!data.is_empty());
    let mut answer = question.get(..2)?.to_vec();
    // A response, no error; one question, the records, nothing else.
    answer.extend([0x81, 0x80, 0, 1, 0, records, 0, 0, 0, 0]);
    answer.extend(question.get(HEADER..end)?);
    if records == 1 {
        // The name of the question; its kind; IN; a life of none, so that nobody keeps it.
        answer.extend([0xc0, HEADER as u8, 0, kind as u8, 0, 1, 0, 0, 0, 0, 0, data.len() as u8]);
        answer.extend(data);
    }
    Some(answer)
}
