//! The node's devices, followed through rtnetlink.

use crate::datapath::hook::{Device, Framing, Suitability};
use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{Handle, MulticastGroup};
use std::time::Duration;
use tokio::sync::mpsc;

/// What happens to devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// All devices that there are; others are gone.
    All(Vec<Device>),
    /// A device is there, new or changed.
    Present(Device),
    /// The device of this index is gone.
    Gone(u32),
}

/// Devices are listed again this often, should a message have been lost or a program been taken off.
const RELIST: Duration = Duration::from_secs(10);

/// Sends what happens to the devices of this thread's network namespace, all that there are first.
/// Ends when nobody receives any more.
///
/// # Errors
/// The netlink socket can't be opened, or has been closed.
pub async fn follow(events: mpsc::Sender<DeviceEvent>) -> Result<()> {
    let (connection, handle, mut messages) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
            .context("opening rtnetlink")?;
    tokio::spawn(connection);
    let mut relist = tokio::time::interval(RELIST);
    loop {
        let event = tokio::select! {
            _ = relist.tick() => Some(DeviceEvent::All(list(&handle).await?)),
            message = messages.next() => {
                let (message, _) = message.context("rtnetlink was closed")?;
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => event_of(&message),
                    NetlinkPayload::Overrun(_) => Some(DeviceEvent::All(list(&handle).await?)),
                    _ => None,
                }
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return Ok(());
        }
    }
}

/// All devices of this thread's network namespace.
///
/// # Errors
/// rtnetlink does not answer.
pub async fn current() -> Result<Vec<Device>> {
    let (connection, handle, _) = rtnetlink::new_connection().context("opening rtnetlink")?;
    let connection = tokio::spawn(connection);
    let devices = list(&handle).await;
    connection.abort();
    devices
}

async fn list(handle: &Handle) -> Result<Vec<Device>> {
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .context("listing devices")?;
    Ok(links.iter().filter_map(device).collect())
}

fn event_of(message: &RouteNetlinkMessage) -> Option<DeviceEvent> {
    match message {
        RouteNetlinkMessage::NewLink(link) => device(link).map(DeviceEvent::Present),
        RouteNetlinkMessage::DelLink(link) if is_device(link) => {
            Some(DeviceEvent::Gone(link.header.index))
        }
        _ => None,
    }
}

/// Bridges also send messages about their ports, of their own address family.
fn is_device(link: &LinkMessage) -> bool {
    u8::from(link.header.interface_family) == 0
}

fn device(link: &LinkMessage) -> Option<Device> {
    let name = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
    let name = name.filter(|_| is_device(link))?;
    Some(Device {
        index: link.header.index,
        name,
        suitability: suitability(link),
    })
}

fn suitability(link: &LinkMessage) -> Suitability {
    let has = |wanted: fn(&LinkAttribute) -> bool| link.attributes.iter().any(wanted);
    let is_port =
        has(|attribute| matches!(attribute, LinkAttribute::Controller(_))) && !has(is_vrf_port);
    if link.header.flags.contains(LinkFlags::Loopback) {
        return Suitability::Loopback;
    }
    match framing(link.header.link_layer_type) {
        None => Suitability::UnknownHeader,
        Some(_) if is_port => Suitability::Port,
        Some(framing) => Suitability::Suitable(framing),
    }
}

const fn framing(link_layer: LinkLayerType) -> Option<Framing> {
    match link_layer {
        LinkLayerType::Ether => Some(Framing::Ethernet),
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Sit
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6 => Some(Framing::Ip),
        _ => None,
    }
}

/// Devices of a VRF keep their own addresses and see their own packets.
fn is_vrf_port(attribute: &LinkAttribute) -> bool {
    let LinkAttribute::LinkInfo(infos) = attribute else {
        return false;
    };
    infos
        .iter()
        .any(|info| matches!(info, LinkInfo::PortKind(InfoPortKind::Vrf)))
}
