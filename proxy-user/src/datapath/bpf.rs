//! The few things for which aya has no call: all `unsafe` of the agent.

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_link_info, bpf_prog_type,
};
use bytemuck::Pod;
use memmap2::{MmapOptions, MmapRaw};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// A row as aya's typed maps want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Row<T>(pub T);

// SAFETY: transparent over a type that is plain bytes without padding (bytemuck::Pod).
unsafe impl<T: Pod> aya::Pod for Row<T> {}

/// What a call has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many rows.
    pub rows: usize,
    /// Where the next call goes on; `None` at the end of the map.
    pub next: Option<u32>,
}

/// Reads rows of an array or a hash from `cursor` on, or from the start (BPF_MAP_LOOKUP_BATCH, Linux
/// 5.6). A hash is read bucket by bucket: rows that stay in it are read exactly once in a pass.
///
/// # Errors
/// What the kernel said: ENOSPC if a bucket of a hash has more rows than `keys` has room for.
pub fn read_batch<K: Pod, T: Pod>(
    map: BorrowedFd<'_>,
    cursor: Option<u32>,
    keys: &mut [K],
    values: &mut [T],
) -> io::Result<Batch> {
    let mut next = 0u32;
    let start = cursor.unwrap_or_default();
    let room = keys.len().min(values.len());
    // SAFETY: a union of plain integers, for which all zero is valid.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.batch.in_batch = if cursor.is_some() {
        &raw const start as u64
    } else {
        0
    };
    attr.batch.out_batch = &raw mut next as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = u32::try_from(room).unwrap_or(u32::MAX);
    attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
    // SAFETY: the pointers are to live buffers, `count` is no more than either holds; K and T are plain
    // bytes, so any row the kernel writes is a valid one. The caller's K and T have the map's sizes.
    let outcome = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
    // SAFETY: the kernel has initialised all of the union, as we had.
    let rows = unsafe { attr.batch.count } as usize;
    let next = match outcome {
        Ok(_) => Some(next),
        // The end: the last rows are there all the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(Batch { rows, next })
}

/// Runs a program of a hook of tc on a packet (BPF_PROG_TEST_RUN), and returns what it returns.
///
/// # Errors
/// What the kernel said.
pub fn run(program: BorrowedFd<'_>, packet: &[u8]) -> io::Result<u32> {
    // SAFETY: a union of plain integers, for which all zero is valid.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.test.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.test.data_in = packet.as_ptr() as u64;
    attr.test.data_size_in = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    // SAFETY: the pointer is to a live buffer of this length; nothing else is asked for.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr) }?;
    // SAFETY: the kernel has initialised all of the union, as we had.
    Ok(unsafe { attr.test.retval })
}

/// The ids of the tcx programs on a hook of a device (BPF_PROG_QUERY, Linux 6.6), in their order.
/// aya's call wants to open each of them, which takes more privileges.
///
/// # Errors
/// What the kernel said: EINVAL if it has no tcx.
pub fn tcx_programs(ifindex: u32, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MOST_PROGRAMS];
    // SAFETY: a union of plain integers, for which all zero is valid.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = hook as u32;
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.count = MOST_PROGRAMS as u32;
    // SAFETY: the pointer is to a live buffer of `count` ids.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) }?;
    // SAFETY: this is the part of the union that the command uses.
    let query = unsafe { attr.query };
    // SAFETY: the kernel has written how many there are.
    let count = unsafe { query.__bindgen_anon_2.count };
    ids.truncate(count as usize);
    Ok(ids)
}

/// A hook has room for so many (BPF_MPROG_MAX).
const MOST_PROGRAMS: usize = 64;

/// Opens what is pinned (BPF_OBJ_GET).
///
/// # Errors
/// What the kernel said.
pub fn open_pin(path: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: a union of plain integers, for which all zero is valid.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    // SAFETY: the pointer is to a live string that ends with zero.
    let file = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// Puts another program in the place of a link's (BPF_LINK_UPDATE), without a gap.
///
/// # Errors
/// What the kernel said: ENOLINK if what it was attached to is gone.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a union of plain integers, for which all zero is valid.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.link_update.link_fd = link.as_raw_fd().cast_unsigned();
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd().cast_unsigned();
    // SAFETY: there are no pointers.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }?;
    Ok(())
}

/// The id of the cgroup that a link is attached to (BPF_OBJ_GET_INFO_BY_FD); 0 if that is gone.
///
/// # Errors
/// What the kernel said.
pub fn linked_cgroup(link: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: plain integers, for which all zero is valid.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    // SAFETY: a union of plain integers, for which all zero is valid.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.info.bpf_fd = link.as_raw_fd().cast_unsigned();
    attr.info.info_len = size_of::<bpf_link_info>() as u32;
    attr.info.info = &raw mut info as u64;
    // SAFETY: the pointer is to a live buffer of this length.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    // SAFETY: the kernel has written the part of this kind of link, or left zeros.
    Ok(unsafe { info.__bindgen_anon_1.cgroup }.cgroup_id)
}

/// Runs a program over the rows of a map, or over what is in the thread's network namespace (BPF_LINK_CREATE
/// and BPF_ITER_CREATE): what is read is what the program writes. aya's call can't name the map.
///
/// # Errors
/// What the kernel said.
pub fn walk(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<File> {
    let mut which = [0u32; 4];
    which[0] = map.map_or(0, |map| map.as_raw_fd().cast_unsigned());
    // SAFETY: a union of plain integers, for which all zero is valid.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    // SAFETY: this is the part of the union that the command uses, still all zero.
    let create = unsafe { &mut attr.link_create };
    // SAFETY: this is the part of the union that iterators use, still all zero.
    let info = unsafe { &mut create.__bindgen_anon_3.__bindgen_anon_1 };
    if map.is_some() {
        info.iter_info = &raw mut which as u64;
        info.iter_info_len = size_of_val(&which) as u32;
    }
    // SAFETY: the pointer is to a live buffer of this length.
    let link = unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr) }?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    // SAFETY: as above.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.iter_create.link_fd = link.as_raw_fd().cast_unsigned();
    // SAFETY: there are no pointers.
    let file = unsafe { bpf(bpf_cmd::BPF_ITER_CREATE, &mut attr) }?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) }.into())
}

/// An integer that programs may read or write at the same moment.
///
/// # Safety
/// Any bytes are a valid one, and it can be changed through a shared reference.
pub unsafe trait Cell {}

// SAFETY: all three are integers that are changed atomically.
unsafe impl Cell for AtomicU8 {}
// SAFETY: as above.
unsafe impl Cell for AtomicU32 {}
// SAFETY: as above.
unsafe impl Cell for AtomicU64 {}

/// The memory of an array (BPF_F_MMAPABLE): all of its rows, as integers of one size.
#[derive(Debug)]
pub struct Memory<T> {
    pages: MmapRaw,
    cells: PhantomData<T>,
}

impl<T: Cell> Memory<T> {
    /// The first `cells` integers.
    ///
    /// # Errors
    /// What the kernel said: EINVAL if there are not so many.
    pub fn map(map: BorrowedFd<'_>, cells: usize) -> io::Result<Self> {
        let size = cells.saturating_mul(size_of::<T>());
        Ok(Self {
            pages: MmapOptions::new().len(size).map_raw(map.as_raw_fd())?,
            cells: PhantomData,
        })
    }

    /// One integer.
    ///
    /// # Panics
    /// Beyond the end.
    pub fn cell(&self, index: usize) -> &T {
        let cells = self.pages.as_mut_ptr().cast::<T>();
        assert!(index < self.pages.len() / size_of::<T>(), "within the map");
        // SAFETY: by the check above within the memory, which stays mapped as long as this value and starts at
        // a page; what is there is valid and may change, which is what a cell is for.
        unsafe { &*cells.wrapping_add(index) }
    }
}

/// The cookie of the network namespace that a socket is in (SO_NETNS_COOKIE, Linux 5.14).
///
/// # Errors
/// What the kernel said: ENOPROTOOPT from an older one.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are to live values, and `length` is the size of the first.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}

/// As in the kernel's asm-generic/socket.h.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Kind of a program, and the hook that it is for where the kind has several.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// BPF_PROG_TYPE_*.
    pub program: bpf_prog_type,
    /// The kernel's expected_attach_type.
    pub hook: Option<bpf_attach_type>,
}

/// Loads a program and unloads it again (BPF_PROG_LOAD); returns what the verifier says of its work.
///
/// # Errors
/// What the kernel said.
pub fn verify(instructions: &[bpf_insn], license: &CStr, kind: Kind) -> io::Result<String> {
    let mut log = vec![0u8; VERIFIER_LOG];
    // SAFETY: a union of plain integers, for which all zero is valid.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: this is the part of the union that the command uses.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = kind.program as u32;
    load.expected_attach_type = kind.hook.map_or(0, |hook| hook as u32);
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(instructions.len()).unwrap_or(u32::MAX);
    load.license = license.as_ptr() as u64;
    load.log_level = BPF_LOG_STATS;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = VERIFIER_LOG as u32;
    // SAFETY: the pointers are to live buffers of the lengths beside them; the license ends with zero.
    let file = unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr) }?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(file) });
    let text = CStr::from_bytes_until_nul(&log).unwrap_or_default();
    Ok(text.to_string_lossy().into_owned())
}

/// Totals only, a few lines (Linux 5.2).
const BPF_LOG_STATS: u32 = 4;
const VERIFIER_LOG: usize = 64 << 10;

/// Returns what the command returns; a file descriptor, with some.
///
/// # Safety
/// Every pointer in `attr` that `command` uses must be valid for it.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the caller's promise; the size is that of the union.
    let code = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut *attr,
            size_of::<bpf_attr>(),
        )
    };
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(code as i32)
    }
}

/// Waits until every program that is running now has ended: an RCU grace period
/// (membarrier(2), MEMBARRIER_CMD_GLOBAL).
///
/// # Errors
/// The kernel has no such call (`nohz_full`).
pub fn wait_for_programs() -> io::Result<()> {
    // SAFETY: no memory is passed.
    let code = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
