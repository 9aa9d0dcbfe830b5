//! Calls of sockets: what an application dials becomes a backend before there is a packet, and what it is
//! told of its peer is what it has dialled.
//!
//! Whatever is not translated here is left to the devices, with the same result: the selection of a
//! backend is the same code. In doubt, leave it.

mod node_ports;

pub use node_ports::{may_bind, on_loopback};

use crate::family::Family;
use crate::kernel::Services;
use crate::peers::{Dialled, choose, is_for, peer_of, without};
use bytemuck::Zeroable as _;
use proxy_common::{
    AddrV4, AddrV6, Connected, Frontend, FrontendKey, FrontendTrait, NodeConfig, NodeOption, Peer,
    Peers, Proto, SocketAddress, SocketCall,
};

/// A socket in a call, as the kernel shows it to us. The kernel holds its lock meanwhile.
pub trait Socket {
    /// Its protocol, if that can be balanced.
    fn proto(&self) -> Option<Proto>;

    /// The address in the call: what is dialled, or who has sent, or the peer.
    fn address(&self) -> SocketAddress;

    /// Puts another one in its place.
    fn set_address(&mut self, address: &SocketAddress);

    /// Whether it has a peer: after connect(2), and not after it was disconnected.
    fn has_peer(&self) -> bool;

    /// Whether it is bound to a loopback address or to a device: from there a backend may be out of reach, while
    /// devices can give packets another source and way.
    fn is_tied(&self) -> bool;

    /// Whether it is a path of an MPTCP socket: that one, whose peer the application asks for, is never shown
    /// to us when it connects.
    fn is_path(&self) -> bool;

    /// The cookie of its network namespace.
    fn netns(&self) -> u64;

    /// The cookie of the machine's first network namespace.
    fn first_netns(&self) -> u64;

    /// Its own cookie.
    fn cookie(&self) -> u64;

    /// Whether `EXEMPT` has its network namespace, or a cgroup of the caller.
    fn is_exempt(&self) -> bool;

    /// Where it is connected to, if to a frontend.
    fn connected(&mut self) -> Option<&mut Connected>;

    /// Remembers that; false: there is no memory for it.
    fn connect(&mut self, connected: &Connected) -> bool;

    /// Whom it has sent datagrams to, if to frontends.
    fn peers(&mut self) -> Option<&mut Peers>;

    /// The same, with room for it if there is memory.
    fn peers_or_new(&mut self) -> Option<&mut Peers>;
}

/// connect(2): `None` if it is to no frontend.
#[inline(always)]
pub fn connect<S, K>(socket: &mut S, kernel: &K) -> Option<SocketCall>
where
    S: Socket,
    K: Services<AddrV4> + Services<AddrV6>,
{
    let dialled = socket.address();
    let call = match dialled.as_v4() {
        Some(address) => connect_to(socket, kernel, &dialled, address),
        None => connect_to(socket, kernel, &dialled, dialled.as_v6()),
    };
    match call {
        // Refused: the socket stays as it was.
        Some(SocketCall::Connected | SocketCall::Refused) => {}
        Some(SocketCall::Left | SocketCall::Sent) => disconnect(socket),
        None => {
            disconnect(socket);
            note_direct(socket, &dialled);
        }
    }
    call
}

/// The socket is connected to a frontend no more.
#[inline(always)]
fn disconnect<S: Socket>(socket: &mut S) {
    if let Some(before) = socket.connected() {
        before.peer.reference.generation = 0;
    }
}

#[inline(always)]
fn connect_to<A: Family, S: Socket, K: Services<A>>(
    socket: &mut S,
    kernel: &K,
    dialled: &SocketAddress,
    address: A,
) -> Option<SocketCall> {
    let proto = socket.proto()?;
    let frontend = find(socket, kernel, proto, dialled, address)?;
    if !is_served(socket, kernel, frontend) {
        return Some(SocketCall::Left);
    }
    let dialled = Dialled {
        at: *dialled,
        frontend,
        netns: socket.netns(),
    };
    let mut peer = Peer::zeroed();
    match choose(kernel, &dialled, &mut peer) {
        Ok(()) => {}
        Err(reason) => return Some(without(reason)),
    }
    let connected = Connected {
        peer,
        proto: proto.number().into(),
        closes: closes(kernel, proto, frontend).into(),
        netns: dialled.netns,
        cookie: socket.cookie(),
    };
    if !socket.connect(&connected) {
        return Some(SocketCall::Left);
    }
    socket.set_address(&peer.backend);
    Some(SocketCall::Connected)
}

/// Whether a socket is closed when its backend goes: a datagram socket would not notice that by itself.
#[inline(always)]
fn closes<A, K: Services<A>>(kernel: &K, proto: Proto, frontend: Frontend) -> bool {
    let always = kernel
        .config()
        .is_some_and(|config| config.options.has(NodeOption::CloseTcp));
    proto == Proto::Udp || always || frontend.has(FrontendTrait::ClosesTcp)
}

/// sendto(2) and its like, with an address: `None` if it is that of no frontend.
#[inline(always)]
pub fn send<S, K>(socket: &mut S, kernel: &K) -> Option<SocketCall>
where
    S: Socket,
    K: Services<AddrV4> + Services<AddrV6>,
{
    let dialled = socket.address();
    match dialled.as_v4() {
        Some(address) => send_to(socket, kernel, &dialled, address),
        None => send_to(socket, kernel, &dialled, dialled.as_v6()),
    }
}

#[inline(always)]
fn send_to<A: Family, S: Socket, K: Services<A>>(
    socket: &mut S,
    kernel: &K,
    dialled: &SocketAddress,
    address: A,
) -> Option<SocketCall> {
    let proto = socket.proto()?;
    let Some(frontend) = find(socket, kernel, proto, dialled, address) else {
        note_direct(socket, dialled);
        return None;
    };
    if !is_served(socket, kernel, frontend) {
        forget(socket, dialled);
        return Some(SocketCall::Left);
    }
    let taken = match connected_to(socket) {
        // The kernel takes answers from no other backend.
        Some(peer) if peer.frontend.is(dialled) => {
            socket.set_address(&peer.backend);
            return Some(SocketCall::Sent);
        }
        Some(peer) => Some(peer.backend),
        None => None,
    };
    let dialled = Dialled {
        at: *dialled,
        frontend,
        netns: socket.netns(),
    };
    let Some(peers) = socket.peers_or_new() else {
        return Some(SocketCall::Left);
    };
    match peer_of(kernel, peers, &dialled, taken) {
        Ok(backend) => {
            socket.set_address(&backend);
            Some(SocketCall::Sent)
        }
        Err(call) => Some(call),
    }
}

/// Whom it is connected to through a frontend.
#[inline(always)]
fn connected_to<S: Socket>(socket: &mut S) -> Option<Peer> {
    if !socket.has_peer() {
        return None;
    }
    let peer = socket.connected()?.peer;
    peer.is_some().then_some(peer)
}

/// recvfrom(2) and its like: the sender becomes the frontend that it has answered for.
#[inline(always)]
pub fn receive<S: Socket>(socket: &mut S) {
    let sender = socket.address();
    let frontend = match dialled_as(socket, &sender) {
        Some(frontend) => Some(frontend),
        None => sent_as(socket, &sender),
    };
    if let Some(frontend) = frontend {
        socket.set_address(&frontend);
    }
}

/// getpeername(2): the peer becomes what was dialled.
#[inline(always)]
pub fn name_peer<S: Socket>(socket: &mut S) {
    let peer = socket.address();
    if let Some(frontend) = dialled_as(socket, &peer) {
        socket.set_address(&frontend);
    }
}

/// The frontend that is dialled; on a loopback address, the NodePort that the node's own address has.
#[inline(always)]
fn find<A: Family, S: Socket, K: Services<A>>(
    socket: &S,
    kernel: &K,
    proto: Proto,
    dialled: &SocketAddress,
    address: A,
) -> Option<Frontend> {
    if !address.is_loopback() {
        let key = FrontendKey::new(address, dialled.port, proto);
        return kernel.frontend(&key).copied();
    }
    let config = kernel.config()?;
    if !is_of_host(socket, config) {
        return None;
    }
    on_loopback(kernel, A::of_node(config), proto, dialled.port)
}

/// Whether it is of the node's own network namespace.
#[inline(always)]
fn is_of_host<S: Socket>(socket: &S, config: &NodeConfig) -> bool {
    config.is_host_netns(socket.netns(), || socket.first_netns())
}

/// Whether sockets such as this are translated here when they dial this. Who may dial what is for some only
/// can't be told before there is a packet.
#[inline(always)]
fn is_served<A: Family, S: Socket, K: Services<A>>(
    socket: &S,
    kernel: &K,
    frontend: Frontend,
) -> bool {
    let Some(config) = kernel.config() else {
        return false;
    };
    let options = config.options;
    // A pod that is to be masked even where that is not needed has to be so by devices.
    let is_for_host_only = options.has(NodeOption::HostOnly)
        | options.has(NodeOption::MasqueradeAll)
        | options.has(NodeOption::MasqueradeLocal);
    let is_meant = !is_for_host_only || is_of_host(socket, config);
    let is_for_all = !frontend.has(FrontendTrait::Restricted);
    is_meant && is_for_all && !socket.is_tied() && !socket.is_path() && !socket.is_exempt()
}

/// The application talks to an address itself: if it is that of a backend which a frontend has led to,
/// answers from there are no longer the frontend's.
#[inline(always)]
fn note_direct<S: Socket>(socket: &mut S, dialled: &SocketAddress) {
    if let Some(peers) = socket.peers() {
        for peer in &mut peers.peers {
            if peer.is_some() && peer.backend.is(dialled) {
                peer.frontend = *dialled;
            }
        }
    }
}

/// The devices translate datagrams to this frontend from now on.
#[inline(always)]
fn forget<S: Socket>(socket: &mut S, dialled: &SocketAddress) {
    if let Some(peers) = socket.peers() {
        for peer in &mut peers.peers {
            if is_for(peer, dialled) {
                peer.reference.generation = 0;
            }
        }
    }
}

/// What was dialled when the socket was connected to this backend.
#[inline(always)]
fn dialled_as<S: Socket>(socket: &mut S, backend: &SocketAddress) -> Option<SocketAddress> {
    let peer = connected_to(socket)?;
    peer.backend.is(backend).then_some(peer.frontend)
}

/// The frontend to which the socket has sent a datagram that went to this backend.
#[inline(always)]
fn sent_as<S: Socket>(socket: &mut S, backend: &SocketAddress) -> Option<SocketAddress> {
    let mut peers = socket.peers()?.peers.iter();
    let peer = peers.find(|it| it.is_some() && it.backend.is(backend))?;
    Some(peer.frontend)
}

#[cfg(test)]
mod tests;
