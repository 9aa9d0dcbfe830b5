//! Packets without end, and the counter that shows that a program has met one.

use anyhow::{Context as _, Result};
use proxy_common::{Counter, Verdict};
use proxy_user::datapath::pins::Pins;
use proxy_user::datapath::readings::counters;
use socket2::SockRef;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use xtask::cluster::Namespace;

/// Between two packets.
const INTERVAL: Duration = Duration::from_micros(200);
/// To all on the link: takes no route, no address and no neighbour, so what the device needs is to
/// be up. IPv6 would wait for the kernel's watch over carriers, sometimes for a second.
const TO: (Ipv4Addr, u16) = (Ipv4Addr::BROADCAST, 9);
/// What a packet counts as at ingress. The node itself sends no TCP and no UDP, so nothing that its
/// egress meets adds to it.
const COUNTER: Counter = Counter::Passed(Verdict::NotService);

/// Packets that programs have met.
pub(crate) struct Seen(Pins);

impl Seen {
    /// Of the agent that pins its maps there.
    pub(crate) fn open(bpffs: &Path) -> Result<Self> {
        let seen = Self(Pins::new(bpffs));
        seen.read()?;
        Ok(seen)
    }

    /// How many so far. Takes no lock that attaching holds.
    pub(crate) fn read(&self) -> Result<u64> {
        let counters = counters(&self.0)?;
        let found = counters.iter().find(|(counter, _)| *counter == COUNTER);
        Ok(found.context("there is no such counter")?.1)
    }
}

/// Sends packets through the device of this name, from when it is up, as long as the work takes.
pub(crate) fn during<T>(
    place: &Namespace,
    device: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| place.run(|| send(device, &is_done))?);
        let result = work();
        is_done.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap_or_else(|panic| resume_unwind(panic));
        let value = result?;
        sent.context("sending packets")?;
        Ok(value)
    })
}

fn send(device: &str, is_done: &AtomicBool) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_broadcast(true)?;
    let bind = || SockRef::from(&socket).bind_device(Some(device.as_bytes()));
    let mut is_bound = false;
    while !is_done.load(Ordering::Relaxed) {
        is_bound = is_bound || bind().is_ok();
        if is_bound {
            // The device may not be up yet.
            let _ = socket.send_to(b"ferrule", TO);
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}
