//! The budget with its file: reads what was used before, keeps what is used now, and says what a person should hear. What is
//! allowed is decided in `budget.rs`; who asks is `uplink.rs`.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use moorline_config::{HumanDuration, Size};
use moorline_protocol::Usage;

use crate::boot;
use crate::budget::{self, Bound, Budget, Event, Level, Limits, Purpose, Snapshot, Spent, Tally, Wait};
use crate::clock::{self, Now};
use crate::file;
use crate::log;
use crate::report::UsageReporter;
use crate::state_dir;

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    budget: Budget,
    limits: Limits,
    tally: Rc<Tally>,
    file: PathBuf,
    boot: String,
    usage: UsageReporter,
    /// When what has changed since is worth showing.
    shown: Option<Instant>,
}

impl Ledger {
    /// Goes on where the state folder's file stands.
    #[must_use]
    pub fn open(limits: Limits, state_dir: &Path) -> Self {
        let (file, boot) = (state_dir.join("budget"), boot::id().to_string());
        let (kept, away) = read(&file, &boot).unwrap_or_default();
        let mut budget = Budget::new(limits, &kept);
        budget.count_time(away);
        let usage = UsageReporter::new(&budget);
        Self { budget, limits, tally: Rc::default(), file, boot, usage, shown: None }
    }

    /// A new configuration is in force; what was counted stays.
    pub fn reconfigure(&mut self, limits: Limits, state_dir: &Path) {
        self.budget.set_limits(limits);
        self.limits = limits;
        self.file = state_dir.join("budget");
    }

    /// Where a link counts its bytes.
    #[must_use]
    pub fn tally(&self) -> Rc<Tally> {
        Rc::clone(&self.tally)
    }

    /// Whether a round of attempts may begin.
    ///
    /// # Errors
    /// Not before that time.
    pub fn may_attempt(&mut self, now: Now) -> Result<(), Wait> {
        self.budget.may_attempt(now.instant)
    }

    /// One attempt of a round: counts it, and keeps that before it is made.
    ///
    /// # Errors
    /// Not before that time.
    pub fn attempt(&mut self, now: Now) -> Result<(), Wait> {
        self.budget.may_go_on(now.instant)?;
        self.budget.count_attempt(now.instant);
        self.keep(now);
        Ok(())
    }

    /// Whether the modem may be started anew now: counts it, and keeps that before it is done.
    pub fn may_reset(&mut self, now: Now) -> bool {
        let allowed = self.budget.may_reset(now.instant);
        self.keep(now);
        allowed
    }

    /// The attempt got no answer.
    pub fn count_unanswered(&self, peer: SocketAddr) {
        self.tally.add(Purpose::Full, budget::unanswered(peer));
    }

    /// A name is looked up.
    pub fn count_lookup(&self) {
        self.tally.add(Purpose::Other, budget::LOOKUP);
    }

    /// An authenticated server told its time, UTC milliseconds since 1970.
    pub fn learn_time(&mut self, server_ms: i64, now: Now) {
        if let Ok(ms) = u64::try_from(server_ms) {
            self.budget.learn_time(ms / 1000, now.instant);
        }
    }

    /// What was used of the month's bytes, for people.
    #[must_use]
    pub fn month(&self) -> impl fmt::Display {
        Share(&self.budget, Bound::Month)
    }

    /// Whether the month's bytes are near their bound.
    #[must_use]
    pub fn is_thrifty(&self) -> bool {
        self.budget.is_thrifty()
    }

    /// Whether even a session that stands has to end.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.budget.is_shut()
    }

    /// A session has begun.
    pub const fn handle_session(&mut self) {
        self.usage.handle_session();
    }

    /// What the server is to be told with whatever is said next; until [`Self::handle_told`].
    #[must_use]
    pub fn poll_usage(&self, now: Now) -> Option<Usage> {
        self.usage.poll_usage(&self.budget, now.instant)
    }

    /// It was told.
    pub fn handle_told(&mut self, now: Now) {
        self.usage.handle_told(&self.budget, now.instant);
    }

    /// When to call [`Self::turn`], at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.budget.poll_timeout()
    }

    /// Books what links have counted, says what is to be said and keeps what has to be kept. `true` when what
    /// [`fmt::Display`] shows has changed noticeably.
    pub fn turn(&mut self, now: Now) -> bool {
        let traffic = self.tally.take();
        let mut news = false;
        if traffic.sum().sum() > 0 {
            self.budget.count_bytes(&traffic, now.instant);
            news = self.shown.is_none_or(|at| now.instant >= at);
        }
        while let Some(event) = self.budget.poll_event(now.instant) {
            self.tell(&event);
            if let Event::Reached(bound, level) = event {
                self.usage.handle_level(bound, level);
            }
            news = true;
        }
        if news {
            self.shown = Some(now.instant + SHOW_EVERY);
        }
        self.keep(now);
        news
    }

    /// The process ends: keeps exactly what was used.
    pub fn close(&mut self, now: Now) {
        self.turn(now);
        self.write(&self.budget.snapshot());
    }

    fn keep(&mut self, now: Now) {
        if let Some(snapshot) = self.budget.poll_snapshot(now.instant) {
            self.write(&snapshot);
        }
    }

    fn write(&self, snapshot: &Snapshot) {
        let line = format!("{} {} {}\n", self.boot, clock::boot_seconds(), snapshot.text());
        if let Err(error) = file::replace(&self.file, &line) {
            let file = self.file.display();
            state_dir::complain(format_args!(
                "{file}: what the budget counts does not outlive this process: {error}"
            ));
        }
    }

    fn tell(&self, event: &Event) {
        match *event {
            Event::MonthEnded(traffic) => log::info(format_args!("budget: 30 days are over: {traffic}")),
            Event::Reached(bound, Level::Free) => {
                log::info(format_args!("budget: {} is no bound any more", What(bound)));
            }
            Event::Reached(bound, level) => {
                let (usage, left) = (Share(&self.budget, bound), self.budget.usage(bound).2);
                let then = self.consequence(bound, level);
                log::warning(format_args!("budget: {usage}: {then}, for {}", HumanDuration(left)));
            }
        }
    }

    const fn consequence(&self, bound: Bound, level: Level) -> &'static str {
        match (bound, level, self.limits.spent) {
            (Bound::Month, Level::Spent, Spent::Trickle) => "a lost session is tried again every 6 h only",
            (Bound::Month, Level::Spent, Spent::Stop) => "nothing is sent any more",
            (Bound::Month, ..) => "heartbeats are as rare as can be, and reconnects spread evenly",
            (_, Level::Spent, _) => "no attempt is made any more",
            _ => "the rest is spread evenly",
        }
    }
}

/// What was kept, and how long it is since then as far as this boot tells: a reboot is told by the server's time alone.
fn read(file: &Path, boot: &str) -> Option<(Snapshot, Duration)> {
    let text = fs::read_to_string(file).ok()?;
    let (kept_boot, rest) = text.split_once(' ')?;
    let (at, snapshot) = rest.split_once(' ')?;
    let since = clock::boot_seconds().saturating_sub(at.parse().ok()?);
    let away = if kept_boot == boot { since } else { 0 };
    Some((Snapshot::parse(snapshot)?, Duration::from_secs(away)))
}

/// The bounds in words, and what took the bytes: two lines of the status file.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [hour, day, month] =
            [Bound::Hour, Bound::Day, Bound::Month].map(|bound| Share(&self.budget, bound));
        write!(f, "budget   {hour}; {day}; {month}\ntraffic  {}", self.budget.traffic())
    }
}

/// What is used of one bound: `12 of 60 attempts of this hour`.
struct Share<'b>(&'b Budget, Bound);

impl fmt::Display for Share<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, limit, _) = self.0.usage(self.1);
        let amount = |amount: u64, f: &mut fmt::Formatter<'_>| match self.1 {
            Bound::Month => Size(amount).fmt(f),
            Bound::Hour | Bound::Day => amount.fmt(f),
        };
        amount(used, f)?;
        if let Some(limit) = limit {
            f.write_str(" of ")?;
            amount(limit, f)?;
        }
        write!(f, " {}", What(self.1))
    }
}

struct What(Bound);

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Bound::Hour => "attempts this hour",
            Bound::Day => "attempts this day",
            Bound::Month => "in these 30 days",
        })
    }
}

/// Counters move at each heartbeat, and the status is no file to be written at each: without other news it shows them this often at
/// most.
const SHOW_EVERY: Duration = Duration::from_secs(3600);
