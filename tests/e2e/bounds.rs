//! The bounds that an operator sets for one device: who obeys them when, and what outlives the server.

use std::process::{Command, Output};

use moorline_protocol::{DeviceMessage, ServerGoodbye, ServerMessage, server_goodbye};
use moorline_testbed::client::{Client, Settings};
use moorline_testbed::failure::Failure;
use moorline_testbed::programs::program;
use moorline_testbed::rig::{IMEI, Rig, Server};
use serde_json::{Value, json};

const OTHER: &str = "869731052403821";

fn bound(server: &Server, words: &[&str]) -> Result<Output, Failure> {
    let mut command = Command::new(program("moorlinectl")?);
    command.env_clear().env("MOORLINE_SERVER", server.operators().url("")).args([
        "heartbeat",
        "--json",
        IMEI,
    ]);
    Ok(command.args(words).output()?)
}

/// Sets bounds, and says what the device then has.
#[track_caller]
fn set(server: &Server, words: &[&str]) -> Result<Value, Failure> {
    let output = bound(server, words)?;
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    let device: Value = serde_json::from_slice(&output.stdout)?;
    Ok(device["heartbeat_bounds"].clone())
}

/// Waits until the device is online, granted so many seconds.
#[track_caller]
fn wait_granted(server: &Server, seconds: u64) -> Result<Value, Failure> {
    let path = format!("/api/devices/{IMEI}");
    server.operators().wait_until(&path, &format!("{seconds} s granted"), |device| {
        (device["online"] == true && device["heartbeat_s"] == seconds).then(|| device.clone())
    })
}

#[test]
fn bound_holds_at_once_outlives_the_server_and_is_cleared() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.set("heartbeat.interval", "1m").start()?;
    let other = rig.agent(server.devices(), OTHER)?.set("heartbeat.interval", "1m").start()?;
    let first = wait_granted(&server, 60)?;
    assert_eq!(first["heartbeat_bounds"], Value::Null);
    server.operators().wait_online(OTHER, true)?;

    assert_eq!(set(&server, &["--min", "2s", "--max", "30s"])?, json!({"min_s": 2, "max_s": 30}));
    let second = wait_granted(&server, 30)?;
    assert!(second["session_id"].as_u64() > first["session_id"].as_u64(), "{second}");
    agent.wait_for("the server said goodbye: an operator ended the session")?;
    server.operators().wait_events(IMEI, &["online", "heartbeat_set", "offline", "online"])?;

    // The answer is the promise: the server is given no time.
    set(&server, &["--max", "20s"])?;
    server.kill()?;
    server.start_again()?;
    let third = wait_granted(&server, 20)?;
    assert_eq!(third["heartbeat_bounds"], json!({"min_s": null, "max_s": 20}));

    assert_eq!(set(&server, &["--clear"])?, Value::Null);
    wait_granted(&server, 60)?;
    set(&server, &["--min", "2m"])?;
    wait_granted(&server, 120)?;
    set(&server, &["--clear"])?;
    server.kill()?;
    server.start_again()?;
    wait_granted(&server, 60)?;
    // Nobody else was told anything.
    assert!(!other.said("an operator ended the session"), "{:#?}", other.lines());
    agent.stop()
}

#[test]
fn device_that_learns_its_silence_stays_within_the_bound() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.set("heartbeat.interval", "adaptive").start()?;
    agent.wait_for("registered")?;
    // Far below the fleet's 30 minutes, and below the agent's own heartbeat.min.
    set(&server, &["--max", "2s"])?;
    agent.wait_for("the line may be silent for 2 s")?;
    wait_granted(&server, 2)?;
    agent.stop()
}

#[track_caller]
fn welcome(settings: &Settings, server: &Server) -> Result<(Client, u32), Failure> {
    let mut device = settings.connect(server.devices())?;
    device.say_hello(IMEI.parse()?)?;
    match device.hear()? {
        Some(ServerMessage::Welcome(welcome)) => Ok((device, welcome.heartbeat_s)),
        other => Err(Failure::new(format!("no Welcome but {other:?}"))),
    }
}

/// What goes over the wire: the Goodbye that calls a device back, the grant, and what its Interval comes to.
#[test]
fn session_is_called_back_and_its_silences_are_bounded() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let settings = Settings::new(rig.pki(), Some(&rig.pki().device(IMEI.parse()?)?))?;
    let (mut device, granted) = welcome(&settings, &server)?;
    assert_eq!(granted, 60);
    // A bound beyond the fleet's own, and one that changes nothing.
    for words in [["--max", "2h"], ["--max", "2h"]] {
        assert_eq!(set(&server, &words)?["max_s"], 7200);
    }
    let goodbye = ServerGoodbye { reason: server_goodbye::DROPPED, retry_after_s: 0 };
    assert_eq!(device.hear()?, Some(ServerMessage::Goodbye(goodbye)));
    assert_eq!(device.end(), "closed");
    let (mut device, granted) = welcome(&settings, &server)?;
    assert_eq!(granted, 60);
    for (told, kept) in [(300, 300), (86_400, 7200)] {
        device.send(&DeviceMessage::Interval { seconds: told })?;
        wait_granted(&server, kept)?;
    }
    // The same again ends nothing.
    set(&server, &["--max", "2h"])?;
    device.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(device.hear()?, Some(ServerMessage::HeartbeatAck));
    Ok(())
}

#[test]
fn what_cannot_be_set_is_said_and_changes_nothing() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let unknown = bound(&server, &["--max", "1m"])?;
    let said = String::from_utf8(unknown.stderr)?;
    assert!(unknown.status.code() == Some(3) && said.contains("ever came or was added"), "{said}");
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    for (words, code, text) in [
        (
            &["--min", "5m", "--max", "1m"][..],
            1,
            "min_s=300 is not possible: min_s is at most max_s, which is 60",
        ),
        (&["--max", "2d"], 1, "max_s=172800 is not possible: max_s is a number of seconds from 1 to 86400"),
        (&["--max", "60"], 2, "60"),
        (&[], 2, "--min"),
    ] {
        let output = bound(&server, words)?;
        let said = String::from_utf8(output.stderr)?;
        assert!(output.status.code() == Some(code) && said.contains(text), "{words:?}: {said}");
    }
    let answer = ureq::put(server.operators().url(&format!("/api/devices/{IMEI}/heartbeat")))
        .header("Origin", "http://evil.example")
        .config()
        .http_status_as_error(false)
        .build()
        .send_json(json!({"max_s": 1}))?;
    assert_eq!(answer.status().as_u16(), 403);
    assert_eq!(server.operators().device(IMEI)?["heartbeat_bounds"], Value::Null);
    assert!(!agent.said("the server said goodbye"));
    agent.stop()
}
