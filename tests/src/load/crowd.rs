//! The devices of a fleet in one loop: they arrive, beat and leave, and it is noted how long each waited.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moorline_protocol::Imei;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustls::ClientConfig;

use super::line::{Line, Lost, News};
use super::{Pool, Speech, Times, now};
use crate::failure::Failure;

/// After which a device that came in vain tries again.
const AGAIN: Duration = Duration::from_millis(200);

/// How many lines are looked at before the clock is looked at again.
const AT_A_TIME: usize = 256;

/// Source addresses: each has 28,000 ports.
const SOURCES: usize = 250;

/// A fleet, or a part of it.
pub struct Crowd {
    epoll: OwnedFd,
    speech: Speech,
    server: SocketAddr,
    members: Vec<Member>,
    /// Whom the next heartbeat is of.
    next: usize,
}

struct Member {
    imei: Imei,
    source: Ipv4Addr,
    config: Arc<ClientConfig>,
    line: Option<Line>,
}

/// What a turn brought a line; one that is lost tells whether its session stood.
type Outcome = Result<News, (bool, Lost)>;

/// How a crowd comes.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// How many are on their way at a time.
    pub parallel: usize,
    /// How long all of them may take.
    pub patience: Duration,
}

impl Entry {
    /// Sixty-four at a time.
    #[must_use]
    pub const fn in_turn() -> Self {
        Self { parallel: 64, patience: Duration::from_secs(300) }
    }

    /// Everybody at the same moment.
    #[must_use]
    pub const fn at_once() -> Self {
        Self { parallel: usize::MAX, patience: Duration::from_secs(300) }
    }
}

/// How a crowd came.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// From the first one's first try until the last one was taken in.
    pub took: Duration,
    /// How long each waited, from its first try.
    pub waits: Times,
    /// How many of them resumed a session.
    pub resumed: usize,
    /// Tries in vain.
    pub again: usize,
    /// What the last of these heard.
    pub heard: Option<String>,
}

/// How heartbeats went.
#[derive(Clone, Debug, Default)]
pub struct Beats {
    /// Sent.
    pub asked: usize,
    /// Sessions that were lost meanwhile.
    pub lost: usize,
    /// How long each answer took, as many as there were.
    pub delays: Times,
    /// How long it went on.
    pub took: Duration,
}

impl Crowd {
    /// These devices of the pool, who will speak so with that server, and resume sessions or not.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn new(
        pool: &Pool,
        members: Range<usize>,
        server: SocketAddr,
        speech: Speech,
        resume: bool,
    ) -> Result<Self, Failure> {
        let members = members
            .map(|number| Member {
                imei: pool.imei(number),
                source: source(number),
                config: pool.config(number, speech, resume),
                line: None,
            })
            .collect();
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, speech, server, members, next: 0 })
    }

    /// How many devices there are, sessions or not.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many sessions stand.
    #[must_use]
    pub fn up(&self) -> usize {
        self.members.iter().filter(|member| member.line.as_ref().is_some_and(|line| line.up)).count()
    }

    /// Brings in everybody who is not there; those who come in vain try again, five times a second.
    ///
    /// # Errors
    /// Not all were taken in in time.
    #[track_caller]
    pub fn arrive(&mut self, entry: Entry) -> Result<Arrival, Failure> {
        let began = now();
        let mut arrival = Arrival::default();
        let missing = (0..self.members.len()).filter(|number| self.members[*number].line.is_none());
        let mut coming: VecDeque<_> = missing.collect();
        let mut wanted = coming.len();
        let mut first_try = vec![None; self.members.len()];
        let mut waiting: VecDeque<(Instant, usize)> = VecDeque::new();
        let mut on_their_way = 0;
        while wanted > 0 {
            let at = now();
            if at - began > entry.patience {
                let heard = arrival.heard.unwrap_or_default();
                return Err(Failure::new(format!("{wanted} were not taken in; the last heard: {heard:?}")));
            }
            while waiting.front().is_some_and(|(due, _)| *due <= at) {
                coming.extend(waiting.pop_front().map(|(_, number)| number));
            }
            while on_their_way < entry.parallel
                && let Some(number) = coming.pop_front()
            {
                first_try[number].get_or_insert_with(now);
                self.begin(number)?;
                on_their_way += 1;
            }
            for (number, outcome) in self.turn(Duration::from_millis(10))? {
                match outcome {
                    Ok(News { welcome: true, .. }) => {
                        arrival.waits.add(now() - first_try[number].unwrap_or(began));
                        let line = self.members[number].line.as_ref();
                        arrival.resumed += usize::from(line.is_some_and(Line::is_resumed));
                        on_their_way -= 1;
                        wanted -= 1;
                    }
                    Ok(_) => {}
                    Err((was_up, Lost(heard))) => {
                        arrival.again += 1;
                        arrival.heard = Some(heard);
                        if was_up {
                            wanted += 1;
                        } else {
                            on_their_way -= 1;
                        }
                        waiting.push_back((now() + AGAIN, number));
                    }
                }
            }
        }
        arrival.took = now() - began;
        Ok(arrival)
    }

    /// Has so many heartbeats sent in a second, by one after the other, as long as `go_on` says.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn beat(
        &mut self,
        per_second: u32,
        mut go_on: impl FnMut(Duration) -> bool,
    ) -> Result<Beats, Failure> {
        let began = now();
        let mut beats = Beats::default();
        while go_on(now() - began) {
            let due = (now() - began).as_micros() * u128::from(per_second) / 1_000_000;
            while (beats.asked as u128) < due {
                if !self.beat_next()? {
                    beats.lost += 1;
                }
                beats.asked += 1;
            }
            self.take_answers(Duration::from_millis(1), &mut beats)?;
        }
        self.rest(&mut beats)?;
        beats.took = now() - began;
        Ok(beats)
    }

    /// Has each send one heartbeat and waits for all answers.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn beat_once(&mut self) -> Result<Beats, Failure> {
        let mut beats = Beats::default();
        let began = now();
        for count in 0..self.members.len() {
            beats.asked += 1;
            if !self.beat_next()? {
                beats.lost += 1;
            }
            if count % 64 == 63 {
                self.take_answers(Duration::ZERO, &mut beats)?;
            }
        }
        self.rest(&mut beats)?;
        beats.took = now() - began;
        Ok(beats)
    }

    /// Sends close_notify for everybody and closes.
    pub fn leave(&mut self) {
        for member in &mut self.members {
            member.line.take().into_iter().for_each(Line::close);
        }
    }

    /// Looks at what happens to the sessions until `until`; how many were lost.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn idle(&mut self, time: Duration) -> Result<usize, Failure> {
        let (until, mut lost) = (now() + time, 0);
        loop {
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return Ok(lost);
            }
            lost += self.turn(left)?.iter().filter(|(_, outcome)| outcome.is_err()).count();
        }
    }

    /// Sends the next one's heartbeat; whether it has a session.
    fn beat_next(&mut self) -> Result<bool, Failure> {
        let number = self.next;
        self.next = (self.next + 1) % self.members.len();
        let member = &mut self.members[number];
        let Some(line) = member.line.as_mut().filter(|line| line.up) else { return Ok(false) };
        if line.asked.is_some() {
            // It is counted as one that took long when its answer comes.
            return Ok(true);
        }
        let sent = line.beat(self.speech, now());
        if sent.is_err() {
            member.line = None;
        }
        Ok(sent.is_ok())
    }

    /// Waits for the answers that are still due, for ten seconds at most.
    fn rest(&mut self, beats: &mut Beats) -> Result<(), Failure> {
        let until = now() + Duration::from_secs(10);
        let lines =
            |crowd: &Self| crowd.members.iter().any(|m| m.line.as_ref().is_some_and(|l| l.asked.is_some()));
        while lines(self) && now() < until {
            self.take_answers(Duration::from_millis(20), beats)?;
        }
        Ok(())
    }

    fn take_answers(&mut self, patience: Duration, beats: &mut Beats) -> Result<(), Failure> {
        for (number, outcome) in self.turn(patience)? {
            match outcome {
                Ok(News { answers: 1.., .. }) => {
                    let line = self.members[number].line.as_mut();
                    if let Some(asked) = line.and_then(|line| line.asked.take()) {
                        beats.delays.add(now() - asked);
                    }
                }
                Ok(_) => {}
                Err(_) => beats.lost += 1,
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: usize) -> Result<(), Failure> {
        let member = &mut self.members[number];
        let line = Line::open(member.source, self.server, Arc::clone(&member.config))?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &line.socket, epoll::EventData::new_u64(number as u64), flags)?;
        member.line = Some(line);
        Ok(())
    }

    /// Waits for something to happen and reacts; what came of it, of each line. One that is lost is gone.
    fn turn(&mut self, patience: Duration) -> Result<Vec<(usize, Outcome)>, Failure> {
        let patience =
            Timespec { tv_sec: patience.as_secs().try_into()?, tv_nsec: patience.subsec_nanos().into() };
        let mut events = Vec::with_capacity(AT_A_TIME);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut happened = Vec::with_capacity(events.len());
        for event in events {
            let number = event.data.u64() as usize;
            let member = &mut self.members[number];
            let Some(line) = member.line.as_mut() else { continue };
            match line.turn(self.speech, member.imei) {
                Ok(news) => happened.push((number, Ok(news))),
                Err(lost) => {
                    happened.push((number, Err((line.up, lost))));
                    member.line = None;
                }
            }
        }
        Ok(happened)
    }
}

/// The address that a device comes from: all of 127.0.0.0/8 is this machine, and no two processes share.
pub(super) fn source(number: usize) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | high & 63, low, (1 + number % SOURCES) as u8)
}
