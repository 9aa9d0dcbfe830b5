//! Attached as filters of a clsact qdisc, for kernels without tcx.
//!
//! Filters stay when the agent ends. They are found again by priority and handle, and replaced in
//! place.

use crate::datapath::hook::{Device, Hook};
use crate::datapath::pins::Pins;
use anyhow::{Context as _, Result, bail};
use aya::programs::SchedClassifier;
use aya::programs::links::Link as _;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::{TcAttribute, TcHandle as QdiscHandle, TcMessage};

/// The kind of our qdisc.
const CLSACT: &str = "clsact";
/// First among the filters at ingress.
const FIRST: u16 = 1;
/// Last among the filters at egress.
const LAST: u16 = u16::MAX;
/// Tells our filter from others of the same priority: "fe" for Ferrule.
const HANDLE: TcHandle = TcHandle::new(0, 0xfe);
const HANDLE_NUMBER: u32 = 0xfe;

const fn priority(hook: Hook) -> u16 {
    match hook {
        Hook::Ingress => FIRST,
        Hook::Egress => LAST,
    }
}

/// Makes sure that a device has a clsact qdisc; one that is there may be anybody's.
///
/// # Errors
/// There is another kind of qdisc in its place, or the kernel refuses.
pub(super) async fn make_qdisc(pins: &Pins, device: &Device) -> Result<()> {
    match qdisc(device.index).await?.as_deref() {
        Some(CLSACT) => Ok(()),
        Some(other) => {
            // One of ours, if there was one, has made way for it.
            let _ = std::fs::remove_dir(pins.qdisc(device.index));
            bail!(
                "another's qdisc of kind {other} is where a clsact qdisc would have to be \
                 (a bandwidth limit?); links need none, from Linux 6.6 on"
            )
        }
        None => {
            // The note first: what was made without one would stay for ever.
            let note = pins.qdisc(device.index);
            std::fs::create_dir_all(&note)
                .with_context(|| format!("noting the qdisc of {}", device.name))?;
            let added = qdisc_add_clsact(&device.name).context("adding a clsact qdisc");
            added.inspect_err(|_| {
                let _ = std::fs::remove_dir(&note);
            })
        }
    }
}

/// Puts the program on a hook of a clsact qdisc: in the place of an earlier one of ours, or as a new
/// filter.
pub(super) fn attach(program: &mut SchedClassifier, device: &Device, hook: Hook) -> Result<()> {
    let (kind, priority) = (hook.attach_type(), priority(hook));
    let filter = SchedClassifierLink::attached(&device.name, kind, priority, HANDLE, None)?;
    let id = match program.attach_to_link(filter) {
        Ok(id) => id,
        Err(_) => {
            let options = NlOptions {
                priority,
                handle: HANDLE,
                classid: None,
            };
            program
                .attach_with_options(&device.name, kind, TcAttachOptions::Netlink(options))
                .with_context(|| format!("adding a filter to {}", hook.name()))?
        }
    };
    // aya removes the filter of a link that is dropped.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Whether a filter is ours.
pub(super) fn is_ours(hook: Hook, priority_of_it: u16, handle: QdiscHandle) -> bool {
    priority_of_it == priority(hook) && u32::from(handle) == HANDLE_NUMBER
}

/// Removes our filter from a hook.
///
/// # Errors
/// What the kernel said; there was none, for example.
pub fn detach(device: &Device, hook: Hook) -> Result<()> {
    SchedClassifierLink::attached(
        &device.name,
        hook.attach_type(),
        priority(hook),
        HANDLE,
        None,
    )?
    .detach()
    .with_context(|| format!("{} of {}", hook.name(), device.name))
}

/// Removes our filters from both hooks; most devices have none.
pub(super) fn detach_all(device: &Device) {
    for hook in Hook::ALL {
        let _ = detach(device, hook);
    }
}

/// Whether a device has a clsact qdisc.
///
/// # Errors
/// rtnetlink does not answer.
pub async fn has_qdisc(ifindex: u32) -> Result<bool> {
    Ok(qdisc(ifindex).await?.as_deref() == Some(CLSACT))
}

/// The kind of the qdisc that takes what a device receives: clsact or ingress.
async fn qdisc(ifindex: u32) -> Result<Option<String>> {
    let (connection, handle, _) = rtnetlink::new_connection().context("opening rtnetlink")?;
    let connection = tokio::spawn(connection);
    let request = handle.qdisc().get().execute();
    let qdiscs: Vec<TcMessage> = request.try_collect().await.context("listing qdiscs")?;
    connection.abort();
    let found = qdiscs.into_iter().find(|qdisc| {
        qdisc.header.index == ifindex.cast_signed() && qdisc.header.parent == QdiscHandle::INGRESS
    });
    let kind = found
        .into_iter()
        .flat_map(|qdisc| qdisc.attributes)
        .find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind),
            _ => None,
        });
    Ok(kind)
}

/// Removes the clsact qdisc of a device.
///
/// # Errors
/// What the kernel said.
pub async fn remove_qdisc(ifindex: u32) -> Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection().context("opening rtnetlink")?;
    let connection = tokio::spawn(connection);
    let mut request = handle.qdisc().del(ifindex.cast_signed());
    let message = request.message_mut();
    message.header.parent = QdiscHandle::CLSACT;
    message.header.handle = QdiscHandle {
        major: 0xffff,
        minor: 0,
    };
    let outcome = request.execute().await.context("removing the clsact qdisc");
    connection.abort();
    outcome
}
