//! Errors of calls that a program at a cgroup ends.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_set_retval;

/// Whether a program may choose the error of a call that it ends (bpf_set_retval, Linux 6.1); set by the
/// agent before it loads the programs. Where not, the branch is dead to the verifier.
#[unsafe(no_mangle)]
static RETURN_VALUE: Global<u8> = Global::new(0);

/// What a call that is ended may fail with (errno(3)).
#[derive(Clone, Copy)]
#[repr(i32)]
pub(crate) enum Errno {
    /// EADDRINUSE.
    AddressInUse = 98,
    /// ECONNREFUSED.
    ConnectionRefused = 111,
}

/// Chooses the error of a call that is ended; without, it is EPERM. False: the kernel does not let us.
#[inline(always)]
pub(crate) fn fail_with(error: Errno) -> bool {
    // SAFETY: the helper has no conditions at these hooks.
    RETURN_VALUE.load() != 0 && unsafe { bpf_set_retval(-(error as i32)) } == 0
}
