//! Silences that are agreed on, and the server's questions at their ends, against both halves of a session in virtual time.

use std::time::Duration;

use moorline_agent::session::{self as agent, Pace};
use moorline_protocol::DeviceMessage;
use moorline_server::session::{self as server, Event};
use moorline_testbed::pair::{Pair, Setup};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A device that has just registered and is heard of every half an hour, and how long it has lived so far.
fn seldom_heard() -> (Pair, Duration) {
    let mut setup = Setup::default();
    setup.terms.interval = 30 * MINUTE;
    let mut pair = setup.join();
    pair.run_for(5 * SECOND);
    let from = pair.elapsed();
    (pair, from)
}

/// A device's Interval, as its frame.
fn interval(seconds: u32) -> Vec<u8> {
    let mut frame = [0; DeviceMessage::MAX_ENCODED];
    let length = DeviceMessage::Interval { seconds }.encode(&mut frame).expect("it fits");
    frame[..length].to_vec()
}

/// How the server's session came by Echoes and by its end since `from`.
fn ends_and_echoes(pair: &Pair, from: Duration) -> Vec<(Duration, &Event)> {
    let told = pair.server_events.iter().filter(|(at, _)| *at >= from);
    let told = told.filter(|(_, event)| matches!(event, Event::EchoAck { .. } | Event::Ended(_)));
    told.map(|(at, event)| (*at - from, event)).collect()
}

#[test]
fn echo_comes_back() {
    let mut pair = Setup::default().join();
    pair.run_for(5 * SECOND);
    pair.sessions().1.echo(42);
    pair.run_for(5 * SECOND);
    assert_eq!(pair.count(|event| *event == Event::EchoAck { token: 42 }), 1);
}

#[test]
fn device_that_told_its_silence_is_asked_after_it() {
    let (mut pair, from) = seldom_heard();
    pair.deliver_to_server(&interval(300));
    pair.run_for(11 * MINUTE);
    // Each answer begins the next silence; the way there and back takes 400 ms.
    let echoes =
        [(300_400, 1), (600_800, 2)].map(|(ms, token)| (Duration::from_millis(ms), Event::EchoAck { token }));
    assert_eq!(ends_and_echoes(&pair, from), echoes.iter().map(|(at, echo)| (*at, echo)).collect::<Vec<_>>());
}

#[test]
fn learning_device_answers_every_other_question() {
    let (mut pair, from) = seldom_heard();
    pair.sessions().0.set_pace(Pace::Probed(5 * MINUTE));
    pair.run_for(21 * MINUTE);
    let answers: Vec<_> = ends_and_echoes(&pair, from).into_iter().map(|(_, event)| event).collect();
    assert_eq!(answers, [&Event::EchoAck { token: 2 }, &Event::EchoAck { token: 4 }]);
    let came = |event: &agent::Event| matches!(event, agent::Event::Echo(agent::Echo::Came { .. }));
    assert_eq!(pair.device_events.iter().filter(|(_, event)| came(event)).count(), 4);
}

#[test]
fn device_that_does_not_answer_is_let_go() {
    let (mut pair, from) = seldom_heard();
    pair.deliver_to_server(&interval(300));
    pair.dark = true;
    pair.run_for(20 * MINUTE);
    assert_eq!(
        ends_and_echoes(&pair, from),
        [(Duration::from_secs(750), &Event::Ended(server::Cause::Idle))]
    );
}

#[test]
fn silence_that_a_device_tells_is_bounded_by_the_server() {
    for (told, granted) in [(1, 10), (86_400, 1_800)] {
        let mut pair = Setup::default().join();
        pair.run_for(5 * SECOND);
        let from = pair.elapsed();
        pair.deliver_to_server(&interval(told));
        pair.dark = true;
        pair.run_for(DAY);
        let ended = Duration::from_millis(granted * 2_500);
        assert_eq!(ends_and_echoes(&pair, from), [(ended, &Event::Ended(server::Cause::Idle))]);
    }
}
