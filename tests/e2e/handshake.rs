//! The server's door: whom it lets in, whom it refuses, and in which words; and that it asks again after every handshake.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use moorline_protocol::{DeviceMessage, Imei, ServerMessage, rejection, server_goodbye};
use moorline_server::clock::{Now, now};
use moorline_server::tls::{Progress, Pump, Tls, TlsSettings, TlsSource};
use moorline_testbed::certs::{DeviceFlaw, Pki, ServerFlaw};
use moorline_testbed::client::{Client, Settings};
use moorline_testbed::failure::Failure;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::{IMEI, Rig, Server};
use moorline_testbed::shake;
use rustix::process::Signal;
use rustls::{ClientConfig, ClientConnection};

fn imei() -> Result<Imei, Failure> {
    Ok(IMEI.parse()?)
}

/// A device that is taken in.
fn welcome(server: &Server, settings: &Settings) -> Result<Client, Failure> {
    let mut client = settings.connect(server.devices())?;
    client.say_hello(imei()?)?;
    match client.hear()? {
        Some(ServerMessage::Welcome(_)) => Ok(client),
        other => Err(Failure::new(format!("no Welcome but {other:?}"))),
    }
}

/// What a device that is refused by TLS is told.
fn refused(server: &Server, settings: &Settings) -> Result<String, Failure> {
    // In TLS 1.3 the device's half is over before the server has judged it; in 1.2 the handshake itself fails.
    Ok(match settings.connect(server.devices()) {
        Ok(mut client) => client.end(),
        Err(failure) => failure.to_string(),
    })
}

/// The server refuses this device with this alert and says why in its log.
fn assert_refused(
    server: &mut Server,
    settings: &Settings,
    alert: &str,
    words: &[&str],
) -> Result<(), Failure> {
    let told = refused(server, settings)?;
    assert!(told.contains(alert), "{told:?} is not {alert}");
    let line = server.wait_for("refused: ")?;
    assert!(line.contains("address=127."), "no address in {line}");
    for words in words {
        assert!(line.contains(words), "{words:?} is not in {line}");
    }
    Ok(())
}

#[test]
fn flawed_certificates_are_refused_in_words() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let cases: [(_, _, &[&str]); 5] = [
        (
            DeviceFlaw::Expired,
            "CertificateExpired",
            &["client certificate expired on 20", "UTC", "IMEI 004999010640000"],
        ),
        (DeviceFlaw::NotYetValid, "CertificateExpired", &["client certificate is not valid before 20"]),
        (DeviceFlaw::WrongCa, "UnknownCA", &["client certificate is from another CA: \"CN=Another CA\""]),
        (DeviceFlaw::ForServers, "Certificate", &["client certificate is not for client use"]),
        (
            DeviceFlaw::Version1,
            "Certificate",
            &["client certificate is X.509 v1; issue it as v3", "CN=004999010640000"],
        ),
    ];
    for (flaw, alert, words) in cases {
        // One server each: it says only a few lines a minute about one address.
        let mut server = rig.server()?.start()?;
        let settings = Settings::new(rig.pki(), Some(&rig.pki().flawed_device(imei()?, flaw)?))?;
        assert_refused(&mut server, &settings, alert, words)?;
    }
    Ok(())
}

#[test]
fn device_without_a_certificate_is_told_to_bring_one() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let settings = Settings::new(rig.pki(), None)?;
    assert_refused(&mut server, &settings, "CertificateRequired", &["the device sent no certificate"])
}

#[test]
fn older_tls_is_refused_unless_the_configuration_admits_it() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let device = rig.pki().device(imei()?)?;
    let settings = Settings::with_versions(rig.pki(), Some(&device), &[&rustls::version::TLS12])?;
    let mut strict = rig.server()?.start()?;
    assert_refused(&mut strict, &settings, "ProtocolVersion", &["only older TLS versions"])?;
    let lenient = rig.server()?.set("tls.min_version", "1.2").start()?;
    welcome(&lenient, &settings).map(drop)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a peer that speaks no TLS")]
fn other_protocols_are_refused_in_words() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let device = rig.pki().device(imei()?)?;
    let web = Settings::new(rig.pki(), Some(&device))?.offering(&[b"h2"]);
    assert_refused(&mut server, &web, "NoApplicationProtocol", &["another protocol", "moorline/1"])?;

    let mut plain = TcpStream::connect(server.devices())?;
    plain.set_read_timeout(Some(PATIENCE))?;
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let _ = plain.read(&mut [0; 16])?;
    let line = server.wait_for("refused: ")?;
    assert!(line.contains(r#"no TLS handshake, it begins with "GET / HTTP/1.1"#), "{line}");
    Ok(())
}

#[test]
fn certificate_and_claim_have_to_agree() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let cases = [
        (rig.pki().flawed_device(imei()?, DeviceFlaw::NoImei)?, IMEI, "it names no IMEI"),
        (
            rig.pki().device(imei()?)?,
            "869731052403821",
            "names IMEI 004999010640000, the device says 869731052403821",
        ),
    ];
    for (device, claim, words) in cases {
        let mut client = Settings::new(rig.pki(), Some(&device))?.connect(server.devices())?;
        client.say_hello(claim.parse()?)?;
        match client.hear()? {
            Some(ServerMessage::Rejected(rejected)) => assert_eq!(rejected.code, rejection::IDENTITY),
            other => panic!("not rejected but {other:?}"),
        }
        assert_eq!(client.end(), "closed");
        let line = server.wait_for("refused: ")?;
        assert!(line.contains(words), "{words:?} is not in {line}");
    }
    // The event is of the IMEI that was claimed, and names the certificate and whose it is.
    let events = server.operators().wait_events("869731052403821", &["identity_mismatch"])?;
    let text = events.last().and_then(|event| event["text"].as_str()).unwrap_or_default();
    assert!(text.contains("names IMEI 004999010640000, the device says 869731052403821"), "{text}");
    assert!(text.contains("serial \""), "{text}");
    Ok(())
}

#[test]
fn resumed_device_keeps_its_identity() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let settings = Settings::new(rig.pki(), Some(&rig.pki().device(imei()?)?))?;
    assert!(!welcome(&server, &settings)?.is_resumed());
    let mut again = settings.connect(server.devices())?;
    assert!(again.is_resumed());
    again.say_hello("869731052403821".parse()?)?;
    match again.hear()? {
        Some(ServerMessage::Rejected(rejected)) => assert_eq!(rejected.code, rejection::IDENTITY),
        other => panic!("not rejected but {other:?}"),
    }
    assert!(welcome(&server, &settings)?.is_resumed());
    Ok(())
}

#[test]
fn keys_are_renewed_while_a_session_stands() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let settings = Settings::new(rig.pki(), Some(&rig.pki().device(imei()?)?))?;
    let mut client = welcome(&server, &settings)?;
    for _ in 0..3 {
        client.renew_keys()?;
        client.send(&DeviceMessage::Heartbeat)?;
        assert_eq!(client.hear()?, Some(ServerMessage::HeartbeatAck));
    }
    Ok(())
}

#[test]
fn closed_fleet_admits_whom_it_knows() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.set("identity.register", "known").start()?;
    let settings = Settings::new(rig.pki(), Some(&rig.pki().device(imei()?)?))?;
    let turned_away = |server: &mut Server| -> Result<(), Failure> {
        let mut client = settings.connect(server.devices())?;
        client.say_hello(imei()?)?;
        match client.hear()? {
            Some(ServerMessage::Rejected(rejected)) => assert_eq!(rejected.code, rejection::UNKNOWN_DEVICE),
            other => panic!("not rejected but {other:?}"),
        }
        let line = server.wait_for("refused: ")?;
        assert!(line.contains("let it register once under identity.register = \"open\""), "{line}");
        Ok(())
    };
    turned_away(&mut server)?;
    server.reload_with("identity.register", "open")?;
    drop(welcome(&server, &settings)?);
    server.reload_with("identity.register", "known")?;
    drop(welcome(&server, &settings)?);
    server.stop()?;
    server.start_again()?;
    welcome(&server, &settings).map(drop)
}

/// A server with an empty revocation list.
fn with_list(rig: &Rig) -> Result<Server, Failure> {
    rig.server()?.set("tls.crl", rig.pki().crl(&[])?.display()).start()
}

#[test]
fn revocation_reaches_those_who_resume_and_those_who_stay() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = with_list(&rig)?;
    let (bad, good) = (rig.pki().device(imei()?)?, rig.pki().device("869731052403821".parse()?)?);
    let bad_settings = Settings::new(rig.pki(), Some(&bad))?;
    let mut stays = welcome(&server, &bad_settings)?;
    let mut honest = Settings::new(rig.pki(), Some(&good))?.connect(server.devices())?;
    honest.say_hello("869731052403821".parse()?)?;
    assert!(matches!(honest.hear()?, Some(ServerMessage::Welcome(_))));

    rig.pki().crl(&[&bad])?;
    server.reload()?;
    honest.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(honest.hear()?, Some(ServerMessage::HeartbeatAck));
    match stays.hear()? {
        Some(ServerMessage::Goodbye(goodbye)) => assert_eq!(goodbye.reason, server_goodbye::CERTIFICATE),
        other => panic!("no Goodbye but {other:?}"),
    }
    server.wait_for("offline: its certificate was revoked")?;

    let mut resumes = bad_settings.connect(server.devices())?;
    assert!(resumes.is_resumed());
    match resumes.hear()? {
        Some(ServerMessage::Rejected(rejected)) => assert_eq!(rejected.code, rejection::CERTIFICATE),
        other => panic!("not rejected but {other:?}"),
    }
    assert!(server.wait_for("refused: ")?.contains("client certificate is revoked"));
    let told = refused(&server, &Settings::new(rig.pki(), Some(&bad))?)?;
    assert!(told.contains("CertificateRevoked"), "{told}");
    Ok(())
}

#[test]
fn bad_reload_changes_nothing() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let list = rig.pki().crl(&[])?;
    let mut server = with_list(&rig)?;
    let settings = Settings::new(rig.pki(), Some(&rig.pki().device(imei()?)?))?;
    let mut stands = welcome(&server, &settings)?;
    std::fs::write(&list, "no list at all")?;
    server.signal(Signal::HUP)?;
    server.wait_for("ca.crl holds no revocation list in PEM")?;
    server.wait_for("what was in force stays")?;
    stands.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(stands.hear()?, Some(ServerMessage::HeartbeatAck));
    assert!(welcome(&server, &settings)?.is_resumed());
    Ok(())
}

#[test]
fn expired_list_is_used_and_warned_about() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let bad = rig.pki().device(imei()?)?;
    let list = rig.pki().expired_crl(&[&bad])?;
    let server = rig.server()?.set("tls.crl", list.display()).start()?;
    assert!(server.said("the revocation list of \"CN=Moorline test CA\" expired on 20"));
    let told = refused(&server, &Settings::new(rig.pki(), Some(&bad))?)?;
    assert!(told.contains("CertificateRevoked"), "{told}");
    Ok(())
}

#[test]
fn new_server_certificate_is_shown_after_a_reload() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let pki = rig.pki();
    let own = pki.server()?;
    let mut server = rig.server()?.certified(&own).start()?;
    let settings = Settings::new(pki, Some(&pki.device(imei()?)?))?;
    let mut stands = welcome(&server, &settings)?;
    let foreign = pki.flawed_server(ServerFlaw::WrongCa)?;
    std::fs::copy(&foreign.certificate, &own.certificate)?;
    std::fs::copy(&foreign.key, &own.key)?;
    server.reload()?;
    stands.send(&DeviceMessage::Heartbeat)?;
    assert_eq!(stands.hear()?, Some(ServerMessage::HeartbeatAck));
    let fresh = Settings::new(pki, Some(&pki.device(imei()?)?))?;
    let told = refused(&server, &fresh)?;
    assert!(told.contains("UnknownIssuer"), "{told}");
    assert!(server.wait_for("refused: ")?.contains("does not trust this server's certificate"));
    Ok(())
}

/// The server's TLS alone, without its program.
fn source(pki: &Pki) -> Result<TlsSource, Failure> {
    let server = pki.server()?;
    TlsSource::new(&TlsSettings {
        file: "server.toml".into(),
        certificate: server.certificate,
        key: server.key,
        client_ca: pki.ca(),
        crl: None,
        admit_tls12: false,
        resumable: 16,
    })
    .map_err(|mistakes| Failure::new(mistakes.to_string()))
}

/// Runs a handshake in memory; the device keeps its ticket.
fn shaken(source: &TlsSource, config: &Arc<ClientConfig>) -> Result<Pump, Failure> {
    shake::shaken(source, config)?.map_err(|refusal| Failure::new(refusal.text))
}

#[test]
fn certificate_that_expired_since_is_refused_to_those_who_resume_and_those_who_stay() -> Result<(), Failure> {
    let pki = Pki::new()?;
    let source = source(&pki)?;
    let config = Arc::new(Settings::new(&pki, Some(&pki.device(imei()?)?))?.into_config());
    let today = now();
    let after_its_end = Now { utc_ms: today.utc_ms + 51 * 24 * 60 * 60 * 1000, ..today };

    let mut stays = shaken(&source, &config)?;
    assert!(!source.judge(&mut stays, today).map_err(|refusal| Failure::new(refusal.text))?.resumed);
    let mut stays = Tls::open(stays)?;
    assert_eq!(source.judge_again(&mut stays, today), Ok(()));
    let mut resumes = shaken(&source, &config)?;
    assert!(source.judge(&mut resumes, today).map_err(|refusal| Failure::new(refusal.text))?.resumed);

    let mut late = shaken(&source, &config)?;
    let refusals =
        [source.judge_again(&mut stays, after_its_end), source.judge(&mut late, after_its_end).map(drop)];
    for refusal in refusals {
        let refusal = refusal.expect_err("it has expired");
        assert_eq!(refusal.reason, "expired");
        assert!(refusal.text.contains("client certificate expired on 20"), "{}", refusal.text);
    }
    Ok(())
}

/// Runs a handshake in memory with what the device sends changed by `mangle`, and hears whatever comes of it.
fn mangled(
    source: &TlsSource,
    config: &Arc<ClientConfig>,
    mangle: impl Fn(usize, &mut Vec<u8>),
) -> Result<(), Failure> {
    let mut client = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
    let (mut shaking, mut open) = (Some(source.accept()?), None);
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    for flight in 0..5 {
        let mut sent = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut sent)?;
        }
        mangle(flight, &mut sent);
        incoming.append(&mut sent);
        // As the shell does, with whatever is left.
        if let Some(pump) = &mut shaking {
            let Ok((taken, progress)) = pump.take(&mut incoming, &mut outgoing, |_| ()) else {
                return Ok(());
            };
            incoming.drain(..taken);
            if progress == Progress::Open {
                let _ = source.judge(pump, now());
                open = shaking.take().map(Tls::open).transpose()?;
            }
        }
        if let Some(tls) = &mut open {
            let Ok((taken, _)) = tls.take(&mut incoming, &mut outgoing, |_| ()) else { return Ok(()) };
            incoming.drain(..taken);
            if flight < 3 {
                tls.say(b"hello", &mut incoming, &mut outgoing)?;
            } else {
                tls.close(&mut incoming, &mut outgoing);
            }
        }
        let mut answer = outgoing.as_slice();
        while !answer.is_empty() && client.read_tls(&mut answer)? > 0 {
            if client.process_new_packets().is_err() {
                return Ok(());
            }
        }
        outgoing.clear();
        let _ = client.writer().write_all(&[1, 1]);
    }
    Ok(())
}

#[test]
fn mangled_flights_never_panic() -> Result<(), Failure> {
    let pki = Pki::new()?;
    let source = source(&pki)?;
    let config = Arc::new(Settings::new(&pki, Some(&pki.device(imei()?)?))?.into_config());
    mangled(&source, &config, |_, _| ())?;
    for flight in 0..3 {
        for place in (0..1200).step_by(23) {
            let here = |at: usize, change: fn(&mut Vec<u8>, usize)| {
                move |now: usize, sent: &mut Vec<u8>| {
                    if now == flight && at < sent.len() {
                        change(sent, at);
                    }
                }
            };
            mangled(&source, &config, here(place, |sent, at| sent[at] ^= 0x41))?;
            mangled(&source, &config, here(place, |sent, at| sent.insert(at, 0x16)))?;
            mangled(&source, &config, here(place, |sent, at| sent.extend_from_slice(&sent.clone()[at..])))?;
        }
    }
    Ok(())
}
