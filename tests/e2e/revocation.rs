//! Certificates lose their worth while sessions stand: a revocation list is replaced under a running server, a device's
//! certificate expires. Who is concerned goes within five seconds, though nobody says a word; and a list of no use is no list.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moorline_certs::{Authority, PrivateKey, Revoked, Serial, Validity};
use moorline_protocol::{Imei, ServerMessage, rejection, server_goodbye};
use moorline_server::clock::now;
use moorline_server::expiry::Remaining;
use moorline_server::store::Credential;
use moorline_server::tls::{Look, TlsSettings, TlsSource};
use moorline_testbed::certs::{Credentials, Pki, lasting};
use moorline_testbed::client::{Client, Settings};
use moorline_testbed::failure::Failure;
use moorline_testbed::rig::{IMEI, Rig, Server};
use moorline_testbed::shake::shaken;
use rustix::process::Signal;
use time::OffsetDateTime;

const OTHER: &str = "869731052403821";

/// How soon a session has to be gone: the promise is 5 s, the rest is for a busy machine.
const GONE: Duration = Duration::from_secs(8);

fn welcome(server: &Server, settings: &Settings, imei: &str) -> Result<Client, Failure> {
    let mut client = settings.connect(server.devices())?;
    client.say_hello(imei.parse()?)?;
    match client.hear()? {
        Some(ServerMessage::Welcome(_)) => Ok(client),
        other => Err(Failure::new(format!("no Welcome but {other:?}"))),
    }
}

/// Waits, without a word, for a Goodbye over the certificate.
fn hears_of_its_certificate(client: &mut Client) -> Result<(), Failure> {
    match client.hear()? {
        Some(ServerMessage::Goodbye(goodbye)) => assert_eq!(goodbye.reason, server_goodbye::CERTIFICATE),
        other => panic!("no Goodbye but {other:?}"),
    }
    assert_eq!(client.end(), "closed");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is what is promised")]
fn instant() -> Instant {
    Instant::now()
}

#[test]
fn list_that_is_replaced_ends_the_session_of_whom_it_revokes() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.set("tls.crl", rig.pki().crl(&[])?.display()).start()?;
    let (bad, good) = (rig.pki().device(IMEI.parse()?)?, rig.pki().device(OTHER.parse()?)?);
    let bad_settings = Settings::new(rig.pki(), Some(&bad))?;
    let mut silent = welcome(&server, &bad_settings, IMEI)?;
    let mut agent = rig.agent(server.devices(), OTHER)?.certified(&good).start()?;
    agent.wait_for("registered")?;

    let began = instant();
    rig.pki().crl(&[&bad])?;
    hears_of_its_certificate(&mut silent)?;
    let took = instant().duration_since(began);
    assert!(took < GONE, "{took:?}");

    let events = server.operators().wait_events(IMEI, &["online", "offline"])?;
    let gone = events.last().expect("there are two");
    assert_eq!(gone["cause"], "revoked", "{gone:#}");
    assert_eq!(gone["text"], "its certificate was revoked");
    let serial = bad.serial.to_string().to_lowercase();
    assert_eq!(gone["certificate"], serial.as_str());
    let metrics = server.operators().text("/metrics")?;
    for line in [
        "moorline_crl_reads_total{result=\"taken\"} 1",
        "moorline_sessions_ended_total{reason=\"revoked\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }

    // Neither by what it resumes nor anew.
    let mut resumes = bad_settings.connect(server.devices())?;
    assert!(resumes.is_resumed());
    match resumes.hear()? {
        Some(ServerMessage::Rejected(rejected)) => assert_eq!(rejected.code, rejection::CERTIFICATE),
        other => panic!("not rejected but {other:?}"),
    }
    let mut anew = Settings::new(rig.pki(), Some(&bad))?.connect(server.devices())?;
    assert!(anew.end().contains("CertificateRevoked"));

    server.operators().wait_online(OTHER, true)?;
    assert!(!agent.said("goodbye"), "{:#?}", agent.lines());
    agent.stop()?;
    server.stop()
}

#[test]
fn agent_that_loses_its_certificate_says_so_and_comes_back_with_a_new_one() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.set("tls.crl", rig.pki().crl(&[])?.display()).start()?;
    for is_revoked in [true, false] {
        let device = if is_revoked { rig.pki().device(IMEI.parse()?)? } else { expiring(&rig, 6)? };
        let mut agent = rig.agent(server.devices(), IMEI)?.certified(&device).start()?;
        agent.wait_for("registered")?;
        if is_revoked {
            rig.pki().crl(&[&device])?;
        }
        agent.wait_for("the server said goodbye: this device's certificate was revoked or has expired")?;
        agent.wait_for("-> offline: next try in")?;
        let fresh = rig.pki().device(IMEI.parse()?)?;
        fs::copy(&fresh.certificate, &device.certificate)?;
        fs::copy(&fresh.key, &device.key)?;
        agent.signal(Signal::HUP)?;
        agent.wait_for("registered")?;
        server.operators().wait_online(IMEI, true)?;
        agent.stop()?;
    }
    Ok(())
}

/// A certificate that ends in so many seconds.
fn expiring(rig: &Rig, seconds: i64) -> Result<Credentials, Failure> {
    let not_after = OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    rig.pki().device_valid(IMEI.parse()?, Validity { not_after, ..lasting() })
}

#[test]
fn session_ends_with_its_certificate() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    // The other one outlives it: the watch goes on to the next.
    let lasting = rig.pki().device(OTHER.parse()?)?;
    let mut stays = welcome(&server, &Settings::new(rig.pki(), Some(&lasting))?, OTHER)?;
    for round in [1, 2] {
        let device = expiring(&rig, 6)?;
        let mut silent = welcome(&server, &Settings::new(rig.pki(), Some(&device))?, IMEI)?;
        let began = instant();
        hears_of_its_certificate(&mut silent)?;
        let took = instant().duration_since(began);
        assert!(took < Duration::from_secs(6) + GONE, "round {round}: {took:?}");
        let events = server.operators().wait_events(IMEI, &["online", "certificate_expiring", "offline"])?;
        let gone = events.last().expect("there are three");
        assert_eq!(
            (&gone["cause"], &gone["text"]),
            (&"expired".into(), &"its certificate has expired".into())
        );
        assert_eq!(gone["certificate"], device.serial.to_string().to_lowercase().as_str());
    }
    stays.send(&moorline_protocol::DeviceMessage::Heartbeat)?;
    assert_eq!(stays.hear()?, Some(ServerMessage::HeartbeatAck));
    Ok(())
}

/// The server's TLS alone, with such a list's file and CAs.
struct Place {
    pki: Pki,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self, Failure> {
        Ok(Self { pki: Pki::new()?, folder: tempfile::tempdir()? })
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("lists.crl")
    }

    fn source(&self, client_ca: &Path) -> Result<TlsSource, Failure> {
        TlsSource::new(&self.settings(client_ca)?).map_err(|mistakes| Failure::new(mistakes.to_string()))
    }

    fn settings(&self, client_ca: &Path) -> Result<TlsSettings, Failure> {
        let server = self.pki.server()?;
        Ok(TlsSettings {
            file: "server.toml".into(),
            certificate: server.certificate,
            key: server.key,
            client_ca: client_ca.to_owned(),
            crl: Some(self.list()),
            admit_tls12: false,
            resumable: 16,
        })
    }

    /// Puts another file in the list's place, in one step.
    fn replace(&self, text: &str) -> Result<(), Failure> {
        let unfinished = self.folder.path().join("unfinished");
        fs::write(&unfinished, text)?;
        Ok(fs::rename(&unfinished, self.list())?)
    }
}

/// A CA's list, with such a number, of these.
fn list_of(pki: &Pki, number: u64, revoked: &[&Credentials], validity: Validity) -> Result<String, Failure> {
    let read = |name: &str| fs::read_to_string(pki.folder().join(name));
    let authority = Authority::from_pem(&read("ca.pem")?, &read("ca.key")?)?;
    let at = OffsetDateTime::now_utc();
    let entries: Vec<_> =
        revoked.iter().map(|one| Revoked { serial: one.serial.clone(), at, reason: None }).collect();
    Ok(authority.crl(number, &entries, validity)?)
}

/// What comes of a change once it is looked at twice.
fn looked(source: &TlsSource) -> Look {
    let first = source.look_at_lists(now());
    if matches!(first, Look::Same) { source.look_at_lists(now()) } else { first }
}

fn holds(source: &TlsSource, device: &Credentials) -> bool {
    source.revoked().holds(&Credential {
        serial: device.serial.to_string().to_lowercase().trim_start_matches('0').into(),
        issuer: "CN=Moorline test CA".into(),
        not_after_ms: 0,
        told: Remaining::Later,
    })
}

#[test]
fn list_of_no_use_leaves_the_one_in_force() -> Result<(), Failure> {
    let place = Place::new()?;
    let (bad, worse) = (place.pki.device(IMEI.parse()?)?, place.pki.device(OTHER.parse()?)?);
    place.replace(&list_of(&place.pki, 5, &[&bad], lasting())?)?;
    let source = place.source(&place.pki.ca())?;
    assert!(holds(&source, &bad) && !holds(&source, &worse));

    let stranger = Pki::new()?;
    let (key, today) = (PrivateKey::generate()?, OffsetDateTime::now_utc());
    let named = Authority::create("Another CA", key, &Serial::random()?, lasting())?;
    let yesterday =
        Validity { not_before: today - time::Duration::WEEK, not_after: today - time::Duration::DAY };
    let whole = list_of(&place.pki, 6, &[&worse], lasting())?;
    let cases = [
        ("no list at all".to_owned(), "holds no revocation list in PEM"),
        (String::new(), "holds no revocation list in PEM"),
        (whole[..whole.len() / 2].to_owned(), "is not PEM"),
        ("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned(), "this is no revocation list"),
        // The stranger's CA has the same name.
        (list_of(&stranger, 6, &[&worse], lasting())?, "that CA of tls.client_ca did not sign it"),
        (named.crl(6, &[], lasting())?, "no revocation list of \"CN=Moorline test CA\""),
        (list_of(&place.pki, 4, &[&worse], lasting())?, "has number 4, and number 5 is in force"),
        (list_of(&place.pki, 6, &[&worse], yesterday)?, "is overdue since 20"),
    ];
    for (text, words) in cases {
        place.replace(&text)?;
        match looked(&source) {
            Look::Refused(mistakes) => {
                let said = mistakes.to_string();
                assert!(said.contains(words) && said.contains("tls.crl"), "{words:?} is not in {said}");
            }
            other => panic!("{words}: {other:?}"),
        }
        assert!(matches!(looked(&source), Look::Same), "it is said once");
        assert!(holds(&source, &bad) && !holds(&source, &worse), "{words}");
    }
    fs::remove_file(place.list())?;
    let Look::Refused(mistakes) = looked(&source) else { panic!("a file that is gone is taken") };
    assert!(mistakes.to_string().contains("cannot be read"), "{mistakes}");

    place.replace(&whole)?;
    assert!(matches!(looked(&source), Look::Taken(warnings) if warnings.is_empty()));
    assert!(!holds(&source, &bad) && holds(&source, &worse));
    Ok(())
}

#[test]
fn every_way_to_put_a_list_in_place_is_noticed() -> Result<(), Failure> {
    let place = Place::new()?;
    let bad = place.pki.device(IMEI.parse()?)?;
    let folder = place.folder.path();
    let mut number = 0;
    let mut next = |revoked: &[&Credentials]| {
        number += 1;
        list_of(&place.pki, number, revoked, lasting())
    };
    place.replace(&next(&[])?)?;
    let source = place.source(&place.pki.ca())?;
    let assert_taken = |how: &str, revoked: bool| {
        let look = looked(&source);
        assert!(matches!(look, Look::Taken(_)), "{how}: {look:?}");
        assert_eq!(holds(&source, &bad), revoked, "{how}");
    };
    place.replace(&next(&[&bad])?)?;
    assert_taken("renamed over", true);
    fs::write(place.list(), next(&[])?)?;
    assert_taken("written over", false);
    // As a container's volume: the file is a link through a folder's link, and that is what is exchanged.
    for (name, revoked) in [("1", vec![&bad]), ("2", vec![])] {
        fs::create_dir(folder.join(name))?;
        fs::write(folder.join(name).join("lists.crl"), next(&revoked)?)?;
        let unfinished = folder.join("unfinished");
        symlink(name, &unfinished)?;
        fs::rename(&unfinished, folder.join("data"))?;
        if name == "1" {
            fs::remove_file(place.list())?;
            symlink("data/lists.crl", place.list())?;
        }
        assert_taken("another folder's link", !revoked.is_empty());
    }
    Ok(())
}

/// As in a rollover: the lists of both lie in one file, and each of them holds for its own CA's certificates.
#[test]
fn lists_of_two_authorities_of_one_name_are_kept_apart() -> Result<(), Failure> {
    let (place, newer) = (Place::new()?, Pki::new()?);
    let both = place.folder.path().join("both.pem");
    fs::write(&both, fs::read_to_string(place.pki.ca())? + &fs::read_to_string(newer.ca())?)?;
    let old_bad = place.pki.device(IMEI.parse()?)?;
    let new_bad = newer.device(OTHER.parse()?)?;
    let old_list = list_of(&place.pki, 7, &[&old_bad], lasting())?;
    let new_list = list_of(&newer, 1, &[&new_bad], lasting())?;
    place.replace(&(old_list.clone() + &new_list))?;
    let source = place.source(&both)?;
    for (pki, device, revoked) in [
        (&place.pki, &old_bad, true),
        (&newer, &new_bad, true),
        (&place.pki, &place.pki.device(OTHER.parse()?)?, false),
        (&newer, &newer.device(IMEI.parse()?)?, false),
    ] {
        let config = Settings::new(&place.pki, Some(device))?.into_config();
        let refusal = shaken(&source, &Arc::new(config))?.err();
        let reason = refusal.map(|refusal| refusal.reason);
        assert_eq!(reason, revoked.then_some("revoked"), "{} {device:?}", pki.ca().display());
    }
    // Once the old one is trusted no more, its list is passed over, and holds nobody up who bears its name.
    let change = |client_ca: &Path| -> Result<(), Failure> {
        let settings = place.settings(client_ca)?;
        source.reload(&settings, now()).map_err(|mistakes| Failure::new(mistakes.to_string()))
    };
    change(&newer.ca())?;
    assert!(source.warnings(now()).iter().any(|warning| warning.contains("it is passed over")));
    assert!(holds(&source, &new_bad) && !holds(&source, &old_bad));
    let config = Settings::new(&place.pki, Some(&newer.device(IMEI.parse()?)?))?.into_config();
    assert!(shaken(&source, &Arc::new(config))?.is_ok());
    change(&both)?;
    assert!(holds(&source, &new_bad) && holds(&source, &old_bad));
    // The old one's list goes when its CA does, and not before.
    place.replace(&new_list)?;
    assert!(matches!(looked(&source), Look::Refused(_)));
    change(&newer.ca())?;
    assert!(holds(&source, &new_bad) && !holds(&source, &old_bad));
    Ok(())
}

#[test]
fn list_that_is_broken_is_said_and_counted_by_the_server() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let list = rig.pki().crl(&[])?;
    let mut server = rig.server()?.set("tls.crl", list.display()).start()?;
    let device = rig.pki().device(IMEI.parse::<Imei>()?)?;
    let mut client = welcome(&server, &Settings::new(rig.pki(), Some(&device))?, IMEI)?;
    fs::write(&list, "no list at all")?;
    server.wait_for("ca.crl holds no revocation list in PEM")?;
    server.wait_for("the revocation list was replaced by one of no use: the one in force stays")?;
    let metrics = server.operators().text("/metrics")?;
    for line in ["moorline_crl_reads_total{result=\"refused\"} 1", "moorline_crl_refused 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    rig.pki().crl(&[&device])?;
    hears_of_its_certificate(&mut client)?;
    let metrics = server.operators().text("/metrics")?;
    assert!(metrics.contains("moorline_crl_refused 0\n"), "{metrics}");
    server.stop()
}
