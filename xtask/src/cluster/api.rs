//! The API server of a cluster: where it is, and what is in it from the start.

use super::node::Node;
use super::plan::{CLIENT_V4, KUBERNETES_V4, SERVICE_CIDR_V4, SERVICE_CIDR_V6};
use super::pod::Pod;
use super::{Cluster, Families};
use crate::api::{ApiServer, Options};
use anyhow::Result;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// The port of the API server.
const PORT: u16 = 6443;

impl Cluster {
    /// Starts an API server on the client, which all nodes reach at both its addresses, with the
    /// cluster's nodes and pods, and what such a server has of itself.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_api(&self, options: Options) -> Result<ApiServer> {
        let listener = self
            .client
            .namespace()
            .run(|| TcpListener::bind(self.api_listen()))??;
        let addresses = self.api_addresses();
        let server = ApiServer::start(
            listener,
            Options {
                addresses,
                ..options
            },
        )?;
        server.apply_all(self.objects())?;
        Ok(server)
    }

    /// The cluster's nodes and pods as objects, and those that an API server makes by itself.
    #[must_use]
    pub fn objects(&self) -> Vec<Value> {
        let mut objects = of_server(PORT, Families::of_kernel());
        objects.extend(self.nodes.iter().map(Node::object));
        let pods = self.nodes.iter().flat_map(Node::pods);
        objects.extend(pods.filter_map(Pod::object));
        objects
    }

    /// Where an API server on the client listens.
    pub(crate) fn api_listen(&self) -> SocketAddr {
        match Families::of_kernel() {
            Families::V4 => (Ipv4Addr::UNSPECIFIED, PORT).into(),
            Families::Both | Families::V6 => (Ipv6Addr::UNSPECIFIED, PORT).into(),
        }
    }

    /// The addresses at which nodes reach it.
    pub(crate) fn api_addresses(&self) -> Vec<IpAddr> {
        let addresses = self.client.addresses().into_iter();
        let shared = |address: &IpAddr| {
            let mut shapes = self.nodes.iter().map(Node::shape);
            shapes.all(|shape| shape.families.has(*address))
        };
        addresses.filter(shared).collect()
    }
}

/// What an API server on the client's port makes by itself: the Service by which pods find it, and
/// the addresses of Services.
fn of_server(port: u16, families: Families) -> Vec<Value> {
    let cidrs = match families {
        Families::Both => vec![SERVICE_CIDR_V4, SERVICE_CIDR_V6],
        Families::V4 => vec![SERVICE_CIDR_V4],
        Families::V6 => vec![SERVICE_CIDR_V6],
    };
    vec![
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": cidrs},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [CLIENT_V4], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": KUBERNETES_V4,
                "clusterIPs": [KUBERNETES_V4],
                "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
                "sessionAffinity": "None",
                "type": "ClusterIP",
            },
        }),
    ]
}
