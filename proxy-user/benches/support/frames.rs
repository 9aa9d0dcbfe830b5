//! Packets without end, and the counter that shows that a program has met one.

use anyhow::{Context as _, Result};
use proxy_common::{Counter, Verdict};
use proxy_user::datapath::pins::Pins;
use proxy_user::datapath::readings::counters;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use xtask::cluster::Namespace;

/// Between two packets.
const INTERVAL: Duration = Duration::from_micros(200);
/// All neighbours: nobody has to be known for that, and nobody answers.
const TO: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const DISCARD: u16 = 9;
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

/// Sends packets through the device of this index, as long as the work takes.
pub(crate) fn during<T>(
    place: &Namespace,
    index: u32,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| place.run(|| send(index, &is_done))?);
        let result = work();
        is_done.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap_or_else(|panic| resume_unwind(panic));
        let value = result?;
        sent.context("sending packets")?;
        Ok(value)
    })
}

fn send(index: u32, is_done: &AtomicBool) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    let to = SocketAddrV6::new(TO, DISCARD, 0, index);
    while !is_done.load(Ordering::Relaxed) {
        // The device has no carrier while the other end moves.
        let _ = socket.send_to(b"ferrule", to);
        thread::sleep(INTERVAL);
    }
    Ok(())
}
