//! Which endpoints of a service port answer, and under which traffic policy.
//!
//! kube-proxy's rules: who is ready answers. Under policy Cluster these are narrowed down to those that are meant
//! for this node or its zone, if each of them says for whom it is meant. Where nobody is ready, those that are on
//! their way out answer as long as they can.

use super::Backend;
use crate::cluster::{Endpoint, Hint};

/// The backends of endpoints of one family, in their order: who answers, and who only goes on with what it has
/// begun. An endpoint that would not answer new connections is none.
pub(super) fn backends(endpoints: &[Endpoint]) -> Vec<Backend> {
    let cluster = Chosen::of(endpoints.iter());
    let local = Chosen::of(endpoints.iter().filter(|it| it.local));
    let backends = endpoints.iter().map(|endpoint| Backend {
        address: endpoint.address,
        port: endpoint.port,
        local: endpoint.local,
        in_local: endpoint.local && local.is_in_state(endpoint),
        in_cluster: cluster.is_in_state(endpoint) && cluster.is_in_reach(endpoint),
    });
    let kept = backends
        .zip(endpoints)
        .filter(|(backend, endpoint)| backend.in_local || backend.in_cluster || endpoint.serving);
    // Most are kept: growing takes longer than room for all.
    let mut all = Vec::with_capacity(endpoints.len());
    all.extend(kept.map(|(backend, _)| backend));
    all
}

/// Who of some endpoints is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chosen {
    state: State,
    reach: Reach,
}

/// The state in which they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// Nobody is ready.
    Leaving,
}

/// For whom they must be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Node,
    Zone,
    Anybody,
}

impl Chosen {
    /// One without a hint among those that are ready switches hints off for all: it would never be reached.
    fn of<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Self {
        let (mut is_any_ready, mut nodes, mut zones) = (false, Hints::NONE, Hints::NONE);
        for endpoint in endpoints.filter(|it| it.ready) {
            is_any_ready = true;
            nodes.add(endpoint.node_hint);
            zones.add(endpoint.zone_hint);
        }
        Self {
            state: if is_any_ready {
                State::Ready
            } else {
                State::Leaving
            },
            reach: match is_any_ready {
                true if nodes.are_usable() => Reach::Node,
                true if zones.are_usable() => Reach::Zone,
                _ => Reach::Anybody,
            },
        }
    }

    const fn is_in_state(self, endpoint: &Endpoint) -> bool {
        match self.state {
            State::Ready => endpoint.ready,
            State::Leaving => endpoint.is_leaving(),
        }
    }

    fn is_in_reach(self, endpoint: &Endpoint) -> bool {
        match self.reach {
            Reach::Node => endpoint.node_hint == Hint::Here,
            Reach::Zone => endpoint.zone_hint == Hint::Here,
            Reach::Anybody => true,
        }
    }
}

/// What hints of one kind add up to.
#[derive(Clone, Copy, Debug)]
struct Hints {
    has_gap: bool,
    has_here: bool,
}

impl Hints {
    const NONE: Self = Self {
        has_gap: false,
        has_here: false,
    };

    const fn add(&mut self, hint: Hint) {
        match hint {
            Hint::None => self.has_gap = true,
            Hint::Here => self.has_here = true,
            Hint::Elsewhere => {}
        }
    }

    const fn are_usable(self) -> bool {
        self.has_here && !self.has_gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Hint::{Elsewhere, Here, None};

    const READY: [bool; 3] = [true, true, false];
    const UNREADY: [bool; 3] = [false, false, false];
    const STARTING: [bool; 3] = [false, true, false];
    const LEAVING: [bool; 3] = [false, true, true];
    const GONE: [bool; 3] = [false, false, true];

    /// Ready, serving, terminating; local; hints of nodes and zones.
    fn chosen(endpoints: &[([bool; 3], bool, Hint, Hint)]) -> String {
        let endpoints = endpoints.iter().zip(1..).map(|(endpoint, number)| {
            let ([ready, serving, terminating], local, node_hint, zone_hint) = *endpoint;
            Endpoint {
                address: [10, 0, 0, number].into(),
                port: 80,
                ready,
                serving,
                terminating,
                local,
                node_hint,
                zone_hint,
            }
        });
        let backends = backends(&endpoints.collect::<Vec<_>>());
        let words = backends.iter().map(|backend| {
            let number = backend.address.to_string().replace("10.0.0.", "");
            let cluster = if backend.in_cluster { "c" } else { "" };
            let local = if backend.in_local { "l" } else { "" };
            format!("{number}{cluster}{local}")
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn plain(endpoints: &[([bool; 3], bool)]) -> String {
        let endpoints = endpoints.iter();
        let endpoints = endpoints.map(|(state, local)| (*state, *local, None, None));
        chosen(&endpoints.collect::<Vec<_>>())
    }

    #[test]
    fn both_policies_fall_back_on_their_own() {
        assert_eq!(plain(&[(READY, true), (READY, false)]), "1cl 2c");
        assert_eq!(plain(&[(LEAVING, true), (READY, false)]), "1l 2c");
        assert_eq!(plain(&[(LEAVING, true), (LEAVING, false)]), "1cl 2c");
        assert_eq!(plain(&[(LEAVING, false), (READY, true)]), "1 2cl");
        assert_eq!(plain(&[]), "");
    }

    #[test]
    fn who_would_answer_is_kept_for_what_it_has_begun() {
        assert_eq!(
            plain(&[(STARTING, true), (UNREADY, true), (GONE, false)]),
            "1"
        );
        assert_eq!(plain(&[(GONE, true), (LEAVING, true)]), "2cl");
    }

    #[test]
    fn hints_narrow_down_who_is_ready() {
        let zones = |hints: &[Hint]| {
            let each = hints.iter().map(|hint| (READY, true, None, *hint));
            chosen(&each.collect::<Vec<_>>())
        };
        assert_eq!(zones(&[Here, Elsewhere]), "1cl 2l");
        assert_eq!(zones(&[Here, None]), "1cl 2cl");
        assert_eq!(zones(&[Elsewhere, Elsewhere]), "1cl 2cl");
        assert_eq!(
            chosen(&[
                (READY, false, Elsewhere, Here),
                (READY, false, Here, Elsewhere),
                (UNREADY, false, None, None),
                (LEAVING, false, None, None),
            ]),
            "1 2c 4"
        );
        assert_eq!(
            chosen(&[(READY, false, None, Here), (READY, false, Here, Elsewhere)]),
            "1c 2"
        );
    }

    #[test]
    fn hints_of_those_on_their_way_out_do_not_count() {
        assert_eq!(
            chosen(&[
                (LEAVING, false, Here, Here),
                (LEAVING, false, Elsewhere, Elsewhere)
            ]),
            "1c 2c"
        );
    }
}
