//! The one loop: poll(server, signals, modem), and the deadlines of all of them. The only place that waits.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use moorline_protocol::device_goodbye;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::boot;
use crate::clock::{self, Now};
use crate::clock_watch::ClockWatch;
use crate::config::Config;
use crate::diagnosis::Action;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::floor::FloorFile;
use crate::identification::Identification;
use crate::keepalive::Profile;
use crate::log;
use crate::modem::condition::Access;
use crate::modem::watch::Reading;
use crate::notify::Notifier;
use crate::report::Reporter;
use crate::route::RouteWatch;
use crate::signals::{self, Signals};
use crate::state_dir;
use crate::status::StatusFile;
use crate::tls::Tls;
use crate::trusted_time::TrustedTime;
use crate::uplink::Uplink;
use crate::vitals;

/// Runs until it is asked to stop.
pub fn run(file: &Path, environment: &Environment) -> Exit {
    log::init(environment);
    match Agent::start(file, environment) {
        Ok(mut agent) => agent.run(),
        Err(exit) => exit,
    }
}

/// What the loop holds.
struct Agent<'e> {
    file: PathBuf,
    environment: &'e Environment,
    signals: Signals,
    notifier: Notifier,
    status: Option<StatusFile>,
    time: Arc<TrustedTime>,
    clock_watch: Option<ClockWatch>,
    uplink: Uplink,
    identification: Identification,
    route: RouteWatch,
    reporter: Reporter,
    /// Something that the status shows has changed.
    news: bool,
    stopping: bool,
}

impl<'e> Agent<'e> {
    /// A function of its own, and what it makes on the heap: a page of the stack that was written once stays with the process, and so
    /// what is needed to begin lies where the loop's own calls come to lie.
    #[inline(never)]
    fn start(file: &Path, environment: &'e Environment) -> Result<Box<Self>, Exit> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            log::error(format_args!("{what}: {error}"));
            Exit::Failure
        };
        // Before anything that takes time, so that a signal is never lost on the default action.
        let signals = Signals::new().map_err(|error| failed("cannot listen for signals", &error))?;
        let config = read_config(file, environment).ok_or(Exit::Config)?;
        prepare_state_dir(&config);
        let seed = seed().map_err(|error| failed("no randomness from the system", &error))?;
        let time = Arc::new(TrustedTime::new(FloorFile::new(&config.state_dir).read()));
        let tls = tls(&config, &time).map_err(|error| failed("TLS cannot be set up", &error))?;
        let now = clock::now();
        log::info(format_args!("moorline-agent {} with {}", env!("CARGO_PKG_VERSION"), file.display()));
        let mut agent = Box::new(Self {
            file: file.to_owned(),
            notifier: Notifier::new(environment, now.instant),
            status: StatusFile::open(environment),
            identification: Identification::new(&config, now),
            route: RouteWatch::open(),
            reporter: Reporter::default(),
            uplink: Uplink::new(config, tls, Arc::clone(&time), seed),
            clock_watch: watch_clock(now),
            environment,
            signals,
            time,
            news: false,
            stopping: false,
        });
        agent.identify(now);
        Ok(agent)
    }

    fn run(&mut self) -> Exit {
        self.notifier.ready();
        let mut ready = Ready::default();
        loop {
            let now = clock::now();
            if ready.stop && !self.stopping {
                self.stop(now);
            }
            if ready.clock {
                self.hear_of_clock(now);
            }
            if ready.reload {
                self.reload(now);
            }
            if self.identification.turn(ready.modem, now) {
                self.identify(now);
            }
            self.uplink.turn(ready.uplink, now);
            self.tend(ready.route, now);
            if self.uplink.is_gone() {
                if self.stopping {
                    self.uplink.close(now);
                    self.report(now);
                    return Exit::Asked;
                }
                self.uplink.come_back(now);
                self.uplink.turn(PollFlags::empty(), now);
            }
            self.report(now);
            ready = match self.wait(now.instant) {
                Ok(ready) => ready,
                Err(error) => {
                    log::error(format_args!("poll failed: {error}"));
                    return Exit::Failure;
                }
            };
        }
    }

    fn stop(&mut self, now: Now) {
        log::info(format_args!("asked to stop"));
        self.notifier.stopping();
        self.stopping = true;
        self.uplink.leave(device_goodbye::STOPPING, now);
    }

    /// The wait was ended because the system clock was set, or the device woke up. The turn that follows does what is
    /// due.
    fn hear_of_clock(&mut self, now: Now) {
        if let Some(jump) = self.clock_watch.as_mut().and_then(|watch| watch.take(now)) {
            log::info(format_args!("{jump}"));
            self.uplink.handle_clock_set();
        }
    }

    /// Reads everything anew. A configuration with mistakes changes nothing.
    fn reload(&mut self, now: Now) {
        self.notifier.reloading();
        log::info(format_args!("reading {} anew", self.file.display()));
        if let Some(config) = read_config(&self.file, self.environment) {
            match tls(&config, &self.time) {
                Ok(tls) => {
                    prepare_state_dir(&config);
                    if !self.identification.suits(&config) {
                        self.identification = Identification::new(&config, now);
                    }
                    self.uplink.reconfigure(config, tls, now);
                    self.identify(now);
                }
                Err(error) => log::error(format_args!("TLS cannot be set up: {error}")),
            }
        } else {
            log::error(format_args!("the configuration before stays in force"));
        }
        self.notifier.ready();
    }

    fn identify(&mut self, now: Now) {
        let Some(imei) = self.identification.imei() else { return };
        let greeting = self.uplink.greeting(imei, self.identification.model(), boot::id().0);
        self.uplink.identify(greeting, now);
    }

    /// Brings together what each knows: a network that has changed, a modem that was read, a way that fails, a server that
    /// may be told of it.
    fn tend(&mut self, route: PollFlags, now: Now) {
        // The kernel is asked for the address when something was heard, and not at each heartbeat.
        let local = if route.is_empty() { None } else { self.uplink.local_ip() };
        if self.route.turn(route, local, now.instant) && !self.stopping {
            self.uplink.check(now);
        }
        if let Some(reading) = self.identification.take_reading() {
            self.on_reading(reading, now);
        }
        if let (Some(watch), Some(action)) =
            (self.identification.watch(), self.uplink.diagnosis().poll_action(now))
        {
            match action {
                Action::Look => watch.look(now.instant),
                Action::Reset if !self.uplink.may_reset_modem(now) => {}
                Action::Reset => {
                    log::warning(format_args!(
                        "starting the modem anew (AT+CFUN=1,1), as nothing else is left"
                    ));
                    watch.reset(now.instant);
                }
            }
        }
        if let Some(line) = self.uplink.diagnosis().poll_line() {
            log::warning(format_args!("diagnosis: {line}"));
            self.news = true;
        }
        if self.uplink.is_online()
            && let Some(condition) = self.reporter.poll_report(now.instant)
        {
            self.uplink.report(condition.report(vitals::read()), now);
        }
    }

    fn on_reading(&mut self, reading: Reading, now: Now) {
        self.uplink.diagnosis().handle_reading(&reading, now);
        self.news = true;
        let Reading::Told(condition) = reading else { return };
        let covered = condition.is_registered() != Some(false);
        let profile = match condition.access {
            Some(Access::LteM | Access::NbIot) => Profile::Sparse,
            _ => Profile::Usual,
        };
        self.uplink.on_network(condition.operator.clone(), profile, covered);
        if self.reporter.handle_condition(condition) {
            self.uplink.check(now);
        }
    }

    /// Tells systemd and the status file what has changed.
    fn report(&mut self, now: Now) {
        let news = self.uplink.take_news() | std::mem::take(&mut self.news);
        if news && let Some(status) = &self.status {
            let imei = self
                .identification
                .imei()
                .map_or_else(|| "not known yet".to_owned(), |imei| imei.to_string());
            let (link, ledger) = (self.uplink.to_string(), self.uplink.ledger().to_string());
            let (clock, modem) = (self.uplink.timekeeper().to_string(), self.reporter.modem());
            let way = self.uplink.diagnosis();
            status.write(&format!(
                "imei     {imei}\nlink     {link}\nway      {way}\nmodem    {modem}\nclock    {clock}\n{ledger}\n"
            ));
        }
        if self.notifier.turn(now.instant) || news {
            self.notifier.status(&self.uplink);
        }
    }

    /// Waits for whatever comes first.
    fn wait(&self, now: Instant) -> rustix::io::Result<Ready> {
        let deadlines = [
            self.uplink.deadline(),
            self.identification.deadline(),
            self.route.deadline(),
            self.notifier.deadline(),
        ];
        let deadline = deadlines.into_iter().flatten().min();
        let timeout = deadline.map(|at| clock::wait_until(at, now));
        let wanted = [
            Some((self.signals.stop.as_fd(), PollFlags::IN)),
            Some((self.signals.reload.as_fd(), PollFlags::IN)),
            self.uplink.interest(),
            self.identification.interest(),
            self.clock_watch.as_ref().map(|watch| (watch.as_fd(), PollFlags::IN)),
            self.route.interest(),
        ];
        let mut fds: heapless::Vec<PollFd<'_>, 6> =
            wanted.iter().flatten().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        match poll(&mut fds, timeout.as_ref()) {
            // After a signal its pipe is readable, which the next poll finds.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let mut polled = fds.iter();
        let [stop, reload, uplink, modem, clock, route] = wanted
            .map(|wanted| wanted.and_then(|_| polled.next()).map_or(PollFlags::empty(), PollFd::revents));
        Ok(Ready {
            stop: !stop.is_empty() && signals::take(&self.signals.stop),
            reload: !reload.is_empty() && signals::take(&self.signals.reload),
            uplink,
            modem,
            clock: !clock.is_empty(),
            route,
        })
    }
}

/// What a poll found.
struct Ready {
    stop: bool,
    reload: bool,
    uplink: PollFlags,
    modem: PollFlags,
    clock: bool,
    route: PollFlags,
}

impl Default for Ready {
    fn default() -> Self {
        let none = PollFlags::empty();
        Self { stop: false, reload: false, uplink: none, modem: none, clock: false, route: none }
    }
}

fn read_config(file: &Path, environment: &Environment) -> Option<Config> {
    match Config::read(file, environment) {
        Ok(config) => Some(config),
        Err(mistakes) => {
            for mistake in &mistakes {
                log::error(format_args!("{mistake}"));
            }
            None
        }
    }
}

/// Said here once and for all, whatever is kept there later.
fn prepare_state_dir(config: &Config) {
    let folder = &config.state_dir;
    if let Err(error) = state_dir::prepare(folder) {
        let (folder, lacking) = (folder.display(), state_dir::NOTHING_IS_KEPT);
        log::warning(format_args!("state.dir: {folder} cannot be used: {error}; {lacking}"));
    }
}

fn tls(config: &Config, time: &Arc<TrustedTime>) -> Result<Tls, rustls::Error> {
    let (server, identity) = (&config.server, &config.identity);
    Tls::new(server.min_version, Arc::clone(&server.roots), &identity.certified_key, Arc::clone(time))
}

/// Without it the agent works, and is late by as long as it slept.
fn watch_clock(now: Now) -> Option<ClockWatch> {
    ClockWatch::new(now)
        .inspect_err(|error| log::warning(format_args!("no timer tells of suspend and set clocks: {error}")))
        .ok()
}

/// Chance for the backoff's jitter.
#[expect(
    clippy::disallowed_methods,
    reason = "chance for the backoff's jitter, beside TLS's own in crypto.rs"
)]
fn seed() -> Result<u64, getrandom::Error> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)?;
    Ok(u64::from_ne_bytes(seed))
}
