//! Whom a socket talks to: the backends of the frontends that it has dialled.

use crate::family::Family;
use crate::kernel::Services;
use crate::service::{self, Origin};
use bytemuck::Zeroable as _;
use proxy_common::{
    AddrV4, AddrV6, AffinityKey, BackendRef, Connected, DropReason, Frontend, Peer, Peers,
    SocketAddress, SocketCall,
};

/// What a socket has dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// The address and port.
    pub at: SocketAddress,
    /// What is there.
    pub frontend: Frontend,
    /// The cookie of the socket's network namespace, which is on this node: its address may not be known yet.
    pub netns: u64,
}

/// Draws a backend for what is dialled.
#[inline(never)]
pub fn choose<A: Family, K: Services<A>>(
    kernel: &K,
    dialled: &Dialled,
    peer: &mut Peer,
) -> Result<(), DropReason> {
    let Dialled {
        at,
        frontend,
        netns,
    } = *dialled;
    let client = AffinityKey::of_netns(netns, frontend.service);
    let stays_local = service::stays_local(frontend, Origin::NODE);
    let mut reference = BackendRef::zeroed();
    service::draw::<A, K>(kernel, frontend, &client, stays_local, &mut reference)?;
    let backend = service::known(kernel, reference).ok_or(DropReason::ServiceTorn)?;
    *peer = Peer {
        frontend: at,
        backend: backend.address.at_port(backend.port),
        service: frontend.service,
        reference,
    };
    Ok(())
}

/// What becomes of a call for which there is no backend.
#[inline(always)]
pub fn without(reason: DropReason) -> SocketCall {
    match reason {
        DropReason::NoBackend => SocketCall::Refused,
        _ => SocketCall::Left,
    }
}

/// The backend that a socket's datagrams to a frontend go to: the same as long as it exists. `taken`: the
/// backend that the socket is connected to through another frontend.
#[inline(always)]
pub fn peer_of<A: Family, K: Services<A>>(
    kernel: &K,
    peers: &mut Peers,
    dialled: &Dialled,
    taken: Option<SocketAddress>,
) -> Result<SocketAddress, SocketCall> {
    let mut known = peers.peers.iter().filter(|it| is_for(it, &dialled.at));
    if let Some(known) = known.next()
        && let Some(backend) = service::known::<A, K>(kernel, known.reference)
    {
        if known.service == Peer::LEFT {
            return Err(SocketCall::Left);
        }
        if backend.service == dialled.frontend.service {
            return Ok(known.backend);
        }
    }
    let mut peer = Peer::zeroed();
    draw_apart(kernel, peers, dialled, &mut peer).map_err(without)?;
    let clashes = clashes(peers, &peer) || taken.is_some_and(|taken| taken.is(&peer.backend));
    if clashes {
        leave(peers, &peer.backend);
        peer.service = Peer::LEFT;
    }
    if put(kernel, peers, &peer).is_none() {
        leave_all(peers);
        return Err(SocketCall::Left);
    }
    match clashes {
        true => Err(SocketCall::Left),
        false => Ok(peer.backend),
    }
}

/// Draws a backend, if possible one that no other frontend of the socket has.
#[inline(never)]
fn draw_apart<A: Family, K: Services<A>>(
    kernel: &K,
    peers: &Peers,
    dialled: &Dialled,
    peer: &mut Peer,
) -> Result<(), DropReason> {
    for _ in 0..DRAWS {
        choose(kernel, dialled, peer)?;
        if !clashes(peers, peer) {
            break;
        }
    }
    Ok(())
}

/// Of few backends one that is free may be missed: devices tell answers apart, too.
const DRAWS: usize = 2;

/// Whether answers of the backend could be those to another frontend.
#[inline(never)]
fn clashes(peers: &Peers, peer: &Peer) -> bool {
    let mut others = peers.peers.iter();
    others.any(|it| it.is_some() & it.backend.is(&peer.backend) & !it.frontend.is(&peer.frontend))
}

/// Leaves all frontends that have a backend to devices: they tell answers apart only if they know of all.
#[inline(never)]
fn leave(peers: &mut Peers, backend: &SocketAddress) {
    for it in &mut peers.peers {
        if it.is_some() & it.backend.is(backend) {
            it.service = Peer::LEFT;
        }
    }
}

/// Leaves all frontends to devices: of one for which there is no room they might draw the same backend.
#[inline(never)]
fn leave_all(peers: &mut Peers) {
    for it in &mut peers.peers {
        it.service = Peer::LEFT;
    }
}

/// Puts a peer in the place of the one that its frontend had, or of one that is gone; `None` without any.
#[inline(never)]
fn put<A: Family, K: Services<A>>(kernel: &K, peers: &mut Peers, peer: &Peer) -> Option<()> {
    for it in &mut peers.peers {
        if is_for(it, &peer.frontend) {
            *it = *peer;
            return Some(());
        }
    }
    for it in &mut peers.peers {
        if !is_alive(kernel, it, peer) {
            *it = *peer;
            return Some(());
        }
    }
    None
}

/// Whether it is the peer of this frontend.
#[inline(always)]
pub fn is_for(peer: &Peer, frontend: &SocketAddress) -> bool {
    peer.is_some() & peer.frontend.is(frontend)
}

/// Whether a peer still exists. One of the other family counts as if it did.
#[inline(always)]
fn is_alive<A: Family, K: Services<A>>(kernel: &K, peer: &Peer, like: &Peer) -> bool {
    let is_v4 = |peer: &Peer| peer.frontend.as_v4().is_some();
    let is_known = is_v4(peer) != is_v4(like) || service::exists(kernel, peer.reference);
    peer.is_some() && is_known
}

/// Whether the backend that a socket is connected to is gone, and the socket has to be closed for that.
#[inline(always)]
pub fn must_close<K>(kernel: &K, connected: &Connected) -> bool
where
    K: Services<AddrV4> + Services<AddrV6>,
{
    let peer = &connected.peer;
    if connected.closes == 0 || !peer.is_some() {
        return false;
    }
    match peer.frontend.as_v4() {
        Some(_) => !service::exists::<AddrV4, K>(kernel, peer.reference),
        None => !service::exists::<AddrV6, K>(kernel, peer.reference),
    }
}
