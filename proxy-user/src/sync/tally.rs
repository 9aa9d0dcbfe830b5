//! What the rows of Services add up to, kept up to date Service by Service: looking at all of them takes too long.

use super::{Entry, PerFamily, Sync};
use crate::cluster::{IpFamily, ServiceName, Skipped};
use crate::frontend::{ServicePort, local_gaps};
use proxy_common::{AddrV4, AddrV6};
use std::collections::BTreeMap;
use std::ops::{AddAssign, SubAssign};

/// The sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Services with at least one row.
    pub(super) services: usize,
    pub(super) service_ports: PerFamily,
    pub(super) frontends: PerFamily,
    pub(super) backends: PerFamily,
    pub(super) gaps: Gaps,
}

/// Service ports whose policy asks for endpoints on this node, where there are only others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    pub(super) internal: PerFamily,
    pub(super) external: PerFamily,
}

impl Gaps {
    pub(super) fn of(ports: &[ServicePort]) -> Self {
        let [v4, v6] = IpFamily::ALL.map(|family| local_gaps(ports, family));
        Self {
            internal: PerFamily {
                v4: v4.internal,
                v6: v6.internal,
            },
            external: PerFamily {
                v4: v4.external,
                v6: v6.external,
            },
        }
    }
}

impl Tally {
    fn of(entry: &Entry) -> Self {
        let (v4, v6) = (
            entry.actual.family::<AddrV4>(),
            entry.actual.family::<AddrV6>(),
        );
        Self {
            services: usize::from(!entry.actual.is_empty()),
            service_ports: PerFamily {
                v4: v4.service_count(),
                v6: v6.service_count(),
            },
            frontends: PerFamily {
                v4: v4.frontend_count(),
                v6: v6.frontend_count(),
            },
            backends: PerFamily {
                v4: v4.backend_count(),
                v6: v6.backend_count(),
            },
            gaps: entry.gaps,
        }
    }

    fn sums(&mut self) -> [&mut PerFamily; 5] {
        [
            &mut self.service_ports,
            &mut self.frontends,
            &mut self.backends,
            &mut self.gaps.internal,
            &mut self.gaps.external,
        ]
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, mut other: Self) {
        self.services += other.services;
        for (sum, more) in self.sums().into_iter().zip(other.sums()) {
            sum.v4 += more.v4;
            sum.v6 += more.v6;
        }
    }
}

impl SubAssign for Tally {
    fn sub_assign(&mut self, mut other: Self) {
        self.services -= other.services;
        for (sum, less) in self.sums().into_iter().zip(other.sums()) {
            sum.v4 -= less.v4;
            sum.v6 -= less.v6;
        }
    }
}

impl<D> Sync<D> {
    /// Takes in what has become of a Service's rows.
    pub(super) fn recount(&mut self, name: &ServiceName) {
        if let Some(entry) = self.services.get_mut(name) {
            let now = Tally::of(entry);
            self.tally -= std::mem::replace(&mut entry.tally, now);
            self.tally += now;
        }
    }

    /// Counts what is skipped of one Service instead of what was.
    pub(super) fn recount_skipped(&mut self, before: &[Skipped], now: &[Skipped]) {
        for skipped in before {
            if let Some(count) = self.skipped.get_mut(skipped.why.name()) {
                *count -= 1;
            }
        }
        count(&mut self.skipped, now);
    }
}

/// Counts by reason.
pub(super) fn count<'a>(
    counts: &mut BTreeMap<&'static str, usize>,
    skipped: impl IntoIterator<Item = &'a Skipped>,
) {
    for skipped in skipped {
        *counts.entry(skipped.why.name()).or_default() += 1;
    }
}
