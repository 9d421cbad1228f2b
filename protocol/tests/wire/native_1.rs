//! ALPN `moorline/1`. If this fails, do not change the test: see the folder's `main.rs`.

use heapless::String;
use moorline_protocol::{
    ALPN, DeviceMessage, Hello, MessageError, Rejected, ServerGoodbye, ServerMessage, Status, Time, Usage,
    UsageBytes, Used, Welcome, device_goodbye, rejection, server_goodbye, usage_level,
};

/// What a device says is these bytes, length included, and these bytes are what it says.
#[track_caller]
fn device_says(message: &DeviceMessage, frame: &[u8]) {
    let mut out = [0xaa; DeviceMessage::MAX_ENCODED];
    let written = message.encode(&mut out).expect("MAX_ENCODED is enough");
    assert_eq!(&out[..written], frame);
    assert_eq!(DeviceMessage::decode(&frame[1..]).as_ref(), Ok(message));
}

/// What the server says is these bytes, length included, and these bytes are what it says.
#[track_caller]
fn server_says(message: &ServerMessage, frame: &[u8]) {
    let mut out = [0xaa; ServerMessage::MAX_ENCODED];
    let written = message.encode(&mut out).expect("MAX_ENCODED is enough");
    assert_eq!(&out[..written], frame);
    assert_eq!(ServerMessage::decode(&frame[1..]).as_ref(), Ok(message));
}

fn text<const N: usize>(text: &str) -> String<N> {
    String::try_from(text).expect("a text that fits")
}

#[test]
fn alpn() {
    assert_eq!(ALPN, b"moorline/1");
}

#[test]
fn hello() {
    let hello = Hello {
        imei: 490_154_203_237_518,
        app_id: [
            0x99, 0x6d, 0xa3, 0x8d, 0xa7, 0xbe, 0x49, 0x47, 0xaa, 0x4c, 0xf8, 0x20, 0x8b, 0x5f, 0x4a, 0xde,
        ],
        agent_version: text("0.1.0"),
        boot_id: [
            0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
        ],
        heartbeat_s: 60,
        modem: text("Quectel EG25-G"),
    };
    let frame = [
        0x3e, // 62 bytes follow
        0x00, // Hello
        0x8e, 0x99, 0xad, 0xd9, 0xae, 0xb9, 0x6f, // imei: 490154203237518 as a varint
        0x99, 0x6d, 0xa3, 0x8d, 0xa7, 0xbe, 0x49, 0x47, // app_id: a fixed array has no length
        0xaa, 0x4c, 0xf8, 0x20, 0x8b, 0x5f, 0x4a, 0xde, //
        0x05, b'0', b'.', b'1', b'.', b'0', // agent_version: its length, then UTF-8
        0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, // boot_id
        0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, //
        0x3c, // heartbeat_s: 60
        0x0e, b'Q', b'u', b'e', b'c', b't', b'e', b'l', b' ', b'E', b'G', b'2', b'5', b'-',
        b'G', // modem
    ];
    device_says(&DeviceMessage::Hello(hello), &frame);
}

#[test]
fn hello_of_a_device_without_a_modem() {
    let hello = Hello {
        imei: 15_184_008_301_272, // shown as 015184008301272
        app_id: [0; 16],
        agent_version: text("0.1.0"),
        boot_id: [0; 16],
        heartbeat_s: 1740,
        modem: text(""),
    };
    let frame = [
        0x31, // 49 bytes follow
        0x00, // Hello
        0xd8, 0x95, 0xaf, 0xeb, 0xf4, 0xb9, 0x03, // imei
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // app_id: the nil UUID
        0x05, b'0', b'.', b'1', b'.', b'0', // agent_version
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // boot_id
        0xcc, 0x0d, // heartbeat_s: 1740
        0x00, // modem: empty
    ];
    device_says(&DeviceMessage::Hello(hello), &frame);
}

#[test]
fn heartbeat() {
    device_says(&DeviceMessage::Heartbeat, &[0x01, 0x01]);
}

#[test]
fn time_request() {
    let frame = [
        0x07, // 7 bytes follow
        0x02, // TimeRequest
        0x80, 0x96, 0xa8, 0x96, 0x95, 0x67, // t1: 2026-03-01 12:34:56 UTC in ms, zigzag: 3544736992000
    ];
    device_says(&DeviceMessage::TimeRequest { t1: 1_772_368_496_000 }, &frame);
}

#[test]
fn time_request_of_a_clock_before_1970() {
    device_says(&DeviceMessage::TimeRequest { t1: -1 }, &[0x02, 0x02, 0x01]);
}

#[test]
fn status_of_a_device_that_knows_everything() {
    let status = Status {
        signal_dbm: Some(-71),
        registration: Some(5),
        operator: Some(text("262-01")),
        uptime_s: Some(86_400),
        memory_kb: Some(51_200),
        load: Some(125),
        temperature: Some(-125),
    };
    let frame = [
        0x1b, // 27 bytes follow
        0x03, // Status
        0x01, 0x8d, 0x01, // signal_dbm: there, -71 zigzag 141
        0x01, 0x05, // registration: there, 5
        0x01, 0x06, b'2', b'6', b'2', b'-', b'0', b'1', // operator: there, its length, then UTF-8
        0x01, 0x80, 0xa3, 0x05, // uptime_s: there, 86400
        0x01, 0x80, 0x90, 0x03, // memory_kb: there, 51200
        0x01, 0x7d, // load: there, 1.25 in hundredths
        0x01, 0xf9, 0x01, // temperature: there, -12.5 in tenths, zigzag 249
    ];
    device_says(&DeviceMessage::Status(status), &frame);
}

#[test]
fn status_of_a_device_that_knows_nothing() {
    let frame = [
        0x08, // 8 bytes follow
        0x03, // Status
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // seven absent fields
    ];
    device_says(&DeviceMessage::Status(Status::default()), &frame);
}

#[test]
fn device_goodbyes() {
    device_says(&DeviceMessage::Goodbye { reason: device_goodbye::OTHER }, &[0x02, 0x04, 0x00]);
    device_says(&DeviceMessage::Goodbye { reason: device_goodbye::STOPPING }, &[0x02, 0x04, 0x01]);
    device_says(&DeviceMessage::Goodbye { reason: device_goodbye::RELOADING }, &[0x02, 0x04, 0x02]);
    device_says(&DeviceMessage::Goodbye { reason: device_goodbye::PROTOCOL_ERROR }, &[0x02, 0x04, 0x03]);
}

#[test]
fn device_goodbye_for_the_months_bytes() {
    device_says(&DeviceMessage::Goodbye { reason: device_goodbye::BUDGET }, &[0x02, 0x04, 0x04]);
}

/// A u8 is one byte and no varint, so a reason from 128 on is one byte too.
#[test]
fn device_goodbye_of_a_later_time() {
    device_says(&DeviceMessage::Goodbye { reason: 200 }, &[0x02, 0x04, 0xc8]);
}

#[test]
fn interval() {
    device_says(&DeviceMessage::Interval { seconds: 1740 }, &[0x03, 0x05, 0xcc, 0x0d]);
}

#[test]
fn echo_ack() {
    let frame = [0x06, 0x06, 0xef, 0xfd, 0xb6, 0xf5, 0x0d];
    device_says(&DeviceMessage::EchoAck { token: 0xdead_beef }, &frame);
}

#[test]
fn usage_of_a_device_near_its_bounds() {
    let usage = Usage {
        bytes: UsageBytes {
            full: 2_856,
            resumed: 4_000_000,
            heartbeats: 257_000,
            reports: 3_300,
            time: 6_840,
            other: 380,
            headers: 1_600_000,
        },
        hour: Used {
            amount: 3,
            limit: Some(60),
            level: usage_level::FREE,
            peak: usage_level::SPENT,
            left_s: 3_540,
        },
        day: Used {
            amount: 600,
            limit: Some(720),
            level: usage_level::NEAR,
            peak: usage_level::NEAR,
            left_s: 43_200,
        },
        month: Used {
            amount: 10_000_000,
            limit: Some(10_000_000),
            level: usage_level::SPENT,
            peak: usage_level::SPENT,
            left_s: 864_000,
        },
    };
    let frame = [
        0x32, // 50 bytes follow
        0x07, // Usage
        0xa8, 0x16, // bytes.full: 2856
        0x80, 0x92, 0xf4, 0x01, // bytes.resumed: 4000000
        0xe8, 0xd7, 0x0f, // bytes.heartbeats: 257000
        0xe4, 0x19, // bytes.reports: 3300
        0xb8, 0x35, // bytes.time: 6840
        0xfc, 0x02, // bytes.other: 380
        0x80, 0xd4, 0x61, // bytes.headers: 1600000
        0x03, // hour.amount: 3
        0x01, 0x3c, // hour.limit: there, 60
        0x00, // hour.level: free
        0x02, // hour.peak: spent
        0xd4, 0x1b, // hour.left_s: 3540
        0xd8, 0x04, // day.amount: 600
        0x01, 0xd0, 0x05, // day.limit: there, 720
        0x01, // day.level: near
        0x01, // day.peak: near
        0xc0, 0xd1, 0x02, // day.left_s: 43200
        0x80, 0xad, 0xe2, 0x04, // month.amount: 10000000
        0x01, 0x80, 0xad, 0xe2, 0x04, // month.limit: there, 10000000
        0x02, // month.level: spent
        0x02, // month.peak: spent
        0x80, 0xde, 0x34, // month.left_s: 864000
    ];
    device_says(&DeviceMessage::Usage(usage), &frame);
}

#[test]
fn usage_of_a_device_without_bounds() {
    let frame = [
        0x17, // 23 bytes follow
        0x07, // Usage
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // bytes: none for any purpose, and no headers
        0x00, 0x00, 0x00, 0x00, 0x00, // hour: amount, no limit, level, peak, left_s
        0x00, 0x00, 0x00, 0x00, 0x00, // day
        0x00, 0x00, 0x00, 0x00, 0x00, // month
    ];
    device_says(&DeviceMessage::Usage(Usage::default()), &frame);
}

/// A u8 is one byte and no varint, and a level that is not known is no fault.
#[test]
fn usage_level_of_a_later_time() {
    let mut frame = [0; 24];
    frame[0] = 0x17;
    frame[1] = 0x07;
    frame[11] = 0xc8; // hour.level: 200
    let hour = Used { level: 200, ..Used::default() };
    device_says(&DeviceMessage::Usage(Usage { hour, ..Usage::default() }), &frame);
}

#[test]
fn welcome() {
    let welcome =
        Welcome { session_id: 300, heartbeat_s: 60, server_time_ms: 1_772_368_496_000, spread_s: 120 };
    let frame = [
        0x0b, // 11 bytes follow
        0x00, // Welcome
        0xac, 0x02, // session_id: 300
        0x3c, // heartbeat_s: 60
        0x80, 0x96, 0xa8, 0x96, 0x95, 0x67, // server_time_ms: 2026-03-01 12:34:56 UTC
        0x78, // spread_s: 120
    ];
    server_says(&ServerMessage::Welcome(welcome), &frame);
}

#[test]
fn heartbeat_ack() {
    server_says(&ServerMessage::HeartbeatAck, &[0x01, 0x01]);
}

#[test]
fn time() {
    let time = Time { t1: 1_772_368_496_000, t2: 1_772_368_496_120, t3: 1_772_368_496_123 };
    let frame = [
        0x13, // 19 bytes follow
        0x02, // Time
        0x80, 0x96, 0xa8, 0x96, 0x95, 0x67, // t1
        0xf0, 0x97, 0xa8, 0x96, 0x95, 0x67, // t2: 120 ms later
        0xf6, 0x97, 0xa8, 0x96, 0x95, 0x67, // t3: 3 ms later
    ];
    server_says(&ServerMessage::Time(time), &frame);
}

#[test]
fn rejected() {
    let rejected = Rejected { code: rejection::IDENTITY, text: text("the certificate names another IMEI") };
    let mut frame = vec![
        0x25, // 37 bytes follow
        0x03, // Rejected
        0x02, // code: identity
        0x22, // text: 34 bytes of UTF-8
    ];
    frame.extend_from_slice(b"the certificate names another IMEI");
    server_says(&ServerMessage::Rejected(rejected), &frame);
}

#[test]
fn rejection_codes() {
    for (code, number) in [
        (rejection::OTHER, 0),
        (rejection::BAD_IMEI, 1),
        (rejection::IDENTITY, 2),
        (rejection::UNKNOWN_DEVICE, 3),
        (rejection::BLOCKED, 4),
        (rejection::CERTIFICATE, 5),
        (rejection::PROTOCOL_ERROR, 6),
    ] {
        let rejected = Rejected { code, text: text("") };
        server_says(&ServerMessage::Rejected(rejected), &[0x03, 0x03, number, 0x00]);
    }
}

#[test]
fn server_goodbyes() {
    for (reason, number) in [
        (server_goodbye::OTHER, 0),
        (server_goodbye::STOPPING, 1),
        (server_goodbye::REPLACED, 2),
        (server_goodbye::IDLE, 3),
        (server_goodbye::PROTOCOL_ERROR, 4),
        (server_goodbye::DROPPED, 5),
        (server_goodbye::CERTIFICATE, 6),
    ] {
        let goodbye = ServerGoodbye { reason, retry_after_s: 300 };
        server_says(&ServerMessage::Goodbye(goodbye), &[0x04, 0x04, number, 0xac, 0x02]);
    }
}

#[test]
fn echo() {
    server_says(&ServerMessage::Echo { token: 5 }, &[0x02, 0x05, 0x05]);
}

/// The last discriminant that there can be, so that this stays true when new messages come.
#[test]
fn messages_of_a_later_time_are_told_apart() {
    assert_eq!(DeviceMessage::decode(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(MessageError::Unknown(u32::MAX)));
    assert_eq!(ServerMessage::decode(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(MessageError::Unknown(u32::MAX)));
}
