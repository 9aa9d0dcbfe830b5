//! Sockets, as the hooks of cgroups show them.

use crate::bpf::maps::COUNTERS;
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, bpf_sock, bpf_sock_addr};
use aya_ebpf::btf_maps::{Array, HashMap, SkStorage};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie, bpf_get_prandom_u32,
    bpf_get_socket_cookie, bpf_skc_to_mptcp_sock,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::{SockAddrContext, SockContext};
use proxy_common::{
    AddrV4, AddrV6, Connected, Counter, ExemptBy, ExemptKey, Peers, Port, Proto, SocketAddress,
    SocketCall,
};
use proxy_ebpf::family::Family as _;
use proxy_ebpf::socket::{self, Socket};

#[btf_map]
pub(crate) static CONNECTED_SOCKETS: SkStorage<Connected> = SkStorage::new();
#[btf_map]
static UNCONNECTED_SOCKETS: SkStorage<Peers> = SkStorage::new();
#[btf_map]
static EXEMPT: HashMap<ExemptKey, u32, 65536, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map]
static EXEMPT_BY: Array<ExemptBy, 1> = Array::new();

/// The service maps as the library sees them, at a hook of a cgroup.
pub(crate) struct SocketMaps;

impl SocketMaps {
    /// Thirty-two random bits.
    #[inline(always)]
    #[expect(clippy::unused_self, reason = "hooks of packets have more to say")]
    fn draw(&self) -> u32 {
        // SAFETY: the helper has no arguments and no conditions.
        unsafe { bpf_get_prandom_u32() }
    }

    /// Adds one to what this call came to.
    #[inline(always)]
    pub(crate) fn count(call: SocketCall) {
        if let Some(counter) = COUNTERS.get_ptr_mut(Counter::Socket(call).index()) {
            // SAFETY: non-null, aligned and of this size by the map's definition. Another task may take the
            // CPU between load and store: then one of two calls is not counted.
            unsafe { *counter += 1 };
        }
    }
}

services_of_family!(
    SocketMaps,
    AddrV4,
    FRONTENDS_V4,
    BACKENDS_V4,
    FILTER_V4,
    SOURCE_RANGES_V4
);
services_of_family!(
    SocketMaps,
    AddrV6,
    FRONTENDS_V6,
    BACKENDS_V6,
    FILTER_V6,
    SOURCE_RANGES_V6
);

/// State of sockets without a peer, also those of UDP.
const TCP_CLOSE: u32 = 7;
/// Levels of cgroups below the root that are looked at.
const LEVELS: i32 = 10;

/// A call of a socket at a hook of IPv4 or, with `V6`, of IPv6.
pub(crate) struct Caller<'a, const V6: bool> {
    context: &'a SockAddrContext,
}

impl<'a, const V6: bool> Caller<'a, V6> {
    #[inline(always)]
    pub(crate) const fn new(context: &'a SockAddrContext) -> Self {
        Self { context }
    }

    /// A field of the context. Each is one load of four bytes: the kernel rewrites others only in part.
    #[inline(always)]
    fn read(&self, field: impl FnOnce(*mut bpf_sock_addr) -> *mut u32) -> u32 {
        let field = field(self.context.sock_addr);
        // SAFETY: a field of the hook's context, which is valid while the program runs.
        unsafe { field.read_volatile() }
    }

    /// Sets a field of the context.
    #[inline(always)]
    fn write(&mut self, field: impl FnOnce(*mut bpf_sock_addr) -> *mut u32, value: u32) {
        let field = field(self.context.sock_addr);
        // SAFETY: as above; address and port may be written at these hooks.
        unsafe { field.write_volatile(value) };
    }

    #[inline(always)]
    fn socket(&self) -> *mut bpf_sock {
        // SAFETY: the context is valid while the program runs.
        let context = unsafe { &*self.context.sock_addr };
        // SAFETY: there is a socket at all of these hooks.
        unsafe { context.__bindgen_anon_1.sk }
    }
}

/// A socket that is being bound, at a hook of IPv4 or, with `V6`, of IPv6.
pub(crate) struct Bound<'a, const V6: bool> {
    context: &'a SockContext,
}

impl<'a, const V6: bool> Bound<'a, V6> {
    #[inline(always)]
    pub(crate) const fn new(context: &'a SockContext) -> Self {
        Self { context }
    }

    /// Whether it may be.
    #[inline(always)]
    pub(crate) fn is_allowed(&self) -> bool {
        let socket = self.context.sock;
        let proto = load(socket, |it| &raw const it.protocol);
        let Some(proto) = Proto::of_packet(proto as u8) else {
            return true;
        };
        // SAFETY: a valid context of this kind of hook.
        let netns = unsafe { bpf_get_netns_cookie(socket.cast()) };
        socket::may_bind(
            &SocketMaps,
            [netns, first_netns()],
            proto,
            &own_address::<V6>(socket),
        )
    }
}

/// The address and port that a socket is bound to.
#[inline(always)]
fn own_address<const V6: bool>(socket: *const bpf_sock) -> SocketAddress {
    // In the order of the host, unlike the port of a peer.
    let port = Port::new(load(socket, |it| &raw const it.src_port) as u16);
    if !V6 {
        return SocketAddress::v4(
            AddrV4::from_be(load(socket, |it| &raw const it.src_ip4)),
            port,
        );
    }
    let words = [
        load(socket, |it| &raw const it.src_ip6[0]),
        load(socket, |it| &raw const it.src_ip6[1]),
        load(socket, |it| &raw const it.src_ip6[2]),
        load(socket, |it| &raw const it.src_ip6[3]),
    ];
    SocketAddress::v6(AddrV6::from_be(words), port)
}

/// A field of a socket, by one load.
#[inline(always)]
fn load(socket: *const bpf_sock, field: impl FnOnce(&bpf_sock) -> *const u32) -> u32 {
    // SAFETY: the socket of a hook's context, which is valid while the program runs.
    let field = field(unsafe { &*socket });
    // SAFETY: as above.
    unsafe { field.read_volatile() }
}

macro_rules! field {
    ($($path:tt)+) => {
        // SAFETY: the place of a field in a valid context; nothing is read.
        |context| unsafe { &raw mut (*context).$($path)+ }
    };
}

impl<const V6: bool> Socket for Caller<'_, V6> {
    #[inline(always)]
    fn proto(&self) -> Option<Proto> {
        Proto::of_packet(self.read(field!(protocol)) as u8)
    }

    #[inline(always)]
    fn address(&self) -> SocketAddress {
        let port = Port::from_be(self.read(field!(user_port)) as u16);
        if !V6 {
            return SocketAddress::v4(AddrV4::from_be(self.read(field!(user_ip4))), port);
        }
        let words = [
            self.read(field!(user_ip6[0])),
            self.read(field!(user_ip6[1])),
            self.read(field!(user_ip6[2])),
            self.read(field!(user_ip6[3])),
        ];
        SocketAddress::v6(AddrV6::from_be(words), port)
    }

    #[inline(always)]
    fn set_address(&mut self, address: &SocketAddress) {
        let words = address.as_v6().be();
        if V6 {
            self.write(field!(user_ip6[0]), words[0]);
            self.write(field!(user_ip6[1]), words[1]);
            self.write(field!(user_ip6[2]), words[2]);
            self.write(field!(user_ip6[3]), words[3]);
        } else {
            self.write(field!(user_ip4), words[3]);
        }
        self.write(field!(user_port), address.port.be().into());
    }

    #[inline(always)]
    fn has_peer(&self) -> bool {
        load(self.socket(), |it| &raw const it.state) != TCP_CLOSE
    }

    #[inline(always)]
    fn is_tied(&self) -> bool {
        if load(self.socket(), |it| &raw const it.bound_dev_if) != 0 {
            return true;
        }
        let address = own_address::<V6>(self.socket());
        match address.as_v4() {
            Some(v4) => v4.is_loopback(),
            None => address.as_v6().is_loopback(),
        }
    }

    #[inline(always)]
    fn is_path(&self) -> bool {
        if MULTIPATH.load() == 0 {
            return false;
        }
        // SAFETY: the socket of a valid context; null unless it is what is asked for.
        let multipath = unsafe { bpf_skc_to_mptcp_sock(self.socket().cast()) };
        !multipath.is_null()
    }

    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: a valid context of this kind of hook.
        unsafe { bpf_get_netns_cookie(self.context.sock_addr.cast()) }
    }

    #[inline(always)]
    fn first_netns(&self) -> u64 {
        first_netns()
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_get_socket_cookie(self.context.sock_addr.cast()) }
    }

    #[inline(always)]
    fn is_exempt(&self) -> bool {
        let Some(by) = EXEMPT_BY.get(0).copied() else {
            return false;
        };
        let is_in = by.netns != 0 && has(&ExemptKey::netns(self.netns()));
        is_in || (by.levels != 0 && is_below_exempt(by.levels))
    }

    #[inline(always)]
    fn connected(&mut self) -> Option<&mut Connected> {
        // SAFETY: the context has a socket.
        let row = unsafe { CONNECTED_SOCKETS.get_ptr_mut(self.context) };
        // SAFETY: null, or a row that stays while the program runs; the kernel holds the socket's lock, so
        // nobody else has a reference.
        unsafe { row.as_mut() }
    }

    #[inline(always)]
    fn connect(&mut self, connected: &Connected) -> bool {
        let mut row = *connected;
        // SAFETY: as above; the kernel copies the row.
        let stored =
            unsafe { CONNECTED_SOCKETS.get_or_insert_ptr_mut(self.context, Some(&mut row)) };
        // SAFETY: as above.
        match unsafe { stored.as_mut() } {
            Some(stored) => {
                *stored = *connected;
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn peers(&mut self) -> Option<&mut Peers> {
        // SAFETY: as for `connected`.
        let row = unsafe { UNCONNECTED_SOCKETS.get_ptr_mut(self.context) };
        // SAFETY: as for `connected`.
        unsafe { row.as_mut() }
    }

    #[inline(always)]
    fn peers_or_new(&mut self) -> Option<&mut Peers> {
        // SAFETY: as for `connected`.
        let row = unsafe { UNCONNECTED_SOCKETS.get_or_insert_ptr_mut(self.context, None) };
        // SAFETY: as for `connected`; a new row is all zero, which is a valid one.
        unsafe { row.as_mut() }
    }
}

/// Whether the kernel tells paths of MPTCP sockets from others (bpf_skc_to_mptcp_sock, Linux 5.19); set by
/// the agent before it loads the programs.
#[unsafe(no_mangle)]
static MULTIPATH: Global<u8> = Global::new(0);

#[inline(always)]
fn first_netns() -> u64 {
    // SAFETY: without a context the helper means the first namespace.
    unsafe { bpf_get_netns_cookie(core::ptr::null_mut()) }
}

#[inline(always)]
fn has(key: &ExemptKey) -> bool {
    EXEMPT.get_ptr(key).is_some()
}

/// Whether the caller's cgroup at one of these levels is in `EXEMPT`.
#[inline(never)]
fn is_below_exempt(levels: u32) -> bool {
    for level in 1..=LEVELS {
        if levels & (1 << level) == 0 {
            continue;
        }
        // SAFETY: the helper has no conditions; 0 where there is no such cgroup.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if has(&ExemptKey::cgroup(id)) {
            return true;
        }
    }
    false
}
