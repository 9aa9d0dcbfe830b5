//! Worlds in which something is otherwise.

use super::World;
use bytemuck::Zeroable as _;
use proxy_common::{
    AddrV4, AddrV6, Address as _, Detection, Device, DeviceTrait, DeviceTraits, Frontend,
    FrontendKey, FrontendKind, FrontendTrait, NodeOption, Range, RegionHeader, ServiceRanges,
    SourceRange,
};
use std::net::IpAddr;

impl World {
    /// Something holds for all frontends.
    pub fn with(mut self, what: FrontendTrait) -> Self {
        let v4 = self.v4.frontends.values_mut();
        for row in v4.chain(self.v6.frontends.values_mut()) {
            *row = row.with(what, true);
        }
        self
    }

    /// Says of an address that it is the first service's.
    pub fn with_address(mut self, address: &str) -> Self {
        let row = Frontend::new(1, FrontendKind::Address);
        match address.parse().expect("an address") {
            IpAddr::V4(v4) => {
                let key = FrontendKey::of_address(AddrV4::new(v4));
                self.v4.frontends.insert(key, row);
            }
            IpAddr::V6(v6) => {
                let key = FrontendKey::of_address(AddrV6::new(v6));
                self.v6.frontends.insert(key, row);
            }
        }
        self
    }

    /// Lets only the clients of a range dial the first service; the range is one of whole bytes.
    pub fn with_source_range(mut self, address: &str, bits: u32) -> Self {
        const SET: u32 = 5;
        let region = self.services[&1].region();
        self.slots.insert(region + RegionHeader::SOURCES, SET);
        match address.parse().expect("an address") {
            IpAddr::V4(v4) => {
                let address = AddrV4::new(v4);
                let range = SourceRange { set: SET, address };
                self.v4.source_ranges.push((u32::BITS + bits, range));
            }
            IpAddr::V6(v6) => {
                let address = AddrV6::new(v6);
                let range = SourceRange { set: SET, address };
                self.v6.source_ranges.push((u32::BITS + bits, range));
            }
        }
        self.with(FrontendTrait::Restricted)
    }

    /// Clients of the first service stay with their backend for so many ticks.
    pub fn with_affinity(mut self, ticks: u32) -> Self {
        let region = self.services[&1].region();
        self.slots.insert(region + RegionHeader::AFFINITY, ticks);
        self.with(FrontendTrait::Sticks)
    }

    /// The node's programs do something besides.
    pub fn with_option(mut self, option: NodeOption) -> Self {
        self.config.options = self.config.options.with(option, true);
        self
    }

    /// Pods are told from others by the device of the test's packets: theirs, or not.
    pub fn with_device(mut self, is_of_pods: bool) -> Self {
        const DEVICE: u32 = 1;
        let row = Device {
            routed_as: DEVICE,
            traits: DeviceTraits::default().with(DeviceTrait::OfPods, is_of_pods),
            ..Device::zeroed()
        };
        self.devices.insert(DEVICE, row);
        let nothing = self.config.v4.pods;
        self.config.v4 = self.config.v4.detecting(Detection::ByDevice, nothing);
        let nothing = self.config.v6.pods;
        self.config.v6 = self.config.v6.detecting(Detection::ByDevice, nothing);
        self
    }

    /// Pods are not told from others.
    pub fn without_detection(mut self) -> Self {
        let nothing = self.config.v4.pods;
        self.config.v4 = self.config.v4.detecting(Detection::None, nothing);
        let nothing = self.config.v6.pods;
        self.config.v6 = self.config.v6.detecting(Detection::None, nothing);
        self
    }

    /// Services have their addresses in these ranges.
    pub fn with_service_ranges(mut self) -> Self {
        let v4 = |text: &str| AddrV4::new(text.parse().expect("an IPv4 address"));
        let v6 = |text: &str| AddrV6::new(text.parse().expect("an IPv6 address"));
        self.config.v4.services = ServiceRanges::new([Range {
            address: v4("10.96.0.0"),
            mask: v4("255.255.0.0"),
        }]);
        self.config.v6.services = ServiceRanges::new([Range {
            address: v6("fd00:10:96::"),
            mask: v6("ffff:ffff:ffff::"),
        }]);
        self
    }
}
