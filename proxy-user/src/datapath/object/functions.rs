//! Calls of functions of the kernel itself, by numbers that only the running kernel tells. aya has no words for
//! them, so that the object has marks instead.

use anyhow::{Context as _, Result, ensure};
use aya::Btf;
use aya_obj::btf::BtfKind;
use proxy_common::SOCK_DESTROY;

/// BPF_JMP | BPF_CALL: a call of a helper, whose number are the upper four bytes.
const CALL: u64 = 0x85;
/// The same, of a function of the kernel (BPF_PSEUDO_KFUNC_CALL).
const CALL_KERNEL: u64 = 0x2085;

/// Makes calls out of the marks in an object.
///
/// # Errors
/// The kernel lacks the function, or the object the marks.
pub(super) fn resolve(object: &mut [u8]) -> Result<()> {
    let btf = Btf::from_sys_fs().context("reading the kernel's types")?;
    let number = btf.id_by_type_name_kind("bpf_sock_destroy", BtfKind::Func)?;
    ensure!(replace(object, number) > 0, "the object has no marks");
    Ok(())
}

/// Returns how many there were.
fn replace(object: &mut [u8], number: u32) -> usize {
    let mark = instruction(CALL, SOCK_DESTROY.cast_unsigned());
    let call = instruction(CALL_KERNEL, number);
    let (instructions, _) = object.as_chunks_mut();
    let marks = instructions.iter_mut().filter(|it| **it == mark);
    marks.map(|it| *it = call).count()
}

fn instruction(code: u64, number: u32) -> [u8; 8] {
    (code | u64::from(number) << 32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_calls_and_nothing_else_changes() {
        let helper = instruction(CALL, 27);
        let mark = instruction(CALL, SOCK_DESTROY.cast_unsigned());
        let mut object = [helper, mark, helper].concat();
        assert_eq!(replace(&mut object, 7), 1);
        let call = [0x85, 0x20, 0, 0, 7, 0, 0, 0];
        assert_eq!(object, [helper, call, helper].concat());
    }
}
