//! `DEVICES`: what the programs must know of each device.

use crate::datapath::bpf::Row;
use crate::datapath::hook::{Device, Framing, Suitability};
use crate::datapath::kernel::open;
use crate::datapath::pins::Pins;
use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use proxy_common::{
    AddrV4, AddrV6, Address as _, Device as DeviceRow, DeviceTrait, DeviceTraits, Mac,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the programs of a device are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not yet, or not any more.
    Bare,
    /// Both are.
    Ready,
}

/// The map, and what is in it.
pub(super) struct DeviceRows {
    map: HashMap<MapData, u32, Row<DeviceRow>>,
    known: BTreeMap<u32, DeviceRow>,
}

impl DeviceRows {
    /// With the rows that an earlier agent has left.
    ///
    /// # Errors
    /// The map is not there, or can't be read.
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let map: HashMap<_, u32, Row<DeviceRow>> = open(pins, "DEVICES")?;
        let known = map.iter().map(|row| row.map(|(index, row)| (index, row.0)));
        let known = known.collect::<Result<_, _>>().context("reading DEVICES")?;
        Ok(Self { map, known })
    }

    /// The interface indices that have rows.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        self.known.keys().copied()
    }

    /// Makes sure that a device's row is as it should be; it belongs to the fast lane only if its programs are in
    /// force, or those of its ports.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn put(&mut self, device: &Device, state: State) -> Result<()> {
        let row = row(device, state);
        if self.known.get(&device.index) != Some(&row) {
            let written = self.map.insert(device.index, Row(row), 0);
            written.context("writing DEVICES")?;
            self.known.insert(device.index, row);
        }
        Ok(())
    }

    /// Whether a device's row says that it belongs to the fast lane.
    pub(super) fn is_fast(&self, index: u32) -> bool {
        let row = self.known.get(&index);
        row.is_some_and(|row| row.is(DeviceTrait::Fast))
    }

    /// Removes the row of a device that is gone.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn remove(&mut self, index: u32) -> Result<()> {
        match self.map.remove(&index) {
            Ok(()) | Err(MapError::KeyNotFound) => {
                self.known.remove(&index);
                Ok(())
            }
            Err(error) => Err(error).context("removing a row of DEVICES"),
        }
    }

    /// The addresses by which flows that leave by a device are masked.
    pub(super) fn sources(&self, index: u32) -> Vec<IpAddr> {
        let row = self.known.get(&index);
        let both = row.map(|row| [row.v4.ip(), row.v6.ip()]);
        let both = both.into_iter().flatten();
        both.filter(|ip| !ip.is_unspecified()).collect()
    }
}

fn row(device: &Device, state: State) -> DeviceRow {
    let traits = device.traits;
    let is_fast = match device.suitability {
        Suitability::Suitable(_) => traits.is_fast && state == State::Ready,
        Suitability::Bridge => traits.is_fast,
        Suitability::Member | Suitability::UnknownHeader => false,
    };
    let bridge = traits.bridge;
    let is_bare = device.suitability.framing() == Some(Framing::Ip);
    DeviceRow {
        v4: AddrV4::new(traits.v4.unwrap_or(Ipv4Addr::UNSPECIFIED)),
        v6: AddrV6::new(traits.v6.unwrap_or(Ipv6Addr::UNSPECIFIED)),
        mac: traits.mac.map(Mac::new).unwrap_or_default(),
        bridge: bridge.map(|it| Mac::new(it.mac)).unwrap_or_default(),
        routed_as: bridge.map_or(device.index, |it| it.index),
        mtu: traits.mtu,
        traits: DeviceTraits::default()
            .with(DeviceTrait::Bare, is_bare)
            .with(DeviceTrait::Fast, is_fast)
            .with(DeviceTrait::Peered, traits.is_peered)
            .with(DeviceTrait::OfPods, traits.is_of_pods),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::hook::{Bridge, Traits};

    fn device(framing: Framing, traits: Traits) -> Device {
        Device {
            index: 7,
            name: "eth0".into(),
            suitability: Suitability::Suitable(framing),
            traits,
        }
    }

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn a_device_is_described_by_its_addresses_and_routed_as_itself() {
        let traits = Traits {
            mac: Some(MAC),
            v4: Some([192, 0, 2, 1].into()),
            ..Traits::default()
        };
        let row = row(&device(Framing::Ethernet, traits), State::Ready);
        assert_eq!(row.v4.ip().to_string(), "192.0.2.1");
        assert_eq!(row.v6.ip().to_string(), "::");
        assert_eq!((row.mac, row.bridge), (Mac::new(MAC), Mac::default()));
        assert_eq!((row.routed_as, row.is_bare()), (7, false));
    }

    #[test]
    fn a_port_is_routed_as_its_bridge() {
        let mac = [2, 0, 0, 0, 0, 3];
        let traits = Traits {
            mac: Some(MAC),
            bridge: Some(Bridge { index: 3, mac }),
            ..Traits::default()
        };
        let row = row(&device(Framing::Port, traits), State::Ready);
        assert_eq!((row.mac, row.bridge), (Mac::new(MAC), Mac::new(mac)));
        assert_eq!((row.routed_as, row.is_bare()), (3, false));
    }

    #[test]
    fn a_tunnel_without_ethernet_is_bare() {
        let row = row(&device(Framing::Ip, Traits::default()), State::Ready);
        assert_eq!((row.mac, row.routed_as), (Mac::default(), 7));
        assert!(row.is_bare());
    }

    #[test]
    fn a_device_is_fast_when_its_programs_are_in_force_and_a_bridge_always() {
        let traits = Traits {
            is_fast: true,
            ..Traits::default()
        };
        let is_fast = |suitability, state| {
            let device = Device {
                suitability,
                ..device(Framing::Ethernet, traits)
            };
            row(&device, state).is(DeviceTrait::Fast)
        };
        let suitable = Suitability::Suitable(Framing::Ethernet);
        assert!(is_fast(suitable, State::Ready) && !is_fast(suitable, State::Bare));
        assert!(is_fast(Suitability::Bridge, State::Bare));
        assert!(!is_fast(Suitability::UnknownHeader, State::Ready));
    }
}
