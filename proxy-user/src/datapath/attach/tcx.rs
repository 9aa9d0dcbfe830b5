//! Attached as tcx links, which are pinned and outlive the agent.

use crate::datapath::bpf::tcx_programs;
use crate::datapath::hook::{Device, Hook};
use crate::datapath::pins::Pins;
use anyhow::{Context as _, Result};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier};

/// Puts the program on a hook: in the place of an earlier one of ours if there is a pinned link,
/// without a gap; else first at ingress, last at egress.
pub(super) fn attach(
    program: &mut SchedClassifier,
    pins: &Pins,
    device: &Device,
    hook: Hook,
) -> Result<()> {
    // The pinned link may be one of another device.
    if adopt(program, pins, device, hook).is_ok() && is_attached(program, device, hook)? {
        return Ok(());
    }
    let path = pins.link(device.index, hook);
    // The link of an earlier device of this index: there is nothing to adopt.
    let _ = std::fs::remove_file(&path);
    let order = match hook {
        Hook::Ingress => LinkOrder::first(),
        Hook::Egress => LinkOrder::last(),
    };
    let options = TcAttachOptions::TcxOrder(order);
    let id = program
        .attach_with_options(&device.name, hook.attach_type(), options)
        .with_context(|| format!("attaching to {}", hook.name()))?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(&path)
        .with_context(|| format!("pinning {}", path.display()))?;
    Ok(())
}

/// Whether the program is on a hook.
pub(super) fn is_attached(program: &SchedClassifier, device: &Device, hook: Hook) -> Result<bool> {
    let id = program.info()?.id();
    let programs = tcx_programs(device.index, hook.tcx())
        .with_context(|| format!("looking at {}", hook.name()))?;
    Ok(programs.contains(&id))
}

/// The pin keeps the link. Held here too, it would not end with its pin.
fn adopt(program: &mut SchedClassifier, pins: &Pins, device: &Device, hook: Hook) -> Result<()> {
    let pinned = PinnedLink::from_pin(pins.link(device.index, hook))?;
    let link: SchedClassifierLink = FdLink::from(pinned).try_into()?;
    let id = program.attach_to_link(link)?;
    drop(program.take_link(id)?);
    Ok(())
}
