//! NATS with JetStream, as nodes use it: two buckets and a stream. It knows no devices and decides nothing.
//!
//! ```text
//!   bucket moorline_fleet   meta, device.IMEI, settings.IMEI, report.IMEI    one row each, by compare-and-set
//!   bucket moorline_nodes   node.NAME, number.N                              who is there
//!   stream MOORLINE_EVENTS  moorline.event.IMEI, moorline.event.none         what happened, in one order
//!   subject moorline.node.N                                                  orders from node to node
//! ```

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::context::{
    CreateStreamErrorKind, PublishAckFuture, PublishError, PublishErrorKind,
};
use async_nats::jetstream::kv::{Operation, Store as Bucket, Watch};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, Stream};
use async_nats::jetstream::{self, Context, ErrorCode, context};
use async_nats::{Client, ConnectErrorKind, ConnectOptions};

use super::settings::ClusterSettings;

const FLEET: KeyValue = KeyValue { bucket: "moorline_fleet", stream: "KV_moorline_fleet" };
const NODES: KeyValue = KeyValue { bucket: "moorline_nodes", stream: "KV_moorline_nodes" };
const EVENTS: &str = "MOORLINE_EVENTS";
const EVENT_SUBJECT: &str = "moorline.event";
const NODE_SUBJECT: &str = "moorline.node";

/// What NATS may take for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How many rows may be on their way at once.
const ON_THEIR_WAY: usize = 2048;
/// An event that is told again within this is not taken twice. NATS keeps some 100 bytes in memory for each meanwhile.
const ONCE_WITHIN: Duration = Duration::from_secs(60 * 60);

/// Why NATS is of no use: in words, with what to do where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NatsError(pub(super) String);

impl fmt::Display for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl NatsError {
    fn of(what: &str, fault: impl fmt::Display) -> Self {
        Self(format!("{what}: {fault}"))
    }
}

/// A connection to the servers, made anew by itself.
pub(super) struct Nats {
    pub(super) client: Client,
    context: Context,
    pub(super) fleet: Bucket,
    pub(super) nodes: Bucket,
    events: Stream,
}

/// A bucket, and the stream that it is to NATS.
#[derive(Clone, Copy)]
struct KeyValue {
    bucket: &'static str,
    stream: &'static str,
}

/// How a bucket is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The number of the last row that was ever written.
    pub(super) last: u64,
    /// Which of several NATS servers leads it; `None` while they have not agreed on one, or where there is one alone.
    pub(super) leader: Option<String>,
}

/// A row or an event that is to be stored.
pub(super) struct Message {
    subject: String,
    /// What takes it.
    stream: &'static str,
    publish: PublishMessage,
}

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// It is there, under this number.
    At(u64),
    /// What it was to replace is there no more.
    Outdated,
}

impl Nats {
    /// Connects, and makes what is not there yet.
    pub(super) async fn open(settings: &ClusterSettings, events_kept: u64) -> Result<Self, NatsError> {
        let client = connect(settings).await?;
        let context = context::ContextBuilder::new()
            .timeout(PATIENCE)
            .ack_timeout(PATIENCE)
            .max_ack_inflight(ON_THEIR_WAY)
            .build(client.clone());
        let fleet = bucket(&context, FLEET, "Moorline: devices and decisions", settings.replicas).await?;
        let nodes = bucket(&context, NODES, "Moorline: servers", settings.replicas).await?;
        let wanted = stream::Config {
            name: EVENTS.to_owned(),
            description: Some("Moorline: what happened".to_owned()),
            subjects: vec![format!("{EVENT_SUBJECT}.*")],
            max_messages: events_kept.cast_signed(),
            duplicate_window: ONCE_WITHIN,
            num_replicas: settings.replicas,
            ..stream::Config::default()
        };
        let events = stream(&context, wanted).await?;
        Ok(Self { client, context, fleet, nodes, events })
    }

    /// A row of the fleet, to be written over this revision; 0: over none.
    pub(super) fn row(key: &str, value: Vec<u8>, over: u64) -> Message {
        message(FLEET, key, value, Some(over))
    }

    /// A row of the fleet, to be written over whatever is there.
    pub(super) fn any_row(key: &str, value: Vec<u8>) -> Message {
        message(FLEET, key, value, None)
    }

    /// Takes a node's word, over whatever it said before.
    pub(super) async fn say(&self, key: &str, value: Vec<u8>) -> Result<(), NatsError> {
        self.store(vec![message(NODES, key, value, None)]).await.map(drop)
    }

    /// Takes a node's word over this revision; whether that was there still.
    pub(super) async fn say_over(&self, key: &str, value: Vec<u8>, over: u64) -> Result<bool, NatsError> {
        let stored = self.store(vec![message(NODES, key, value, Some(over))]).await?;
        Ok(!stored.contains(&Stored::Outdated))
    }

    /// What a node said, with its revision; of what was deleted the revision alone.
    pub(super) async fn said(&self, key: &str) -> Result<(Option<Vec<u8>>, u64), NatsError> {
        let entry = self.nodes.entry(key).await.map_err(|fault| NatsError::of("reading the nodes", fault))?;
        let revision = entry.as_ref().map_or(0, |entry| entry.revision);
        let held = entry.filter(|entry| entry.operation == Operation::Put);
        Ok((held.map(|entry| entry.value.to_vec()), revision))
    }

    /// An event, under a name by which it is taken once.
    pub(super) fn event(token: &str, name: &str, value: Vec<u8>) -> Message {
        let publish = PublishMessage::build().payload(value.into()).message_id(name);
        Message { subject: format!("{EVENT_SUBJECT}.{token}"), stream: EVENTS, publish }
    }

    /// Stores these, in any order. What became of each; or an error, and any of them may be stored.
    pub(super) async fn store(&self, messages: Vec<Message>) -> Result<Vec<Stored>, NatsError> {
        let mut sent: Vec<(&str, PublishAckFuture)> = Vec::with_capacity(messages.len());
        let mut stored = Vec::with_capacity(messages.len());
        for Message { subject, stream, publish } in messages {
            if sent.len() >= ON_THEIR_WAY {
                for (stream, sent) in sent.drain(..) {
                    stored.push(outcome(stream, sent).await?);
                }
            }
            let acknowledged = self.context.send_publish(subject, publish).await;
            sent.push((stream, acknowledged.map_err(|fault| refusal(stream, &fault))?));
        }
        for (stream, sent) in sent {
            stored.push(outcome(stream, sent).await?);
        }
        Ok(stored)
    }

    /// All rows of the fleet as they are, then each that changes.
    pub(super) async fn watch_fleet(&self) -> Result<Watch, NatsError> {
        self.fleet.watch_with_history(">").await.map_err(|fault| NatsError::of("reading the fleet", fault))
    }

    /// All nodes as they told last, then each word of theirs.
    pub(super) async fn watch_nodes(&self) -> Result<Watch, NatsError> {
        self.nodes.watch_with_history(">").await.map_err(|fault| NatsError::of("reading the nodes", fault))
    }

    /// The events after this number, and each that comes.
    pub(super) async fn events_after(&self, number: u64) -> Result<pull::Ordered, NatsError> {
        let wanted = pull::OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: number + 1 },
            ..pull::OrderedConfig::default()
        };
        let fault = |fault: &dyn fmt::Display| NatsError::of("reading events", fault);
        let consumer = self.events.create_consumer(wanted).await.map_err(|error| fault(&error))?;
        consumer.messages().await.map_err(|error| fault(&error))
    }

    /// The number of the last event that was ever stored.
    pub(super) async fn last_event(&self) -> Result<u64, NatsError> {
        last_of(&self.events).await
    }

    /// How the bucket of the fleet is.
    pub(super) async fn fleet_standing(&self) -> Result<Standing, NatsError> {
        let info = self
            .fleet
            .stream
            .get_info()
            .await
            .map_err(|fault| NatsError::of("looking at the fleet", fault))?;
        let leader = info.cluster.and_then(|cluster| cluster.leader);
        Ok(Standing { last: info.state.last_sequence, leader })
    }

    /// Where a node takes orders.
    pub(super) fn subject_of(number: u8) -> String {
        format!("{NODE_SUBJECT}.{number}")
    }
}

async fn last_of(stream: &Stream) -> Result<u64, NatsError> {
    let info = stream.get_info().await;
    Ok(info.map_err(|fault| NatsError::of("looking at a stream", fault))?.state.last_sequence)
}

/// A row of this bucket.
fn message(of: KeyValue, key: &str, value: Vec<u8>, over: Option<u64>) -> Message {
    let publish = PublishMessage::build().payload(value.into());
    let publish = match over {
        Some(over) => publish.expected_last_subject_sequence(over),
        None => publish,
    };
    Message { subject: format!("$KV.{}.{key}", of.bucket), stream: of.stream, publish }
}

async fn outcome(stream: &str, sent: PublishAckFuture) -> Result<Stored, NatsError> {
    match sent.await {
        Ok(ack) => Ok(Stored::At(ack.sequence)),
        Err(fault) if fault.kind() == PublishErrorKind::WrongLastSequence => Ok(Stored::Outdated),
        Err(fault) => Err(refusal(stream, &fault)),
    }
}

fn refusal(stream: &str, fault: &PublishError) -> NatsError {
    if fault.kind() == PublishErrorKind::StreamNotFound {
        return NatsError(format!(
            "nobody takes anything for {stream}: it was deleted, or JetStream is off, which a full disk does: look at the log of nats-server"
        ));
    }
    let answer = fault.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    match answer.and_then(|answer| what_to_do(answer.error_code(), stream)) {
        Some(what_to_do) => NatsError(format!("it is full: {what_to_do}")),
        None => NatsError(format!("storing in {stream}: {fault}")),
    }
}

/// Which limit is reached, and how it is raised; `None` where it is none.
fn what_to_do(code: ErrorCode, stream: &str) -> Option<String> {
    match code {
        ErrorCode::INSUFFICIENT_RESOURCES | ErrorCode::STORAGE_RESOURCES_EXCEEDED => Some(
            "raise max_file_store under jetstream in the configuration of nats-server and restart it, or delete other streams there"
                .to_owned(),
        ),
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => Some(
            "raise max_file under jetstream of the account, in the configuration of nats-server, or delete other streams of it"
                .to_owned(),
        ),
        ErrorCode::STREAM_STORE_FAILED => Some(format!(
            "{stream} is at a limit of its own, or the disk is full: raise its max_bytes or max_msgs (nats stream edit), or make room"
        )),
        _ => None,
    }
}

async fn connect(settings: &ClusterSettings) -> Result<Client, NatsError> {
    let unreadable = |what: &str, fault: std::io::Error| NatsError::of(what, fault);
    let mut options = ConnectOptions::new()
        .name(format!("moorline-server {}", settings.node))
        .connection_timeout(PATIENCE)
        .request_timeout(Some(PATIENCE))
        .ping_interval(Duration::from_secs(5));
    if let Some(ca) = &settings.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((certificate, key)) = &settings.identity {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    if let Some(file) = &settings.credentials {
        options =
            options.credentials_file(file).await.map_err(|fault| unreadable("cluster.credentials", fault))?;
    }
    if let Some((user, file)) = &settings.user {
        let password = tokio::fs::read_to_string(file).await;
        let password = password.map_err(|fault| unreadable("cluster.password_file", fault))?;
        options = options.user_and_password(user.clone(), password.trim_end().to_owned());
    }
    options.connect(settings.urls.clone()).await.map_err(|fault| {
        NatsError(match fault.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                "it refuses this node: look at cluster.credentials, user and password_file".to_owned()
            }
            ConnectErrorKind::Tls => {
                format!("TLS with it fails: {fault}: look at cluster.ca, certificate and key")
            }
            ConnectErrorKind::Dns => format!("its name is not known: {fault}"),
            _ => format!("it is not reached: {fault}"),
        })
    })
}

/// A key-value bucket as NATS's own tools know it. What is read of it is what its leader has, never an older word.
async fn bucket(
    context: &Context,
    KeyValue { bucket: name, stream: of }: KeyValue,
    description: &str,
    replicas: usize,
) -> Result<Bucket, NatsError> {
    let wanted = stream::Config {
        name: of.to_owned(),
        description: Some(description.to_owned()),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        num_replicas: replicas,
        ..stream::Config::default()
    };
    stream(context, wanted).await?;
    context.get_key_value(name).await.map_err(|fault| NatsError::of(&format!("the bucket {name}"), fault))
}

/// The stream of this name, made where it is not there. Several nodes may do so at once.
async fn stream(context: &Context, wanted: stream::Config) -> Result<Stream, NatsError> {
    let (name, replicas) = (wanted.name.clone(), wanted.num_replicas);
    match context.get_or_create_stream(wanted).await {
        Ok(stream) => Ok(stream),
        Err(fault) => match context.get_stream(&name).await {
            Ok(stream) => Ok(stream),
            Err(_) => Err(match fault.kind() {
                CreateStreamErrorKind::JetStreamUnavailable => NatsError(
                    "it has no JetStream: switch it on, with `jetstream {}` in its configuration".to_owned(),
                ),
                kind => {
                    let fault = format!("the stream {name} cannot be made: {fault}");
                    let full = match kind {
                        CreateStreamErrorKind::JetStream(answer) => what_to_do(answer.error_code(), &name),
                        _ => None,
                    };
                    match full {
                        Some(what_to_do) => NatsError(format!("{fault}: {what_to_do}")),
                        None => too_few(NatsError(fault), replicas),
                    }
                }
            }),
        },
    }
}

/// NATS says of too many replicas only that there are no servers for them.
fn too_few(fault: NatsError, replicas: usize) -> NatsError {
    if replicas > 1 {
        NatsError(format!("{fault} (cluster.replicas is {replicas}: so many NATS servers there must be)"))
    } else {
        fault
    }
}
