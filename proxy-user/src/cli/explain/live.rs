//! This node as it is: its maps, its addresses, and its agent for names.

use crate::agent::ask_name;
use crate::config::Place;
use crate::datapath::content::Content;
use crate::datapath::devices::local_addresses;
use crate::datapath::pins::Pins;
use crate::explain::{Answer, Maps, Name, Names, Query, explain};
use crate::frontend::LocalAddresses;
use crate::sync::At;
use anyhow::{Context as _, Result, bail};
use nix::net::if_::if_nametoindex;
use proxy_common::DropReason;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What was read is good for so long: batches can go on for hours.
const FRESH: Duration = Duration::from_secs(1);
/// Maps that are written while they are read may not fit together; then they are read again, so often.
const TRIES: usize = 5;

/// The node.
pub(super) struct Live {
    place: Place,
    maps: Maps,
    own: LocalAddresses,
    read: Instant,
}

impl Live {
    /// Reads the maps that are pinned.
    ///
    /// # Errors
    /// There are none, or they can't be read.
    pub(super) fn open(place: &Place) -> Result<Self> {
        let pins = Pins::new(&place.bpffs);
        if !pins.map("CONFIG").exists() {
            bail!(
                "no maps in {}: no agent has run here (--manifests asks about objects in a folder)",
                pins.root().display()
            );
        }
        Ok(Self {
            place: place.clone(),
            maps: Maps::new(Content::read(&pins)?),
            own: own_addresses()?,
            read: Instant::now(),
        })
    }

    /// Answers a query.
    ///
    /// # Errors
    /// The maps can't be read any more; there is no such device.
    pub(super) fn explain(&mut self, query: &Query) -> Result<Answer> {
        let device = match &query.device {
            Some(name) => if_nametoindex(name.as_str()).with_context(|| format!("iif: {name}"))?,
            None => 0,
        };
        if self.read.elapsed() > FRESH {
            *self = Self::open(&self.place)?;
        }
        for _ in 1..TRIES {
            let answer = self.answer(query, device);
            if answer.reason != DropReason::ServiceTorn.name() {
                return Ok(answer);
            }
            *self = Self::open(&self.place)?;
        }
        Ok(self.answer(query, device))
    }

    fn answer(&self, query: &Query, device: u32) -> Answer {
        let from = query.from.ip();
        let is_own = from.is_loopback() || self.own.contains_key(&from);
        let mut agent = Agent(self.place.run_dir.clone());
        explain(query, &self.maps, device, is_own, &mut agent)
    }
}

fn own_addresses() -> Result<LocalAddresses> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting tokio")?;
    runtime.block_on(local_addresses())
}

/// The agent of this run folder, if one runs.
struct Agent(PathBuf);

impl Names for Agent {
    /// Without its name a Service can still be explained.
    fn name_at(&mut self, at: &At) -> Name {
        match ask_name(&self.0, at) {
            Ok(Some(Some(name))) => Name::Known(name),
            Ok(Some(None)) => Name::Unnamed,
            Ok(None) | Err(_) => Name::NobodyToAsk,
        }
    }
}
