//! That reconnects resume, as long as the agent lives: real handshakes with client certificates against a real server.

use std::collections::BTreeSet;
use std::time::Duration;

use moorline_agent::budget::Purpose;
use moorline_testbed::client_hello::{cipher_suites, extension, offered_tickets};
use moorline_testbed::failure::Failure;
use moorline_testbed::measure::Probe;
use moorline_testbed::relay::Relay;
use moorline_testbed::rig::{IMEI, Rig};

#[test]
fn every_reconnect_resumes_with_a_ticket_of_its_own() -> Result<(), Failure> {
    let mut probe = Probe::new()?;
    let first = probe.connect()?;
    assert!(!first.resumed && first.offered.is_empty(), "{first:?}");
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let connect = probe.connect()?;
        // As the agent counts them: on the relay the end of the connection before may still pass.
        let bytes = connect.counted.of(Purpose::Resumed);
        assert!(connect.resumed && bytes.up + bytes.down <= 900, "{connect:?}");
        let [ticket] = &connect.offered[..] else { panic!("{connect:?}") };
        assert!(seen.insert(ticket.clone()), "a ticket was offered twice: {connect:?}");
    }
    Ok(())
}

/// RFC 8446 appendix C.4: who sees both connections must not see that they are the same client's.
#[test]
fn connections_that_race_share_no_ticket() -> Result<(), Failure> {
    let mut probe = Probe::new()?;
    probe.connect()?;
    assert_eq!(probe.race()?.len(), 1);
    assert_eq!(probe.race()?.len(), 0, "the one ticket was taken");
    let full = probe.connect()?;
    assert!(!full.resumed && full.offered.is_empty(), "{full:?}");
    Ok(())
}

/// What RFC 9325 asks for, the first time and when it resumes. The numbers are IANA's for TLS.
#[test]
fn agent_offers_forward_secrecy_and_strong_suites_and_no_early_data() -> Result<(), Failure> {
    let [signatures, alpn, early_data, versions, key_modes, key_share] = [13, 16, 42, 43, 45, 51];
    let mut probe = Probe::new()?;
    let first = probe.client_hello()?;
    probe.connect()?;
    let again = probe.client_hello()?;
    assert_eq!((offered_tickets(&first).len(), offered_tickets(&again).len()), (0, 1));
    for hello in [first, again] {
        assert_eq!(extension(&hello, versions), Some(&[2, 3, 4][..]), "TLS 1.3 alone");
        // AES-128-GCM, AES-256-GCM.
        assert_eq!(cipher_suites(&hello), [0x1301, 0x1302]);
        assert_eq!(extension(&hello, key_modes), Some(&[1, 1][..]), "psk_dhe_ke alone");
        assert!(extension(&hello, key_share).is_some() && extension(&hello, early_data).is_none());
        assert_eq!(extension(&hello, alpn), Some(&b"\0\x0b\x0amoorline/1"[..]));
        let schemes = extension(&hello, signatures).unwrap_or_default();
        let hashes: Vec<_> = schemes[2..].chunks_exact(2).map(|scheme| scheme[0]).collect();
        assert!(!hashes.is_empty() && hashes.iter().all(|hash| *hash >= 4), "no SHA-1, no MD5: {schemes:?}");
    }
    Ok(())
}

#[test]
fn ticket_is_worth_nothing_after_a_week() -> Result<(), Failure> {
    const HOUR: Duration = Duration::from_secs(3600);
    let mut probe = Probe::new()?;
    for (age, resumed) in [(HOUR, true), (23 * HOUR, true), (7 * 24 * HOUR, false), (HOUR, true)] {
        probe.connect()?;
        probe.age_tickets(age);
        let connect = probe.connect()?;
        assert_eq!(connect.resumed, resumed, "{age:?}: {connect:?}");
        assert_eq!(connect.offered.len(), usize::from(resumed));
    }
    Ok(())
}

#[test]
fn two_servers_are_remembered() -> Result<(), Failure> {
    let mut probe = Probe::new()?;
    for resumed in [false, true, true] {
        for name in ["localhost", "127.0.0.1"] {
            assert_eq!(probe.connect_by(name)?.resumed, resumed, "{name}");
        }
    }
    Ok(())
}

#[test]
fn agent_counts_what_passes_and_what_it_is_for() -> Result<(), Failure> {
    let mut probe = Probe::new()?;
    for (purpose, other) in [(Purpose::Full, Purpose::Resumed), (Purpose::Resumed, Purpose::Full)] {
        let connect = probe.connect()?;
        let counted = connect.counted.of(purpose);
        assert_eq!(counted.up, connect.registered.up);
        // On the relay the end of the connection before may still pass.
        assert!(counted.down > 0 && counted.down <= connect.registered.down, "{connect:?}");
        assert_eq!(connect.counted.of(other).sum(), 0);
        assert_eq!(connect.counted.sum(), counted);
        let time = probe.counted();
        assert_eq!(time.sum(), time.of(Purpose::Time));
        assert!(time.of(Purpose::Time).up > 24 && time.of(Purpose::Time).down > 24, "{time:?}");
        probe.heartbeat()?;
        let beat = probe.counted().of(Purpose::Heartbeat);
        assert_eq!((beat.up, beat.down), (24, 24));
    }
    Ok(())
}

/// rustls's tickets cannot be written to a disk.
#[test]
fn restart_of_the_agent_costs_a_full_handshake() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let relay = Relay::start(server.devices());
    let mut agent = rig.agent(relay.address(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    for _ in 0..2 {
        let before = relay.bytes();
        relay.cut();
        agent.wait_for("registered")?;
        assert!(relay.bytes().since(before).sum() <= 1200, "the reconnect and a time question");
        agent.stop()?;
        let before = relay.bytes();
        agent.start_again()?;
        agent.wait_for("registered")?;
        assert!(relay.bytes().since(before).sum() > 1600);
    }
    agent.stop()
}
