//! Native messages.

use std::fmt::Debug;

use heapless::String;
use moorline_protocol::{
    DeviceMessage, EncodeError, Hello, MessageError, Rejected, ServerGoodbye, ServerMessage, Status, Time,
    Usage, UsageBytes, Used, Welcome,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Discriminants that a version knows: 0 up to these.
const DEVICE_KNOWS: u8 = 8;
const SERVER_KNOWS: u8 = 6;

/// Text of at most `N` bytes, in which characters of one to four bytes stand.
fn text<const N: usize>() -> impl Strategy<Value = String<N>> {
    vec(any::<char>(), 0..=N).prop_map(|chars| {
        let mut text = String::new();
        // What does not fit any more is left out, so the full length comes often.
        chars.into_iter().for_each(|c| drop(text.push(c)));
        text
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    (any::<u64>(), any::<[u8; 16]>(), text(), any::<[u8; 16]>(), any::<u32>(), text()).prop_map(
        |(imei, app_id, agent_version, boot_id, heartbeat_s, modem)| Hello {
            imei,
            app_id,
            agent_version,
            boot_id,
            heartbeat_s,
            modem,
        },
    )
}

fn status() -> impl Strategy<Value = Status> {
    let line = (option::of(any::<i16>()), option::of(any::<u8>()), option::of(text()));
    let host = (option::of(any::<u32>()), option::of(any::<u32>()), option::of(any::<u16>()));
    (line, host, option::of(any::<i16>())).prop_map(
        |((signal_dbm, registration, operator), (uptime_s, memory_kb, load), temperature)| Status {
            signal_dbm,
            registration,
            operator,
            uptime_s,
            memory_kb,
            load,
            temperature,
        },
    )
}

fn used() -> impl Strategy<Value = Used> {
    (any::<u64>(), option::of(any::<u64>()), any::<u8>(), any::<u8>(), any::<u32>())
        .prop_map(|(amount, limit, level, peak, left_s)| Used { amount, limit, level, peak, left_s })
}

fn usage() -> impl Strategy<Value = Usage> {
    (any::<[u32; 7]>(), used(), used(), used()).prop_map(|(bytes, hour, day, month)| {
        let [full, resumed, heartbeats, reports, time, other, headers] = bytes;
        let bytes = UsageBytes { full, resumed, heartbeats, reports, time, other, headers };
        Usage { bytes, hour, day, month }
    })
}

fn device_message() -> impl Strategy<Value = DeviceMessage> {
    prop_oneof![
        hello().prop_map(DeviceMessage::Hello),
        Just(DeviceMessage::Heartbeat),
        any::<i64>().prop_map(|t1| DeviceMessage::TimeRequest { t1 }),
        status().prop_map(DeviceMessage::Status),
        any::<u8>().prop_map(|reason| DeviceMessage::Goodbye { reason }),
        any::<u32>().prop_map(|seconds| DeviceMessage::Interval { seconds }),
        any::<u32>().prop_map(|token| DeviceMessage::EchoAck { token }),
        usage().prop_map(DeviceMessage::Usage),
    ]
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    let welcome = (any::<u64>(), any::<u32>(), any::<i64>(), any::<u32>());
    prop_oneof![
        welcome.prop_map(|(session_id, heartbeat_s, server_time_ms, spread_s)| {
            ServerMessage::Welcome(Welcome { session_id, heartbeat_s, server_time_ms, spread_s })
        }),
        Just(ServerMessage::HeartbeatAck),
        any::<(i64, i64, i64)>().prop_map(|(t1, t2, t3)| ServerMessage::Time(Time { t1, t2, t3 })),
        (any::<u8>(), text()).prop_map(|(code, text)| ServerMessage::Rejected(Rejected { code, text })),
        any::<(u8, u32)>().prop_map(|(reason, retry_after_s)| {
            ServerMessage::Goodbye(ServerGoodbye { reason, retry_after_s })
        }),
        any::<u32>().prop_map(|token| ServerMessage::Echo { token }),
    ]
}

fn device_body(message: &DeviceMessage) -> Vec<u8> {
    let mut out = [0; DeviceMessage::MAX_ENCODED];
    let written = message.encode(&mut out).expect("MAX_ENCODED is enough");
    body(&out[..written])
}

fn server_body(message: &ServerMessage) -> Vec<u8> {
    let mut out = [0; ServerMessage::MAX_ENCODED];
    let written = message.encode(&mut out).expect("MAX_ENCODED is enough");
    body(&out[..written])
}

/// The body of a whole frame, which all of `frame` has to be.
fn body(frame: &[u8]) -> Vec<u8> {
    let mut decoder = moorline_protocol::frame::Decoder::<heapless::Vec<u8, 4098>>::default();
    let mut rest = frame;
    let body = decoder.next(&mut rest).expect("a frame").expect("a whole frame").to_vec();
    assert!(rest.is_empty());
    body
}

/// What holds for the body of every known message, whatever its direction.
fn check_body<M: Debug + PartialEq>(
    message: &M,
    body: &[u8],
    decode: impl Fn(&[u8]) -> Result<M, MessageError>,
) {
    let discriminant = u32::from(body[0]);
    assert_eq!(decode(body).as_ref(), Ok(message));
    for end in 1..body.len() {
        assert_eq!(decode(&body[..end]), Err(MessageError::Malformed(discriminant)), "cut at {end}");
    }
    let trailing = [body, &[0, 0]].concat();
    assert_eq!(decode(&trailing), Err(MessageError::Trailing { discriminant, bytes: 2 }));
    for longer in [&[body[0] | 0x80, 0x00][..], &[body[0] | 0x80, 0x80, 0x00]] {
        let body = [longer, &body[1..]].concat();
        assert_eq!(decode(&body), Err(MessageError::Discriminant));
    }
}

proptest! {
    #![proptest_config(crate::cases())]

    #[test]
    fn device_messages_come_back_as_sent(message in device_message()) {
        check_body(&message, &device_body(&message), DeviceMessage::decode);
    }

    #[test]
    fn server_messages_come_back_as_sent(message in server_message()) {
        check_body(&message, &server_body(&message), ServerMessage::decode);
    }

    #[test]
    fn buffer_too_short_is_an_error(message in device_message(), size in 0..DeviceMessage::MAX_ENCODED) {
        let mut out = [0; DeviceMessage::MAX_ENCODED];
        let frame = message.encode(&mut out).expect("MAX_ENCODED is enough");
        let outcome = message.encode(&mut out[..size]);
        // One spare byte may be asked for: the length field is written last.
        let fits = match outcome {
            Ok(written) => written == frame && size >= frame,
            Err(EncodeError) => size <= frame,
        };
        prop_assert!(fits, "{outcome:?} for {size} bytes");
    }

    #[test]
    fn any_bytes_are_a_message_or_a_fault(body in vec(any::<u8>(), 0..200)) {
        if let Ok(message) = DeviceMessage::decode(&body) {
            prop_assert_eq!(DeviceMessage::decode(&device_body(&message)), Ok(message));
        }
        if let Ok(message) = ServerMessage::decode(&body) {
            prop_assert_eq!(ServerMessage::decode(&server_body(&message)), Ok(message));
        }
    }

    #[test]
    fn known_discriminants_with_any_fields_are_never_unknown(
        discriminant in 0..DEVICE_KNOWS,
        fields in vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..200),
    ) {
        let body = [&[discriminant][..], &fields].concat();
        let known = |outcome| !matches!(outcome, Some(MessageError::Unknown(_) | MessageError::Discriminant));
        prop_assert!(known(DeviceMessage::decode(&body).err()));
        prop_assert!(discriminant >= SERVER_KNOWS || known(ServerMessage::decode(&body).err()));
    }

    #[test]
    fn unknown_discriminants_are_told_apart(
        unknown in prop_oneof![u32::from(DEVICE_KNOWS)..300, any::<u32>()],
        rest in vec(any::<u8>(), 0..20),
    ) {
        prop_assume!(unknown >= u32::from(DEVICE_KNOWS));
        let body = [varint(unknown), rest].concat();
        prop_assert_eq!(DeviceMessage::decode(&body), Err(MessageError::Unknown(unknown)));
        prop_assert_eq!(ServerMessage::decode(&body), Err(MessageError::Unknown(unknown)));
    }
}

/// A varint by the book.
fn varint(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[test]
fn first_unknown_discriminants() {
    assert_eq!(DeviceMessage::decode(&[DEVICE_KNOWS]), Err(MessageError::Unknown(8)));
    assert_eq!(ServerMessage::decode(&[SERVER_KNOWS]), Err(MessageError::Unknown(6)));
    assert_eq!(DeviceMessage::decode(&[DEVICE_KNOWS - 1]), Err(MessageError::Malformed(7)));
    assert_eq!(ServerMessage::decode(&[SERVER_KNOWS - 1]), Err(MessageError::Malformed(5)));
}

#[test]
fn discriminants_that_are_none() {
    for body in [
        &[][..],
        &[0x80],
        &[0x80, 0x80, 0x80, 0x80],
        &[0x80, 0x00],                         // 0 in two bytes
        &[0x81, 0x80, 0x00],                   // 1 in three
        &[0xff, 0xff, 0xff, 0xff, 0x1f],       // 2^33 - 1
        &[0x80, 0x80, 0x80, 0x80, 0x10],       // 2^32
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0x00], // six bytes
    ] {
        assert_eq!(DeviceMessage::decode(body), Err(MessageError::Discriminant), "{body:02x?}");
        assert_eq!(ServerMessage::decode(body), Err(MessageError::Discriminant), "{body:02x?}");
    }
}

#[test]
fn fields_over_their_limit_are_refused() {
    let long_text = [&[3, 0, 97][..], &[b'x'; 97]].concat();
    assert_eq!(ServerMessage::decode(&long_text), Err(MessageError::Malformed(3)));
    let no_utf8 = [3, 0, 1, 0xff];
    assert_eq!(ServerMessage::decode(&no_utf8), Err(MessageError::Malformed(3)));
    let neither_there_nor_absent = [3, 2, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(DeviceMessage::decode(&neither_there_nor_absent), Err(MessageError::Malformed(3)));
    let over_u32 = [5, 0xff, 0xff, 0xff, 0xff, 0x1f];
    assert_eq!(DeviceMessage::decode(&over_u32), Err(MessageError::Malformed(5)));
}

/// Every field at its longest, by hand: the array literals break when a message gets a field.
#[test]
fn longest_messages_fit_max_encoded() {
    let full = |filler: &str| filler.repeat(200);
    let hello = DeviceMessage::Hello(Hello {
        imei: u64::MAX,
        app_id: [0xff; 16],
        agent_version: String::try_from(&full("v")[..16]).expect("16 bytes"),
        boot_id: [0xff; 16],
        heartbeat_s: u32::MAX,
        modem: String::try_from(&full("m")[..48]).expect("48 bytes"),
    });
    let status = DeviceMessage::Status(Status {
        signal_dbm: Some(i16::MIN),
        registration: Some(u8::MAX),
        operator: Some(String::try_from(&full("o")[..8]).expect("8 bytes")),
        uptime_s: Some(u32::MAX),
        memory_kb: Some(u32::MAX),
        load: Some(u16::MAX),
        temperature: Some(i16::MIN),
    });
    let used =
        Used { amount: u64::MAX, limit: Some(u64::MAX), level: u8::MAX, peak: u8::MAX, left_s: u32::MAX };
    let bytes = UsageBytes {
        full: u32::MAX,
        resumed: u32::MAX,
        heartbeats: u32::MAX,
        reports: u32::MAX,
        time: u32::MAX,
        other: u32::MAX,
        headers: u32::MAX,
    };
    let usage = DeviceMessage::Usage(Usage { bytes, hour: used.clone(), day: used.clone(), month: used });
    let rejected = ServerMessage::Rejected(Rejected {
        code: u8::MAX,
        text: String::try_from(&full("t")[..96]).expect("96 bytes"),
    });
    let time = ServerMessage::Time(Time { t1: i64::MIN, t2: i64::MIN, t3: i64::MIN });
    let welcome = ServerMessage::Welcome(Welcome {
        session_id: u64::MAX,
        heartbeat_s: u32::MAX,
        server_time_ms: i64::MIN,
        spread_s: u32::MAX,
    });
    assert_eq!(device_body(&hello).len(), 1 + 10 + 16 + (1 + 16) + 16 + 5 + (1 + 48));
    assert_eq!(device_body(&status).len(), 1 + 7 + 3 + 1 + (1 + 8) + 5 + 5 + 3 + 3);
    assert_eq!(device_body(&usage).len(), 1 + 7 * 5 + 3 * (10 + 11 + 1 + 1 + 5));
    assert_eq!(server_body(&rejected).len(), 1 + 1 + (1 + 96));
    assert_eq!(server_body(&time).len(), 1 + 3 * 10);
    assert_eq!(server_body(&welcome).len(), 1 + 10 + 5 + 10 + 5);
}
