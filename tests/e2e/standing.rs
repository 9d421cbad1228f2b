//! Who is let in: devices that operators block, add and release, and keys that were copied, with real sessions.

use moorline_protocol::{DeviceMessage, Hello, ServerMessage, rejection};
use moorline_testbed::client::{Client, Settings};
use moorline_testbed::failure::Failure;
use moorline_testbed::rig::{IMEI, Rig, Server};
use serde_json::{Value, json};

const OTHER: &str = "869731052403821";

/// Orders a state, and returns the device as it is then.
#[track_caller]
fn order(server: &Server, body: &Value) -> Result<Value, Failure> {
    let url = server.operators().url(&format!("/api/devices/{IMEI}/state"));
    Ok(ureq::put(url).send_json(body)?.body_mut().read_json()?)
}

/// Says Hello as the device does after its boot `boot`, with a certificate that was just issued, and returns the connection
/// with the server's answer.
#[track_caller]
fn boot(rig: &Rig, server: &Server, boot: u8) -> Result<(Client, Option<ServerMessage>), Failure> {
    let newest = rig.pki().device(IMEI.parse()?)?;
    boot_with(&Settings::new(rig.pki(), Some(&newest))?, server, boot)
}

#[track_caller]
fn boot_with(
    settings: &Settings,
    server: &Server,
    boot: u8,
) -> Result<(Client, Option<ServerMessage>), Failure> {
    let mut device = settings.connect(server.devices())?;
    device.send(&DeviceMessage::Hello(Hello {
        imei: IMEI.parse::<moorline_protocol::Imei>()?.as_u64(),
        app_id: [0; 16],
        agent_version: "0.1.0".try_into()?,
        boot_id: [boot; 16],
        heartbeat_s: 60,
        modem: heapless::String::new(),
    }))?;
    let answer = device.hear()?;
    Ok((device, answer))
}

#[track_caller]
fn assert_kept_out(answer: Option<ServerMessage>, text: &str) {
    let Some(ServerMessage::Rejected(rejected)) = answer else { panic!("{answer:?}") };
    assert_eq!((rejected.code, rejected.text.as_str()), (rejection::BLOCKED, text));
}

/// Waits until these happened to the device, beside refusals, which come when they come.
#[track_caller]
fn wait_events(server: &Server, kinds: &[&str]) -> Result<Vec<Value>, Failure> {
    let path = format!("/api/events?imei={IMEI}");
    server.operators().wait_until(&path, &format!("{kinds:?}"), |page| {
        let events = page["events"].as_array()?.iter().filter(|event| event["kind"] != "refused");
        let events: Vec<_> = events.cloned().collect();
        events
            .iter()
            .map(|event| event["kind"].as_str())
            .eq(kinds.iter().copied().map(Some))
            .then_some(events)
    })
}

#[test]
fn blocked_device_is_gone_at_once_stays_out_over_a_restart_and_comes_back() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    let other = rig.agent(server.devices(), OTHER)?.start()?;
    server.operators().wait_online(IMEI, true)?;
    server.operators().wait_online(OTHER, true)?;

    let device = order(&server, &json!({"state": "blocked", "reason": "stolen"}))?;
    assert_eq!((&device["state"], &device["state_reason"]), (&json!("blocked"), &json!("stolen")));
    let gone = server.operators().wait_online(IMEI, false)?;
    assert_eq!(gone["disconnect_cause"], "held");
    agent.wait_for("the server rejected this device: the device is blocked")?;

    // The answer is the promise: the server is given no time.
    server.kill()?;
    server.start_again()?;
    server.operators().wait_online(OTHER, true)?;
    assert_eq!(server.operators().device(IMEI)?["state"], "blocked");
    assert_kept_out(boot(&rig, &server, 1)?.1, "the device is blocked");

    assert_eq!(order(&server, &json!({"state": "active"}))?["state"], "active");
    let (_device, answer) = boot(&rig, &server, 1)?;
    assert!(matches!(answer, Some(ServerMessage::Welcome(_))), "{answer:?}");
    // An event may take a second to the disk, so those of before the kill may be lost.
    let path = format!("/api/events?imei={IMEI}");
    server.operators().wait_until(&path, "that it was released", |page| {
        page["events"].as_array()?.iter().any(|event| event["kind"] == "released").then_some(())
    })?;
    assert!(!other.said("rejected"), "{:#?}", other.lines());
    agent.stop()
}

#[test]
fn added_device_is_let_into_a_closed_fleet() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.set("identity.register", "known").start()?;
    let mut stranger = rig.agent(server.devices(), IMEI)?.start()?;
    stranger.wait_for("the device is not known here, and new ones are not admitted")?;
    stranger.stop()?;
    let answer: Value = ureq::post(server.operators().url("/api/devices"))
        .content_type("text/csv")
        .send(format!("imei,label\n{IMEI},Harbour crane 3\n"))?
        .body_mut()
        .read_json()?;
    assert_eq!(answer, json!({"added": 1, "known": 0, "labelled": 0}));
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    assert_eq!(server.operators().wait_online(IMEI, true)?["label"], "Harbour crane 3");
    agent.stop()
}

/// Two machines with one key: each comes back with its own boot id.
#[test]
fn both_holders_of_a_copied_key_are_quarantined() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let (mut first, answer) = boot(&rig, &server, 1)?;
    assert!(matches!(answer, Some(ServerMessage::Welcome(_))), "{answer:?}");
    let (mut second, answer) = boot(&rig, &server, 2)?;
    assert!(matches!(answer, Some(ServerMessage::Welcome(_))), "{answer:?}");
    assert!(matches!(first.hear()?, Some(ServerMessage::Goodbye(_))));
    let out = "the device is quarantined until an operator looks";
    assert_kept_out(boot(&rig, &server, 1)?.1, out);
    assert!(matches!(second.hear()?, Some(ServerMessage::Goodbye(_))));
    assert_kept_out(boot(&rig, &server, 2)?.1, out);
    let events = wait_events(&server, &["online", "replaced", "online", "quarantined", "offline"])?;
    let text =
        events.iter().find(|event| event["kind"] == "quarantined").map(|event| event["text"].to_string());
    assert!(text.as_deref().is_some_and(|text| text.contains("a key was copied")), "{text:?}");
    let metrics = server.operators().text("/metrics")?;
    for line in ["moorline_devices{state=\"quarantined\"} 1", "moorline_quarantines_total 1"] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
    server.kill()?;
    server.start_again()?;
    assert_kept_out(boot(&rig, &server, 2)?.1, out);
    order(&server, &json!({"state": "active"}))?;
    assert!(matches!(boot(&rig, &server, 2)?.1, Some(ServerMessage::Welcome(_))));
    Ok(())
}

/// A certificate that was renewed, and then the older one again.
#[test]
fn both_holders_of_certificates_for_one_imei_are_quarantined() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let [older, newer] = [rig.pki().device(IMEI.parse()?)?, rig.pki().device(IMEI.parse()?)?];
    let [older, newer] = [Settings::new(rig.pki(), Some(&older))?, Settings::new(rig.pki(), Some(&newer))?];
    for settings in [&older, &older, &newer] {
        let (_device, answer) = boot_with(settings, &server, 1)?;
        assert!(matches!(answer, Some(ServerMessage::Welcome(_))), "{answer:?}");
    }
    for settings in [&older, &newer] {
        let answer = boot_with(settings, &server, 1)?.1;
        assert_kept_out(answer, "the device is quarantined until an operator looks");
    }
    let device = server.operators().device(IMEI)?;
    assert!(
        device["state_reason"].as_str().is_some_and(|why| why.contains("a certificate came back")),
        "{device}"
    );
    Ok(())
}

#[test]
fn dropped_session_comes_back_by_itself() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    server.operators().wait_online(IMEI, true)?;
    let url = server.operators().url(&format!("/api/devices/{IMEI}/drop"));
    let answer: Value = ureq::post(url).send_empty()?.body_mut().read_json()?;
    assert_eq!(answer, json!({"dropped": true}));
    agent.wait_for("the server said goodbye: an operator ended the session")?;
    server.operators().wait_events(IMEI, &["online", "offline", "online"])?;
    agent.stop()
}
