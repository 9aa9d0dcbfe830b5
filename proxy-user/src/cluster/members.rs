//! What is known under the name of one Service.

use super::ServiceName;
use super::endpoints::Slice;
use super::service::Exposed;

/// The Service and its slices.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) service: Option<Exposed>,
    slices: Slices,
    /// Of the API servers' Service: the slices when there last was anybody in them.
    last_resort: Slices,
}

/// By name, sorted. Most Services have one: a tree would take ten times the room.
type Slices = Vec<(Box<str>, Slice)>;

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }

    /// The slices to be used: API servers that are all on their way out, or can't tell who is there, are still the
    /// best that is known. Without them nobody would hear of those that come.
    pub(super) fn slices(&self) -> impl Iterator<Item = &Slice> {
        let slices = if self.last_resort.is_empty() || has_hosts(&self.slices) {
            &self.slices
        } else {
            &self.last_resort
        };
        slices.iter().map(|(_, slice)| slice)
    }

    /// Returns whether anything has changed.
    pub(super) fn put(&mut self, owner: &ServiceName, name: &str, slice: Slice) -> bool {
        self.remember(owner);
        match self.position(name) {
            Ok(at) if self.slices[at].1 == slice => return false,
            Ok(at) => self.slices[at].1 = slice,
            Err(at) => self.slices.insert(at, (name.into(), slice)),
        }
        true
    }

    pub(super) fn remove(&mut self, owner: &ServiceName, name: &str) {
        self.remember(owner);
        if let Ok(at) = self.position(name) {
            self.slices.remove(at);
        }
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.slices.binary_search_by(|(it, _)| (**it).cmp(name))
    }

    /// What the agent itself may have to dial is kept.
    fn remember(&mut self, owner: &ServiceName) {
        if owner.is_of_api_servers() && has_hosts(&self.slices) {
            self.last_resort.clone_from(&self.slices);
        }
    }
}

fn has_hosts(slices: &Slices) -> bool {
    slices.iter().any(|(_, slice)| slice.has_hosts())
}
