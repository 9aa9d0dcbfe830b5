//! Walks over the kernel's sockets that have storage of ours.

use crate::sockets::{CONNECTED_SOCKETS, SocketMaps};
use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_sk_storage_get};
use core::arch::asm;
use core::ffi::c_void;
use proxy_common::{AddrV4, AddrV6, Connected, Port, SOCK_DESTROY, SocketAddress};
use proxy_ebpf::peers::must_close;

/// The kernel's `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    output: *mut seq_file,
    session: u64,
    number: u64,
}

/// The kernel's `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
struct Stored {
    meta: *const Meta,
    map: *mut c_void,
    socket: *mut c_void,
    value: *const Connected,
}

/// The kernel's `struct bpf_iter__tcp` and `struct bpf_iter__udp`, as far as they are alike.
#[repr(C)]
struct Visited {
    meta: *const Meta,
    socket: *mut SockCommon,
}

/// The kernel's `struct sock_common`, as far as it is read; the same in all versions since 4.1. Were it another
/// in a later one, no socket would seem to have the peer of its row, and none be closed.
#[repr(C)]
struct SockCommon {
    peer_v4: u32,
    own_v4: u32,
    hash: u32,
    peer_port: u16,
    own_port: u16,
    family: u16,
    state: u8,
    bits: u8,
    device: u32,
    links: [u64; 2],
    operations: u64,
    netns: u64,
    peer_v6: [u32; 4],
}

const AF_INET: u16 = 2;

/// Writes the rows of sockets that have to be closed.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
fn ferrule_gone(context: *const Stored) -> i32 {
    // SAFETY: the context is valid while the program runs.
    let context = unsafe { &*context };
    // SAFETY: null at the end of the walk, else a row that stays while the program runs.
    if let Some(connected) = unsafe { context.value.as_ref() }
        && must_close(&SocketMaps, connected)
    {
        write(context.meta, connected);
    }
    0
}

/// Closes those of a network namespace's TCP sockets that have to be, and writes their rows.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
fn ferrule_end_tcp(context: *const Visited) -> i32 {
    // SAFETY: the context is valid while the program runs.
    end(unsafe { &*context });
    0
}

/// The same of UDP sockets.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/udp")]
fn ferrule_end_udp(context: *const Visited) -> i32 {
    // SAFETY: the context is valid while the program runs.
    end(unsafe { &*context });
    0
}

/// The kernel holds the socket's lock meanwhile.
#[inline(always)]
fn end(context: &Visited) {
    let socket = context.socket;
    if socket.is_null() {
        return;
    }
    let Some(connected) = row_of(socket) else {
        return;
    };
    let is_meant =
        must_close(&SocketMaps, connected) && peer_of(socket).is(&connected.peer.backend);
    // Without room for the row the kernel calls again.
    if is_meant && write(context.meta, connected) && destroy(socket) {
        connected.peer.reference.generation = 0;
    }
}

/// The row of a socket.
#[inline(always)]
fn row_of<'a>(socket: *mut SockCommon) -> Option<&'a mut Connected> {
    // SAFETY: a socket that is not null; without a flag nothing is made.
    let row = unsafe {
        bpf_sk_storage_get(
            (&raw const CONNECTED_SOCKETS).cast_mut().cast(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
    };
    // SAFETY: null, or a row of this type that stays while the program runs, as does the socket's lock.
    unsafe { row.cast::<Connected>().as_mut() }
}

/// Where a socket is connected to.
#[inline(always)]
fn peer_of(socket: *const SockCommon) -> SocketAddress {
    // SAFETY: a socket that the kernel shows us; it reads for us what may be of another kind.
    let socket = unsafe { &*socket };
    let port = Port::from_be(socket.peer_port);
    match socket.family {
        AF_INET => SocketAddress::v4(AddrV4::from_be(socket.peer_v4), port),
        _ => SocketAddress::v6(AddrV6::from_be(socket.peer_v6), port),
    }
}

/// Writes a row; false without room.
#[inline(always)]
fn write(meta: *const Meta, connected: &Connected) -> bool {
    let mut row = *connected;
    // SAFETY: valid in every context.
    let output = unsafe { &*meta }.output;
    let size = size_of::<Connected>() as u32;
    // SAFETY: the row lies on our stack and has this size.
    unsafe { bpf_seq_write(output, (&raw mut row).cast(), size) == 0 }
}

/// Calls bpf_sock_destroy (Linux 6.5). The agent makes a call of the kernel's function out of the mark, or does
/// not load the program.
#[inline(always)]
fn destroy(socket: *mut SockCommon) -> bool {
    let code: i64;
    // SAFETY: the kernel has given us the socket and holds its lock; the registers are those that calls change.
    unsafe {
        asm!(
            "call {mark}",
            mark = const SOCK_DESTROY,
            inlateout("r1") socket => _,
            lateout("r0") code,
            lateout("r2") _,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
        );
    }
    code == 0
}
