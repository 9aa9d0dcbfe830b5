//! Pods, and hosts outside: whoever has a namespace and addresses.

use super::Namespace;
use super::shape::Families;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Something with a namespace and an address of each family: a pod, a pod that shares its node's
/// namespace, or a host outside the cluster. A handle: dropping it removes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) namespace: Namespace,
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
    pub(super) families: Families,
}

impl Pod {
    /// Something in a namespace that has these addresses; it is on no node.
    #[must_use]
    pub fn outside(name: &str, namespace: Namespace, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self {
            name: name.to_owned(),
            node: None,
            namespace,
            v4,
            v6,
            families: Families::Both,
        }
    }

    /// The same pod; what is done in it belongs to this cgroup, which has to be threaded.
    #[must_use]
    pub fn within(&self, cgroup: &Path) -> Self {
        Self {
            namespace: self.namespace.within(cgroup),
            ..self.clone()
        }
    }

    /// The pod's name, as its servers give it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its node; none outside the cluster.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The namespace to enter.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        self.v6
    }

    /// Both addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Which of its addresses can be used.
    #[must_use]
    pub fn families(&self) -> Families {
        self.families
    }
}
