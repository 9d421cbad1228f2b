use super::*;
use crate::clock;

const LIMITS: Limits = Limits {
    attempts_per_hour: Some(60),
    attempts_per_day: Some(720),
    bytes_per_month: Some(10_000_000),
    spent: Spent::Trickle,
};

/// A device's life: budgets that follow each other over restarts, and the time.
struct Life {
    limits: Limits,
    budget: Budget,
    disk: Snapshot,
    writes: u32,
    now: Instant,
}

impl Life {
    fn new(limits: Limits) -> Self {
        let disk = Snapshot::default();
        Self { limits, budget: Budget::new(limits, &disk), disk, writes: 0, now: clock::now().instant }
    }

    fn wait(&mut self, time: Duration) {
        // Deadlines on the way are met, as by the loop.
        let end = self.now + time;
        while let Some(at) = self.budget.poll_timeout().filter(|at| *at < end) {
            self.now = at.max(self.now);
            self.keep();
        }
        self.now = end;
        self.keep();
    }

    fn keep(&mut self) {
        if let Some(snapshot) = self.budget.poll_snapshot(self.now) {
            self.disk = Snapshot::parse(&snapshot.text()).unwrap();
            self.writes += 1;
        }
    }

    /// Makes an attempt, if that is allowed now.
    fn attempt(&mut self) -> Result<(), Wait> {
        self.budget.may_attempt(self.now)?;
        self.budget.count_attempt(self.now);
        self.keep();
        Ok(())
    }

    /// Attempts as often as is allowed, but not sooner than after `pace`, for so long; how many there were.
    fn strive(&mut self, pace: Duration, time: Duration) -> u64 {
        let end = self.now + time;
        let mut made = 0;
        while self.now < end {
            let next = match self.attempt() {
                Ok(()) => {
                    made += 1;
                    pace
                }
                Err(wait) => wait.until - self.now,
            };
            self.wait(next.min(end - self.now));
        }
        made
    }

    fn spend(&mut self, bytes: u64) {
        let traffic = Traffic::from_fn(|purpose| Bytes {
            up: if purpose == Purpose::Other { bytes } else { 0 },
            ..Bytes::default()
        });
        self.budget.count_bytes(&traffic, self.now);
        self.keep();
    }

    /// Dies without a word and starts again, in the same instant.
    fn crash(&mut self) {
        self.budget = Budget::new(self.limits, &self.disk);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.budget.poll_event(self.now)).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn attempts_never_exceed_their_bounds() {
    let mut life = Life::new(LIMITS);
    for _ in 0..24 {
        let made = life.strive(SECOND, HOUR);
        assert!(made <= 60, "{made}");
    }
    let mut day = Life::new(Limits { attempts_per_hour: None, ..LIMITS });
    for _ in 0..3 {
        assert_eq!(day.strive(SECOND, DAY), 720);
    }
}

#[test]
fn attempts_near_a_bound_are_spread_evenly_over_the_rest() {
    let mut life = Life::new(LIMITS);
    for _ in 0..48 {
        assert_eq!(life.attempt(), Ok(()));
        life.wait(SECOND);
    }
    let mut gaps = Vec::new();
    let begin = life.now;
    let mut last = life.now - SECOND;
    while life.now < begin + HOUR - 50 * SECOND {
        match life.attempt() {
            Ok(()) => {
                gaps.push(life.now - last);
                last = life.now;
            }
            Err(wait) => life.wait((wait.until - life.now).min(begin + HOUR - 48 * SECOND - life.now)),
        }
    }
    assert_eq!(gaps.len(), 12);
    for gap in &gaps {
        // 3,552 s are left for 12 attempts and the wait after them.
        assert!((270 * SECOND..280 * SECOND).contains(gap), "{gaps:?}");
    }
}

#[test]
fn bound_is_reported_once_and_ends_with_its_period() {
    let mut life = Life::new(LIMITS);
    let mut told = Vec::new();
    let end = life.now + HOUR;
    while life.now < end {
        let _ = life.attempt();
        told.extend(life.events());
        life.wait(SECOND);
    }
    life.wait(SECOND);
    told.extend(life.events());
    let hour = |level| Event::Reached(Bound::Hour, level);
    assert_eq!(told, [hour(Level::Near), hour(Level::Spent), hour(Level::Free)]);
    assert_eq!(life.attempt(), Ok(()));
}

#[test]
fn crash_loop_frees_nothing_and_reports_nothing_again() {
    let mut life = Life::new(LIMITS);
    let mut made = 0;
    let mut told = Vec::new();
    for _ in 0..3000 {
        made += u64::from(life.attempt().is_ok());
        told.extend(life.events());
        life.keep();
        life.wait(SECOND);
        life.crash();
    }
    assert!((48..=60).contains(&made), "{made}");
    let hours = told.iter().filter(|event| **event == Event::Reached(Bound::Hour, Level::Near)).count();
    assert_eq!(hours, 1);
}

#[test]
fn device_that_reboots_often_is_not_starved() {
    // No clock, no server: two minutes at a time, most of an attempt each.
    let mut life = Life::new(Limits { attempts_per_hour: Some(10), ..LIMITS });
    let mut made = 0;
    for _ in 0..720 {
        made += life.strive(30 * SECOND, 2 * MINUTE);
        life.crash();
    }
    // What passes unseen makes an hour longer, but never twice as long and more.
    assert!((100..=240).contains(&made), "{made}");
    // Each attempt is kept before it is made; beside those, a write a minute at most.
    assert!(u64::from(life.writes) <= made + 1440, "{} for {made}", life.writes);
}

#[test]
fn attempt_that_was_made_before_a_crash_is_charged_once() {
    let mut life = Life::new(LIMITS);
    for _ in 0..5 {
        life.attempt().unwrap();
        life.crash();
    }
    assert_eq!(life.budget.usage(Bound::Hour).0, 5);
}

#[test]
fn long_outage_writes_seldom_and_a_crash_after_it_charges_little() {
    let mut life = Life::new(LIMITS);
    let made = life.strive(5 * MINUTE, DAY - HOUR);
    assert_eq!(made, 276);
    assert!(life.writes <= 36, "{}", life.writes);
    life.crash();
    let charged = life.budget.usage(Bound::Day).0;
    assert!((made..=made + 16).contains(&charged), "{charged}");
}

#[test]
fn quiet_day_writes_a_handful_of_times() {
    let mut life = Life::new(LIMITS);
    life.attempt().unwrap();
    life.spend(3000);
    // The first day's writes are those of a young process.
    life.wait(DAY);
    let before = life.writes;
    for _ in 0..50 {
        life.wait(29 * MINUTE);
        life.spend(204);
    }
    assert!(life.writes - before <= 5, "{}", life.writes - before);
}

#[test]
fn snapshot_takes_little_of_the_flash() {
    let mut life = Life::new(LIMITS);
    life.wait(20 * 365 * DAY);
    life.budget.learn_time(1_800_000_000, life.now);
    life.strive(SECOND, HOUR / 2);
    let million = Bytes { up: 1_000_000, down: 1_000_000, headers: 1_000_000 };
    life.budget.count_bytes(&Traffic::from_fn(|_| million), life.now);
    assert!(life.budget.may_reset(life.now));
    // Before it `ledger.rs` writes the boot's id and its age in seconds.
    let length = life.budget.snapshot().text().len() + 36 + 10 + 3;
    assert!(length <= 300, "{length}");
}

#[test]
fn spent_month_trickles_or_stops() {
    for (spent, least, most) in [(Spent::Trickle, 3, 5), (Spent::Stop, 0, 0)] {
        let mut life = Life::new(Limits { spent, ..LIMITS });
        life.attempt().unwrap();
        life.spend(10_000_000);
        assert_eq!(life.budget.is_shut(), spent == Spent::Stop);
        assert!(life.budget.is_thrifty());
        let made = life.strive(SECOND, DAY);
        assert!((least..=most).contains(&made), "{spent:?}: {made}");
        life.wait(29 * DAY);
        assert!(!life.budget.is_shut() && !life.budget.is_thrifty());
        assert_eq!(life.attempt(), Ok(()));
    }
}

#[test]
fn month_near_its_bound_lasts_to_its_end() {
    let mut life = Life::new(Limits { attempts_per_day: None, attempts_per_hour: None, ..LIMITS });
    life.spend(8_000_000);
    let end = life.now + MONTH - MINUTE;
    let mut longest = Duration::ZERO;
    while life.now < end {
        match life.attempt() {
            Ok(()) => life.spend(RECONNECT),
            Err(wait) => {
                longest = longest.max(wait.until - life.now);
                life.wait((wait.until - life.now).min(end - life.now));
            }
        }
    }
    assert!(life.budget.usage(Bound::Month).0 <= 10_000_000);
    // Half a thousand reconnects for 30 days.
    assert!(longest < 90 * MINUTE, "{longest:?}");
}

#[test]
fn month_that_ends_tells_what_it_took() {
    let mut life = Life::new(LIMITS);
    life.spend(1234);
    life.wait(MONTH);
    assert!(
        matches!(life.events()[..], [Event::MonthEnded(traffic)] if traffic.of(Purpose::Other).up == 1234)
    );
    assert_eq!(life.budget.traffic().sum().sum(), 0);
}

#[test]
fn time_that_the_device_was_off_is_told_by_the_server() {
    let mut life = Life::new(LIMITS);
    life.budget.learn_time(1_800_000_000, life.now);
    life.strive(SECOND, HOUR / 2);
    life.wait(6 * HOUR);
    life.keep();
    life.strive(SECOND, HOUR / 4);
    life.disk = life.budget.snapshot();
    assert!(life.budget.usage(Bound::Hour).0 > 40);
    // Off for a day: by its own clock no time has passed.
    life.crash();
    let then = 1_800_000_000 + 6 * 3600 + 45 * 60;
    life.budget.learn_time(then + 30, life.now);
    assert!(life.budget.usage(Bound::Hour).0 > 40, "clocks that agree tell nothing");
    life.budget.learn_time(then + 24 * 3600, life.now);
    assert_eq!(life.budget.usage(Bound::Hour).0, 0);
}

#[test]
fn servers_whose_clocks_disagree_free_nothing_again_and_again() {
    let mut life = Life::new(LIMITS);
    life.budget.learn_time(1_800_000_000, life.now);
    for _ in 0..20 {
        life.budget.learn_time(1_800_003_600, life.now);
        life.budget.learn_time(1_800_000_000, life.now);
    }
    let (.., left) = life.budget.usage(Bound::Day);
    assert_eq!(left, DAY - HOUR);
    life.budget.learn_time(u64::MAX, life.now);
    life.budget.learn_time(0, life.now);
    assert!(life.attempt().is_ok());
}

#[test]
fn without_bounds_nothing_waits_and_all_is_counted() {
    let limits = Limits { attempts_per_hour: None, attempts_per_day: None, bytes_per_month: None, ..LIMITS };
    let mut life = Life::new(limits);
    life.spend(u64::MAX / 2);
    for _ in 0..10_000 {
        assert_eq!(life.attempt(), Ok(()));
    }
    assert_eq!(life.budget.usage(Bound::Hour).0, 10_000);
    assert!(life.events().is_empty());
}

#[test]
fn round_goes_on_near_a_bound_and_ends_where_it_is_spent() {
    let mut life = Life::new(Limits { attempts_per_hour: Some(10), ..LIMITS });
    for _ in 0..9 {
        life.budget.count_attempt(life.now);
    }
    assert!(life.budget.may_attempt(life.now).is_err());
    assert_eq!(life.budget.may_go_on(life.now), Ok(()));
    life.budget.count_attempt(life.now);
    let wait = life.budget.may_go_on(life.now).unwrap_err();
    assert_eq!((wait.bound, wait.until), (Bound::Hour, life.now + HOUR));
}

#[test]
fn resets_of_the_modem_keep_their_distance_over_restarts() {
    let mut life = Life::new(LIMITS);
    let mut resets = Vec::new();
    let begun = life.now;
    for _ in 0..48 {
        // As a watchdog would have it: half an hour each, in which the modem is given up.
        if life.budget.may_reset(life.now) {
            resets.push((life.now - begun).as_secs() / 3600);
        }
        life.keep();
        life.wait(HOUR / 2);
        life.disk = life.budget.snapshot();
        life.crash();
    }
    assert_eq!(resets, [0, 6, 12, 18]);
}

#[test]
fn garbage_is_no_snapshot() {
    let mut life = Life::new(LIMITS);
    life.spend(77);
    let text = life.budget.snapshot().text();
    assert_eq!(Snapshot::parse(&text), Some(life.budget.snapshot()));
    for wrong in [
        "",
        "1",
        "1 2 3",
        &text[2..],
        &format!("{text} 0"),
        &text.replace('1', "x"),
        &format!("2{}", &text[1..]),
    ] {
        assert_eq!(Snapshot::parse(wrong), None, "{wrong}");
    }
    let extreme = text.split(' ').map(|word| if word == "1" { "1" } else { "18446744073709551615" });
    let extreme = extreme.collect::<Vec<_>>().join(" ");
    let mut budget = Budget::new(LIMITS, &Snapshot::parse(&extreme).unwrap());
    budget.count_attempt(life.now);
    let _ = budget.may_attempt(life.now);
    budget.learn_time(1_800_000_000, life.now + SECOND);
    let _ = budget.poll_snapshot(life.now + DAY);
}
