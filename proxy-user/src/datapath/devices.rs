//! The node's devices and their addresses, followed through rtnetlink.

mod address;
mod inventory;
mod link;
mod names;

pub use names::DeviceNames;

use crate::datapath::hook::Device;
use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use inventory::Inventory;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::{Handle, MulticastGroup};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

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

/// Devices that are something which only the operator can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Flows between two of them pass the node's stack by.
    pub fast_lane: DeviceNames,
    /// What comes in by them is from pods.
    pub pods: DeviceNames,
}

/// The addresses of all devices, each with the name of a device that has it.
pub type LocalAddresses = BTreeMap<IpAddr, String>;

/// Devices are listed again this often, should a message have been lost or a program been taken off.
const RELIST: Duration = Duration::from_secs(10);

const GROUPS: [MulticastGroup; 3] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

/// Sends what happens to the devices of this thread's network namespace, all that there are first, and
/// their addresses whenever they are others. Ends when nobody receives events any more.
///
/// # Errors
/// The netlink socket can't be opened, or has been closed.
pub async fn follow(
    events: mpsc::Sender<DeviceEvent>,
    addresses: watch::Sender<LocalAddresses>,
    mut marked: watch::Receiver<Marked>,
) -> Result<()> {
    let (connection, handle, mut messages) =
        rtnetlink::new_multicast_connection(&GROUPS).context("opening rtnetlink")?;
    tokio::spawn(connection);
    let mut relist = tokio::time::interval(RELIST);
    let mut inventory = Inventory::default();
    loop {
        let news = tokio::select! {
            _ = relist.tick() => None,
            Ok(()) = marked.changed() => None,
            message = messages.next() => {
                let (message, _) = message.context("rtnetlink was closed")?;
                heard(message, &mut inventory)
            }
        };
        let news = match news {
            Some(news) => news,
            None => {
                let marked = marked.borrow_and_update().clone();
                inventory = list(&handle, marked).await?;
                vec![DeviceEvent::All(inventory.devices())]
            }
        };
        if !news.is_empty() {
            publish(&addresses, inventory.local_addresses());
        }
        for event in news {
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// What a message says; `None`: some have been lost, and all has to be listed again.
fn heard(
    message: NetlinkMessage<RouteNetlinkMessage>,
    inventory: &mut Inventory,
) -> Option<Vec<DeviceEvent>> {
    match message.payload {
        NetlinkPayload::InnerMessage(message) => Some(inventory.take(&message)),
        NetlinkPayload::Overrun(_) => None,
        _ => Some(Vec::new()),
    }
}

fn publish(addresses: &watch::Sender<LocalAddresses>, now: LocalAddresses) {
    addresses.send_if_modified(|known| {
        let is_new = *known != now;
        *known = now;
        is_new
    });
}

/// All devices of this thread's network namespace.
///
/// # Errors
/// rtnetlink does not answer.
pub async fn current(marked: Marked) -> Result<Vec<Device>> {
    Ok(take_stock(marked).await?.devices())
}

/// The addresses of all devices of this thread's network namespace.
///
/// # Errors
/// rtnetlink does not answer.
pub async fn local_addresses() -> Result<LocalAddresses> {
    let inventory = take_stock(Marked::default()).await?;
    Ok(inventory.local_addresses())
}

async fn take_stock(marked: Marked) -> Result<Inventory> {
    let (connection, handle, _) = rtnetlink::new_connection().context("opening rtnetlink")?;
    let connection = tokio::spawn(connection);
    let inventory = list(&handle, marked).await;
    connection.abort();
    inventory
}

async fn list(handle: &Handle, marked: Marked) -> Result<Inventory> {
    let links = handle.link().get().execute().try_collect();
    let links: Vec<LinkMessage> = links.await.context("listing devices")?;
    let addresses = handle.address().get().execute().try_collect();
    let addresses: Vec<AddressMessage> = addresses.await.context("listing addresses")?;
    Ok(Inventory::new(&links, &addresses, marked))
}
