//! Who the device is: the IMEI of the configuration, or the modem's, or the one that the modem told last time; and, once
//! that is known, how its modem stands.
//!
//! A modem that cannot be asked does not keep the device offline when it was asked before; and once it has answered it is
//! not asked again who it is, so that one that comes and goes ends no session. It is only watched.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use heapless::String;
use moorline_protocol::Imei;
use rustix::event::PollFlags;

use crate::clock::Now;
use crate::config::{Config, Modem};
use crate::log;
use crate::modem::identity::{Change, IdentityFile, Kept};
use crate::modem::watch::{Place, Reading, Watch};
use crate::modem::{Event, Found, Search, manager};
use crate::state_dir;

/// A search over all ports is over after this: then the IMEI that was kept serves.
const SEARCH_LIMIT: Duration = Duration::from_secs(30);

/// When the modem is asked again while nobody knows who the device is: nothing works until it answers.
const AGAIN_NAMELESS: Duration = Duration::from_secs(10);

/// When it is asked again while the kept IMEI serves: another modem may be in its place.
const AGAIN_KEPT: Duration = Duration::from_secs(600);

/// Maker and model, as a session tells them.
pub type Model = String<48>;

/// See the module.
#[derive(Debug)]
pub struct Identification {
    config: Modem,
    state_dir: PathBuf,
    file: IdentityFile,
    kept: Option<Kept>,
    configured: Option<Imei>,
    known: Option<Imei>,
    step: Step,
    reading: Option<Reading>,
    /// What the ports have said in this search, and in the one before: what goes on in the same way is told once.
    complaints: Vec<std::string::String>,
    told: Vec<std::string::String>,
}

#[derive(Debug)]
enum Step {
    /// The modem is being asked.
    Asking(Box<Search>),
    /// It is asked again then.
    Again(Instant),
    /// The configuration or the modem has spoken.
    Settled,
    /// The same, and the modem is read now and then.
    Watching(Box<Watch>),
}

impl Identification {
    /// Takes the configuration's word, or begins to ask the modem.
    #[must_use]
    pub fn new(config: &Config, now: Now) -> Self {
        let file = IdentityFile::new(&config.state_dir);
        let mut this = Self {
            config: config.modem.clone(),
            kept: None,
            configured: config.identity.imei,
            known: config.identity.imei,
            step: Step::Settled,
            reading: None,
            complaints: Vec::new(),
            told: Vec::new(),
            file,
            state_dir: config.state_dir.clone(),
        };
        if this.known.is_none() {
            this.kept = this.file.read().unwrap_or_else(|error| {
                log::warning(format_args!("{error}"));
                None
            });
            this.ask(now.instant);
        } else if config.modem.is_named {
            this.settle(None, now.instant);
        }
        this
    }

    /// Whether a configuration asks for just this identification.
    #[must_use]
    pub fn suits(&self, config: &Config) -> bool {
        self.configured == config.identity.imei
            && self.config == config.modem
            && self.state_dir == config.state_dir
    }

    /// The IMEI that holds now.
    #[must_use]
    pub const fn imei(&self) -> Option<Imei> {
        self.known
    }

    /// Maker and model of the modem, empty when not known.
    #[must_use]
    pub fn model(&self) -> Model {
        self.kept.as_ref().and_then(|kept| kept.modem.as_str().try_into().ok()).unwrap_or_default()
    }

    /// What to wait for, beside [`Self::deadline`].
    #[must_use]
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.step {
            Step::Asking(search) => search.interest(),
            Step::Watching(watch) => watch.interest(),
            Step::Again(_) | Step::Settled => None,
        }
    }

    /// When [`Self::turn`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.step {
            Step::Asking(search) => search.poll_timeout(),
            Step::Again(at) => Some(*at),
            Step::Watching(watch) => Some(watch.deadline()),
            Step::Settled => None,
        }
    }

    /// What came of the last reading of the modem, once.
    pub fn take_reading(&mut self) -> Option<Reading> {
        let reading = self.reading.take()?;
        if let Reading::Unreachable(reasons) = &reading {
            self.complaints.extend_from_slice(reasons);
        }
        self.tell();
        Some(reading)
    }

    /// The modem of this device, while it is watched.
    pub fn watch(&mut self) -> Option<&mut Watch> {
        match &mut self.step {
            Step::Watching(watch) => Some(watch),
            Step::Asking(_) | Step::Again(_) | Step::Settled => None,
        }
    }

    /// Does what is ready or due; `true` when [`Self::imei`] has become known or another.
    pub fn turn(&mut self, ready: PollFlags, now: Now) -> bool {
        let before = self.known;
        match &mut self.step {
            Step::Again(at) if now.instant >= *at => self.ask(now.instant),
            Step::Asking(search) => {
                if !ready.is_empty() {
                    search.handle_ready(now.instant);
                }
                if search.poll_timeout().is_some_and(|at| now.instant >= at) {
                    search.handle_timeout(now.instant);
                }
            }
            Step::Watching(watch) => {
                let reading = watch.turn(ready, now.instant);
                self.reading = reading.or_else(|| self.reading.take());
            }
            Step::Again(_) | Step::Settled => {}
        }
        while let Step::Asking(search) = &mut self.step
            && let Some(event) = search.poll_event()
        {
            self.on_event(event, now);
        }
        self.known != before
    }

    fn ask(&mut self, now: Instant) {
        self.step =
            Step::Asking(Box::new(Search::new(&self.config.ports, self.config.baud, SEARCH_LIMIT, now)));
    }

    fn settle(&mut self, port: Option<PathBuf>, now: Instant) {
        let Some(every) = self.config.watch else {
            self.step = Step::Settled;
            return;
        };
        let place = Place {
            patterns: self.config.ports.clone(),
            baud: self.config.baud,
            // A configured IMEI may be that of another modem than the one on this port.
            imei: self.known.filter(|_| self.configured.is_none()),
            modem: self.model(),
            port,
        };
        self.step = Step::Watching(Box::new(Watch::new(place, every, now)));
    }

    fn on_event(&mut self, event: Event, now: Now) {
        match event {
            Event::PortFailed { port, why } => self.complaints.push(format!("{}: {why}", port.display())),
            Event::Found(found) => {
                self.tell();
                self.on_found(&found, now);
            }
            Event::Exhausted => {
                let news = self.tell();
                self.on_exhausted(news, now.instant);
            }
        }
    }

    /// Logs what the ports have said, unless it is what they said the last time.
    fn tell(&mut self) -> bool {
        let complaints = std::mem::take(&mut self.complaints);
        let news = complaints != self.told;
        for complaint in complaints.iter().filter(|_| news) {
            log::warning(format_args!("modem {complaint}"));
        }
        if news && !complaints.is_empty() && manager::is_running() {
            log::warning(format_args!("{}", manager::HOW_TO_SHARE));
        }
        self.told = complaints;
        news
    }

    fn on_found(&mut self, found: &Found, now: Now) {
        let (kept, change) = Kept::after(found, now.utc_ms, self.kept.as_ref());
        log::info(format_args!("IMEI {} from {} ({})", found.imei, found.port.display(), found.command));
        if let Change::From(former) = change {
            log::warning(format_args!(
                "the modem was {former} before: if it was not swapped, look into that; the certificate must name {}",
                found.imei
            ));
        }
        // The time of the answer alone is not worth a write.
        if change != Change::Same
            && let Err(error) = self.file.write(&kept)
        {
            state_dir::complain(format_args!("{error}"));
        }
        self.known = Some(found.imei);
        self.kept = Some(kept);
        self.settle(Some(found.port.clone()), now.instant);
    }

    fn on_exhausted(&mut self, news: bool, now: Instant) {
        let again = if let Some(kept) = &self.kept {
            if self.known.is_none() {
                log::warning(format_args!("no modem tells an IMEI; going on with {kept}"));
            }
            self.known = Some(kept.imei);
            AGAIN_KEPT
        } else {
            if news {
                log::error(format_args!("no modem tells an IMEI, and none is kept: see moorline-agent imei"));
            }
            AGAIN_NAMELESS
        };
        self.step = Step::Again(now + again);
    }
}
