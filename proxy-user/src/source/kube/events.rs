//! What the agent writes to the API server: Events, about its node.

use super::connection::Connection;
use super::pulse::Pulse;
use crate::source::Kind;
use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

const TRIES: u32 = 5;

/// Says that the agent has started. That nobody may hear of it is no concern.
pub(super) async fn announce(connection: Connection, node_name: String) {
    for attempt in 0..TRIES {
        match publish(&connection, &node_name).await {
            Ok(()) => return,
            Err(error) => debug!("the Event that the agent has started: {error:#}"),
        }
        tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
    }
}

async fn publish(connection: &Connection, node_name: &str) -> Result<()> {
    let client = connection.client(&Arc::new(Pulse::new(Kind::Node))).await?;
    let reporter = Reporter {
        controller: "ferrule".into(),
        instance: Some(node_name.into()),
    };
    let node = ObjectReference {
        kind: Some(Node::kind(&()).into()),
        api_version: Some(Node::api_version(&()).into()),
        name: Some(node_name.into()),
        // kubelet and kube-proxy do not know it either.
        uid: Some(node_name.into()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Normal,
        reason: "Starting".into(),
        note: Some("Ferrule serves this node's Services".into()),
        action: "Starting".into(),
        secondary: None,
    };
    Ok(Recorder::new(client, reporter)
        .publish(&event, &node)
        .await?)
}
