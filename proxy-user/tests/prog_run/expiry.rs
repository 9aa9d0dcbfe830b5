//! The end of flows, in the kernel's tables.

use crate::loaded::Loaded;
use proxy_common::{
    AddrV4, Address, BackendRef, Flow, FlowRole, FrontendKind, Hook, Locality, Port, Proto, Table,
    Ticks, Tuple, Unused,
};
use proxy_ebpf::testing::{World, run_hook, udp};
use proxy_user::flows::Timeouts;
use std::net::Ipv4Addr;

/// A masked flow to a backend on another node: four rows.
fn masked() -> World {
    let backend = [("10.244.2.6:53", Locality::Remote)];
    let frontend = "172.31.1.2:30053";
    let mut world =
        World::default().service(Proto::Udp, frontend, FrontendKind::NodePort, &backend);
    let ask = udp("192.0.2.10:20000", frontend).build();
    let (_, between) = run_hook(&mut world, Hook::Ingress, &ask);
    let (fate, _) = run_hook(&mut world, Hook::Egress, &between);
    fate.expect("it is masked");
    world
}

fn of_role(world: &World, role: FlowRole) -> Unused<AddrV4> {
    let mut rows = world.v4.half_open.iter();
    let row = rows.find(|(_, row)| row.has_role(role));
    let (key, row) = row.expect("there is one");
    Unused {
        key: *key,
        seen: row.last_seen,
        twin_seen: row.last_seen,
    }
}

fn use_again(world: &mut World, key: &Tuple<AddrV4>) {
    let row = world.v4.half_open.get_mut(key).expect("it is there");
    row.last_seen = Ticks::new(row.last_seen.number() + 1);
}

#[test]
fn flows_that_nobody_has_used_meanwhile_go_and_masks_after_them() {
    let mut loaded = Loaded::new("expiry");
    let mut world = masked();
    let [there, back, mask] =
        [FlowRole::Dnat, FlowRole::UnDnat, FlowRole::Snat].map(|role| of_role(&world, role));
    loaded.write_flows(&world);
    let mut expire = |world: &mut World, unused: &[Unused<AddrV4>], place: &str| {
        let removed = loaded.expire(world, Table::HalfOpen, unused);
        loaded.assert_flows(world, place);
        removed
    };
    assert_eq!(expire(&mut world, &[mask, back], "needed by others"), 0);
    assert_eq!(expire(&mut world, &[there, mask], "all of it"), 2);
    assert!(world.v4.half_open.is_empty());
}

#[test]
fn a_packet_between_reading_and_removing_keeps_a_flow() {
    let mut loaded = Loaded::new("expiry-race");
    for used in [FlowRole::Dnat, FlowRole::UnDnat] {
        let mut world = masked();
        let there = of_role(&world, FlowRole::Dnat);
        let key = of_role(&world, used).key;
        use_again(&mut world, &key);
        loaded.write_flows(&world);
        let removed = loaded.expire(&mut world, Table::HalfOpen, &[there]);
        assert_eq!(removed, 0, "{used:?}");
        loaded.assert_flows(&world, "used again");
    }
}

/// Short, or so long that nothing ends.
fn timeouts(ticks: u32) -> Timeouts {
    Timeouts {
        half_open: ticks,
        established: ticks,
        half_closed: ticks,
        closing: ticks,
        unanswered: ticks,
        answered: ticks,
    }
}

/// So many flows of two rows, last used at the start of the machine.
fn many(flows: u32) -> World {
    let mut world = World::default();
    let backend = BackendRef {
        id: 1,
        generation: 1,
    };
    for number in 0..flows {
        let host = |net: u8| AddrV4::new(Ipv4Addr::from((u32::from(net) << 24) + number));
        let client = (host(10), Port::new(20_000));
        let socket = |net| (host(net), Port::new(80));
        let from = Tuple::new(Proto::Tcp, client, socket(11));
        let to = Tuple::new(Proto::Tcp, client, socket(12));
        let start = Ticks::new(0);
        let there = Flow::new(FlowRole::Dnat, &to, (0, 0), backend, start);
        let back = Flow::reply(FlowRole::UnDnat, &from, (0, 0), backend, start);
        world.v4.flows.insert(from, there);
        world.v4.flows.insert(to.reversed(), back);
    }
    world
}

#[test]
fn a_sweep_counts_many_flows_and_removes_them_when_they_have_ended() {
    const FLOWS: u32 = 20_000;
    let mut loaded = Loaded::new("expiry-many");
    loaded.write_flows(&many(FLOWS));
    let (mut sweep, reports) = loaded.sweep(timeouts(u32::MAX));
    // A pass over a table that is more than half full takes several slices.
    (0..10).for_each(|_| sweep.step());
    let report = reports.borrow().clone();
    let confirmed = &report.tables[0];
    assert_eq!(confirmed.map, "FLOWS_V4");
    assert_eq!(confirmed.counts.established, u64::from(FLOWS));
    assert_eq!(confirmed.counts.rows, u64::from(FLOWS) * 2);
    assert_eq!(report.removed, 0);
    let (mut sweep, reports) = loaded.sweep(timeouts(1));
    (0..10).for_each(|_| sweep.step());
    assert_eq!(reports.borrow().removed, u64::from(FLOWS));
    loaded.assert_flows(&World::default(), "after the sweep");
}
