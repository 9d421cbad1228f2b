//! `/api/nodes`: the servers that share the fleet.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Operators;
use super::problem::Problem;
use crate::cluster::NodeShown;

#[derive(Serialize)]
pub(super) struct NodeList {
    /// In the order of their numbers; none where this server is the only one.
    nodes: Vec<NodeView>,
}

#[derive(Serialize)]
struct NodeView {
    name: String,
    /// How many sessions it holds, as it told last.
    online: usize,
    /// Whether it is heard.
    heard: bool,
    /// Whether it is the one that answers.
    answers: bool,
}

pub(super) async fn list(State(operators): State<Operators>) -> Result<Json<NodeList>, Problem> {
    let nodes = operators.cluster.as_ref().map(|cluster| cluster.nodes()).unwrap_or_default();
    Ok(Json(NodeList { nodes: nodes.into_iter().map(NodeView::from).collect() }))
}

impl From<NodeShown> for NodeView {
    fn from(NodeShown { name, online, is_heard, is_self }: NodeShown) -> Self {
        Self { name: name.into(), online, heard: is_heard, answers: is_self }
    }
}
