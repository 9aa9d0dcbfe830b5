//! New devices, left alone until those who set them up are done.
//!
//! A clsact qdisc takes the place that an `ingress` qdisc would have, and CNI plugins (bandwidth, for
//! one) add the latter to a pod's device soon after they have made it. They fail if they come second.

use crate::datapath::hook::Device;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A device has settled when the kernel has sent no message about it for so long.
const QUIET: Duration = Duration::from_secs(1);
/// A device that is never quiet is taken after this time.
const LONGEST: Duration = Duration::from_secs(10);

/// Devices that have not settled, by index.
#[derive(Debug, Default)]
pub(super) struct Settling {
    waiting: BTreeMap<u32, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    device: Device,
    since: Instant,
    due: Instant,
}

impl Settling {
    /// Holds a device from now on, or as it is now.
    pub(super) fn hold(&mut self, device: &Device) {
        let now = Instant::now();
        let waiting = self.waiting.entry(device.index);
        let waiting = waiting.or_insert_with(|| Waiting {
            device: device.clone(),
            since: now,
            due: now + QUIET,
        });
        waiting.device = device.clone();
    }

    /// Something has happened to a device, which may be waiting.
    pub(super) fn heard_of(&mut self, index: u32) {
        if let Some(waiting) = self.waiting.get_mut(&index) {
            waiting.due = (Instant::now() + QUIET).min(waiting.since + LONGEST);
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
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// The devices that have settled, which wait no longer.
    pub(super) fn take(&mut self) -> Vec<Device> {
        let now = Instant::now();
        let due = self.waiting.extract_if(.., |_, waiting| waiting.due <= now);
        due.map(|(_, waiting)| waiting.device).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::hook::{Framing, Suitability, Traits};

    fn device(name: &str) -> Device {
        Device {
            index: 7,
            name: name.into(),
            suitability: Suitability::Suitable(Framing::Ethernet),
            traits: Traits::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_settles_when_nothing_is_heard_of_it() {
        let mut settling = Settling::default();
        settling.hold(&device("tmp"));
        tokio::time::advance(QUIET / 2).await;
        settling.hold(&device("eth0"));
        settling.heard_of(7);
        tokio::time::advance(QUIET / 2).await;
        assert_eq!(settling.take(), [], "it got its name in between");
        // Listed again: nothing has happened to it.
        settling.hold(&device("eth0"));
        tokio::time::advance(QUIET / 2).await;
        assert_eq!(settling.take(), [device("eth0")]);
        assert_eq!(settling.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_is_never_quiet_is_taken_all_the_same() {
        let mut settling = Settling::default();
        settling.hold(&device("eth0"));
        let start = Instant::now();
        while settling.take().is_empty() {
            settling.heard_of(7);
            tokio::time::advance(QUIET / 2).await;
            assert!(start.elapsed() <= LONGEST + QUIET);
        }
        assert!(start.elapsed() >= LONGEST);
    }
}
