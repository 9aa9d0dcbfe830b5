//! Walks over the kernel's sockets that have storage of ours.

use crate::sockets::SocketMaps;
use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::bpf_seq_write;
use core::ffi::c_void;
use proxy_common::Connected;
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

/// Writes the rows of sockets that have to be closed.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
fn ferrule_gone(context: *const Stored) -> i32 {
    // SAFETY: the context is valid while the program runs.
    let context = unsafe { &*context };
    // SAFETY: null at the end of the walk, else a row that stays while the program runs.
    let Some(connected) = (unsafe { context.value.as_ref() }) else {
        return 0;
    };
    let connected = *connected;
    if must_close(&SocketMaps, &connected) {
        // SAFETY: valid in every context.
        let output = unsafe { &*context.meta }.output;
        let size = size_of::<Connected>() as u32;
        // SAFETY: the row lies on our stack and has this size. Without room the kernel calls again.
        unsafe { bpf_seq_write(output, (&raw const connected).cast(), size) };
    }
    0
}
