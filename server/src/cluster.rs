//! Several servers that are one to devices and operators: what they share lies in NATS with JetStream.
//!
//! - `nats`: the connection, the buckets and the stream.
//! - `wire`: rows, events and orders as JSON.
//! - `rows`, `nodes`: what is decided: which write holds, who is lost. Pure.
//! - `shared`: the [`Store`] of a node; `outbox`, `publish`: what it tells, and `spool`: what waits on its disk for that.
//! - `follow`: what other nodes tell.
//! - `orders`: what one node asks of another.
//! - `cursor`: how far the webhook has come, and whose turn it is to post.
//! - `transfer`: a fleet goes from one server's database to NATS, and back.
//!
//! Each node knows the whole fleet and answers for it; each device is held by one. Sessions and heartbeats need no NATS: when
//! it is away they go on, new ones begin, and what happens waits on the node's disk.

mod cursor;
mod follow;
mod ghosts;
mod nats;
mod nodes;
mod orders;
mod outbox;
mod publish;
mod rows;
mod settings;
mod shared;
mod spool;
mod transfer;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::kv::{Entry, Operation, Watch};
use futures_util::StreamExt as _;
use moorline_protocol::Imei;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::clock;
use crate::registry::Registry;
use crate::store::{EventQuery, Fleet, Report, Retention, Settings, Sqlite, Store};
use follow::{Follower, Trouble};
use nats::{Nats, NatsError};
use nodes::{BEAT, Nodes};
pub use orders::Unanswered;
use outbox::Outbox;
use publish::Publisher;
use rows::Rows;
pub use settings::ClusterSettings;
use shared::Shared;
use spool::Spool;
pub use transfer::{Moved, share, unshare};
use wire::{Beat, Held, Meta};

/// A node whose word did not reach NATS for so many beats tells operators.
const SILENT_BEATS: u32 = 3;
/// One byte of a session's id names its node.
const MOST_NODES: u16 = 256;

/// This node among the others.
pub struct Cluster {
    nats: Arc<Nats>,
    number: u8,
    name: String,
    /// Of this process.
    boot: String,
    nodes: Mutex<Nodes>,
    heard: Mutex<Heard>,
    outbox: Arc<Outbox>,
    /// What says that this node is there.
    beating: Mutex<Option<JoinHandle<()>>>,
}

/// Whether NATS takes this node's word.
struct Heard {
    /// When it last did.
    at: Instant,
    /// Why not, since then.
    fault: Option<NatsError>,
}

/// A node that knows the fleet and does not take part yet.
pub struct Joined {
    /// This node.
    pub cluster: Arc<Cluster>,
    /// Its store.
    pub store: Arc<dyn Store>,
    rows: Arc<Mutex<Rows>>,
    copy: Arc<Sqlite>,
    watch: Watch,
    /// What it told already.
    read: u64,
}

/// What the fleet's bucket held.
struct Known {
    fleet: Fleet,
    rows: Rows,
    /// The number of the last row.
    last: u64,
}

/// How a node is, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeShown {
    /// Its name.
    pub name: Box<str>,
    /// How many sessions it holds.
    pub online: usize,
    /// Whether it is heard.
    pub is_heard: bool,
    /// Whether it is this one.
    pub is_self: bool,
}

impl Cluster {
    /// Connects to NATS, reads the fleet, and takes this node's place. `store` is the database that a server without others
    /// would have: the copy lies beside it.
    ///
    /// # Errors
    /// NATS is of no use, or there is a node of this name: in words.
    pub async fn join(
        settings: &ClusterSettings,
        store: &Path,
        retention: Retention,
    ) -> Result<Joined, String> {
        let told = |fault: NatsError| format!("NATS at {}: {fault}", settings.shown());
        let nats = Nats::open(settings, retention.sessions + retention.refusals).await.map_err(told)?;
        let nats = Arc::new(nats);
        let meta = agree(&nats).await.map_err(told)?;
        if meta.moving {
            return Err(told(NatsError(
                "a fleet is being brought there: let moorline-server share end, or do it again".to_owned(),
            )));
        }
        let boot = random()?;
        let number = take_place(&nats, settings.node(), &boot).await.map_err(told)?;
        let (Known { mut fleet, rows, last: read }, watch) = read_fleet(&nats, number).await.map_err(told)?;
        let last = nats.last_event().await.map_err(told)?;
        let copy = open_copy(&beside(store, "copy", &meta), retention, last)?;
        let spool = Spool::open(&beside(store, "spool", &meta)).map_err(|fault| fault.to_string())?;
        ghosts::end(&spool, &mut fleet, clock::now()).map_err(|fault| fault.to_string())?;
        info!(
            "node {} (number {number}) of the fleet in NATS at {}: {} devices known",
            settings.node(),
            settings.shown(),
            fleet.devices.len()
        );
        let (rows, copy) = (Arc::new(Mutex::new(rows)), Arc::new(copy));
        let publisher = Publisher::new(Arc::clone(&nats), Arc::clone(&rows));
        let outbox = Arc::new(Outbox::new(publisher, spool));
        let shared = Shared::new(Arc::clone(&outbox), Arc::clone(&copy), fleet);
        let now = clock::now().instant;
        let cluster = Self {
            nats,
            number,
            name: settings.node().to_owned(),
            boot,
            nodes: Mutex::new(Nodes::new(number, now)),
            heard: Mutex::new(Heard { at: now, fault: None }),
            outbox,
            beating: Mutex::default(),
        };
        Ok(Joined { cluster: Arc::new(cluster), store: Arc::new(shared), rows, copy, watch, read })
    }

    /// Why operators of this node see less than there is, if they do.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let heard = lock(&self.heard);
        let silent = clock::now().instant.duration_since(heard.at);
        (silent > BEAT * SILENT_BEATS).then(|| {
            let fault = heard.fault.as_ref().map(|fault| format!(" ({fault})")).unwrap_or_default();
            format!(
                "NATS does not hear this node for {} s{fault}: sessions go on, and what other nodes hold is shown as it was",
                silent.as_secs()
            )
        })
    }

    /// All nodes that were ever heard.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeShown> {
        let all = lock(&self.nodes).all(clock::now().instant);
        all.into_iter()
            .map(|(number, name, online, is_heard)| NodeShown {
                name,
                online,
                is_heard,
                is_self: number == self.number,
            })
            .collect()
    }

    /// Has what waits told, as far as NATS takes it within `patience`, and says that this node has left, so that nobody waits
    /// for it.
    pub async fn leave(&self, patience: Duration) {
        if timeout(patience / 2, self.outbox.emptied()).await.is_err() {
            let waiting = self.outbox.backlog().rows;
            warn!("{waiting} rows wait on the disk: they are told when this node is started again");
        }
        // A beat after the last word would take it back.
        if let Some(beating) = lock(&self.beating).take() {
            beating.abort();
        }
        let left = timeout(patience / 2, self.beat(true, 0)).await;
        if let Ok(Err(fault)) = left {
            warn!("NATS: {fault}: the other nodes take this one for lost");
        }
    }

    async fn beat(&self, left: bool, online: usize) -> Result<(), NatsError> {
        let (number, boot) = (self.number, self.boot.clone());
        let beat = Beat { number, boot, left, version: env!("CARGO_PKG_VERSION").to_owned(), online };
        let said = self.nats.say(&node_key(&self.name), wire::write(&beat)).await;
        let mut heard = lock(&self.heard);
        if said.is_ok() {
            heard.at = clock::now().instant;
        }
        heard.fault = said.clone().err();
        said
    }
}

impl Joined {
    /// Takes part from now on: follows the others, is heard, takes orders. `stored` is rung when the copy holds more.
    pub fn begin(self, registry: &Arc<Registry>, stored: Arc<Notify>) {
        let Self { cluster, store: _, rows, copy, watch, read } = self;
        registry.name_node(cluster.number, &cluster.name);
        let newest =
            copy.events(&EventQuery { after: None, imei: None, limit: 1 }).map_or(0, |page| page.newest);
        let follower = Arc::new(Follower {
            nats: Arc::clone(&cluster.nats),
            rows,
            registry: Arc::clone(registry),
            copy,
            stored,
            trouble: Mutex::new(Trouble::of("the copy of the fleet")),
        });
        cluster.outbox.begin();
        tokio::spawn(Arc::clone(&follower).rows(watch, read));
        tokio::spawn(follower.events(newest.cast_unsigned()));
        tokio::spawn(orders::take(Arc::clone(&cluster), Arc::clone(registry)));
        let beating = tokio::spawn(be_heard(Arc::clone(&cluster), Arc::clone(registry)));
        *lock(&cluster.beating) = Some(beating);
        tokio::spawn(hear(Arc::clone(&cluster), Arc::clone(registry)));
    }
}

/// Says that this node is there, and takes those that are not heard for lost.
async fn be_heard(cluster: Arc<Cluster>, registry: Arc<Registry>) {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut trouble, mut was_heard) = (Trouble::of("NATS"), true);
    loop {
        beat.tick().await;
        let beat = cluster.beat(false, registry.online()).await;
        let is_heard = trouble.note(beat, "sessions go on, what happens is told later").is_some();
        if is_heard && !was_heard {
            info!("NATS is reached again");
        }
        was_heard = is_heard;
        if !is_heard {
            continue;
        }
        let now = clock::now();
        let lost = lock(&cluster.nodes).lost(now.instant);
        for number in lost {
            let sessions = registry.lose_node(number, now);
            if sessions > 0 {
                warn!("node {number} is not heard any more: its {sessions} sessions are taken for lost");
            }
        }
    }
}

/// Hears the others.
async fn hear(cluster: Arc<Cluster>, registry: Arc<Registry>) {
    let (mut pace, mut trouble) = (interval(BEAT), Trouble::of("NATS"));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let told = cluster.nats.watch_nodes().await;
        let Some(mut told) = trouble.note(told, "other nodes are not heard") else { continue };
        // This node's own beats are among them, so that a silence means that nothing is heard.
        while let Ok(Some(Ok(entry))) = timeout(BEAT * SILENT_BEATS, told.next()).await {
            if let Some((name, beat)) = read_beat(&entry) {
                registry.name_node(beat.number, name);
                lock(&cluster.nodes).hear(name, beat, clock::now().instant);
            }
        }
    }
}

fn read_beat(entry: &Entry) -> Option<(&str, Beat)> {
    let name = entry.key.strip_prefix("node.")?;
    Some((name, serde_json::from_slice(&entry.value).ok()?))
}

fn node_key(name: &str) -> String {
    format!("node.{name}")
}

/// What the bucket is; the first node says it.
async fn agree(nats: &Nats) -> Result<Meta, NatsError> {
    let read = || async {
        let held = nats.fleet.get("meta").await;
        held.map_err(|fault| NatsError(format!("the bucket of the fleet: {fault}")))
    };
    let mut held = read().await?;
    if held.is_none() {
        let own = Meta { version: wire::VERSION, id: random().map_err(NatsError)?, moving: false };
        // Where another was quicker, what it said holds.
        nats.store(vec![Nats::row("meta", wire::write(&own), 0)]).await?;
        held = read().await?;
    }
    let meta: Option<Meta> = held.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match meta {
        Some(meta) if meta.version == wire::VERSION => Ok(meta),
        Some(Meta { version, .. }) => Err(NatsError(format!(
            "the fleet there is of version {version}, and this moorline-server knows {}: run the one that made it",
            wire::VERSION
        ))),
        None => {
            Err(NatsError("the bucket moorline_fleet is none of Moorline's: name another account".to_owned()))
        }
    }
}

/// The node's number: the one it had before, or the next that is free. Nobody else of this name is there after that.
async fn take_place(nats: &Nats, name: &str, boot: &str) -> Result<u8, NatsError> {
    let key = node_key(name);
    let (held, revision) = nats.said(&key).await?;
    let number = match held {
        Some(word) => {
            let foreign = || NatsError(format!("in the bucket of the nodes {key} is none of Moorline's"));
            let beat: Beat = serde_json::from_slice(&word).map_err(|_| foreign())?;
            if orders::is_there(nats, beat.number).await {
                return Err(NatsError(format!(
                    "there is a node \"{name}\" already: each has a cluster.node of its own, and one that hangs has to be ended first"
                )));
            }
            beat.number
        }
        None => free_number(nats, name).await?,
    };
    let (boot, version) = (boot.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let beat = wire::write(&Beat { number, boot, left: false, version, online: 0 });
    if nats.say_over(&key, beat, revision).await? {
        return Ok(number);
    }
    Err(NatsError(format!("another node \"{name}\" starts at the same moment")))
}

async fn free_number(nats: &Nats, name: &str) -> Result<u8, NatsError> {
    for number in 0..MOST_NODES {
        let key = format!("number.{number}");
        let (held, revision) = nats.said(&key).await?;
        if held.is_none() && nats.say_over(&key, name.as_bytes().to_vec(), revision).await? {
            // It fits.
            return Ok(number.to_le_bytes()[0]);
        }
    }
    Err(NatsError(format!(
        "{MOST_NODES} nodes had a number already: delete number.N and node.NAME of those that are gone"
    )))
}

/// All that the bucket holds now, and what tells each row that changes from then on.
async fn read_fleet(nats: &Nats, node: u8) -> Result<(Known, Watch), NatsError> {
    // NATS says how many rows are still to come as well, but not of those that change meanwhile, of which it may wait for one
    // that has gone.
    let last = nats.fleet_standing().await?.last;
    let mut watch = nats.watch_fleet().await?;
    let mut rows = Rows::new(node);
    let mut devices = BTreeMap::new();
    let mut settings: BTreeMap<Imei, Settings> = BTreeMap::new();
    let mut reports: BTreeMap<Imei, Report> = BTreeMap::new();
    let mut read = 0;
    loop {
        let entry = timeout(nats::PATIENCE, watch.next()).await;
        let entry = match entry {
            Ok(Some(Ok(entry))) => entry,
            Ok(Some(Err(fault))) => return Err(NatsError(format!("reading the fleet: {fault}"))),
            Ok(None) | Err(_) => {
                return Err(NatsError(format!("reading the fleet: no answer after {read} rows")));
            }
        };
        read += 1;
        match follow::read_row(&entry) {
            _ if entry.operation != Operation::Put => {}
            Held::Device(row) => {
                rows.device(&row, entry.revision);
                devices.insert(row.device.imei, row.device);
            }
            Held::Settings(imei, held) => {
                rows.decision(imei, held.revision, entry.revision);
                settings.insert(imei, held);
            }
            Held::Report(imei, report) => {
                reports.insert(imei, report);
            }
            Held::Other => {}
        }
        if entry.revision >= last || entry.delta == 0 {
            let devices = devices.into_values().collect();
            let fleet = Fleet { devices, settings, reports, next_session_id: 1, node: Some(node) };
            return Ok((Known { fleet, rows, last: entry.revision }, watch));
        }
    }
}

/// Of another fleet there is another copy, and another spool.
fn beside(store: &Path, what: &str, meta: &Meta) -> PathBuf {
    let mut name = store.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{what}-{}.db", meta.id));
    store.with_file_name(name)
}

fn open_copy(path: &Path, retention: Retention, last: u64) -> Result<Sqlite, String> {
    let open = || {
        Sqlite::open(path, retention, clock::now()).map_err(|fault| format!("the copy of the fleet: {fault}"))
    };
    let copy = open()?;
    let page = copy.events(&EventQuery { after: None, imei: None, limit: 1 });
    let newest = page.map_err(|fault| format!("the copy of the fleet: {fault}"))?.newest;
    if newest.cast_unsigned() <= last {
        return Ok(copy);
    }
    warn!("{}: NATS was set back to before event {newest}: the copy is made anew", path.display());
    drop(copy);
    for ending in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        // One that is not there need not go.
        let _ = std::fs::remove_file(name);
    }
    open()
}

fn random() -> Result<String, String> {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "no randomness".to_owned())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
