//! Rows of an earlier run that no Service has asked for.

use super::{Entry, Sync};
use crate::cluster::ServiceName;
use crate::datapath::Datapath;

impl<D: Datapath> Sync<D> {
    /// Whether an earlier run has left rows of Services, and nothing has become of them yet.
    pub fn has_found_rows(&self) -> bool {
        !self.orphans.is_empty()
    }

    /// Makes the rows of an earlier run that no Service has asked for go away.
    pub(super) fn disown(&mut self) {
        let mut names = Vec::new();
        while let Some((id, rows)) = self.orphans.pop() {
            // No object can have an empty namespace.
            let name = ServiceName::new("", format!("orphan-{id}"));
            let mut entry = Box::new(Entry {
                desired: Some(Box::default()),
                ..Entry::default()
            });
            self.adopt(&name, &mut entry, rows);
            self.services.insert(name.clone(), entry);
            names.push(name);
        }
        self.settle(&names);
    }
}
