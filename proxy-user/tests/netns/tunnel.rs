//! A tunnel between two namespaces, made of a tun device on each side and two threads that carry
//! packets from one to the other: IP begins where other devices have an Ethernet header.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use std::sync::Arc;
use tun_rs::{DeviceBuilder, SyncDevice};
use xtask::cluster::Namespace;

const DEVICE: &str = "tun0";
/// That of the other devices: smaller ones need ICMP errors, which are not translated.
const MTU: u16 = 1500;

/// Ends with the value.
pub(crate) struct Tunnel {
    ends: [Namespace; 2],
}

impl Tunnel {
    /// Between two namespaces, up on both sides; routes are the caller's.
    pub(crate) fn lay(one: &Namespace, other: &Namespace) -> Self {
        let [a, b] = [one, other].map(|place| Arc::new(end(place)));
        carry(Arc::clone(&a), Arc::clone(&b));
        carry(b, a);
        Self {
            ends: [one.clone(), other.clone()],
        }
    }
}

fn end(place: &Namespace) -> SyncDevice {
    let build = || DeviceBuilder::new().name(DEVICE).mtu(MTU).build_sync();
    place.run(build).unwrap().unwrap()
}

/// Until the device is gone.
fn carry(from: Arc<SyncDevice>, to: Arc<SyncDevice>) {
    std::thread::spawn(move || {
        let mut packet = vec![0; usize::from(u16::MAX)];
        while let Ok(length) = from.recv(&mut packet) {
            // The other side may be gone, or its queue full: packets may be lost.
            let _ = to.send(&packet[..length]);
        }
    });
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for place in &self.ends {
            // Without the device the thread that reads from it ends.
            let _ = place.command("ip", &["link", "del", DEVICE]);
        }
    }
}
