//! What comes before a session: a load balancer's word, the beginning of TLS, a certificate.

use moorline_agent::validity;
use moorline_server::client_hello::{self, Progress as Hello};
use moorline_server::identity::{Certificate, Unreadable};
use moorline_server::proxy::{self, Introduced, MAX_HEADER, Progress, ProxyError};
use rustls::pki_types::CertificateDer;
use rustls::server::{Accepted, Acceptor};

/// The signature, with every command and family, and lengths about each limit.
pub(super) const PROXY: &[&[u8]] = &[
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    b"\x21\x12",
    b"\x31\x11",
    b"\x0f\xf0",
    b"\x0f\xf1",
    b"\xff\xff",
    b"\0\x0b",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
];

/// Heads of records and of handshake messages.
pub(super) const HELLO: &[&[u8]] = &[
    &[22, 3, 1, 0, 1],
    &[22, 3, 3, 0x40, 0],
    &[22, 3, 1, 0x40, 1],
    &[22, 3, 1, 0, 0],
    &[1, 0, 0, 0],
    &[1, 0xff, 0xff, 0xff],
    &[21, 3, 3, 0, 2, 1, 0],
    &[0, 43, 0, 3, 2, 3, 4],
    &[0x10, 0, 0, 0x0d, 0, 0x0b, 10],
    b"moorline/1",
    b"GET / HTTP/1.1\r\n",
];

/// What a certificate is made of.
pub(super) const DER: &[&[u8]] = &[
    &[0x30, 0x80],
    &[0x30, 0x82, 0xff, 0xff],
    &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
    &[0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x02, 0x01, 0x02],
    &[0xa0, 0x03, 0x02, 0x01, 0x02],
    b"\x17\x0d491231235959Z",
    b"\x17\x0d500101000000Z",
    b"\x18\x0f99991231235959Z",
    b"\x06\x03\x55\x1d\x11",
    b"urn:gsma:imei:49015420-323751-0",
    b"urn:gsma:imei:",
];

/// The same comes of a header however it is cut, and nothing behind it is taken.
pub(super) fn proxy(stream: &[u8]) {
    let whole = introduced(stream, usize::MAX);
    for size in [1, 7, 16] {
        assert_eq!(introduced(stream, size), whole, "in pieces of {size}");
    }
    if let Some(Err(fault)) = whole {
        assert!(fault.to_string().len() < 160);
    }
}

/// What a stream that comes in pieces of `size` bytes introduces, and how many bytes that took; `None` when it ends before.
fn introduced(stream: &[u8], size: usize) -> Option<Result<(Introduced, usize), ProxyError>> {
    let mut taken = 0;
    loop {
        match proxy::read(&stream[..taken]) {
            Ok(Progress::Whole(introduced)) => return Some(Ok((introduced, taken))),
            Err(error) => return Some(Err(error)),
            Ok(Progress::Unfinished(wanted)) => {
                assert!(taken < wanted && wanted <= MAX_HEADER);
                if taken == stream.len() {
                    return None;
                }
                taken += (wanted - taken).min(size).min(stream.len() - taken);
            }
        }
    }
}

/// rustls, which reads the same bytes afterwards, has to agree: what is called complete is enough for it, and what is called
/// unfinished, or no TLS, is nothing it would go on with.
pub(super) fn client_hello(bytes: &[u8]) {
    let progress = client_hello::progress(bytes);
    for earlier in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let before = client_hello::progress(&bytes[..earlier]);
        if matches!(before, Hello::Complete | Hello::NotTls) {
            assert_eq!(progress, before, "decided after {earlier} bytes");
        }
    }
    match (progress, accepted(bytes)) {
        (Hello::Complete, Ok(None)) => panic!("rustls wants more"),
        (Hello::Unfinished | Hello::NotTls, Ok(Some(_))) => panic!("rustls would go on with it"),
        _ => {}
    }
}

fn accepted(mut bytes: &[u8]) -> Result<Option<Accepted>, String> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).map_err(|fault| fault.to_string())?;
        if let Some(accepted) = acceptor.accept().map_err(|(fault, _)| fault.to_string())? {
            return Ok(Some(accepted));
        }
    }
    Ok(None)
}

/// Both programs read when a certificate ends, each in its way.
pub(super) fn certificate(der: &[u8]) {
    let end = validity::end(&[CertificateDer::from(der)]);
    let read = match Certificate::read(der) {
        Ok(certificate) => certificate,
        Err(Unreadable::Version1(certificate)) => *certificate,
        Err(Unreadable::NotX509) => return,
    };
    if let Some(imei) = read.named_imei() {
        assert_eq!(imei.to_string().parse(), Ok(imei));
    }
    if let Some(end) = end {
        assert_eq!(i64::try_from(end), Ok((read.not_after_ms / 1000).max(0)), "notAfter is read in two ways");
    }
}
