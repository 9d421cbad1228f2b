//! Devices that any of several servers may serve: whoever loses its session comes back by itself, to whichever, and each keeps
//! a diary of its sessions. One thread tends them all.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use moorline_protocol::Imei;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustls::ClientConfig;

use super::crowd::source;
use super::line::Line;
use super::{Pool, Speech, now};
use crate::failure::Failure;
use crate::field::Namespace;
use crate::network::Chance;

/// How often everybody is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How many are on their way at a time.
const ON_THEIR_WAY: usize = 64;
/// After which a try that was not taken in is given up.
const TRY: Duration = Duration::from_secs(10);
/// The longest pause before the next try.
const PAUSE_MS: u64 = 1000;
const BEAT: Duration = Duration::from_secs(5);
/// A server that hangs for less loses nobody.
const UNANSWERED: Duration = Duration::from_secs(40);
/// How long those who hop stay.
const STAY: Duration = Duration::from_secs(1);
/// How long those who leave are away at the most.
const AWAY_MS: u64 = 8000;
/// Marks, among what epoll tells, lines that their devices turned away from and did not end.
const FORMER: u64 = 1 << 32;

/// What they do beside holding their sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Orders {
    /// So many, from the first on, go to another server every second.
    pub hopping: usize,
    /// So many in a second leave, and come back within some.
    pub leaving: u32,
    /// So many, from the last on, are away.
    pub resting: usize,
}

/// Where a server takes devices.
#[derive(Clone)]
pub struct Door {
    /// Its address.
    pub address: SocketAddr,
    /// The network namespace that this is in, if it is not the devices' own.
    pub place: Option<Arc<Namespace>>,
}

/// A session as its device saw it.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    /// Its id, from the Welcome.
    pub session: u64,
    /// The number of the server.
    pub server: usize,
    /// When the Welcome came.
    pub began: Instant,
    /// When it was over, if it is.
    pub ended: Option<Instant>,
    /// Whether it was not the device that ended it.
    pub lost: bool,
}

/// The fleet; it leaves with the value.
pub struct Nomads {
    shared: Arc<Shared>,
    imeis: Vec<Imei>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    orders: Mutex<Orders>,
    /// Of each device, the oldest first.
    diaries: Mutex<Vec<Vec<Stay>>>,
    fault: Mutex<Option<Failure>>,
    over: AtomicBool,
}

struct Tent {
    epoll: OwnedFd,
    servers: Vec<Door>,
    members: Vec<Member>,
    shared: Arc<Shared>,
    chance: Chance,
    on_their_way: usize,
    looked: Instant,
}

struct Member {
    imei: Imei,
    source: Ipv4Addr,
    config: Arc<ClientConfig>,
    line: Option<Line>,
    former: Option<Line>,
    server: usize,
    /// When the line was opened, or taken in.
    since: Instant,
    beat: Instant,
    /// The next try, where there is no line.
    due: Instant,
}

impl Nomads {
    /// All devices of the pool, on their way to these servers; `seed` says who goes where.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn start(pool: &Pool, servers: Vec<Door>, seed: u64) -> Result<Self, Failure> {
        let start = now();
        let member = |number| Member {
            imei: pool.imei(number),
            source: source(number),
            config: pool.config(number, Speech::Native, false),
            line: None,
            former: None,
            server: 0,
            since: start,
            beat: start,
            due: start,
        };
        let members: Vec<Member> = (0..pool.len()).map(member).collect();
        let imeis = members.iter().map(|member| member.imei).collect();
        let shared = Arc::new(Shared::default());
        lock(&shared.diaries).resize_with(members.len(), Vec::new);
        let mut tent = Tent {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            servers,
            members,
            shared: Arc::clone(&shared),
            chance: Chance(seed),
            on_their_way: 0,
            looked: start,
        };
        let thread = thread::spawn(move || {
            while !tent.shared.over.load(Ordering::SeqCst) {
                if let Err(failure) = tent.tend() {
                    *lock(&tent.shared.fault) = Some(failure);
                    return;
                }
            }
        });
        Ok(Self { shared, imeis, thread: Some(thread) })
    }

    /// From now on they do this.
    pub fn order(&self, orders: Orders) {
        *lock(&self.shared.orders) = orders;
    }

    /// The device of this number.
    #[must_use]
    pub fn imei(&self, number: usize) -> Imei {
        self.imeis[number]
    }

    /// What each saw so far.
    #[must_use]
    pub fn diaries(&self) -> Vec<Vec<Stay>> {
        lock(&self.shared.diaries).clone()
    }

    /// Waits until everybody has a session but those who rest, who have none.
    ///
    /// # Errors
    /// It does not come to that, or the kernel had no room.
    #[track_caller]
    pub fn wait_settled(&self, patience: Duration) -> Result<(), Failure> {
        let began = now();
        let (_silent, pace) = mpsc::channel::<()>();
        loop {
            if let Some(failure) = lock(&self.shared.fault).take() {
                return Err(failure);
            }
            let resting = lock(&self.shared.orders).resting;
            let missing = {
                let diaries = lock(&self.shared.diaries);
                let rest_from = diaries.len() - resting.min(diaries.len());
                let is_up = |diary: &Vec<Stay>| diary.last().is_some_and(|stay| stay.ended.is_none());
                diaries
                    .iter()
                    .enumerate()
                    .filter(|(number, diary)| is_up(diary) != (*number < rest_from))
                    .count()
            };
            if missing == 0 {
                return Ok(());
            }
            if now() - began > patience {
                return Err(Failure::new(format!("{missing} devices are not back after {patience:?}")));
            }
            let _ = pace.recv_timeout(LOOK);
        }
    }
}

impl Drop for Nomads {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // A panic in it was told by itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Tent {
    fn tend(&mut self) -> Result<(), Failure> {
        let at = now();
        if at - self.looked >= LOOK {
            let orders = *lock(&self.shared.orders);
            self.leave(orders.leaving, at - self.looked, at);
            self.looked = at;
            for number in 0..self.members.len() {
                self.look_after(number, orders, at)?;
            }
        }
        self.turn()
    }

    /// Has so many in a second leave.
    fn leave(&mut self, per_second: u32, passed: Duration, at: Instant) {
        let wanted = passed.as_millis() * u128::from(per_second);
        let odd = u128::from(self.chance.up_to(999));
        for _ in 0..(wanted + odd) / 1000 {
            let number = self.chance.up_to(self.members.len() as u64 - 1) as usize;
            let away = Duration::from_millis(self.chance.up_to(AWAY_MS));
            self.end(number, at, false).into_iter().for_each(Line::close);
            self.members[number].due = self.members[number].due.max(at + away);
        }
    }

    fn look_after(&mut self, number: usize, orders: Orders, at: Instant) -> Result<(), Failure> {
        let rests = number >= self.members.len() - orders.resting.min(self.members.len());
        let member = &mut self.members[number];
        let Some(line) = &mut member.line else {
            if !rests && member.due <= at && self.on_their_way < ON_THEIR_WAY {
                let server = self.chance.up_to(self.servers.len() as u64 - 1) as usize;
                self.begin(number, server, at)?;
            }
            return Ok(());
        };
        if !line.up {
            if at - member.since > TRY {
                self.lose(number, at);
            }
        } else if line.asked.is_some_and(|asked| at - asked > UNANSWERED) {
            self.lose(number, at);
        } else if rests {
            self.end(number, at, false).into_iter().for_each(Line::close);
        } else if number < orders.hopping && at - member.since >= STAY {
            let server = (member.server + 1 + self.chance.up_to(1) as usize) % self.servers.len();
            self.members[number].former = self.end(number, at, false);
            // It ends its connection, or the newer session has to.
            if self.chance.up_to(1) == 0 {
                self.members[number].former = None;
            }
            self.begin(number, server, at)?;
        } else if member.beat <= at && line.asked.is_none() {
            member.beat = at + BEAT;
            if line.beat(Speech::Native, at).is_err() {
                self.lose(number, at);
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: usize, server: usize, at: Instant) -> Result<(), Failure> {
        let member = &mut self.members[number];
        let Door { address, place } = &self.servers[server];
        let open = || Line::open(member.source, *address, Arc::clone(&member.config));
        let line = place.as_ref().map_or_else(open, |place| place.within(open))?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &line.socket, epoll::EventData::new_u64(number as u64), flags)?;
        if let Some(former) = &member.former {
            epoll::modify(
                &self.epoll,
                &former.socket,
                epoll::EventData::new_u64(number as u64 | FORMER),
                flags,
            )?;
        }
        (member.line, member.server, member.since) = (Some(line), server, at);
        self.on_their_way += 1;
        Ok(())
    }

    fn lose(&mut self, number: usize, at: Instant) {
        self.end(number, at, true);
        let pause = self.chance.up_to(PAUSE_MS);
        self.members[number].due = at + Duration::from_millis(100 + pause);
    }

    /// The line is used no more, and its session over.
    fn end(&mut self, number: usize, at: Instant, lost: bool) -> Option<Line> {
        let line = self.members[number].line.take()?;
        if line.up {
            if let Some(stay) = lock(&self.shared.diaries)[number].last_mut() {
                (stay.ended, stay.lost) = (Some(at), lost);
            }
        } else {
            self.on_their_way -= 1;
        }
        Some(line)
    }

    /// Waits for something to happen and reacts.
    fn turn(&mut self) -> Result<(), Failure> {
        let patience = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let mut events = Vec::with_capacity(256);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let number = (event.data.u64() & !FORMER) as usize;
            if event.data.u64() & FORMER == 0 {
                self.hear(number);
            } else {
                let member = &mut self.members[number];
                if member.former.as_mut().is_some_and(|line| line.turn(Speech::Native, member.imei).is_err())
                {
                    member.former = None;
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self, number: usize) {
        let member = &mut self.members[number];
        let Some(line) = member.line.as_mut() else { return };
        let was_up = line.up;
        let heard = line.turn(Speech::Native, member.imei);
        let at = now();
        if !was_up && line.up {
            // Whatever came behind the Welcome, it was there.
            self.on_their_way -= 1;
            (member.since, member.beat) = (at, at + BEAT);
            let stay =
                Stay { session: line.session, server: member.server, began: at, ended: None, lost: false };
            lock(&self.shared.diaries)[number].push(stay);
        }
        match heard {
            Ok(news) if news.answers > 0 => line.asked = None,
            Ok(_) => {}
            Err(_) => self.lose(number, at),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
