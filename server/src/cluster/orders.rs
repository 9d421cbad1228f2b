//! What one node asks of another, and what it answers: over NATS, from node to node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use futures_util::StreamExt as _;
use moorline_protocol::Imei;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use super::nats::Nats;
use super::wire::{self, Answer, Order};
use super::{Cluster, lock};
use crate::clock;
use crate::registry::Registry;

/// How long another node may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a node looks whether what it is asked about has come.
const LOOK: Duration = Duration::from_millis(20);

/// A node gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered(String);

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}, which holds the device's session, does not answer", self.0)
    }
}

impl Cluster {
    /// Ends the session that another node holds; whether there was one.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn drop_session(&self, node: u8, imei: Imei) -> Result<bool, Unanswered> {
        self.ask(node, &Order::Drop { imei: imei.to_string() }).await
    }

    /// Waits until a decision is in force at the node that holds the device.
    ///
    /// # Errors
    /// It does not answer, or has not heard of it yet.
    pub async fn settled(&self, node: u8, imei: Imei, revision: u32) -> Result<(), Unanswered> {
        match self.ask(node, &Order::Settled { imei: imei.to_string(), revision }).await? {
            true => Ok(()),
            false => Err(self.unanswered(node)),
        }
    }

    async fn ask(&self, node: u8, order: &Order) -> Result<bool, Unanswered> {
        let asked = self.nats.client.request(Nats::subject_of(node), wire::write(order).into());
        match timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => Ok(serde_json::from_slice::<Answer>(&answer.payload).unwrap_or_default().done),
            Ok(Err(_)) | Err(_) => Err(self.unanswered(node)),
        }
    }

    fn unanswered(&self, node: u8) -> Unanswered {
        let nodes = lock(&self.nodes).all(clock::now().instant);
        let name = nodes.into_iter().find(|(number, ..)| *number == node).map(|(_, name, ..)| name);
        Unanswered(name.map_or_else(|| node.to_string(), Into::into))
    }
}

/// Whether a node takes orders: one that hangs is there, too.
pub(super) async fn is_there(nats: &Nats, number: u8) -> bool {
    let asked = nats.client.request(Nats::subject_of(number), wire::write(&Order::Here).into());
    match timeout(PATIENCE, asked).await {
        Ok(Err(fault)) => fault.kind() != RequestErrorKind::NoResponders,
        Ok(Ok(_)) | Err(_) => true,
    }
}

/// Takes orders; never ends.
pub(super) async fn take(cluster: Arc<Cluster>, registry: Arc<Registry>) {
    let mut pace = interval(PATIENCE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        match cluster.nats.client.subscribe(Nats::subject_of(cluster.number)).await {
            Ok(mut orders) => {
                while let Some(message) = orders.next().await {
                    let (cluster, registry) = (Arc::clone(&cluster), Arc::clone(&registry));
                    tokio::spawn(async move {
                        let Some(reply) = message.reply else { return };
                        let done = match serde_json::from_slice(&message.payload) {
                            Ok(order) => obey(order, &registry).await,
                            Err(_) => false,
                        };
                        // Who asked waits no longer than he wants to.
                        let _ =
                            cluster.nats.client.publish(reply, wire::write(&Answer { done }).into()).await;
                    });
                }
            }
            Err(fault) => warn!("NATS: orders of other nodes are not taken: {fault}"),
        }
    }
}

async fn obey(order: Order, registry: &Registry) -> bool {
    match order {
        Order::Here => true,
        Order::Drop { imei } => imei.parse().is_ok_and(|imei| registry.drop_session(imei)),
        Order::Settled { imei, revision } => {
            let Ok(imei) = imei.parse() else { return false };
            let is_settled = || registry.settings(imei).is_some_and(|settings| settings.revision >= revision);
            let settled = async {
                let mut pace = interval(LOOK);
                while !is_settled() {
                    pace.tick().await;
                }
            };
            timeout(PATIENCE / 2, settled).await.is_ok()
        }
    }
}
