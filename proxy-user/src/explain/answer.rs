//! What is answered to a query: a contract with whoever reads it as JSON.

use super::decision::{Choice, Decision, Led, Packet, Way, decide};
use super::steps::Steps;
use super::{Maps, Name, Names, Query};
use crate::frontend::Protocol;
use crate::sync::At;
use crate::tables;
use proxy_common::{AddrV4, AddrV6, DropReason, FrontendTrait, Port, Proto, Tuple, Verdict};
use proxy_ebpf::family::Family;
use proxy_ebpf::kernel::Services;
use proxy_ebpf::service::{Elsewhere, Origin, Place};
use serde::Serialize;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What becomes of a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What becomes of it.
    pub verdict: Fate,
    /// Why, in a word: that under which the programs count it.
    pub reason: &'static str,
    /// The service port, `namespace/name:port`; null if there is none, or its name is not known.
    pub service: Option<String>,
    /// What of the service port is dialled.
    pub frontend: Option<Dialled>,
    /// Every backend that can be chosen, sorted as texts.
    pub backends: Vec<String>,
    /// Whether kube-proxy would mask the client.
    pub masquerade: bool,
    /// Whether connections of one client lead to the same backend.
    pub affinity: bool,
    /// Whether whoever answers sees the client's own address.
    pub client_address_kept: bool,
    /// How it has come to that, in the order of the decision.
    pub steps: Vec<String>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It goes to a backend.
    Forward,
    /// It is no business of Services.
    Pass,
    /// It is dropped.
    Drop,
    /// It is dropped, and its sender is told.
    Reject,
}

/// A frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dialled {
    /// `ClusterIP`, `NodePort`, `ExternalIP` or `LoadBalancer`.
    pub kind: &'static str,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
}

/// Answers a query about a packet that comes in by a device (0: not known), or that the node itself sends.
pub fn explain(
    query: &Query,
    maps: &Maps,
    device: u32,
    is_own: bool,
    names: &mut impl Names,
) -> Answer {
    match query.to.ip() {
        IpAddr::V4(_) => of_family::<AddrV4>(query, maps, device, is_own, names),
        IpAddr::V6(_) => of_family::<AddrV6>(query, maps, device, is_own, names),
    }
}

fn of_family<A: Family + tables::Family>(
    query: &Query,
    maps: &Maps,
    device: u32,
    is_own: bool,
    names: &mut impl Names,
) -> Answer
where
    Maps: Services<A>,
{
    let (Some(from), Some(to)) = (A::from_ip(query.from.ip()), A::from_ip(query.to.ip())) else {
        return Answer::pass(vec!["its addresses are of two families".to_owned()]);
    };
    let proto = proto(query.protocol);
    let packet = Packet {
        proto,
        tuple: Tuple::new(
            proto,
            (from, Port::new(query.from.port())),
            (to, Port::new(query.to.port())),
        ),
        device,
        is_own,
    };
    let Some(decision) = decide(maps, &packet) else {
        let nothing = "nothing has been written of this node yet: every packet passes";
        return Answer::pass(vec![nothing.to_owned()]);
    };
    let steps = Steps::new::<A>(query, maps, decision.origin, device);
    decision.answer(query, steps, names)
}

const fn proto(protocol: Protocol) -> Proto {
    match protocol {
        Protocol::Tcp => Proto::Tcp,
        Protocol::Udp => Proto::Udp,
        Protocol::Sctp => Proto::Sctp,
    }
}

impl Decision {
    fn answer(self, query: &Query, mut steps: Steps, names: &mut impl Names) -> Answer {
        let at = |at| At::Port(at, query.protocol);
        match self.way {
            Way::Elsewhere(Elsewhere::Unrelated) => {
                steps.unrelated(query);
                Answer::pass(steps.finish())
            }
            Way::Elsewhere(Elsewhere::NoPort) => {
                steps.no_port(query, &names.name_at(&At::Address(query.to.ip())));
                Answer::without(DropReason::NoBackend, steps.finish())
            }
            Way::Elsewhere(Elsewhere::NoService) => {
                steps.no_service(query);
                Answer::without(DropReason::NoService, steps.finish())
            }
            Way::Led(led) => {
                let name = names.name_at(&at(led.at));
                steps.dialled(query, &led, &name);
                led.answer(self.origin, query, name, steps)
            }
        }
    }
}

impl Led {
    fn answer(self, origin: Origin, query: &Query, name: Name, mut steps: Steps) -> Answer {
        let outcome = match &self.choices {
            Err(reason) => {
                steps.refused(query, &self, *reason);
                Answer::without(*reason, Vec::new())
            }
            Ok(choices) => {
                steps.chosen(query, &self, choices, origin);
                self.forwarded(choices, origin, query)
            }
        };
        Answer {
            service: match name {
                Name::Known(name) => Some(name),
                Name::Unnamed | Name::NobodyToAsk => None,
            },
            frontend: self.frontend.kind().map(|kind| Dialled {
                kind: kind.name(),
                address: self.at.ip(),
                port: self.at.port(),
                protocol: query.protocol.name(),
            }),
            affinity: self.has(FrontendTrait::Sticks),
            steps: steps.finish(),
            ..outcome
        }
    }

    fn forwarded(&self, choices: &[Choice], origin: Origin, query: &Query) -> Answer {
        let backends: BTreeSet<String> = choices.iter().map(|it| it.backend.to_string()).collect();
        Answer {
            verdict: Fate::Forward,
            reason: Verdict::Created.name(),
            backends: backends.into_iter().collect(),
            masquerade: self.is_masked_there,
            client_address_kept: keeps_address(choices, origin, query),
            ..Answer::pass(Vec::new())
        }
    }
}

/// A process of this node goes on with an address of the node; what it sends from loopback can't.
pub(super) fn keeps_address(choices: &[Choice], origin: Origin, query: &Query) -> bool {
    match origin.place() {
        Place::Node => !query.from.ip().is_loopback(),
        Place::Pod | Place::Outside => !choices.iter().any(|it| it.is_masked),
    }
}

impl Answer {
    fn pass(steps: Vec<String>) -> Self {
        Self {
            verdict: Fate::Pass,
            reason: Verdict::NotService.name(),
            service: None,
            frontend: None,
            backends: Vec::new(),
            masquerade: false,
            affinity: false,
            client_address_kept: true,
            steps,
        }
    }

    fn without(reason: DropReason, steps: Vec<String>) -> Self {
        let verdict = match reason {
            DropReason::NoBackend => Fate::Reject,
            _ => Fate::Drop,
        };
        Self {
            verdict,
            reason: reason.name(),
            client_address_kept: false,
            ..Self::pass(steps)
        }
    }
}
