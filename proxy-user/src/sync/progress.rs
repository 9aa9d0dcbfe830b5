//! How far the loop has come: what is queued and not yet written, since when, and what a turn has taken.
//!
//! What is decided by time is decided by monotonic time, which the caller brings along; the wall clock is for
//! people and for other machines.

use crate::cluster::{IpFamily, ServiceName, Trigger};
use crate::source::Kind;
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

/// Of how many events a Service's delay is told once it is written.
const TRIGGERS_KEPT: usize = 64;

/// Keeps count.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Services with changes that are not written. What lacks room in a map does not count: waiting does not
    /// say that something is stuck then.
    waiting: HashMap<ServiceName, Change>,
    /// Since when the node's row can't be written.
    node_since: Option<Instant>,
    pending: Pending,
    /// By family.
    written: [Option<SystemTime>; 2],
    is_full: bool,
    turn: Option<Turn>,
}

/// Services with changes that are not written, by the kind of object that has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) services: usize,
    pub(super) endpoints: usize,
}

/// What has changed of a Service.
#[derive(Debug)]
struct Change {
    since: Instant,
    of_service: bool,
    of_endpoints: bool,
    triggers: Vec<Trigger>,
    /// Those that it is about.
    families: [bool; 2],
}

impl Change {
    const fn new(since: Instant) -> Self {
        Self {
            since,
            of_service: false,
            of_endpoints: false,
            triggers: Vec::new(),
            families: [true; 2],
        }
    }
}

/// One pass over everything that is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    began: Instant,
    is_busy: bool,
    /// By family.
    wrote: [bool; 2],
}

/// A turn that had something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) took: Duration,
    /// Whether all Services were looked at.
    pub(super) is_full: bool,
    /// Families of which rows were written.
    pub(super) wrote: [bool; 2],
}

impl Progress {
    /// A Service is to be looked at because an object of this kind has changed.
    pub(super) fn queue(
        &mut self,
        name: &ServiceName,
        kind: Kind,
        trigger: Option<Trigger>,
        now: Instant,
    ) {
        let change = self.waiting.entry(name.clone());
        let change = change.or_insert_with(|| Change::new(now));
        let (flag, count) = match kind {
            Kind::EndpointSlice => (&mut change.of_endpoints, &mut self.pending.endpoints),
            Kind::Service | Kind::Node | Kind::Pod | Kind::ServiceCidr => {
                (&mut change.of_service, &mut self.pending.services)
            }
        };
        *count += usize::from(!*flag);
        *flag = true;
        let room = change.triggers.len() < TRIGGERS_KEPT;
        change.triggers.extend(trigger.filter(|_| room));
    }

    /// All Services are to be looked at.
    pub(super) const fn queue_all(&mut self) {
        self.is_full = true;
    }

    /// A Service waits no longer: all of it is in the maps, or what it lacks is room. Returns what its changes go
    /// back to.
    pub(super) fn done(&mut self, name: &ServiceName) -> Vec<Trigger> {
        let Some(change) = self.waiting.remove(name) else {
            return Vec::new();
        };
        self.pending.services -= usize::from(change.of_service);
        self.pending.endpoints -= usize::from(change.of_endpoints);
        change.triggers
    }

    /// A Service that has rows in these families could not be written.
    pub(super) fn failed(&mut self, name: &ServiceName, families: [bool; 2], now: Instant) {
        let change = self.waiting.entry(name.clone());
        change.or_insert_with(|| Change::new(now)).families = families;
    }

    /// The node's row is written, or not.
    pub(super) fn node(&mut self, is_written: bool, now: Instant) {
        self.node_since = match is_written {
            true => None,
            false => self.node_since.or(Some(now)),
        };
    }

    /// A turn begins; one that has already goes on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.turn.get_or_insert(Turn {
            began: now,
            is_busy: false,
            wrote: [false; 2],
        });
    }

    /// There is something to do in this turn; writes rows of these families.
    pub(super) const fn work(&mut self, families: [bool; 2]) {
        if let Some(turn) = &mut self.turn {
            turn.is_busy = true;
            turn.wrote = [turn.wrote[0] || families[0], turn.wrote[1] || families[1]];
        }
    }

    /// The turn ends: a family that nothing waits for is up to date. `None` if there was nothing to do.
    pub(super) fn end(&mut self, now: Instant, wall: SystemTime) -> Option<Finished> {
        let is_full = std::mem::take(&mut self.is_full);
        let turn = self.turn.take().filter(|turn| turn.is_busy)?;
        for family in IpFamily::ALL {
            if self.waiting_since(family).is_none() {
                self.written[family as usize] = Some(wall);
            }
        }
        Some(Finished {
            took: now.saturating_duration_since(turn.began),
            is_full,
            wrote: turn.wrote,
        })
    }

    /// Since when a change has waited for being written; of a turn under way, what it began with.
    pub(super) fn waiting_since(&self, family: IpFamily) -> Option<Instant> {
        let changes = self.waiting.values();
        let changes = changes.filter(|change| change.families[family as usize]);
        let turn = self.turn.map(|turn| turn.began);
        let since = changes.map(|change| change.since);
        since.chain(self.node_since).chain(turn).min()
    }

    /// When all of a family was last in the maps, after a turn that had something to do.
    pub(super) const fn written(&self) -> [Option<SystemTime>; 2] {
        self.written
    }

    /// What is queued.
    pub(super) const fn pending(&self) -> Pending {
        self.pending
    }

    /// Services that could not be written, between turns.
    pub(super) fn failing(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const WALL: SystemTime = UNIX_EPOCH;
    const V4: usize = IpFamily::V4 as usize;
    const V6: usize = IpFamily::V6 as usize;

    /// A clock that goes when it is told to.
    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: u64) -> Instant {
            self.0 + Duration::from_secs(seconds)
        }
    }

    fn clock() -> Clock {
        Clock(Instant::now())
    }

    fn web() -> ServiceName {
        ServiceName::new("default", "web")
    }

    fn waiting(progress: &Progress) -> [Option<Instant>; 2] {
        IpFamily::ALL.map(|family| progress.waiting_since(family))
    }

    #[test]
    fn a_change_waits_from_when_it_was_first_queued_until_it_is_written() {
        let (clock, mut progress) = (clock(), Progress::default());
        progress.queue(&web(), Kind::EndpointSlice, None, clock.at(1));
        progress.queue(&web(), Kind::EndpointSlice, None, clock.at(5));
        progress.queue(&web(), Kind::Service, None, clock.at(6));
        assert_eq!(waiting(&progress), [Some(clock.at(1)); 2]);
        let pending = Pending {
            services: 1,
            endpoints: 1,
        };
        assert_eq!(progress.pending(), pending);
        progress.begin(clock.at(7));
        progress.work([true, false]);
        progress.done(&web());
        let finished = progress.end(clock.at(9), WALL).unwrap();
        assert_eq!(finished.took, Duration::from_secs(2));
        assert_eq!((finished.is_full, finished.wrote), (false, [true, false]));
        assert_eq!(waiting(&progress), [None; 2]);
        assert_eq!(progress.pending(), Pending::default());
        assert_eq!(progress.written(), [Some(WALL); 2]);
    }

    #[test]
    fn a_turn_under_way_counts_from_its_beginning() {
        let (clock, mut progress) = (clock(), Progress::default());
        progress.queue_all();
        progress.begin(clock.at(3));
        assert_eq!(waiting(&progress), [Some(clock.at(3)); 2]);
        progress.begin(clock.at(4));
        progress.work([false; 2]);
        let finished = progress.end(clock.at(5), WALL).unwrap();
        assert_eq!((finished.took.as_secs(), finished.is_full), (2, true));
        progress.begin(clock.at(6));
        assert_eq!(progress.end(clock.at(7), WALL), None, "nothing to do");
        assert_eq!(waiting(&progress), [None; 2]);
    }

    #[test]
    fn a_failure_holds_up_its_own_families_until_it_is_over() {
        let (clock, mut progress) = (clock(), Progress::default());
        progress.queue(&web(), Kind::Service, None, clock.at(1));
        progress.begin(clock.at(2));
        progress.work([true; 2]);
        progress.failed(&web(), [false, true], clock.at(2));
        progress.end(clock.at(3), WALL);
        assert_eq!(waiting(&progress), [None, Some(clock.at(1))]);
        assert_eq!(progress.written()[V4], Some(WALL));
        assert_eq!(progress.written()[V6], None);
        assert_eq!((progress.failing(), progress.pending().services), (1, 1));
        progress.done(&web());
        assert_eq!(waiting(&progress), [None; 2]);
    }

    #[test]
    fn a_service_that_fails_without_a_change_of_its_own_waits_as_well() {
        let (clock, mut progress) = (clock(), Progress::default());
        progress.failed(&web(), [true, false], clock.at(2));
        progress.failed(&web(), [true, false], clock.at(9));
        assert_eq!(waiting(&progress), [Some(clock.at(2)), None]);
        assert_eq!(progress.pending(), Pending::default());
        progress.done(&web());
        assert_eq!(progress.pending(), Pending::default());
        progress.node(false, clock.at(3));
        progress.node(false, clock.at(8));
        assert_eq!(waiting(&progress), [Some(clock.at(3)); 2]);
        progress.node(true, clock.at(9));
        assert_eq!(waiting(&progress), [None; 2]);
    }

    #[test]
    fn what_changes_go_back_to_is_told_once_and_never_grows_without_end() {
        let (clock, mut progress) = (clock(), Progress::default());
        let trigger = Trigger {
            family: IpFamily::V4,
            at: WALL,
        };
        for _ in 0..1000 {
            progress.queue(&web(), Kind::EndpointSlice, Some(trigger), clock.at(1));
        }
        assert_eq!(progress.done(&web()), vec![trigger; TRIGGERS_KEPT]);
        assert_eq!(progress.done(&web()), []);
    }
}
