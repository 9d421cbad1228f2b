//! Headers, whole and broken, in one piece and in many.

use proptest::prelude::*;

use super::*;

/// A header of these parts.
fn header(version_command: u8, transport: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[version_command, transport], &length, body].concat()
}

fn whole(bytes: &[u8]) -> Introduced {
    match read(bytes) {
        Ok(Progress::Whole(introduced)) => introduced,
        other => panic!("{other:?}"),
    }
}

/// What a shell makes of a stream: it asks for as many bytes as the reader says, and gives it `piece` at a time.
fn from_stream(stream: &[u8], piece: usize) -> (Option<Result<Introduced, ProxyError>>, usize) {
    let mut taken = 0;
    loop {
        match read(&stream[..taken]) {
            Ok(Progress::Whole(introduced)) => return (Some(Ok(introduced)), taken),
            Err(fault) => return (Some(Err(fault)), taken),
            Ok(Progress::Unfinished(wanted)) => {
                assert!(wanted > taken && wanted <= MAX_HEADER, "{wanted} of {taken}");
                let more = (wanted - taken).min(piece).min(stream.len() - taken);
                if more == 0 {
                    return (None, taken);
                }
                taken += more;
            }
        }
    }
}

#[test]
fn device_is_introduced_over_both_families() {
    let v4 = header(0x21, 0x11, &[203, 0, 113, 7, 10, 0, 0, 1, 0x16, 0x2e, 0x23, 0x81]);
    assert_eq!(whole(&v4), Introduced::Device("203.0.113.7:5678".parse().unwrap()));
    let v6: Vec<u8> =
        [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &[0; 16], &[0, 7, 0, 8]].concat();
    assert_eq!(whole(&header(0x21, 0x21, &v6)), Introduced::Device("[2001:db8::9]:7".parse().unwrap()));
}

#[test]
fn mapped_address_is_shown_as_ipv4() {
    let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
    let body = [&mapped[..], &[0; 16], &[0, 7, 0, 8]].concat();
    assert_eq!(whole(&header(0x21, 0x21, &body)), Introduced::Device("192.0.2.1:7".parse().unwrap()));
}

#[test]
fn health_check_introduces_the_balancer() {
    for (version_command, transport, body) in [
        (0x20, 0, &[][..]),
        (0x20, 0x11, &[9; 12]),
        (0x20, 0x31, &[9; 216]),
        (0x21, 0, &[]),
        (0x21, 0, &[9; 5]),
    ] {
        assert_eq!(whole(&header(version_command, transport, body)), Introduced::Itself);
    }
}

#[test]
fn broken_header_is_told_apart() {
    let cases = [
        (header(0x21, 0x12, &[0; 12]), ProxyError::Transport(0x12)),
        (header(0x21, 0x31, &[0; 216]), ProxyError::Transport(0x31)),
        (header(0x21, 0x11, &[0; 11]), ProxyError::Short(11)),
        (header(0x21, 0x21, &[0; 35]), ProxyError::Short(35)),
        (header(0x22, 0x11, &[0; 12]), ProxyError::Command(2)),
        (header(0x11, 0x11, &[0; 12]), ProxyError::Version(1)),
        (header(0x20, 0, &vec![0; MAX_HEADER - FIXED + 1]), ProxyError::Long(MAX_HEADER - FIXED + 1)),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), ProxyError::Version1),
        (b"PROXIMA".to_vec(), ProxyError::Absent),
        (vec![22, 3, 1, 2, 0], ProxyError::Absent),
        (b"\r\n\r\nQUIT".to_vec(), ProxyError::Absent),
    ];
    for (bytes, fault) in cases {
        assert_eq!(from_stream(&bytes, 1).0, Some(Err(fault)), "{bytes:?}");
        assert_eq!(from_stream(&bytes, 4096).0, Some(Err(fault)), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn tlvs_and_what_follows_are_left_alone(
        ip in any::<[u8; 4]>(), port: u16, tlvs in prop::collection::vec(any::<u8>(), 0..600), rest in prop::collection::vec(any::<u8>(), 0..50), piece in 1_usize..80
    ) {
        let body = [&ip[..], &[0; 4], &port.to_be_bytes(), &[0; 2], &tlvs].concat();
        let header = header(0x21, 0x11, &body);
        let (read, taken) = from_stream(&[&header[..], &rest].concat(), piece);
        prop_assert_eq!(read, Some(Ok(Introduced::Device((ip, port).into()))));
        prop_assert_eq!(taken, header.len());
    }

    #[test]
    fn any_bytes_are_judged_the_same_in_any_pieces(bytes in prop::collection::vec(any::<u8>(), 0..100), signed: bool, piece in 1_usize..80) {
        let bytes = if signed { [&SIGNATURE[..], &bytes].concat() } else { bytes };
        prop_assert_eq!(from_stream(&bytes, piece).0, from_stream(&bytes, usize::MAX).0);
    }

    #[test]
    fn beginning_of_a_header_is_unfinished(body in prop::collection::vec(any::<u8>(), 12..100), cut in 0_usize..200) {
        let header = header(0x21, 0x11, &body);
        let cut = cut.min(header.len() - 1);
        prop_assert!(matches!(read(&header[..cut]), Ok(Progress::Unfinished(_))));
    }
}
