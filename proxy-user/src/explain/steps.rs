//! The steps of a decision, in words.

use super::answer::keeps_address;
use super::decision::{Choice, Led};
use super::{Maps, Name, Query};
use crate::sync::At;
use proxy_common::{
    Detection, DropReason, FrontendKind, FrontendTrait, NodeFamily, NodeOption, NodeOptions, Range,
};
use proxy_ebpf::family::Family;
use proxy_ebpf::kernel::Services;
use proxy_ebpf::service::{Origin, Place};
use std::collections::BTreeSet;

/// The steps so far.
#[derive(Debug)]
pub(super) struct Steps {
    steps: Vec<String>,
    options: NodeOptions,
    detection: Detection,
}

impl Steps {
    /// Begins with where the client is.
    pub(super) fn new<A: Family>(query: &Query, maps: &Maps, origin: Origin, device: u32) -> Self
    where
        Maps: Services<A>,
    {
        let config = Services::<A>::config(maps);
        let family = config.map(A::of_node);
        let detection = family.map_or(Detection::None, NodeFamily::detection);
        let range = family.map(|family| text(&family.pods)).unwrap_or_default();
        let (client, from) = (query.from.ip(), device_of(query));
        let first = match (origin.place(), detection) {
            (Place::Node, _) => format!("{client} is this node's own: the node itself sends"),
            (Place::Pod, Detection::ByDevice) => {
                format!("{client} is a pod: packets of pods come in by {from}")
            }
            (Place::Pod, _) => format!("{client} is a pod: it is in {range}"),
            (Place::Outside, Detection::None) => {
                format!("{client} counts as outside: by what pods are known here is not known")
            }
            (Place::Outside, Detection::BySource) => {
                format!("{client} is outside: it is not in {range}, where pods are")
            }
            (Place::Outside, Detection::ByDevice) if device == 0 => format!(
                "{client} counts as outside: pods are known by the device that packets come in by, and none was given"
            ),
            (Place::Outside, Detection::ByDevice) => {
                format!("{client} is outside: {from} is no device of pods")
            }
        };
        Self {
            steps: vec![first],
            options: config.map(|config| config.options).unwrap_or_default(),
            detection,
        }
    }

    pub(super) fn finish(self) -> Vec<String> {
        self.steps
    }

    fn say(&mut self, step: impl Into<String>) {
        self.steps.push(step.into());
    }

    pub(super) fn unrelated(&mut self, query: &Query) {
        let at = dialled(query);
        self.say(match query.to.ip().is_loopback() {
            true => format!("no NodePort answers at {at}: on loopback they do for TCP and UDP sockets of the node, if \
                 --localhost-nodeports is on"),
            false => format!("nothing of a Service's is at {at}: it is routed on, untouched"),
        });
    }

    pub(super) fn no_port(&mut self, query: &Query, name: &Name) {
        let service = match name {
            Name::Known(name) => format!("of Service {name}"),
            Name::Unnamed | Name::NobodyToAsk => "of a Service".to_owned(),
        };
        let (address, port) = (query.to.ip(), query.to.port());
        let protocol = query.protocol.name();
        self.say(format!(
            "{address} is a cluster address {service}, which has no port {port}/{protocol}: rejected"
        ));
    }

    pub(super) fn no_service(&mut self, query: &Query) {
        let address = query.to.ip();
        self.say(format!(
            "{address} is in a range of cluster addresses (ServiceCIDR), and no Service has it: dropped"
        ));
    }

    /// What is dialled, and by which policy.
    pub(super) fn dialled(&mut self, query: &Query, led: &Led, name: &Name) {
        let kind = led.frontend.kind().map_or("a frontend", FrontendKind::name);
        let service = match name {
            Name::Known(name) => format!("Service {name}"),
            Name::Unnamed => "a Service that the agent has no name for".to_owned(),
            Name::NobodyToAsk => "a Service (no agent runs that could tell its name)".to_owned(),
        };
        let at = At::Port(led.at, query.protocol);
        if led.at != query.to {
            self.say(format!(
                "on loopback the node's sockets find the NodePorts of {}",
                led.at.ip()
            ));
        }
        self.say(format!("{at} is {kind} of {service}"));
        if query.protocol == crate::frontend::Protocol::Sctp {
            self.say("packets of SCTP are not rewritten yet: the attached programs let them pass");
        }
    }

    fn policy(&mut self, led: &Led) {
        let policy = match led.frontend.is_external() {
            true => "externalTrafficPolicy",
            false => "internalTrafficPolicy",
        };
        self.say(match (led.has(FrontendTrait::StaysLocal), led.stays_local) {
            (false, _) => format!("{policy} is Cluster: backends on any node may answer"),
            (true, true) => format!("{policy} is Local: only backends on this node may answer"),
            (true, false) => format!(
                "{policy} is Local, but a client inside of the cluster is served as by the load balancer: backends on \
                 any node may answer"
            ),
        });
    }

    pub(super) fn refused(&mut self, query: &Query, led: &Led, reason: DropReason) {
        let client = query.from.ip();
        if reason == DropReason::SourceNotAllowed {
            return self.say(format!(
                "{client} is in none of loadBalancerSourceRanges: dropped"
            ));
        }
        self.admitted(query, led);
        self.policy(led);
        self.say(match reason {
            DropReason::NoBackend => "it has no endpoint that could answer: rejected".to_owned(),
            DropReason::NoLocalBackend => {
                "no endpoint on this node can answer, others could: dropped".to_owned()
            }
            other => format!("dropped: {}", other.name()),
        });
    }

    fn admitted(&mut self, query: &Query, led: &Led) {
        if led.has(FrontendTrait::Restricted) {
            let client = query.from.ip();
            self.say(format!("{client} is in one of loadBalancerSourceRanges"));
        }
    }

    /// Who can be chosen, and what becomes of the client's address.
    pub(super) fn chosen(&mut self, query: &Query, led: &Led, choices: &[Choice], origin: Origin) {
        self.admitted(query, led);
        self.policy(led);
        let backends: BTreeSet<_> = choices.iter().map(|it| it.backend).collect();
        let is_recalled = backends.len() < choices.len();
        if led.has(FrontendTrait::Sticks) {
            self.say(match is_recalled {
                true => "sessionAffinity is ClientIP: the client goes on with the backend that it has had",
                false => "sessionAffinity is ClientIP: the client's next connections go to the same backend",
            });
        }
        self.say(match backends.len() {
            1 => "one backend can be chosen".to_owned(),
            backends => {
                format!("one of {backends} backends is chosen, each with the same probability")
            }
        });
        self.masks(led);
        self.address(query, choices, origin);
    }

    /// Why kube-proxy would mask the client, or not.
    fn masks(&mut self, led: &Led) {
        let is_pod_port = !led.frontend.is_external();
        let masks_all = self.options.has(NodeOption::MasqueradeAll);
        self.say(match (led.policy_masks, is_pod_port) {
            (true, true) if masks_all => {
                "masqueradeAll: kube-proxy masks every client of a ClusterIP"
            }
            (true, true) => "kube-proxy masks clients of a ClusterIP that are no pods",
            (true, false) if !led.has(FrontendTrait::StaysLocal) => {
                "kube-proxy masks all clients that dial from outside under policy Cluster"
            }
            (true, false) => "kube-proxy masks the node's own connections under policy Local",
            (false, _) if led.is_masked_there => {
                "kube-proxy masks the client: it is the only backend itself (hairpin)"
            }
            (false, true) if self.detection == Detection::None => {
                "kube-proxy masks nobody at a ClusterIP: by what pods are known is not known"
            }
            (false, true) => "kube-proxy masks no pods at a ClusterIP",
            (false, false) => "kube-proxy masks no clients under policy Local",
        });
    }

    /// What Ferrule does with it.
    fn address(&mut self, query: &Query, choices: &[Choice], origin: Origin) {
        let is_kept = keeps_address(choices, origin, query);
        self.say(match (origin.place(), is_kept) {
            (Place::Node, true) => "backends see an address of this node, which is the client",
            (Place::Node, false) => "backends see an address of this node instead of loopback",
            (_, true) if choices.iter().any(|it| it.is_spared) => {
                "backends see the client's address: they are on this node, through which their answers go anyway"
            }
            (_, true) => "backends see the client's address",
            (_, false) if choices.iter().all(|it| it.is_masked) => {
                "backends see an address of this node instead of the client's"
            }
            (_, false) => "some of the backends see an address of this node instead of the client's",
        });
    }
}

fn dialled(query: &Query) -> At {
    At::Port(query.to, query.protocol)
}

fn device_of(query: &Query) -> &str {
    query.device.as_deref().unwrap_or("a device of theirs")
}

fn text<A: Family>(range: &Range<A>) -> String {
    let ones = match range.mask.ip() {
        std::net::IpAddr::V4(mask) => mask.to_bits().count_ones(),
        std::net::IpAddr::V6(mask) => mask.to_bits().count_ones(),
    };
    format!("{}/{ones}", range.address.ip())
}
