//! New devices, left alone until those who set them up are done.
//!
//! A clsact qdisc takes the place that an `ingress` qdisc would have, and CNI plugins (bandwidth, for
//! one) add the latter to a pod's device soon after they have made it. They fail if they come second.

use crate::datapath::hook::Device;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A device has settled when nothing was heard of it for so long.
const QUIET: Duration = Duration::from_secs(1);

/// Devices that have not settled, by index.
#[derive(Debug, Default)]
pub(super) struct Settling {
    waiting: BTreeMap<u32, (Device, Instant)>,
}

impl Settling {
    /// Notes a device that is new, or that something has happened to while it was.
    pub(super) fn hold(&mut self, device: &Device) {
        let due = Instant::now() + QUIET;
        let waiting = self.waiting.entry(device.index);
        let (known, until) = waiting.or_insert_with(|| (device.clone(), due));
        if known != device {
            *known = device.clone();
            *until = due;
        }
    }

    /// Whether a device is waiting.
    pub(super) fn holds(&self, index: u32) -> bool {
        self.waiting.contains_key(&index)
    }

    /// Forgets a device.
    pub(super) fn forget(&mut self, index: u32) {
        self.waiting.remove(&index);
    }

    /// When to look again; `None` while nothing is waiting.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.values().map(|(_, due)| *due).min()
    }

    /// The devices that have settled, which wait no longer.
    pub(super) fn take(&mut self) -> Vec<Device> {
        let now = Instant::now();
        let due = self.waiting.extract_if(.., |_, (_, due)| *due <= now);
        due.map(|(_, (device, _))| device).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::hook::Suitability;

    fn device(name: &str) -> Device {
        Device {
            index: 7,
            name: name.into(),
            suitability: Suitability::Suitable,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_settles_when_nothing_happens_to_it() {
        let mut settling = Settling::default();
        settling.hold(&device("tmp"));
        tokio::time::advance(QUIET / 2).await;
        settling.hold(&device("eth0"));
        tokio::time::advance(QUIET / 2).await;
        assert_eq!(settling.take(), [], "it got its name in between");
        // Listed again without a change.
        settling.hold(&device("eth0"));
        tokio::time::advance(QUIET / 2).await;
        assert_eq!(settling.take(), [device("eth0")]);
        assert_eq!(settling.next(), None);
    }
}
