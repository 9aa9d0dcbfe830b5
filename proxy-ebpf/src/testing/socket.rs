//! A socket in memory, and the calls that an application makes with it.

use crate::socket::{self, Socket};
use crate::testing::World;
use bytemuck::Zeroable as _;
use proxy_common::{Connected, Peers, Proto, SocketAddress, SocketCall};
use std::net::SocketAddr;

/// The cookie of the machine's first network namespace, which is not the node's.
pub const FIRST_NETNS: u64 = 2;

/// A socket, as a hook of cgroups shows it.
#[derive(Clone, Debug)]
pub struct MemorySocket {
    /// Its protocol, if that can be balanced.
    pub proto: Option<Proto>,
    /// The address in its last call.
    pub address: SocketAddress,
    /// Storage beside it.
    pub connected: Option<Connected>,
    /// Storage beside it.
    pub peers: Option<Peers>,
    /// The cookie of its network namespace.
    pub netns: u64,
    /// Whether it has a peer.
    pub has_peer: bool,
    /// Whether it is bound to a loopback address or a device.
    pub is_tied: bool,
    /// Whether it is a path of an MPTCP socket.
    pub is_path: bool,
    /// Whether `EXEMPT` has its network namespace.
    pub is_exempt: bool,
    /// Whether there is memory for what has to be remembered.
    pub has_memory: bool,
}

impl MemorySocket {
    /// In a pod.
    pub fn new(proto: Option<Proto>) -> Self {
        Self {
            proto,
            address: SocketAddress::zeroed(),
            connected: None,
            peers: None,
            netns: 7,
            has_peer: false,
            is_tied: false,
            is_path: false,
            is_exempt: false,
            has_memory: true,
        }
    }

    /// connect(2): what became of it, and whom the kernel connects to.
    pub fn connect(&mut self, world: &World, to: &str) -> (Option<SocketCall>, String) {
        self.address = parse(to);
        let call = socket::connect(self, world);
        // Who is refused stays as he was.
        self.has_peer |= call != Some(SocketCall::Refused);
        (call, self.address.std().to_string())
    }

    /// connect(2) to AF_UNSPEC: no program is told.
    pub fn disconnect(&mut self) {
        self.has_peer = false;
    }

    /// sendto(2): what became of it, and whom the kernel sends to.
    pub fn send(&mut self, world: &World, to: &str) -> (Option<SocketCall>, String) {
        self.address = parse(to);
        let call = socket::send(self, world);
        (call, self.address.std().to_string())
    }

    /// recvfrom(2): whom the application takes the sender for.
    pub fn receive(&mut self, from: &str) -> String {
        self.address = parse(from);
        socket::receive(self);
        self.address.std().to_string()
    }

    /// getpeername(2): what the application is told.
    pub fn name_peer(&mut self, peer: &str) -> String {
        self.address = parse(peer);
        socket::name_peer(self);
        self.address.std().to_string()
    }
}

fn parse(text: &str) -> SocketAddress {
    let address: SocketAddr = text.parse().expect("an address and a port");
    address.into()
}

impl Socket for MemorySocket {
    fn proto(&self) -> Option<Proto> {
        self.proto
    }

    fn address(&self) -> SocketAddress {
        self.address
    }

    fn set_address(&mut self, address: &SocketAddress) {
        self.address = *address;
    }

    fn has_peer(&self) -> bool {
        self.has_peer
    }

    fn is_tied(&self) -> bool {
        self.is_tied
    }

    fn is_path(&self) -> bool {
        self.is_path
    }

    fn netns(&self) -> u64 {
        self.netns
    }

    fn first_netns(&self) -> u64 {
        FIRST_NETNS
    }

    fn cookie(&self) -> u64 {
        1
    }

    fn is_exempt(&self) -> bool {
        self.is_exempt
    }

    fn connected(&mut self) -> Option<&mut Connected> {
        self.connected.as_mut()
    }

    fn connect(&mut self, connected: &Connected) -> bool {
        if self.has_memory {
            self.connected = Some(*connected);
        }
        self.has_memory
    }

    fn peers(&mut self) -> Option<&mut Peers> {
        self.peers.as_mut()
    }

    fn peers_or_new(&mut self) -> Option<&mut Peers> {
        if self.has_memory && self.peers.is_none() {
            self.peers = Some(Peers::zeroed());
        }
        self.peers.as_mut()
    }
}
