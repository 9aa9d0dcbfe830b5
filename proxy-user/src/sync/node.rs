//! The node itself: its addresses, its pods, and the row that tells the programs of them.

use super::Sync;
use crate::cluster::{Cidr, OptedOut};
use crate::datapath::Datapath;
use crate::frontend::{LocalAddresses, NodeContext, NodePortAddresses};
use crate::tables::node_config;
use proxy_common::NodeConfig;
use std::net::IpAddr;
use std::time::Instant;
use tokio::sync::watch;
use tracing::warn;

/// Settings that may change while the loop runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Ranges that count as inside of the cluster; the first of each family.
    pub cluster_cidrs: Vec<Cidr>,
    /// On which of the node's addresses NodePorts are served.
    pub node_ports: NodePortAddresses,
}

impl<D: Datapath> Sync<D> {
    /// Takes in the addresses of the node's devices, all of them.
    pub fn set_local_addresses(&mut self, addresses: LocalAddresses) {
        let before = self.node.local_addresses.clone();
        self.renew_node(addresses);
        if self.synced {
            let now = &self.node.local_addresses;
            let has_changed = |ip: &IpAddr| before.get(ip) != now.get(ip);
            let names = self.cluster.names_with(has_changed);
            self.dirty.extend(names.cloned());
        }
        self.work();
    }

    /// Takes in other settings.
    pub fn set_followed(&mut self, followed: Followed) {
        self.settings.followed = followed;
        self.renew_node(self.node.local_addresses.clone());
        self.work();
    }

    /// The node's object has changed.
    pub(super) fn node_changed(&mut self) {
        let view = self.cluster.node();
        for skipped in view.iter().flat_map(|view| &view.skipped) {
            warn!("{skipped}");
        }
        self.renew_node(self.node.local_addresses.clone());
    }

    /// Puts together what is known of the node. Addresses of devices matter to all Services only if they serve
    /// NodePorts.
    fn renew_node(&mut self, local_addresses: LocalAddresses) {
        let own = self.cluster.node().into_iter();
        let own = own.flat_map(|view| &view.addresses);
        let addresses = self.settings.node_addresses.iter().chain(own).copied();
        let node_ports = &self.settings.followed.node_ports;
        let node = NodeContext::of(addresses, local_addresses, node_ports);
        let before = std::mem::replace(&mut self.node, node);
        let is_same = before.primary_v4 == self.node.primary_v4
            && before.primary_v6 == self.node.primary_v6
            && before.node_port_addresses == self.node.node_port_addresses
            && before.external_ips == self.node.external_ips;
        if !is_same {
            self.mark_all();
        }
    }

    /// The pods whose sockets are left alone, from now on.
    pub fn opted_out(&self) -> watch::Receiver<Option<Vec<OptedOut>>> {
        self.opted_out.subscribe()
    }

    pub(super) fn tell_of_pods(&self) {
        if self.synced {
            let pods = self.cluster.opted_out().cloned().collect();
            self.opted_out.send_replace(Some(pods));
        }
    }

    /// Writes the node's row.
    pub(super) fn configure(&mut self) {
        let wanted = self.wanted_config();
        if self.config == Some(wanted) {
            return;
        }
        let result = self.datapath.configure(&wanted);
        self.progress.work([false; 2]);
        self.progress.node(result.is_ok(), Instant::now());
        match result {
            Ok(()) => self.config = Some(wanted),
            Err(error) => self.fail(&error),
        }
    }

    /// The node's row as it should be.
    pub(super) fn wanted_config(&self) -> NodeConfig {
        let settings = &self.settings;
        node_config(
            &self.node,
            &settings.followed.cluster_cidrs,
            &settings.snat_ports,
            settings.sockets,
        )
    }
}
