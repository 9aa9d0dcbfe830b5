//! The tc filters of a device, ours and others'.

use super::clsact::is_ours;
use crate::datapath::hook::Hook;
use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::{TcHandle, TcMessage};

/// The filters at both hooks of a clsact qdisc.
#[derive(Debug)]
pub struct Filters {
    ours: Vec<Hook>,
    foreign: bool,
}

impl Filters {
    /// Of the device with this index; none if it has no such qdisc.
    ///
    /// # Errors
    /// rtnetlink does not answer.
    pub async fn of(ifindex: u32) -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().context("opening rtnetlink")?;
        let connection = tokio::spawn(connection);
        let mut filters = Self {
            ours: Vec::new(),
            foreign: false,
        };
        for hook in Hook::ALL {
            let request = handle.traffic_filter(ifindex.cast_signed()).get();
            let request = match hook {
                Hook::Ingress => request.ingress(),
                Hook::Egress => request.egress(),
            };
            let messages: Vec<TcMessage> = request
                .execute()
                .try_collect()
                .await
                .context("listing filters")?;
            filters.add(hook, &messages);
        }
        connection.abort();
        Ok(filters)
    }

    /// The hooks at which there is one of ours.
    pub fn ours(&self) -> impl Iterator<Item = Hook> {
        self.ours.iter().copied()
    }

    /// Whether there are others' too.
    pub fn has_foreign(&self) -> bool {
        self.foreign
    }

    fn add(&mut self, hook: Hook, messages: &[TcMessage]) {
        // A message without a handle stands for the whole priority.
        let filters = messages
            .iter()
            .filter(|message| message.header.handle != TcHandle::UNSPEC);
        for message in filters {
            let priority = (message.header.info >> 16) as u16;
            if is_ours(hook, priority, message.header.handle) {
                self.ours.push(hook);
            } else {
                self.foreign = true;
            }
        }
    }
}
