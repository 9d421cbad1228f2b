//! The webhook against receivers that fail in every way: each event arrives, in the order of its device, signed, and under one id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use moorline_protocol::{Imei, ServerMessage};
use moorline_testbed::certs::ServerFlaw;
use moorline_testbed::client::Settings;
use moorline_testbed::failure::Failure;
use moorline_testbed::receiver::{Answer, Receiver, Request};
use moorline_testbed::rig::{Rig, SERVER_NAME, Server, ServerSetup};
use ring::hmac;
use serde_json::Value;

/// Pauses after failures and what the receiver itself takes included.
const LONG: Duration = Duration::from_secs(90);
const SECRET: [u8; 32] = [0x5a; 32];
const OTHER_SECRET: [u8; 24] = [0xa5; 24];

fn line(secret: &[u8]) -> String {
    format!("whsec_{}\n", STANDARD.encode(secret))
}

fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o600))?)
}

fn secret_file(rig: &Rig) -> Result<PathBuf, Failure> {
    let path = rig.folder().join("webhook.secret");
    write_secret(&path, &line(&SECRET))?;
    Ok(path)
}

/// A server that posts there.
fn posting(rig: &Rig, url: &str) -> Result<ServerSetup, Failure> {
    Ok(rig.server()?.set("webhook.url", url).set("webhook.secret_file", secret_file(rig)?.display()))
}

fn imei(number: u32) -> Result<Imei, Failure> {
    Ok(Imei::from_urn(&format!("urn:gsma:imei:00499901-{number:06}-0"))?)
}

/// A device comes and goes.
fn visit(rig: &Rig, server: &Server, number: u32) -> Result<(), Failure> {
    let imei = imei(number)?;
    let mut client = Settings::new(rig.pki(), Some(&rig.pki().device(imei)?))?.connect(server.devices())?;
    client.say_hello(imei)?;
    assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
    Ok(client.cut()?)
}

/// The events that the server stored, once there are so many.
fn stored(server: &Server, count: usize) -> Result<BTreeMap<i64, Value>, Failure> {
    server.operators().wait_until("/api/events?after=0&limit=1000", &format!("{count} events"), |answer| {
        let events = answer["events"].as_array()?;
        (events.len() >= count)
            .then(|| events.iter().filter_map(|event| Some((event["id"].as_i64()?, event.clone()))).collect())
    })
}

fn id(event: &Value) -> i64 {
    event["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default()
}

/// The ids of all events that the receiver said it took.
fn taken(requests: &[Request]) -> BTreeSet<i64> {
    requests
        .iter()
        .filter(|request| request.taken)
        .flat_map(Request::events)
        .map(|event| id(&event))
        .collect()
}

/// Holds a request against Standard Webhooks: one of its signatures is of this secret.
fn verify(request: &Request, secret: &[u8]) {
    let header =
        |name: &str| request.headers.get(name).unwrap_or_else(|| panic!("no {name}: {request:?}")).as_str();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let signed = [format!("{id}.{timestamp}.").as_bytes(), &request.body].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &signed);
    let wanted = format!("v1,{}", STANDARD.encode(tag));
    let signatures = header("webhook-signature");
    assert!(signatures.split(' ').any(|one| one == wanted), "{signatures} is not {wanted}");
}

/// All that holds of any sequence of requests, however badly they were answered.
fn hold_what_is_promised(requests: &[Request], stored: &BTreeMap<i64, Value>) {
    let (mut seen, mut last_taken) = (BTreeMap::<i64, Value>::new(), 0);
    for request in requests {
        verify(request, &SECRET);
        assert_eq!(request.headers["content-type"], "application/cloudevents-batch+json");
        for event in request.events() {
            let same = seen.entry(id(&event)).or_insert_with(|| event.clone());
            assert_eq!(*same, event, "an event is the same whenever it comes");
            assert_eq!(stored.get(&id(&event)), Some(&event["data"]));
            assert_eq!(event["subject"], event["data"]["imei"]);
        }
        let ids: Vec<_> = request.events().iter().map(id).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        // None comes before one that is older and was not taken yet.
        if let Some(first) = ids.first() {
            let missed = stored.keys().find(|stored| **stored > last_taken && *stored < first);
            assert_eq!(missed, None, "{first} overtook it");
        }
        if request.taken {
            last_taken = ids.last().copied().unwrap_or(last_taken).max(last_taken);
        }
    }
}

#[test]
fn what_happens_arrives_as_signed_cloud_events() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let receiver = Receiver::start(None, |_, _| Answer::Status(204))?;
    let url = format!("http://{}/hook?token=sesame", receiver.address());
    let setup =
        posting(&rig, &url)?.set("webhook.source", "urn:example:fleet").set("webhook.kinds", "online");
    let mut server = setup.start()?;
    visit(&rig, &server, 1)?;
    visit(&rig, &server, 2)?;
    let requests = receiver.wait_until("two devices", LONG, |requests| taken(requests).len() == 2)?;
    let stored = stored(&server, 4)?;
    let events: Vec<Value> = requests.iter().flat_map(Request::events).collect();
    assert_eq!(requests[0].line, "POST /hook?token=sesame HTTP/1.1");
    for (number, event) in (1..).zip(&events) {
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["type"], "io.moorline.device.online");
        assert_eq!(event["source"], "urn:example:fleet");
        assert_eq!(event["subject"], imei(number)?.to_string());
        assert_eq!(event["time"], event["data"]["at"]);
        assert_eq!(Some(&event["data"]), stored.get(&id(event)));
    }
    requests.iter().for_each(|request| verify(request, &SECRET));

    // A secret is replaced without a restart: for a while both sign.
    write_secret(&rig.folder().join("webhook.secret"), &(line(&OTHER_SECRET) + &line(&SECRET)))?;
    visit(&rig, &server, 3)?;
    let requests = receiver.wait_until("the third device", LONG, |requests| taken(requests).len() == 3)?;
    let last = requests.last().ok_or_else(|| Failure::new("no request"))?;
    verify(last, &SECRET);
    verify(last, &OTHER_SECRET);

    // The receiver knows it before the server has its answer.
    for line in ["moorline_webhook_events_delivered_total 3", "moorline_webhook_events_lost_total 0"] {
        server.operators().wait_line("/metrics", line)?;
    }
    server.stop()?;
    let log = server.lines().join("\n");
    let secrets = [line(&SECRET), line(&OTHER_SECRET), "sesame".to_owned()];
    assert!(secrets.iter().all(|secret| !log.contains(secret.trim_end())), "{log}");
    Ok(())
}

#[test]
fn failing_receiver_gets_everything_in_the_end() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let script = |number, _: &Request| match number {
        0 => Answer::Status(500),
        1 => Answer::Cut,
        2 => Answer::With(429, "Retry-After: 4"),
        3 => Answer::With(302, "Location: http://127.0.0.1:9/elsewhere"),
        4 => Answer::Slow(200, Duration::from_secs(2)),
        6 => Answer::Endless(200),
        // It has what was sent, and the server will not know.
        8 => Answer::Hang,
        _ => Answer::Status(200),
    };
    let receiver = Receiver::start(None, script)?;
    let address = receiver.address();
    let mut server = posting(&rig, &format!("http://{address}/"))?.start()?;
    for round in 0..9 {
        // One each time is enough: whatever happens meanwhile goes with the next.
        visit(&rig, &server, round % 3)?;
        let more = usize::try_from(round)? + 1;
        receiver.wait_until("one more request", LONG, |requests| requests.len() >= more)?;
    }
    // Killed while the receiver hangs: devices had been served all the while.
    server.kill()?;
    server.start_again()?;
    let before = receiver.wait_until("what was in doubt", LONG, |requests| requests.len() > 9)?;
    let pause = before[3].at - before[2].at;
    assert!(pause >= Duration::from_secs(4), "asked to wait for 4 s, and came after {pause:?}");

    // The receiver itself is restarted, and refuses connections meanwhile.
    drop(receiver);
    visit(&rig, &server, 1)?;
    server.wait_for("events are not posted to http://")?;
    let receiver = Receiver::start(Some(address), |_, _| Answer::Status(200))?;
    server.wait_for("the webhook's receiver takes events again")?;
    visit(&rig, &server, 2)?;
    server.operators().wait_online(&imei(2)?.to_string(), false)?;
    // 11 visits; of the one under the killed server, the end may be told in another way, but it is told.
    let stored = stored(&server, 22)?;
    let all: BTreeSet<i64> = stored.keys().copied().collect();
    let came =
        |requests: &[Request]| taken(&before).union(&taken(requests)).copied().collect::<BTreeSet<i64>>();
    let after = receiver.wait_until("all of it", LONG, |requests| came(requests).is_superset(&all))?;
    hold_what_is_promised(&[before, after].concat(), &stored);
    Ok(())
}

#[test]
fn hanging_receiver_delays_nothing_else() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let receiver = Receiver::start(None, |_, _| Answer::Hang)?;
    let mut server = posting(&rig, &format!("http://{}/", receiver.address()))?.start()?;
    visit(&rig, &server, 0)?;
    receiver.wait_until("a request", LONG, |requests| !requests.is_empty())?;
    for number in 1..20 {
        visit(&rig, &server, number)?;
    }
    stored(&server, 40)?;
    server.operators().text("/readyz")?;
    // It stops as soon as ever, and what was on its way waits for the next start.
    server.stop()
}

#[test]
fn only_what_makes_no_sense_to_the_receiver_is_passed_over() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let bad = imei(2)?.to_string();
    let judge = move |number: usize, request: &Request| match number {
        // Until there is a batch of all.
        0 => Answer::Slow(503, Duration::from_secs(2)),
        _ if request.events().iter().any(|event| event["subject"] == *bad) => Answer::Status(422),
        _ => Answer::Status(200),
    };
    let receiver = Receiver::start(None, judge)?;
    let mut server = posting(&rig, &format!("http://{}/", receiver.address()))?.start()?;
    for number in 1..=4 {
        visit(&rig, &server, number)?;
    }
    let stored = stored(&server, 8)?;
    let bad = imei(2)?.to_string();
    let good: BTreeSet<i64> =
        stored.iter().filter(|(_, event)| event["imei"] != *bad).map(|(id, _)| *id).collect();
    receiver.wait_until("the good ones", LONG, |requests| taken(requests).is_superset(&good))?;
    server.wait_for("is passed over: the webhook's receiver answered 422 to it")?;
    let metrics = server.operators().text("/metrics")?;
    assert!(metrics.contains("\nmoorline_webhook_events_refused_total 2\n"), "{metrics}");
    let order: Vec<i64> = receiver
        .requests()
        .iter()
        .filter(|request| request.taken)
        .flat_map(Request::events)
        .map(|event| id(&event))
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    Ok(())
}

#[test]
fn receiver_proves_who_it_is() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let receiver = Receiver::secure(&rig.pki().server()?, |_, _| Answer::Status(200))?;
    let url = format!("https://{SERVER_NAME}:{}/", receiver.address().port());
    // The public authorities do not know it.
    let mut public = posting(&rig, &url)?.start()?;
    visit(&rig, &public, 0)?;
    public.wait_for("TLS failed: invalid peer certificate: UnknownIssuer")?;
    assert!(receiver.requests().is_empty());
    let server = posting(&rig, &url)?.set("webhook.ca", rig.pki().ca().display()).start()?;
    visit(&rig, &server, 0)?;
    receiver.wait_until("an event", LONG, |requests| !requests.is_empty())?;
    Ok(())
}

#[test]
fn flawed_receivers_hear_nothing() -> Result<(), Failure> {
    let rig = Rig::new()?;
    for flaw in [ServerFlaw::Expired, ServerFlaw::WrongCa, ServerFlaw::WrongName] {
        let receiver = Receiver::secure(&rig.pki().flawed_server(flaw)?, |_, _| Answer::Status(200))?;
        let setup = posting(&rig, &format!("https://{}/", receiver.address()))?;
        let mut server = setup.set("webhook.ca", rig.pki().ca().display()).start()?;
        visit(&rig, &server, 0)?;
        server.wait_for("TLS failed: invalid peer certificate")?;
        assert!(receiver.requests().is_empty());
    }
    Ok(())
}

#[test]
fn each_mistake_of_the_webhook_is_told() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let secret = secret_file(&rig)?;
    let open = rig.folder().join("open.secret");
    fs::write(&open, line(&SECRET))?;
    fs::set_permissions(&open, Permissions::from_mode(0o644))?;
    let cases = [
        (vec![("secret_file", secret.display().to_string())], "webhook.url: is missing"),
        (vec![("url", "https://example.com/".to_owned())], "webhook.secret_file: is missing"),
        (
            vec![("url", "ftp://example.com/".to_owned())],
            "webhook.url: begins with neither https:// nor http://",
        ),
        (vec![("url", "https://me:sesame@example.com/".to_owned())], "webhook.url: holds a user's name"),
        (
            vec![("kinds", "asleep".to_owned())],
            "webhook.kinds: \"asleep\" is no kind of event: they are online,",
        ),
        (
            vec![("url", "https://example.com/".to_owned()), ("secret_file", open.display().to_string())],
            "is open to every user (mode 0644): chmod 600",
        ),
        (
            vec![
                ("url", "https://example.com/".to_owned()),
                ("secret_file", secret.display().to_string()),
                ("ca", secret.display().to_string()),
            ],
            "webhook.ca: ",
        ),
    ];
    for (settings, words) in cases {
        let setup = settings
            .iter()
            .fold(rig.server()?, |setup, (key, value)| setup.set(&format!("webhook.{key}"), value));
        let output = setup.command()?.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(words), "{words:?} is not in {said}");
        assert!(!said.contains("sesame") && !said.contains(line(&SECRET).trim_end()), "{said}");
    }
    Ok(())
}
