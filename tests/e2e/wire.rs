//! Everything that the wire can bring the server and should not, over real TLS: each ends as it should, and an honest device
//! stays online all the while.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use moorline_protocol::{
    DeviceMessage, Hello, Imei, Rejected, ServerGoodbye, ServerMessage, Time, Usage, Used, Welcome, classic,
    rejection, server_goodbye,
};
use moorline_testbed::certs::DeviceFlaw;
use moorline_testbed::client::{Client, Settings, hello};
use moorline_testbed::failure::Failure;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::relay::Relay;
use moorline_testbed::rig::{IMEI, Rig, Server, ServerSetup};
use serde_json::Value;

const HONEST: &str = "869731052403821";
const OTHER: &str = "015184008301272";
const APP_ID: &[u8; 36] = b"996da38d-a7be-4947-aa4c-f8208b5f4ade";

/// A server with an honest device on it, and the device that misbehaves.
struct Place {
    rig: Rig,
    server: Server,
    honest: Client,
    settings: Settings,
}

impl Place {
    fn new() -> Result<Self, Failure> {
        Self::with(|server| server)
    }

    fn with(set: impl FnOnce(ServerSetup) -> ServerSetup) -> Result<Self, Failure> {
        let rig = Rig::new()?;
        let server = set(rig.server()?).start()?;
        let honest = Settings::new(rig.pki(), Some(&rig.pki().device(HONEST.parse()?)?))?;
        let honest = welcome(&server, &honest, HONEST)?;
        let settings = Settings::new(rig.pki(), Some(&rig.pki().device(IMEI.parse()?)?))?;
        Ok(Self { rig, server, honest, settings })
    }

    fn native(&self) -> Result<Client, Failure> {
        welcome(&self.server, &self.settings, IMEI)
    }

    fn classic(&self) -> Result<Client, Failure> {
        self.settings.clone().offering(&[]).connect(self.server.devices())
    }

    /// The honest device is still in the session that it began with.
    #[track_caller]
    fn assert_honest_is_served(&mut self) -> Result<(), Failure> {
        self.honest.send(&DeviceMessage::Heartbeat)?;
        assert_eq!(self.honest.hear()?, Some(ServerMessage::HeartbeatAck));
        Ok(())
    }

    /// Nobody is online but the honest device, which is.
    #[track_caller]
    fn assert_alone(&mut self) -> Result<(), Failure> {
        let operators = self.server.operators();
        operators.wait_until("/readyz", "one device online", |ready| (ready["online"] == 1).then_some(()))?;
        assert_eq!(operators.device(HONEST)?["online"], true);
        self.assert_honest_is_served()
    }
}

fn welcome(server: &Server, settings: &Settings, imei: &str) -> Result<Client, Failure> {
    let mut client = settings.connect(server.devices())?;
    client.say_hello(imei.parse()?)?;
    match client.hear()? {
        Some(ServerMessage::Welcome(_)) => Ok(client),
        other => Err(Failure::new(format!("no Welcome but {other:?}"))),
    }
}

#[track_caller]
fn assert_protocol_error(client: &mut Client, what: &str) {
    match client.hear() {
        Ok(Some(ServerMessage::Goodbye(goodbye))) => {
            assert_eq!(goodbye.reason, server_goodbye::PROTOCOL_ERROR, "{what}");
        }
        other => panic!("{what}: no Goodbye but {other:?}"),
    }
    assert_eq!(client.end(), "closed", "{what}");
}

fn frame(message: &ServerMessage) -> Result<Vec<u8>, Failure> {
    let mut frame = [0; ServerMessage::MAX_ENCODED];
    let len = message.encode(&mut frame)?;
    Ok(frame[..len].to_vec())
}

fn register(imei: &[u8; 15]) -> Vec<u8> {
    classic::Request::Register { app_id: *APP_ID, imei: *imei }.encode().to_vec()
}

fn reply(message: i8, error: i8) -> Vec<u8> {
    classic::Reply { message, error, payload: &[] }.encode().to_vec()
}

/// Bytes that look like nothing, the same in every run (xorshift64).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    });
    bytes.take(len).collect()
}

/// What operators see as `heartbeat_s` is the silence that the device keeps, and not what it was granted.
#[test]
fn silence_that_a_device_tells_is_shown() -> Result<(), Failure> {
    let place = Place::new()?;
    let mut device = place.native()?;
    let operators = place.server.operators();
    assert_eq!(operators.device(IMEI)?["heartbeat_s"], 60);
    for (told, kept) in [(300, 300), (86_400, 1_800)] {
        device.send(&DeviceMessage::Interval { seconds: told })?;
        let path = format!("/api/devices/{IMEI}");
        operators.wait_until(&path, "the silence", |shown| (shown["heartbeat_s"] == kept).then_some(()))?;
    }
    Ok(())
}

#[test]
fn broken_frames_end_the_session_and_nothing_else() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let cases: [(&str, &[u8]); 7] = [
        ("length 0", &[0]),
        ("length over the limit", &[0xff, 0x7f]),
        ("length of three bytes", &[0xff, 0xff, 0x7f]),
        ("length not in its shortest form", &[0x81, 0x00, 1]),
        ("bytes left over", &[2, 1, 1]),
        ("fields that do not fit", &[1, 2]),
        ("no discriminant", &[5, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ];
    for (what, bytes) in cases {
        let mut client = place.native()?;
        client.send_bytes(bytes)?;
        assert_protocol_error(&mut client, what);
        place.assert_honest_is_served()?;
    }
    place.assert_alone()
}

#[test]
fn second_hello_ends_the_session() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let mut client = place.native()?;
    client.say_hello(IMEI.parse()?)?;
    assert_protocol_error(&mut client, "second Hello");
    place.assert_alone()
}

#[test]
fn message_of_a_version_to_come_is_skipped() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let mut newer = place.native()?;
    newer.send_bytes(&[3, 99, 1, 2])?;
    newer.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(newer.hear()?, Some(ServerMessage::HeartbeatAck));
    place.assert_honest_is_served()
}

#[test]
fn messages_of_the_other_direction_end_the_session() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let words =
        ServerMessage::Welcome(Welcome { session_id: 7, heartbeat_s: 60, server_time_ms: 0, spread_s: 30 });
    let mut early = place.settings.connect(place.server.devices())?;
    early.send_bytes(&frame(&words)?)?;
    assert_protocol_error(&mut early, "Welcome instead of Hello");
    for message in [
        words,
        ServerMessage::Time(Time { t1: 1, t2: 2, t3: 3 }),
        ServerMessage::Rejected(Rejected {
            code: rejection::IDENTITY,
            text: "go".try_into().unwrap_or_default(),
        }),
        ServerMessage::Goodbye(ServerGoodbye { reason: 1, retry_after_s: 60 }),
    ] {
        let mut client = place.native()?;
        client.send_bytes(&frame(&message)?)?;
        assert_protocol_error(&mut client, &format!("{message:?}"));
        place.assert_honest_is_served()?;
    }
    place.assert_alone()
}

#[test]
fn hello_that_names_no_imei_is_rejected() -> Result<(), Failure> {
    let mut place = Place::new()?;
    // Another check digit, no device at all, and more digits than an IMEI has.
    for imei in [4_999_010_640_001, 0, u64::MAX] {
        let mut client = place.settings.connect(place.server.devices())?;
        client.send(&DeviceMessage::Hello(Hello { imei, ..hello(IMEI.parse::<Imei>()?) }))?;
        match client.hear()? {
            Some(ServerMessage::Rejected(rejected)) => assert_eq!(rejected.code, rejection::BAD_IMEI),
            other => panic!("{imei}: not rejected but {other:?}"),
        }
        assert_eq!(client.end(), "closed");
        assert!(place.server.wait_for("refused: ")?.contains("the number is not an IMEI: "));
    }
    place.assert_alone()
}

#[test]
fn frame_cut_in_the_middle_is_the_end_of_its_session() -> Result<(), Failure> {
    let mut place = Place::new()?;
    for cut_off in [false, true] {
        let mut native = place.native()?;
        native.send_bytes(&[0xff, 0x1f, 0, 1, 2, 3])?;
        let mut classic = place.classic()?;
        classic.send_bytes(&register(b"004999010640000")[..30])?;
        for mut client in [native, classic] {
            if cut_off {
                client.cut()?;
            } else {
                client.close()?;
                assert_eq!(client.end(), "closed");
            }
        }
        place.server.wait_for(if cut_off {
            "the connection was lost"
        } else {
            "it closed the connection"
        })?;
        place.assert_alone()?;
    }
    Ok(())
}

#[test]
fn broken_classic_frames_end_the_session_and_nothing_else() -> Result<(), Failure> {
    let mut place = Place::new()?;
    // Of length 0, too short for its ids, of 4 GiB, and one byte over the limit.
    for bytes in [[0, 0, 0, 0], [0, 0, 0, 1], [0xff, 0xff, 0xff, 0xff], [0, 1, 0, 1]] {
        let mut client = place.classic()?;
        client.send_bytes(&[&register(b"004999010640000"), &bytes[..]].concat())?;
        assert_eq!(client.hear_bytes(6)?, reply(classic::id::REGISTER, classic::code::OK));
        assert_eq!(client.end(), "closed", "{bytes:?}");
        assert!(
            place.server.wait_for("offline: ")?.contains("it broke the protocol: a classic frame of length")
        );
        place.assert_honest_is_served()?;
    }
    place.assert_alone()
}

#[test]
fn classic_messages_that_nobody_knows_are_answered_with_an_error() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let mut client = place.classic()?;
    // 60,000 bytes of it pass by.
    client.send_bytes(&[&60_000_u32.to_be_bytes()[..], &[0, 77], &[1; 59_998]].concat())?;
    assert_eq!(client.hear_bytes(6)?, reply(77, classic::code::ERROR));
    // A server's answers: to a device's eyes a heartbeat's and a time's, here a REGISTER without its texts.
    let time = classic::Reply { message: 2, error: 0, payload: b"2026-01-01 00:00:00" };
    for answer in [reply(classic::id::HEARTBEAT, classic::code::OK), time.encode().to_vec()] {
        client.send_bytes(&answer)?;
        assert_eq!(client.hear_bytes(6)?, reply(classic::id::REGISTER, classic::code::ERROR));
    }
    client.send_bytes(&classic::Request::Heartbeat.encode())?;
    assert_eq!(client.hear_bytes(6)?, reply(classic::id::HEARTBEAT, classic::code::OK));
    place.assert_honest_is_served()
}

#[test]
fn second_classic_register_is_answered_with_an_error() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let mut client = place.classic()?;
    client.send_bytes(&register(b"004999010640000"))?;
    assert_eq!(client.hear_bytes(6)?, reply(classic::id::REGISTER, classic::code::OK));
    for imei in [b"004999010640000", b"015184008301272"] {
        client.send_bytes(&register(imei))?;
        assert_eq!(client.hear_bytes(6)?, reply(classic::id::REGISTER, classic::code::ERROR));
    }
    client.send_bytes(&classic::Request::Heartbeat.encode())?;
    assert_eq!(client.hear_bytes(6)?, reply(classic::id::HEARTBEAT, classic::code::OK));
    assert!(place.server.operators().device(OTHER)?.is_null());
    place.assert_honest_is_served()
}

#[test]
fn classic_register_that_is_refused_is_told_why_in_the_log() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let cases: [(&[u8; 15], &str, &str); 4] = [
        (b"00499901064000x", "bad_imei", "it holds something other than digits"),
        (b"004999010640001", "bad_imei", "check digit"),
        (b"\xff\xfe4999010640000", "bad_imei", "it holds something other than digits"),
        (b"015184008301272", "identity_mismatch", "the certificate names IMEI 004999010640000"),
    ];
    for (imei, reason, words) in cases {
        // One that is online by its certificate already falls with it.
        let mut client = place.classic()?;
        client.send_bytes(&[&classic::Request::Heartbeat.encode()[..], &register(imei)].concat())?;
        assert_eq!(client.hear_bytes(6)?, reply(classic::id::HEARTBEAT, classic::code::OK));
        assert_eq!(client.hear_bytes(6)?, reply(classic::id::REGISTER, classic::code::ERROR));
        assert_eq!(client.end(), "closed");
        let line = place.server.wait_for(" refused: ")?;
        assert!(line.contains(&format!("reason=\"{reason}\"")) && line.contains(words), "{words:?}: {line}");
        place.server.wait_for("offline: it was refused: ")?;
    }
    let operators = place.server.operators();
    let kind = |kind| {
        move |list: &Value| list["events"].as_array()?.iter().find(|event| event["kind"] == kind).cloned()
    };
    let mismatch = operators.wait_until("/api/events", "the mismatch", kind("identity_mismatch"))?;
    assert_eq!(mismatch["imei"], OTHER);
    assert!(place.server.operators().device(OTHER)?.is_null());
    place.assert_alone()
}

#[test]
fn classic_device_without_an_identity_is_served_only_where_that_is_allowed() -> Result<(), Failure> {
    for (binding, code) in [("required", classic::code::ERROR), ("if-present", classic::code::OK)] {
        let mut place = Place::with(|server| server.set("identity.binding", binding))?;
        let nameless = place.rig.pki().flawed_device(IMEI.parse()?, DeviceFlaw::NoImei)?;
        let settings = Settings::new(place.rig.pki(), Some(&nameless))?.offering(&[]);
        let mut client = settings.connect(place.server.devices())?;
        client.send_bytes(&classic::Request::Heartbeat.encode())?;
        assert_eq!(client.hear_bytes(6)?, reply(classic::id::HEARTBEAT, code), "{binding}");
        if code == classic::code::OK {
            // Served, and listed once it has said who it is.
            assert!(place.server.operators().device(IMEI)?.is_null());
            client.send_bytes(&register(b"004999010640000"))?;
            assert_eq!(client.hear_bytes(6)?, reply(classic::id::REGISTER, classic::code::OK));
            assert_eq!(place.server.operators().device(IMEI)?["online"], true);
        } else {
            assert_eq!(client.end(), "closed");
            assert!(place.server.wait_for("refused: ")?.contains("it names no IMEI"));
        }
        place.assert_honest_is_served()?;
    }
    Ok(())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a peer that speaks no TLS")]
fn noise_before_tls_is_turned_away() -> Result<(), Failure> {
    let mut place = Place::new()?;
    for seed in 1..=40 {
        let mut socket = TcpStream::connect(place.server.devices())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut bytes = noise(seed, 1 + usize::try_from(seed)? * 40);
        // Every other one begins as a handshake's record does.
        if seed % 2 == 0 {
            bytes.splice(..0, [22, 3, 1]);
        }
        // The server may be through with it before all is written.
        let _ = socket.write_all(&bytes).and_then(|()| socket.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.len() <= 7, "{seed}: at most an alert, not {answer:02x?}");
        place.assert_honest_is_served()?;
    }
    assert!(place.server.said("reason=\"not_tls\""));
    place.assert_alone()
}

#[test]
fn noise_inside_tls_ends_the_session() -> Result<(), Failure> {
    let mut place = Place::new()?;
    for seed in 1..=30 {
        let bytes = noise(seed, 5000);
        for registered in [false, true] {
            for mut client in [
                if registered { place.native()? } else { place.settings.connect(place.server.devices())? },
                place.classic()?,
            ] {
                // What the server does not want any more it does not read; and noise may be a frame that never ends.
                let _ = client.send_bytes(&bytes);
                let _ = client.close();
                assert_eq!(client.end(), "closed", "{seed}");
            }
        }
        place.assert_honest_is_served()?;
    }
    place.assert_alone()
}

#[test]
fn bytes_behind_tls_end_the_connection() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let client = place.native()?;
    client.socket().write_all(b"these are no records, not even nearly")?;
    place.server.wait_for("the connection was lost")?;
    let client = place.native()?;
    // Half a record, and then nothing more.
    client.socket().write_all(&[23, 3, 3, 0, 40, 1, 2, 3])?;
    client.socket().shutdown(Shutdown::Write)?;
    place.server.wait_for("the connection was lost")?;
    place.assert_alone()
}

#[test]
fn requests_in_one_write_are_answered_each() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let mut native = place.native()?;
    let mut flood = Vec::new();
    for n in 0..200 {
        let message =
            if n % 2 == 0 { DeviceMessage::Heartbeat } else { DeviceMessage::TimeRequest { t1: n } };
        let mut frame = [0; DeviceMessage::MAX_ENCODED];
        let len = message.encode(&mut frame)?;
        flood.extend_from_slice(&frame[..len]);
    }
    native.send_bytes(&flood)?;
    for n in 0..200 {
        match (n % 2, native.hear()?) {
            (0, Some(ServerMessage::HeartbeatAck)) => {}
            (1, Some(ServerMessage::Time(time))) if time.t1 == n => {}
            (_, other) => panic!("answer {n} is {other:?}"),
        }
    }

    let mut classic = place.classic()?;
    classic.send_bytes(&classic::Request::Heartbeat.encode().repeat(200))?;
    let answer = reply(classic::id::HEARTBEAT, classic::code::OK);
    assert_eq!(classic.hear_bytes(200 * answer.len())?, answer.repeat(200));
    place.assert_honest_is_served()
}

/// A device that is in other hands can tell what it has used as often as it likes: it gets a few events an hour for it.
#[test]
fn flood_of_usage_makes_few_events() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let mut device = place.native()?;
    let told = |level| {
        let used = Used { amount: u64::MAX, limit: Some(1), level, peak: level, left_s: u32::MAX };
        let mut frame = [0; DeviceMessage::MAX_ENCODED];
        let usage = Usage { hour: used.clone(), day: used.clone(), month: used, ..Usage::default() };
        let len = DeviceMessage::Usage(usage).encode(&mut frame)?;
        Ok::<_, Failure>(frame[..len].to_vec())
    };
    let turns = [told(0)?, told(2)?, told(1)?, told(255)?].concat();
    for _ in 0..100 {
        device.send_bytes(&turns.repeat(25))?;
    }
    device.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(device.hear()?, Some(ServerMessage::HeartbeatAck));
    let operators = place.server.operators();
    assert_eq!(operators.device(IMEI)?["usage"]["attempts_per_day"]["level"], "other");
    device.close()?;
    let events = operators.wait_events(IMEI, &["budget", "offline"])?;
    assert_eq!(events.iter().filter(|event| event["kind"] == "budget").count(), 18);
    place.assert_honest_is_served()
}

#[test]
fn hello_in_single_bytes_is_a_hello() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let mut client = place.settings.connect(place.server.devices())?;
    let mut frame = [0; DeviceMessage::MAX_ENCODED];
    let len = DeviceMessage::Hello(hello(IMEI.parse()?)).encode(&mut frame)?;
    for byte in &frame[..len] {
        client.send_bytes(std::slice::from_ref(byte))?;
    }
    assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
    place.assert_honest_is_served()
}

#[test]
fn device_that_says_all_at_once_and_closes_is_answered() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let classic = place.settings.clone().offering(&[]);
    let words = [&register(b"004999010640000")[..], &classic::Request::Heartbeat.encode()].concat();
    let mut client = classic.say_at_once(place.server.devices(), &words)?;
    assert_eq!(client.hear_bytes(6)?, reply(classic::id::REGISTER, classic::code::OK));
    assert_eq!(client.hear_bytes(6)?, reply(classic::id::HEARTBEAT, classic::code::OK));
    assert_eq!(client.end(), "closed");
    place.server.wait_for("offline: it closed the connection")?;
    place.assert_alone()
}

#[test]
fn whole_conversations_in_packets_of_one_byte_are_conversations() -> Result<(), Failure> {
    let mut place = Place::new()?;
    let line = Relay::in_pieces(place.server.devices(), 1);
    let mut native = place.settings.connect(line.address())?;
    native.say_hello(IMEI.parse()?)?;
    assert!(matches!(native.hear()?, Some(ServerMessage::Welcome(_))));
    native.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(native.hear()?, Some(ServerMessage::HeartbeatAck));
    native.send(&DeviceMessage::Goodbye { reason: 0 })?;
    assert_eq!(native.end(), "closed");

    let mut classic = place.settings.clone().offering(&[]).connect(line.address())?;
    classic
        .send_bytes(&[&register(b"004999010640000")[..], &classic::Request::Heartbeat.encode()].concat())?;
    assert_eq!(classic.hear_bytes(6)?, reply(classic::id::REGISTER, classic::code::OK));
    assert_eq!(classic.hear_bytes(6)?, reply(classic::id::HEARTBEAT, classic::code::OK));
    place.assert_honest_is_served()
}
