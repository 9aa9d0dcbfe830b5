//! What the source is asked to tell the cluster: Events about its objects.

use super::ObjectKey;
use tokio::sync::mpsc;
use tracing::debug;

/// Notices that wait to be sent. More at once are lost: a flood of them helps nobody.
const WAITING: usize = 64;

/// A warning for those who look at an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The object.
    pub object: ObjectKey,
    /// Its `metadata.uid`: without it `kubectl describe` finds nothing.
    pub uid: String,
    /// Why, in one word.
    pub reason: &'static str,
    /// What was tried, in one word.
    pub action: &'static str,
    /// The whole story, of at most 1024 bytes.
    pub note: String,
}

/// Takes notices; a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Notices(Option<mpsc::Sender<Notice>>);

impl Notices {
    /// For a source that can send them. Without one they go nowhere.
    pub fn channel() -> (Self, mpsc::Receiver<Notice>) {
        let (notices, waiting) = mpsc::channel(WAITING);
        (Self(Some(notices)), waiting)
    }

    /// Hands on a notice and waits for nobody.
    pub fn tell(&self, notice: Notice) {
        if let Some(notices) = &self.0
            && let Err(error) = notices.try_send(notice)
        {
            debug!("an Event is not sent: {error}");
        }
    }
}
