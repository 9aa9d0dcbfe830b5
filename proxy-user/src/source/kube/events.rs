//! What the agent writes to the API server: Events, about its node and about Services.

use super::connection::Connection;
use super::pulse::Pulse;
use crate::source::{Kind, Notice};
use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::debug;

const TRIES: u32 = 5;
/// Between two notices: nodes are many, and the API server is one.
const PAUSE: Duration = Duration::from_secs(1);

/// Says that the agent has started. That nobody may hear of it is no concern.
pub(super) async fn announce(connection: Connection, node_name: String) {
    let node = ObjectReference {
        kind: Some(Node::kind(&()).into()),
        api_version: Some(Node::api_version(&()).into()),
        name: Some(node_name.clone()),
        // kubelet and kube-proxy do not know it either.
        uid: Some(node_name.clone()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Normal,
        reason: "Starting".into(),
        note: Some("Ferrule serves this node's Services".into()),
        action: "Starting".into(),
        secondary: None,
    };
    Announcer::new(connection, node_name)
        .publish(&event, &node)
        .await;
}

/// Sends notices one by one, until no more can come.
pub(super) async fn tell(
    connection: Connection,
    node_name: String,
    mut notices: mpsc::Receiver<Notice>,
) {
    let mut announcer = Announcer::new(connection, node_name);
    while let Some(notice) = notices.recv().await {
        let object = reference(&notice);
        let event = Event {
            type_: EventType::Warning,
            reason: notice.reason.into(),
            note: Some(notice.note),
            action: notice.action.into(),
            secondary: None,
        };
        announcer.publish(&event, &object).await;
        sleep(PAUSE).await;
    }
}

fn reference(notice: &Notice) -> ObjectReference {
    let object = &notice.object;
    let namespace = object.kind.is_namespaced().then_some(&object.namespace);
    ObjectReference {
        kind: Some(object.kind.name().into()),
        api_version: Some(object.kind.api_version().into()),
        namespace: namespace.cloned(),
        name: Some(object.name.clone()),
        uid: Some(notice.uid.clone()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}

/// Who speaks to the cluster. It remembers what it has said: the same again is a series.
struct Announcer {
    connection: Connection,
    reporter: Reporter,
    recorder: Option<Recorder>,
}

impl Announcer {
    fn new(connection: Connection, node_name: String) -> Self {
        let reporter = Reporter {
            controller: "ferrule".into(),
            instance: Some(node_name),
        };
        Self {
            connection,
            reporter,
            recorder: None,
        }
    }

    async fn publish(&mut self, event: &Event, object: &ObjectReference) {
        for attempt in 0..TRIES {
            match self.try_publish(event, object).await {
                Ok(()) => return,
                Err(error) => debug!("the Event {}: {error:#}", event.reason),
            }
            // The next one takes the credentials as they are then.
            self.recorder = None;
            sleep(Duration::from_secs(1 << attempt)).await;
        }
    }

    async fn try_publish(&mut self, event: &Event, object: &ObjectReference) -> Result<()> {
        let recorder = match self.recorder.take() {
            Some(recorder) => recorder,
            None => {
                let pulse = Arc::new(Pulse::new(Kind::Node));
                let client = self.connection.client(&pulse).await?;
                Recorder::new(client, self.reporter.clone())
            }
        };
        let published = recorder.publish(event, object).await;
        self.recorder = Some(recorder);
        Ok(published?)
    }
}
