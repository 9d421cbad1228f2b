use super::*;
use crate::modem::condition::Registration;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A device in virtual time: rounds every ten minutes, and a modem that is read when it is asked for.
struct Device {
    diagnosis: Diagnosis,
    begun: Now,
    passed: Duration,
    looks: u32,
    resets: Vec<Duration>,
}

impl Device {
    fn new(policy: Reset) -> Self {
        let begun = Now { utc_ms: 1_795_532_551_000, ..crate::clock::now() };
        Self {
            diagnosis: Diagnosis::new(policy),
            begun,
            passed: Duration::ZERO,
            looks: 0,
            resets: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        let ms = i64::try_from(self.passed.as_millis()).unwrap();
        Now { instant: self.begun.instant + self.passed, utc_ms: self.begun.utc_ms + ms }
    }

    fn fail(&mut self, step: Step, has_route: bool, modem: Option<u8>) {
        self.diagnosis.handle_failed(step, "what failed");
        self.diagnosis.handle_offline(Some(has_route), self.now());
        while let Some(action) = self.diagnosis.poll_action(self.now()) {
            let reading = match action {
                Action::Look => {
                    self.looks += 1;
                    let registration = modem.map(Registration);
                    registration.map_or(Reading::Unreachable(Vec::new()), |_| {
                        Reading::Told(Condition { registration, ..Condition::default() })
                    })
                }
                Action::Reset => {
                    self.resets.push(self.passed);
                    Reading::Reset
                }
            };
            self.diagnosis.handle_reading(&reading, self.now());
        }
    }

    fn fail_for(&mut self, time: Duration, step: Step, has_route: bool, modem: Option<u8>) {
        let end = self.passed + time;
        while self.passed < end {
            self.fail(step, has_route, modem);
            self.passed += 10 * MINUTE;
        }
    }
}

#[test]
fn furthest_step_of_a_round_is_the_one() {
    let mut device = Device::new(Reset::Never);
    device.diagnosis.handle_failed(Step::Tls, "b.example: expired");
    device.diagnosis.handle_failed(Step::Name, "a.example: not known");
    device.diagnosis.handle_offline(Some(true), device.now());
    assert_eq!(
        device.diagnosis.poll_line().as_deref(),
        Some("TLS fails since 2026-11-24T15:02:31Z: b.example: expired; the way to the server's host stands")
    );
    assert_eq!(device.diagnosis.poll_action(device.now()), None, "the modem is not asked");
}

#[test]
fn line_grows_from_the_top_down_and_is_told_once() {
    let mut device = Device::new(Reset::Never);
    device.fail(Step::Tcp, true, Some(5));
    let line = "TCP fails since 2026-11-24T15:02:31Z: what failed; there is a default route; modem: registered, roaming";
    assert_eq!(device.diagnosis.poll_line().as_deref(), Some(line));
    device.passed += MINUTE;
    device.fail(Step::Tcp, true, Some(5));
    assert_eq!(device.diagnosis.poll_line(), None);
    assert_eq!(device.diagnosis.to_string(), line);
    device.fail(Step::Route, false, Some(2));
    assert_eq!(
        device.diagnosis.poll_line().as_deref(),
        Some(
            "route fails since 2026-11-24T15:03:31Z: what failed; there is no default route; modem: searching for a \
             network"
        )
    );
    device.diagnosis.handle_online();
    assert_eq!((device.diagnosis.poll_line(), device.diagnosis.to_string().as_str()), (None, "no fault"));
}

#[test]
fn faults_of_the_server_never_touch_the_modem() {
    for step in [Step::Port, Step::Tls, Step::Session] {
        let mut device = Device::new(Reset::LastResort);
        device.fail_for(30 * DAY, step, true, Some(2));
        assert_eq!((device.looks, device.resets.len()), (0, 0), "{step:?}");
    }
}

#[test]
fn registered_modem_with_a_route_is_never_started_anew() {
    let mut device = Device::new(Reset::LastResort);
    device.fail_for(30 * DAY, Step::Tcp, true, Some(1));
    device.fail_for(30 * DAY, Step::Tcp, true, None);
    assert!(device.looks > 0 && device.resets.is_empty());
}

#[test]
fn unless_allowed_the_modem_is_only_looked_at() {
    let mut device = Device::new(Reset::Never);
    device.fail_for(30 * DAY, Step::Route, false, Some(2));
    assert!(device.looks > 0 && device.resets.is_empty());
}

#[test]
fn modem_without_network_is_started_anew_late_and_ever_more_rarely() {
    for (has_route, stat) in [(true, 2), (false, 1), (false, 3)] {
        let mut device = Device::new(Reset::LastResort);
        device.fail_for(10 * DAY, Step::Name, has_route, Some(stat));
        let hours: Vec<_> = device.resets.iter().map(|at| at.as_secs() / 3600).collect();
        assert_eq!(hours, [0, 6, 18, 42, 90, 138, 186, 234], "{stat}");
        assert!(device.resets[0] >= RESET_AFTER);
    }
}

#[test]
fn short_gaps_between_failures_bring_no_reset_sooner() {
    let mut device = Device::new(Reset::LastResort);
    for _ in 0..100 {
        device.fail_for(40 * MINUTE, Step::Route, false, Some(2));
        device.diagnosis.handle_online();
    }
    let gaps: Vec<_> = device.resets.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| *gap >= RESET_EVERY), "{gaps:?}");
}
