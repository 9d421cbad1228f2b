//! The operators' page in a real browser: what it shows, what can be done with it, and for whom.

use moorline_protocol::{DeviceMessage, Imei, ServerMessage, Status};
use moorline_testbed::browser::Browser;
use moorline_testbed::certs::Pki;
use moorline_testbed::client::{Client, Settings};
use moorline_testbed::failure::Failure;
use moorline_testbed::rig::{IMEI, Rig, Server};
use moorline_testbed::stored_fleet;
use serde_json::json;

const OTHER: &str = "869731052403821";
/// Nobody's; added and never come.
const STRANGER: &str = "990016259811154";

/// What a page must not take for its own words.
const HOSTILE: &str = "<img src=x onerror=document.title=1><script>";

/// Brings a device online that tells this of its modem.
#[track_caller]
fn come(server: &Server, pki: &Pki, imei: &str, modem: &str, signal_dbm: i16) -> Result<Client, Failure> {
    let imei: Imei = imei.parse()?;
    let mut client = Settings::new(pki, Some(&pki.device(imei)?))?.connect(server.devices())?;
    let hello =
        moorline_protocol::Hello { modem: modem.try_into()?, ..moorline_testbed::client::hello(imei) };
    client.send(&DeviceMessage::Hello(hello))?;
    assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
    client.send(&DeviceMessage::Status(Status {
        signal_dbm: Some(signal_dbm),
        registration: Some(1),
        operator: Some("262-01".try_into()?),
        uptime_s: Some(86_400 * 3),
        memory_kb: Some(51_200),
        load: Some(37),
        temperature: Some(412),
    }))?;
    // Its answer comes after the report was taken in.
    client.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(client.hear()?, Some(ServerMessage::HeartbeatAck));
    Ok(client)
}

#[track_caller]
fn add(server: &Server, lines: &str) -> Result<(), Failure> {
    let url = server.operators().url("/api/devices");
    ureq::post(url).content_type("text/csv").send(format!("imei,label\n{lines}"))?;
    Ok(())
}

#[track_caller]
fn assert_no_complaints(browser: &mut Browser) {
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Fails where the page is wider than its window.
#[track_caller]
fn assert_fits(browser: &mut Browser) -> Result<(), Failure> {
    let wide = browser.value("document.documentElement.scrollWidth - innerWidth")?;
    assert!(wide.as_i64().is_some_and(|wide| wide <= 0), "{wide} pixels too wide");
    Ok(())
}

/// Fails where a text stands out from its ground by less than WCAG 2.2 asks (1.4.3: 4.5 to 1).
#[track_caller]
fn assert_contrast(browser: &mut Browser) -> Result<(), Failure> {
    let faint = browser.value(include_str!("page/contrast.js"))?;
    assert_eq!(faint, json!([]), "too faint");
    Ok(())
}

#[test]
fn fleet_is_shown_searched_and_filtered() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    add(&server, &format!("{IMEI},Harbour crane 3\n{STRANGER},\n"))?;
    let _crane = come(&server, rig.pki(), IMEI, "Quectel EC25", -67)?;
    drop(come(&server, rig.pki(), OTHER, "SIMCom SIM7600", -107)?);
    server.operators().wait_online(OTHER, false)?;

    browser.open(&server.operators().url("/"))?;
    let text = browser.text()?;
    for wanted in ["1\nonline", "1\noffline", "0\nquarantined", "0\nblocked", "1\nnever seen"] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    for wanted in ["Harbour crane 3", IMEI, OTHER, STRANGER, "−67 dBm", "connection lost", "1–3 of 3 in all"]
    {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    browser.picture("fleet-small")?;

    // As somebody at the keyboard does it.
    browser.press("/", "Slash", 191)?;
    assert_eq!(browser.value("document.activeElement.id")?, "search");
    browser.type_text("CRANE")?;
    browser.press("Enter", "Enter", 13)?;
    browser.loaded()?;
    let text = browser.text()?;
    assert!(text.contains("1–1 of 1 that match") && !text.contains(OTHER), "{text}");

    browser.value("const choice = document.getElementById('signal_below'); choice.value = '-100'")?;
    browser.value("document.getElementById('search').value = ''")?;
    browser.click(".filters button")?;
    browser.loaded()?;
    let text = browser.text()?;
    assert!(text.contains(OTHER) && !text.contains("Harbour crane 3"), "{text}");
    browser.click(".filters a")?;
    browser.loaded()?;
    browser.click(".counts .never a")?;
    browser.loaded()?;
    let text = browser.text()?;
    assert!(text.contains(STRANGER) && text.contains("1–1 of 1 that match"), "{text}");
    assert_no_complaints(&mut browser);
    Ok(())
}

#[test]
fn pages_are_leafed_through_without_a_script() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let imeis: Vec<_> =
        (1..=7).map(|number| Ok(stored_fleet::imei(number)?.to_string())).collect::<Result<_, Failure>>()?;
    add(&server, &imeis.iter().map(|imei| format!("{imei},\n")).collect::<String>())?;
    browser.scripts(false)?;
    browser.open(&server.operators().url("/?limit=3&seen=false"))?;
    for (link, range, first) in [
        ("next", "4–6 of 7", 3),
        ("next", "7–7 of 7", 6),
        ("prev", "4–6 of 7", 3),
        ("prev", "1–3 of 7", 0),
        ("next", "4–6 of 7", 3),
    ] {
        browser.click(&format!("a[rel={link}]"))?;
        browser.loaded()?;
        let text = browser.text()?;
        assert!(text.contains(range) && text.contains(&imeis[first]), "{range}, {}:\n{text}", imeis[first]);
    }
    browser.click("tbody a")?;
    browser.loaded()?;
    let text = browser.text()?;
    assert!(text.contains(&imeis[3]) && text.contains("It has never come."), "{text}");
    assert!(text.contains("moorlinectl") && !text.contains("Block"), "{text}");
    assert_no_complaints(&mut browser);
    Ok(())
}

#[test]
fn device_is_blocked_named_and_let_in_again() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    server.operators().wait_online(IMEI, true)?;
    browser.open(&server.operators().url(&format!("/devices/{IMEI}")))?;
    let text = browser.text()?;
    for wanted in
        [IMEI, "online", "127.", "native, TLS 1.3", "expires in", "Serial", "Issuer", "Drop session…"]
    {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }

    browser.click("button[data-opens=block]")?;
    browser.wait_until("document.activeElement.id === 'reason' || document.getElementById('block').open")?;
    browser.value("document.getElementById('reason').focus()")?;
    browser.type_text("stolen from the quay")?;
    browser.press("Enter", "Enter", 13)?;
    browser.wait_until("document.getElementById('answer').textContent === 'It is blocked.'")?;
    browser.wait_until("document.getElementById('head').innerText.includes('stolen from the quay')")?;
    let gone = server.operators().wait_online(IMEI, false)?;
    assert_eq!((&gone["state"], &gone["disconnect_cause"]), (&json!("blocked"), &json!("held")));
    agent.wait_for("the server rejected this device: the device is blocked")?;
    agent.stop()?;

    browser.click("button[data-opens=name]")?;
    browser.value("document.getElementById('label').focus()")?;
    browser.type_text(HOSTILE)?;
    browser.press("Enter", "Enter", 13)?;
    browser.wait_until(&format!("document.querySelector('h1').innerText.startsWith({})", json!(HOSTILE)))?;
    // An order that the server refuses.
    browser.click("button[data-opens=heartbeat]")?;
    browser
        .value("document.getElementById('min_s').value = 60; document.getElementById('max_s').value = 30")?;
    browser.click("#heartbeat button[type=submit]")?;
    browser.wait_until(
        "document.querySelector('#answer.failed[role=alert]')?.textContent.includes('at most max_s, which is 30')",
    )?;

    browser.click("#orders button.primary")?;
    browser.wait_until("document.getElementById('answer').textContent === 'It may come in again.'")?;
    browser.wait_until("document.querySelector('[data-opens=block]') !== null")?;
    agent.start_again()?;
    server.operators().wait_online(IMEI, true)?;
    assert_eq!(server.operators().device(IMEI)?["state"], "active");
    // The refused order is in the browser's own log.
    let complaints = browser.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("400"), "{complaints:?}");
    agent.stop()
}

#[test]
fn what_peers_tell_is_text_and_nothing_more() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    add(&server, &format!("{IMEI},{HOSTILE}\n"))?;
    let _device = come(&server, rig.pki(), IMEI, HOSTILE, -80)?;
    for path in ["/", &format!("/devices/{IMEI}"), "/?search=%3Cscript%3E&agent_version=%22%3E%3Cb%3E"] {
        browser.open(&server.operators().url(path))?;
        assert_eq!(browser.value("document.querySelectorAll('img, body script, b').length")?, 0, "{path}");
        assert!(browser.value("document.title")?.as_str().is_some_and(|title| title.ends_with("Moorline")));
    }
    browser.open(&server.operators().url("/"))?;
    assert_eq!(browser.text()?.matches(HOSTILE).count(), 2);
    assert_no_complaints(&mut browser);
    Ok(())
}

#[test]
fn every_width_and_scheme_can_be_read() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let long = "W".repeat(64);
    add(&server, &format!("{IMEI},{long}\n{OTHER},Harbour crane 3\n{STRANGER},\n"))?;
    let _first = come(&server, rig.pki(), IMEI, &"M".repeat(48), -67)?;
    let _second = come(&server, rig.pki(), OTHER, "SIMCom SIM7600", -107)?;
    let state = server.operators().url(&format!("/api/devices/{STRANGER}/state"));
    ureq::put(state).send_json(json!({"state": "blocked", "reason": "never delivered"}))?;
    for (width, height) in [(360, 780), (768, 1024), (1280, 900)] {
        browser.size(width, height)?;
        for scheme in ["light", "dark"] {
            browser.scheme(scheme)?;
            for (name, path) in [
                ("fleet", "/".to_owned()),
                ("device", format!("/devices/{OTHER}")),
                ("long", format!("/devices/{IMEI}")),
                ("blocked", format!("/devices/{STRANGER}")),
                ("missing", "/devices/490154203237518".to_owned()),
            ] {
                browser.open(&server.operators().url(&path))?;
                assert_fits(&mut browser)?;
                assert_contrast(&mut browser)?;
                browser.picture(&format!("{name}-{width}-{scheme}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn mistakes_are_pages_for_people_and_problems_for_programs() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    for (path, wanted) in [
        ("/devices/869731052403821", "no device with the IMEI 869731052403821 ever came or was added"),
        ("/devices/7", "7 is no IMEI: it has 1 digits, an IMEI has 15"),
        ("/devices/..%2f..%2fetc%2fpasswd", "is no IMEI"),
        ("/nowhere", "there is no /nowhere"),
        ("/?limit=0", "limit=0 is not possible: limit is a number from 1 to 1000"),
        ("/?colour=red", "colour=red is not possible"),
    ] {
        browser.open(&server.operators().url(path))?;
        assert_eq!(browser.value("document.contentType")?, "text/html");
        let text = browser.text()?;
        assert!(text.contains(wanted) && text.contains("All devices"), "{path}:\n{text}");
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let answer = agent.get(server.operators().url(path)).call()?;
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    }
    Ok(())
}

/// Through the whole page by the tabulator alone.
#[test]
fn everything_is_reached_by_keyboard() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let _device = come(&server, rig.pki(), IMEI, "Quectel EC25", -67)?;
    browser.open(&server.operators().url(&format!("/devices/{IMEI}")))?;
    browser.press("Tab", "Tab", 9)?;
    assert_eq!(browser.value("document.activeElement.className")?, "skip");
    let mut reached = Vec::new();
    loop {
        browser.press("Tab", "Tab", 9)?;
        if browser.value("document.activeElement === document.body")? == true {
            break;
        }
        reached.push(browser.value("document.activeElement.innerText.trim()")?);
        let visible = "getComputedStyle(document.activeElement).outlineStyle !== 'none'";
        assert_eq!(browser.value(visible)?, true, "{reached:?}");
    }
    for wanted in ["Moorline", "Fleet", "Block…", "Drop session…", "Label…", "Heartbeat…", "/metrics"]
    {
        assert!(reached.contains(&json!(wanted)), "{wanted} is not among {reached:?}");
    }
    for (name, unlabelled) in [
        (
            "device",
            "[...document.querySelectorAll('input:not([type=hidden]), select')].filter((one) => !one.labels.length).length",
        ),
        ("dialog", "document.querySelectorAll('dialog:not([aria-labelledby])').length"),
    ] {
        assert_eq!(browser.value(unlabelled)?, 0, "{name}");
    }
    browser.click("[data-opens=drop]")?;
    browser.press("Escape", "Escape", 27)?;
    assert_eq!(browser.value("document.querySelectorAll('dialog[open]').length")?, 0);
    Ok(())
}

#[test]
fn page_follows_devices_that_come_and_go() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    browser.open(&server.operators().url("/"))?;
    browser.wait_until("document.getElementById('live').textContent === 'Live'")?;
    assert!(browser.text()?.contains("No device has come yet."));
    // It is gone when the page is opened anew.
    browser.value("window.mark = true")?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    browser.wait_until("document.querySelector('#counts .online strong').textContent === '1'")?;
    browser.wait_until(&format!("document.querySelector('[data-key=\"{IMEI}\"] .state.online') !== null"))?;
    browser.value("document.querySelector('tbody a').focus()")?;
    agent.stop()?;
    browser.wait_until("document.querySelector('#counts .offline strong').textContent === '1'")?;
    browser.wait_until(&format!(
        "document.querySelector('[data-key=\"{IMEI}\"]').innerText.includes('said goodbye')"
    ))?;
    assert_eq!(browser.value("document.activeElement.innerText")?, IMEI);

    // What a filter leaves out goes from the table.
    let mut other = rig.agent(server.devices(), OTHER)?.start()?;
    browser
        .wait_until(&format!("document.querySelector('[data-key=\"{OTHER}\"] .state.online') !== null"))?;
    assert_eq!(browser.value("window.mark")?, true);
    browser.open(&server.operators().url("/?online=true"))?;
    browser.wait_until("document.getElementById('live').textContent === 'Live'")?;
    other.kill()?;
    browser.wait_until("document.body.innerText.includes('No device matches.')")?;
    assert_no_complaints(&mut browser);

    browser.open(&server.operators().url(&format!("/devices/{IMEI}")))?;
    browser.wait_until("document.getElementById('live').textContent === 'Live'")?;
    browser.value("window.mark = true")?;
    agent.start_again()?;
    browser.wait_until("document.querySelector('#head .state.online') !== null")?;
    browser.wait_until("document.querySelectorAll('#events .kind.online').length === 2")?;
    server.kill()?;
    browser.wait_until("document.getElementById('live').textContent === 'Not live'")?;
    server.start_again()?;
    browser.wait_until("document.getElementById('live').textContent === 'Live'")?;
    browser.wait_until("document.querySelectorAll('#events .kind.online').length === 3")?;
    assert_eq!(browser.value("window.mark")?, true);
    agent.stop()
}

/// As it looks on an ordinary day; docs/operating.md says how these become the pictures of the documentation.
#[test]
fn ordinary_day_is_pictured() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let database = rig.folder().join("fleet.db");
    stored_fleet::store(&database, 240)?;
    let server = rig.server()?.set("store.path", database.display()).start()?;
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    let year = moorline_certs::Validity::days(time::OffsetDateTime::now_utc(), 365);
    let mut devices = Vec::new();
    for number in (0..240).filter(|number| number % 4 != 3 && number % 50 != 7) {
        let imei = stored_fleet::imei(number)?;
        let credentials = rig.pki().device_valid(imei, year)?;
        let mut device = Settings::new(rig.pki(), Some(&credentials))?.connect(server.devices())?;
        let modem = ["Quectel EC25", "SIMCOM SIM7600E-H", "Telit LE910C1-EU"][number as usize % 3];
        device.send(&DeviceMessage::Hello(moorline_protocol::Hello {
            modem: modem.try_into()?,
            ..moorline_testbed::client::hello(imei)
        }))?;
        // Some are blocked, and told so.
        if matches!(device.hear()?, Some(ServerMessage::Welcome(_))) {
            devices.push(device);
        }
    }
    browser.open(&server.operators().url("/?limit=12"))?;
    browser.wait_until("document.getElementById('live').textContent === 'Live'")?;
    browser.wait_until(&format!(
        "document.querySelector('#counts .online strong').textContent === '{}'",
        devices.len()
    ))?;
    browser.value("document.activeElement.blur()")?;
    browser.size(1280, 1010)?;
    browser.picture("fleet")?;
    browser.scheme("dark")?;
    let crane = stored_fleet::imei(0)?;
    browser.open(&server.operators().url(&format!("/devices/{crane}")))?;
    browser.wait_until("document.getElementById('live').textContent === 'Live'")?;
    browser.picture("device")?;
    assert_no_complaints(&mut browser);
    Ok(())
}
