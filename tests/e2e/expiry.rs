//! What operators are told of certificates before they expire: of devices' and of the server's own, and once each.

use moorline_certs::Validity;
use moorline_protocol::ServerMessage;
use moorline_testbed::certs::{Credentials, lasting};
use moorline_testbed::client::{Client, Settings};
use moorline_testbed::failure::Failure;
use moorline_testbed::rig::{IMEI, Rig, Server};
use time::{Duration, OffsetDateTime};

const OTHER: &str = "869731052403821";
const THIRD: &str = "015184008301272";

fn for_days(days: i64) -> Validity {
    Validity { not_after: OffsetDateTime::now_utc() + Duration::days(days), ..lasting() }
}

fn come(rig: &Rig, server: &Server, imei: &str, by: &Credentials) -> Result<Client, Failure> {
    let mut client = Settings::new(rig.pki(), Some(by))?.connect(server.devices())?;
    client.say_hello(imei.parse()?)?;
    match client.hear()? {
        Some(ServerMessage::Welcome(_)) => Ok(client),
        other => Err(Failure::new(format!("no Welcome but {other:?}"))),
    }
}

/// The value of a series.
fn value(server: &Server, series: &str) -> Result<i64, Failure> {
    let text = server.operators().text("/metrics")?;
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    found.ok_or_else(|| Failure::new(format!("no {series} in\n{text}")))
}

#[test]
fn end_of_a_devices_certificate_is_told_once_also_over_restarts() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let (near, nearer, far) = (
        rig.pki().device_valid(IMEI.parse()?, for_days(20))?,
        rig.pki().device_valid(OTHER.parse()?, for_days(5))?,
        rig.pki().device(THIRD.parse()?)?,
    );
    let devices = [(IMEI, &near, Some("30d")), (OTHER, &nearer, Some("7d")), (THIRD, &far, None)];
    for round in 0..3 {
        let clients = devices.map(|(imei, by, _)| come(&rig, &server, imei, by));
        for (imei, by, told) in devices {
            server.operators().wait_online(imei, true)?;
            let told_kinds = &["online", "certificate_expiring"][..if told.is_some() { 2 } else { 1 }];
            let kinds = if round == 0 { told_kinds } else { &["offline", "online"] };
            let events = server.operators().wait_events(imei, kinds)?;
            let all: Vec<_> = events.iter().filter(|event| event["kind"] == "certificate_expiring").collect();
            assert_eq!(all.len(), usize::from(told.is_some()), "{imei} in round {round}: {all:#?}");
            if let (Some(event), Some(told)) = (all.first(), told) {
                assert_eq!(event["cause"], told);
                assert_eq!(event["certificate"], by.serial.to_string().to_lowercase().as_str());
                let text = event["text"].as_str().unwrap_or_default();
                assert!(text.starts_with("its certificate ends on 20"), "{text}");
            }
        }
        clients.into_iter().collect::<Result<Vec<_>, _>>()?;
        server.stop()?;
        server.start_again()?;
    }
    // Counted soon after the start, for all that are known.
    for (remaining, count) in [("30d", 1), ("7d", 1), ("later", 1), ("expired", 0)] {
        let series = format!("moorline_device_certificates{{remaining=\"{remaining}\"}}");
        let counted = |_: &serde_json::Value| value(&server, &series).ok();
        let found = server.operators().wait_until("/api/devices", &series, counted)?;
        assert_eq!(found, count, "{remaining}");
    }
    let shown = |certificate: &str| -> Result<Vec<String>, Failure> {
        let list = server.operators().json(&format!("/api/devices?certificate={certificate}"))?;
        let devices = list["devices"].as_array().cloned().unwrap_or_default();
        Ok(devices.iter().map(|device| device["imei"].as_str().unwrap_or_default().to_owned()).collect())
    };
    assert_eq!(shown("expiring")?, [IMEI, OTHER]);
    assert_eq!(shown("expired")?, Vec::<String>::new());
    assert!(shown("soon").is_err());
    Ok(())
}

#[test]
fn end_of_the_servers_own_certificate_is_said_at_its_start_and_at_a_reload() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let own = rig.pki().server()?;
    let mut server = rig.server()?.certified(&own).set("tls.crl", rig.pki().crl(&[])?.display()).start()?;
    let series = "moorline_server_certificate_expiry_timestamp_seconds";
    let (now, days) = (OffsetDateTime::now_utc().unix_timestamp(), |days: i64| days * 24 * 60 * 60);
    assert!((days(49)..=days(50)).contains(&(value(&server, series)? - now)));
    let due = value(&server, "moorline_crl_next_update_timestamp_seconds")? - now;
    assert!((days(49)..=days(50)).contains(&due), "{due}");
    assert!(!server.said("the server's certificate"), "{:#?}", server.lines());
    let next = rig.pki().server_valid(for_days(6))?;
    std::fs::copy(&next.certificate, &own.certificate)?;
    std::fs::copy(&next.key, &own.key)?;
    server.reload()?;
    let words = format!("the server's certificate in {} ends on 20", own.certificate.display());
    assert!(server.lines().iter().any(|line| line.contains(&words) && line.contains("in 5 days")));
    server.operators().wait_until("/api/devices", "the new end", |_| {
        let left = value(&server, series).unwrap_or_default() - now;
        (days(5)..=days(6)).contains(&left).then_some(())
    })?;
    server.stop()?;
    server.start_again()?;
    assert!(server.said(&words));
    Ok(())
}
