//! What every object has: a license, and an end for what can't happen.

/// Lets the kernel's GPL-only helpers be used.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A BPF program that could get here does not pass the verifier; the build checks that none can.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
