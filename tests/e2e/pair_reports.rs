//! What a device tells of itself beside its heartbeats, its reports and what it has used of its budget: along with what is said
//! anyway, once, and to a native server alone. In virtual time, as `pair.rs`.

use std::time::Duration;

use moorline_agent::session::{self as agent, End};
use moorline_protocol::{Status, Usage, UsageBytes, device_goodbye};
use moorline_server::session::{self as server, Event};
use moorline_testbed::pair::{Pair, Setup};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn heartbeats(pair: &Pair) -> usize {
    pair.count(|event| *event == Event::Heartbeat)
}

#[test]
fn report_is_told_once_and_stands_for_a_heartbeat() {
    let mut pair = Setup::default().join();
    let status = Status { signal_dbm: Some(-73), registration: Some(5), ..Status::default() };
    // Before the server has taken the device in there is nobody to tell; the later of two reports is the one.
    pair.sessions().0.report(Status::default());
    pair.sessions().0.report(status.clone());
    pair.run_for(30 * SECOND);
    let told = |event: &Event| matches!(event, Event::Status(told) if **told == status);
    assert_eq!((pair.count(told), pair.count(|event| matches!(event, Event::Status(_)))), (1, 1));
    let writes = pair.device_writes;
    pair.sessions().0.report(status.clone());
    pair.run_for(59 * SECOND);
    assert_eq!((pair.count(told), pair.device_writes), (2, writes + 1));
    assert_eq!(heartbeats(&pair), 0);
}

#[test]
fn classic_server_is_told_no_report() {
    let mut pair = Setup::classic().join();
    pair.run_for(2 * SECOND);
    let writes = pair.device_writes;
    pair.sessions().0.report(Status::default());
    pair.run_for(30 * SECOND);
    assert_eq!((pair.device_writes, pair.device_end()), (writes, None));
}

fn usage(heartbeats: u32) -> Usage {
    Usage { bytes: UsageBytes { heartbeats, ..UsageBytes::default() }, ..Usage::default() }
}

fn told_usage(pair: &Pair) -> Vec<Usage> {
    let told = pair.server_events.iter().filter_map(|(_, event)| match event {
        Event::Usage(usage) => Some(usage.as_ref().clone()),
        _ => None,
    });
    told.collect()
}

fn usage_is_out(pair: &Pair) -> bool {
    pair.device_events.iter().any(|(_, event)| *event == agent::Event::UsageTold)
}

#[test]
fn usage_goes_along_with_what_is_said_anyway() {
    let mut pair = Setup::default().join();
    pair.run_for(10 * SECOND);
    let writes = pair.device_writes;
    pair.sessions().0.tell_usage(usage(1));
    pair.run_for(40 * SECOND);
    assert_eq!((told_usage(&pair), pair.device_writes), (vec![], writes));
    // The later one is the one.
    pair.sessions().0.tell_usage(usage(2));
    pair.run_for(20 * SECOND);
    assert_eq!((told_usage(&pair), heartbeats(&pair)), (vec![usage(2)], 1));
    assert!(usage_is_out(&pair));
    pair.run_for(DAY);
    assert_eq!(told_usage(&pair).len(), 1);
    assert_eq!((pair.device_end(), pair.server_end()), (None, None));
}

#[test]
fn usage_comes_before_the_goodbye() {
    let mut pair = Setup::default().join();
    pair.run_for(10 * SECOND);
    pair.sessions().0.tell_usage(usage(1));
    pair.sessions().0.close(device_goodbye::BUDGET);
    pair.run_for(SECOND);
    assert_eq!(told_usage(&pair), [usage(1)]);
    assert_eq!(pair.server_end(), Some(server::Cause::Goodbye { reason: device_goodbye::BUDGET }));
}

#[test]
fn usage_that_a_lost_session_did_not_tell_is_not_called_told() {
    let mut pair = Setup::default().join();
    pair.run_for(10 * SECOND);
    pair.sessions().0.tell_usage(usage(1));
    pair.sessions().1.end(server::Cause::Stopping, SECOND);
    pair.run_for(SECOND);
    assert!(matches!(pair.device_end(), Some(End::Goodbye { .. })));
    assert!(!usage_is_out(&pair));
}

#[test]
fn classic_server_is_told_no_usage() {
    let mut pair = Setup::classic().join();
    pair.run_for(2 * SECOND);
    pair.sessions().0.tell_usage(usage(1));
    pair.run_for(MINUTE);
    assert_eq!((told_usage(&pair), heartbeats(&pair)), (vec![], 1));
    assert!(!usage_is_out(&pair));
}

/// A server that is older than Usage knows the discriminants up to 6 and skips the rest, as ours skips 8 with whatever
/// fields; and an agent that is older never sends it.
#[test]
fn usage_of_a_later_version_is_skipped_and_the_session_stands() {
    let mut pair = Setup::default().join();
    pair.run_for(5 * SECOND);
    let later = [[24, 8].as_slice(), &[0xff; 23], &[1, 1]].concat();
    pair.deliver_to_server(&later);
    assert_eq!(pair.count(|event| *event == Event::Skipped { message: 8 }), 1);
    assert_eq!((heartbeats(&pair), pair.server_end()), (1, None));
}

#[test]
fn usage_that_is_cut_or_too_long_ends_the_session() {
    // The shortest body is 23 bytes.
    for length in [22, 24] {
        let mut pair = Setup::default().join();
        pair.run_for(5 * SECOND);
        pair.deliver_to_server(&[&[length, 7], [0].repeat(usize::from(length) - 1).as_slice()].concat());
        assert!(matches!(pair.server_end(), Some(server::Cause::Protocol(_))), "{:?}", pair.server_end());
        assert_eq!(told_usage(&pair), []);
    }
}
