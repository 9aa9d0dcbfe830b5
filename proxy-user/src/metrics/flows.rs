//! Flows by state, rows of the flow tables, and source ports of masked flows.

use super::sample::{NONE, counters, gauges};
use crate::datapath::pins::Pins;
use crate::datapath::readings;
use crate::flows::{Busiest, Counts, FlowReport, TableReport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use std::fmt::Result;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use tokio::sync::watch;

pub(super) fn register(
    registry: &mut Registry,
    pins: &Pins,
    reports: watch::Receiver<FlowReport>,
    snat_ports: &RangeInclusive<u16>,
) {
    let registry = registry.sub_registry_with_prefix("ferrule");
    registry.register_collector(Box::new(Flows {
        reports,
        capacities: readings::flow_capacities(pins),
        snat_ports: u32::try_from(snat_ports.len()).unwrap_or(u32::MAX),
    }));
}

#[derive(Debug)]
struct Flows {
    reports: watch::Receiver<FlowReport>,
    /// By name of the table.
    capacities: Vec<(&'static str, u32)>,
    snat_ports: u32,
}

impl Collector for Flows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        let report = self.reports.borrow().clone();
        let states = report.tables.iter().flat_map(by_state);
        let help = "Flows, as the last pass over the flow tables has found them";
        gauges(&mut encoder, "flows", help, states)?;
        let masked = report.tables.iter();
        let masked = masked.map(|it| ([("map", it.map.as_str())], it.counts.masked));
        gauges(
            &mut encoder,
            "flows_masked",
            "Of these, flows that this node stands in for",
            masked,
        )?;
        let rows = report.tables.iter();
        let rows = rows.map(|it| ([("map", it.map.as_str())], it.counts.rows));
        gauges(
            &mut encoder,
            "flow_table_entries",
            "Rows of the flow tables",
            rows,
        )?;
        let capacities = self
            .capacities
            .iter()
            .map(|(map, rows)| ([("map", *map)], *rows));
        gauges(
            &mut encoder,
            "flow_table_capacity",
            "Rows that fit",
            capacities,
        )?;
        let help = "Flows removed because they had ended; two for a masked one";
        counters(
            &mut encoder,
            "flows_removed",
            help,
            [(NONE, report.removed)],
        )?;
        self.encode_ports(&mut encoder, &report)
    }
}

impl Flows {
    fn encode_ports(&self, encoder: &mut DescriptorEncoder<'_>, report: &FlowReport) -> Result {
        let most = ["IPv4", "IPv6"].map(|family| {
            let busiest = report.busiest.iter().find(|it| family_of(it) == family);
            ([("ip_family", family)], busiest.map_or(0, |it| it.used))
        });
        let help = "Source ports of masked flows in use towards the busiest backend";
        gauges(encoder, "snat_ports_used", help, most)?;
        let help = "Source ports of masked flows still free towards it";
        let free = most.map(|(label, used)| (label, self.snat_ports.saturating_sub(used)));
        gauges(encoder, "snat_ports_free", help, free)
    }
}

fn family_of(busiest: &Busiest) -> &'static str {
    match busiest.address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

fn by_state(table: &TableReport) -> impl Iterator<Item = ([(&str, &str); 3], u64)> {
    let Counts {
        half_open,
        established,
        half_closed,
        closing,
        unanswered,
        answered,
        masked: _,
        rows: _,
    } = table.counts;
    let states = [
        ("TCP", "half-open", half_open),
        ("TCP", "established", established),
        ("TCP", "half-closed", half_closed),
        ("TCP", "closing", closing),
        ("UDP", "unanswered", unanswered),
        ("UDP", "answered", answered),
    ];
    states.into_iter().map(|(protocol, state, count)| {
        let map = table.map.as_str();
        (
            [("map", map), ("protocol", protocol), ("state", state)],
            count,
        )
    })
}
