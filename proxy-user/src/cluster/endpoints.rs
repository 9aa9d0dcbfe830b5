//! What of EndpointSlices can be used, and how the slices of one Service are merged.

use super::zones::{Hint, ZoneSet, Zones};
use super::{IpFamily, PortView, Protocol, ServiceName, Skipped, Why, address};
use crate::source::ObjectKey;
use crate::source::annotations::TRIGGER_TIME;
use k8s_openapi::api::discovery::v1::{self, EndpointHints, EndpointPort, EndpointSlice};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;

/// Names the Service that a slice belongs to.
const OWNER_LABEL: &str = "kubernetes.io/service-name";
/// The same, as the path of a field.
pub(super) const OWNER_FIELD: &str = "metadata.labels[kubernetes.io/service-name]";
/// Tells proxies to leave a slice alone.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// An address and port behind a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address of the pod or host.
    pub address: IpAddr,
    /// Port it listens on.
    pub port: u16,
    /// Whether it wants new connections.
    pub ready: bool,
    /// Whether it would answer new connections, ready or not.
    pub serving: bool,
    /// Whether it is on its way out.
    pub terminating: bool,
    /// Whether it runs on this node.
    pub local: bool,
    /// For which nodes it is meant.
    pub node_hint: Hint,
    /// For which zones it is meant.
    pub zone_hint: Hint,
}

impl Endpoint {
    /// Whether it is on its way out, but still answers.
    pub const fn is_leaving(&self) -> bool {
        self.serving && self.terminating
    }
}

/// When that happened which endpoints of this family were changed for, by the clock of their controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The slice's family.
    pub family: IpFamily,
    /// When a pod became ready, say.
    pub at: SystemTime,
}

/// The usable part of one EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slice {
    ports: Vec<SlicePort>,
    hosts: Vec<Host>,
    skipped: Vec<Skipped>,
}

/// Endpoints without their port. There may be a million: each byte counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Host {
    address: IpAddr,
    ready: bool,
    serving: bool,
    terminating: bool,
    local: bool,
    for_node: Hint,
    for_zones: ZoneSet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SlicePort {
    name: String,
    protocol: Protocol,
    port: u16,
}

impl Slice {
    pub(super) fn skipped(&self) -> impl Iterator<Item = Skipped> {
        self.skipped.iter().cloned()
    }

    pub(super) fn has_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Whether any endpoint is meant for some zones.
    pub(super) fn has_zones(&self) -> bool {
        self.hosts
            .iter()
            .any(|host| host.for_zones != ZoneSet::NONE)
    }
}

/// The Service a slice belongs to; `None` also for slices to be left alone.
pub(super) fn service_of(key: &ObjectKey, slice: &EndpointSlice) -> Option<ServiceName> {
    if is_ignored(slice) {
        return None;
    }
    let service = slice.metadata.labels.as_ref()?.get(OWNER_LABEL)?;
    let named = !service.is_empty();
    named.then(|| ServiceName::new(&key.namespace, service))
}

/// Whether the slice asks to be left alone.
pub(super) fn is_ignored(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(HEADLESS_LABEL))
}

/// When that happened which the slice was changed for; `None` if it does not say so.
pub(super) fn trigger(slice: &EndpointSlice) -> Option<Trigger> {
    Some(Trigger {
        family: IpFamily::from_name(&slice.address_type)?,
        at: trigger_time(slice).ok()??,
    })
}

fn trigger_time(slice: &EndpointSlice) -> Result<Option<SystemTime>, Why> {
    let annotations = slice.metadata.annotations.as_ref();
    let text = annotations.and_then(|all| all.get(TRIGGER_TIME));
    let time = text.map(|text| humantime::parse_rfc3339(text).map_err(|_| text.clone()));
    time.transpose().map_err(Why::NotATime)
}

/// Reads a slice, as seen from the node of this name.
pub(super) fn slice(
    key: &ObjectKey,
    slice: &EndpointSlice,
    node_name: &str,
    zones: &mut Zones,
) -> Slice {
    let mut skipped = Vec::new();
    let mut skip = |field: String, why| skipped.push(Skipped::new(key, field, why));
    let family = match slice.address_type.as_str() {
        "FQDN" => return Slice::default(),
        name => IpFamily::from_name(name),
    };
    let Some(family) = family else {
        let why = Why::NotAFamily(slice.address_type.clone());
        skip("addressType".to_owned(), why);
        return Slice {
            skipped,
            ..Slice::default()
        };
    };
    if let Err(why) = trigger_time(slice) {
        skip(format!("metadata.annotations[{TRIGGER_TIME}]"), why);
    }
    let ports = ports(slice, &mut skip);
    let mut reader = Reader {
        family,
        node_name,
        zones,
        skip: &mut skip,
    };
    let hosts = reader.hosts(slice);
    Slice {
        ports,
        hosts,
        skipped,
    }
}

/// The endpoints of one Service port, each address and port once, in that order.
///
/// A pod network may give a dying pod's address to a new pod, so an endpoint that is not
/// terminating wins over one that is.
pub(super) fn merged<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port: &PortView,
    zones: &Zones,
) -> Vec<Endpoint> {
    // As numbers: there are thousands to be compared.
    let at = |endpoint: &Endpoint| {
        let address = endpoint.address;
        (address.is_ipv6(), bits(address), endpoint.port)
    };
    let endpoints = slices.flat_map(|slice| slice.endpoints(port, zones));
    let mut merged: Vec<Endpoint> = endpoints.collect();
    // Slices are sorted more often than not, which makes this cheap; equal ones stay in their order.
    merged.sort_by_key(at);
    merged.dedup_by(|next, kept| {
        let same = at(next) == at(kept);
        if same && !next.terminating {
            *kept = *next;
        }
        same
    });
    merged
}

/// How many addresses of IPv4 and IPv6 have an endpoint on this node that is ready, at whatever port.
pub(super) fn local_ready<'a>(slices: impl Iterator<Item = &'a Slice>) -> [usize; 2] {
    let slices = slices.filter(|slice| !slice.ports.is_empty());
    let hosts = slices.flat_map(|slice| &slice.hosts);
    let addresses = hosts.filter(|host| host.local && host.ready);
    let addresses: BTreeSet<IpAddr> = addresses.map(|host| host.address).collect();
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    [v4, addresses.len() - v4]
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Slice {
    fn endpoints(&self, of: &PortView, zones: &Zones) -> impl Iterator<Item = Endpoint> {
        let wanted = |port: &&SlicePort| port.name == of.name && port.protocol == of.protocol;
        let ports = self.ports.iter().filter(wanted);
        ports.flat_map(|port| {
            self.hosts
                .iter()
                .map(|host| host.endpoint(port.port, zones))
        })
    }
}

impl Host {
    fn endpoint(&self, port: u16, zones: &Zones) -> Endpoint {
        Endpoint {
            address: self.address,
            port,
            ready: self.ready,
            serving: self.serving,
            terminating: self.terminating,
            local: self.local,
            node_hint: self.for_node,
            zone_hint: zones.hint(self.for_zones),
        }
    }
}

fn ports(slice: &EndpointSlice, skip: &mut impl FnMut(String, Why)) -> Vec<SlicePort> {
    let mut ports = Vec::new();
    for (index, port) in slice.ports.iter().flatten().enumerate() {
        match slice_port(port) {
            Ok(port) => ports.push(port),
            Err((field, why)) => skip(format!("ports[{index}].{field}"), why),
        }
    }
    ports
}

fn slice_port(port: &EndpointPort) -> Result<SlicePort, (&'static str, Why)> {
    let number = port.port.ok_or(("port", Why::Missing))?;
    Ok(SlicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: Protocol::from_name(port.protocol.as_deref()).map_err(|why| ("protocol", why))?,
        port: address::port(number).map_err(|why| ("port", why))?,
    })
}

/// Reads the endpoints of a slice.
struct Reader<'a, F> {
    family: IpFamily,
    node_name: &'a str,
    zones: &'a mut Zones,
    skip: F,
}

impl<F: FnMut(String, Why)> Reader<'_, F> {
    fn hosts(&mut self, slice: &EndpointSlice) -> Vec<Host> {
        let listed = slice.endpoints.iter().flatten().enumerate();
        let hosts = listed.filter_map(|(index, endpoint)| self.host(index, endpoint));
        hosts.collect()
    }

    fn host(&mut self, index: usize, endpoint: &v1::Endpoint) -> Option<Host> {
        let address = host_address(endpoint, self.family);
        let skip = |why| (self.skip)(format!("endpoints[{index}].addresses[0]"), why);
        let address = address.map_err(skip).ok()?;
        let conditions = endpoint.conditions.as_ref();
        let hints = endpoint.hints.as_ref();
        Some(Host {
            address,
            ready: conditions.and_then(|is| is.ready).unwrap_or(true),
            serving: conditions.and_then(|is| is.serving).unwrap_or(true),
            terminating: conditions.and_then(|is| is.terminating).unwrap_or(false),
            local: endpoint.node_name.as_deref() == Some(self.node_name),
            for_node: hints.map_or(Hint::None, |hints| self.for_node(index, hints)),
            for_zones: hints.map_or(ZoneSet::NONE, |hints| self.for_zones(index, hints)),
        })
    }

    fn for_node(&mut self, index: usize, hints: &EndpointHints) -> Hint {
        let names = hints.for_nodes.iter().flatten().map(|it| it.name.as_str());
        self.report_nameless(index, "forNodes", names.clone());
        let hints = names.filter(|name| !name.is_empty()).map(|name| {
            if name == self.node_name {
                Hint::Here
            } else {
                Hint::Elsewhere
            }
        });
        let best = hints.reduce(|best, hint| if best == Hint::Here { best } else { hint });
        best.unwrap_or_default()
    }

    fn for_zones(&mut self, index: usize, hints: &EndpointHints) -> ZoneSet {
        let names = hints.for_zones.iter().flatten().map(|it| it.name.as_str());
        self.report_nameless(index, "forZones", names.clone());
        self.zones.set(names)
    }

    fn report_nameless<'a>(
        &mut self,
        index: usize,
        list: &str,
        names: impl Iterator<Item = &'a str>,
    ) {
        for (at, _) in names.enumerate().filter(|(_, name)| name.is_empty()) {
            let field = format!("endpoints[{index}].hints.{list}[{at}].name");
            (self.skip)(field, Why::Missing);
        }
    }
}

/// Further addresses of an endpoint have no defined meaning.
fn host_address(endpoint: &v1::Endpoint, family: IpFamily) -> Result<IpAddr, Why> {
    let text = endpoint.addresses.first().ok_or(Why::Missing)?;
    address::parse_usable(text, family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_small() {
        assert_eq!(size_of::<Host>(), 24);
        assert!(size_of::<Endpoint>() <= 26);
    }
}
