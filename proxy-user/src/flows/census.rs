//! How many flows there are, and how many ports they take.

use super::state::State;
use proxy_common::{Address, Flow, FlowRole, Port, Proto, Table, Tuple};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Flows of one table, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// TCP: the client has not answered an answer yet.
    pub half_open: u64,
    /// TCP: both have.
    pub established: u64,
    /// TCP: one side has closed.
    pub half_closed: u64,
    /// TCP: both have, or one has given it up.
    pub closing: u64,
    /// UDP: nothing has come back.
    pub unanswered: u64,
    /// UDP: something has.
    pub answered: u64,
    /// Of all these, flows for which this node stands in.
    pub masked: u64,
    /// Rows, two or four for a flow.
    pub rows: u64,
}

impl Counts {
    fn add(&mut self, state: State) {
        let count = match state {
            State::HalfOpen => &mut self.half_open,
            State::Established => &mut self.established,
            State::HalfClosed => &mut self.half_closed,
            State::Closing => &mut self.closing,
            State::Unanswered => &mut self.unanswered,
            State::Answered => &mut self.answered,
        };
        *count += 1;
    }
}

/// The destination towards which most source ports of masked flows are in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busiest {
    /// The backend's address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: String,
    /// The address that masks these flows.
    pub masked_as: IpAddr,
    /// Ports in use.
    pub used: u32,
    /// Ports of the range.
    pub of: u32,
}

impl Busiest {
    /// Whether exhaustion is near.
    pub const fn is_scarce(&self) -> bool {
        self.used as u64 * 5 > self.of as u64 * 4
    }
}

/// What the last pass over the flow tables has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowReport {
    /// One for each table, once it has been read to its end.
    pub tables: Vec<TableReport>,
    /// One at most for each family.
    pub busiest: Vec<Busiest>,
    /// Flows removed since the agent started: two for a masked one.
    pub removed: u64,
}

/// The flows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// Its name in the kernel.
    pub map: String,
    /// How many.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Counts the rows of a family's tables as they go by.
#[derive(Clone, Debug)]
pub struct Census<A> {
    confirmed: Counts,
    half_open: Counts,
    /// Masked flows by what their answers have in common: all but the port of this node.
    ports: HashMap<Tuple<A>, u32>,
}

impl<A> Default for Census<A> {
    fn default() -> Self {
        Self {
            confirmed: Counts::default(),
            half_open: Counts::default(),
            ports: HashMap::new(),
        }
    }
}

impl<A: Address + std::hash::Hash> Census<A> {
    /// Counts a row; `range` has the source ports of masked flows.
    pub fn count(
        &mut self,
        table: Table,
        key: &Tuple<A>,
        row: &Flow<A>,
        range: &RangeInclusive<u16>,
    ) {
        let counts = match table {
            Table::Confirmed => &mut self.confirmed,
            Table::HalfOpen => &mut self.half_open,
        };
        counts.rows += 1;
        match row.role() {
            Some(FlowRole::Dnat) => counts.add(State::of(table, key, row, None)),
            Some(FlowRole::HostDnat) => {
                counts.add(State::of(table, key, row, None));
                counts.masked += 1;
            }
            Some(FlowRole::Snat | FlowRole::SnatPending) => counts.masked += 1,
            Some(FlowRole::UnSnat | FlowRole::HostUnDnat) => self.count_port(key, row, range),
            Some(FlowRole::UnDnat) | None => {}
        }
    }

    /// A port is free again as soon as its connection has begun to end.
    fn count_port(&mut self, key: &Tuple<A>, row: &Flow<A>, range: &RangeInclusive<u16>) {
        if row.is_closing() || !range.contains(&key.dport.number()) {
            return;
        }
        let mut destination = *key;
        destination.dport = Port::new(0);
        *self.ports.entry(destination).or_default() += 1;
    }

    /// The flows of a table.
    pub const fn counts(&self, table: Table) -> Counts {
        match table {
            Table::Confirmed => self.confirmed,
            Table::HalfOpen => self.half_open,
        }
    }

    /// Where ports are scarcest, of a range of so many.
    pub fn busiest(&self, of: u32) -> Option<Busiest> {
        let most = self.ports.iter().max_by_key(|(key, used)| (**used, **key));
        let (key, used) = most?;
        Some(Busiest {
            address: key.src.ip(),
            port: key.sport.number(),
            protocol: key.proto().map_or("", Proto::name).to_owned(),
            masked_as: key.dst.ip(),
            used: *used,
            of,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::judge::tests::{pair, socket};
    use proxy_common::{AddrV4, Mark};

    const RANGE: RangeInclusive<u16> = 1..=10;

    fn count(census: &mut Census<AddrV4>, rows: &[(Tuple<AddrV4>, Flow<AddrV4>)]) {
        for (key, row) in rows {
            census.count(Table::Confirmed, key, row, &RANGE);
        }
    }

    #[test]
    fn a_masked_flow_counts_once() {
        let mut census = Census::default();
        let dnat = [FlowRole::Dnat, FlowRole::UnDnat];
        let snat = [FlowRole::Snat, FlowRole::UnSnat];
        count(&mut census, &pair(Proto::Tcp, dnat, [1, 2], [1, 3]));
        count(&mut census, &pair(Proto::Tcp, snat, [1, 3], [4, 3]));
        let expected = Counts {
            established: 1,
            masked: 1,
            rows: 4,
            ..Counts::default()
        };
        assert_eq!(census.counts(Table::Confirmed), expected);
        assert_eq!(census.counts(Table::HalfOpen), Counts::default());
    }

    #[test]
    fn the_destination_with_fewest_ports_left_is_told() {
        let mut census = Census::default();
        assert_eq!(census.busiest(10), None);
        let snat = [FlowRole::Snat, FlowRole::UnSnat];
        for client in 1..=3 {
            let mut rows = pair(Proto::Udp, snat, [20 + client, 3], [4, 3]);
            // Another port of the same node.
            rows[1].0.dport = Port::new(client.into());
            count(&mut census, &rows);
        }
        count(&mut census, &pair(Proto::Udp, snat, [1, 9], [4, 9]));
        let busiest = census.busiest(10).unwrap();
        assert_eq!((busiest.address, busiest.port), (socket(3).0.ip(), 3));
        assert_eq!((busiest.used, busiest.of), (3, 10));
        assert_eq!(busiest.protocol, "UDP");
        assert!(!busiest.is_scarce());
    }

    #[test]
    fn ports_of_ended_connections_and_outside_of_the_range_do_not_count() {
        let mut census = Census::default();
        let snat = [FlowRole::Snat, FlowRole::UnSnat];
        let mut ended = pair(Proto::Tcp, snat, [1, 3], [4, 3]);
        ended[1].1.mark(Mark::Fin);
        count(&mut census, &ended);
        count(&mut census, &pair(Proto::Tcp, snat, [1, 3], [40, 3]));
        assert_eq!(census.busiest(10), None);
    }
}
