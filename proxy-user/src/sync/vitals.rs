//! How the loop is, for those who answer for its health.

use std::time::{Instant, SystemTime};

/// How the loop is. By family: at `family as usize`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Whether everything that existed at the start is known; before that nothing is written.
    pub synced: bool,
    /// Since when a change has been queued that is not written.
    pub waiting_since: [Option<Instant>; 2],
    /// When everything was last written.
    pub written: [Option<SystemTime>; 2],
    /// This node's object.
    pub node: NodeState,
}

/// What is known of this node's object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// There has been none yet.
    #[default]
    NeverSeen,
    /// It is there.
    Present,
    /// It is being deleted, or the cluster autoscaler is about to.
    Leaving,
    /// It was there once.
    Gone,
}

impl NodeState {
    /// What becomes of it when the object is like this: whether it is leaving, if it is there.
    pub(super) const fn after(self, is_leaving: Option<bool>) -> Self {
        match (is_leaving, self) {
            (Some(true), _) => Self::Leaving,
            (Some(false), _) => Self::Present,
            (None, Self::NeverSeen) => Self::NeverSeen,
            (None, Self::Present | Self::Leaving | Self::Gone) => Self::Gone,
        }
    }
}
