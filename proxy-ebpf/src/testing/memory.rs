//! The library's kernel in memory, and the fixture runner of the host.

use crate::kernel::{Hop, Journey, Kernel, NextHop, NotInserted, Onward, Route, Services, Way};
use crate::lane::Lane;
use crate::open::Plan;
use crate::service::Origin;
use crate::testing::{Fixture, MemoryPacket, Step, World};
use crate::{Fate, pipeline};
use bytemuck::Zeroable;
use proxy_common::{
    AddrV4, AddrV6, Address, Affinity, AffinityKey, Backend, BackendRef, Device, Flow, FragmentKey,
    FragmentPorts, Frontend, FrontendKey, Hook, NodeConfig, Port, Proto, Refusals, ServiceWord,
    SourceRange, Table, Ticks, Tuple,
};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;

macro_rules! kernel_in_memory {
    ($addr:ty, $tables:ident) => {
        impl Services<$addr> for World {
            fn frontend(&self, key: &FrontendKey<$addr>) -> Option<&Frontend> {
                self.$tables.frontends.get(key)
            }

            fn backend(&self, id: u32) -> Option<&Backend<$addr>> {
                self.$tables.backends.get(&id)
            }

            fn service(&self, id: u32) -> ServiceWord {
                self.services.get(&id).copied().unwrap_or(ServiceWord::NONE)
            }

            fn slot(&self, index: u32) -> Option<u32> {
                self.slots.get(&index).copied()
            }

            fn may_be_dialled(&self, address: &$addr) -> bool {
                let mut keys = self.$tables.frontends.keys();
                keys.any(|key| key.address == *address)
            }

            fn config(&self) -> Option<&NodeConfig> {
                Some(&self.config)
            }

            fn device(&self, index: u32) -> Option<&Device> {
                self.devices.get(&index)
            }

            fn is_in_set(&self, set: u32, address: &$addr) -> bool {
                let mut ranges = self.$tables.source_ranges.iter();
                ranges.any(|(length, range)| {
                    let bits = 8 * size_of::<$addr>() as u32;
                    let apart = bits - (length - SourceRange::<$addr>::SET_BITS);
                    range.set == set && same_prefix(&range.address, address, apart)
                })
            }

            fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
                self.affinities.borrow().get(key).copied()
            }

            fn put_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
                self.affinities.borrow_mut().insert(*key, *affinity);
            }

            fn now(&self) -> Ticks {
                self.now
            }

            fn random(&self) -> u32 {
                xorshift(&self.entropy)
            }
        }

        impl Kernel<$addr> for World {
            fn may_have_flow(&self, hook: Hook, tuple: &Tuple<$addr>) -> bool {
                let tables = [Table::Confirmed, Table::HalfOpen].into_iter();
                let rows = tables.flat_map(|table| self.$tables.rows(table));
                let mut rows = rows.filter(|(_, row)| row.is_found_at(hook));
                rows.any(|(key, _)| (key.src, key.dst) == (tuple.src, tuple.dst))
            }

            fn flow(&self, table: Table, tuple: &Tuple<$addr>) -> Option<&Flow<$addr>> {
                self.$tables.rows(table).get(tuple)
            }

            fn flow_mut(&mut self, table: Table, tuple: &Tuple<$addr>) -> Option<&mut Flow<$addr>> {
                self.$tables.rows_mut(table).get_mut(tuple)
            }

            fn insert_flow(
                &mut self,
                table: Table,
                tuple: &Tuple<$addr>,
                flow: &Flow<$addr>,
            ) -> Result<(), NotInserted> {
                if self.$tables.rows(table).contains_key(tuple) {
                    return Err(NotInserted::Exists);
                }
                self.replace_flow(table, tuple, flow)
            }

            fn replace_flow(
                &mut self,
                table: Table,
                tuple: &Tuple<$addr>,
                flow: &Flow<$addr>,
            ) -> Result<(), NotInserted> {
                let capacity = self.flow_capacity;
                put(self.$tables.rows_mut(table), capacity, tuple, flow)
            }

            fn confirm_flow(&mut self, tuple: &Tuple<$addr>) -> Result<(), NotInserted> {
                let Some(row) = self.$tables.half_open.get(tuple).copied() else {
                    return match self.flow(Table::Confirmed, tuple) {
                        Some(_) => Ok(()),
                        None => Err(NotInserted::Full),
                    };
                };
                match self.insert_flow(Table::Confirmed, tuple, &row) {
                    Ok(()) | Err(NotInserted::Exists) => Ok(()),
                    Err(NotInserted::Full) => Err(NotInserted::Full),
                }
            }

            fn remove_flow(&mut self, table: Table, tuple: &Tuple<$addr>) {
                self.$tables.rows_mut(table).remove(tuple);
            }

            fn fragment(&self, key: &FragmentKey<$addr>) -> Option<FragmentPorts> {
                self.$tables.fragments.get(key).copied()
            }

            fn put_fragment(&mut self, key: &FragmentKey<$addr>, ports: &FragmentPorts) {
                self.$tables.fragments.insert(*key, *ports);
            }

            fn refusals(&self, client: $addr) -> Option<Refusals> {
                self.$tables.refusals.get(&client).copied()
            }

            fn put_refusals(&mut self, client: $addr, refusals: &Refusals) {
                self.$tables.refusals.insert(client, *refusals);
            }

            fn cursor(&self, index: u32) -> u32 {
                self.cursors.get(&index).copied().unwrap_or(0)
            }

            fn put_cursor(&mut self, index: u32, cursor: u32) {
                self.cursors.insert(index, cursor);
            }

            fn with_plan<R>(
                &mut self,
                work: impl FnOnce(&mut Self, &mut Plan<$addr>) -> R,
            ) -> Option<R> {
                // Whatever an earlier one has left must not matter.
                let nonsense = (Zeroable::zeroed(), Port::new(1));
                let mut plan = Plan {
                    to: Tuple::new(Proto::Udp, nonsense, nonsense),
                    address_delta: 1,
                    backend: BackendRef {
                        id: 1,
                        generation: 1,
                    },
                    origin: Origin::POD,
                    masked: true,
                    is_spared: true,
                    renews: true,
                    is_host: true,
                    displaces: true,
                    device: 7,
                    is_fast: true,
                    comes_by: 7,
                    leaves_by: 7,
                };
                Some(work(self, &mut plan))
            }

            /// As in a network namespace without routes.
            fn route(&self, _src: Option<&$addr>, _dst: &$addr, _device: u32) -> Route<$addr> {
                Route {
                    way: Way::Nowhere,
                    device: 0,
                    src: Zeroable::zeroed(),
                }
            }

            fn has_fast_lane(&self) -> bool {
                true
            }

            fn find_hop(&self, journey: &Journey<$addr>) -> Hop {
                let found = self.$tables.hops.get(journey.dst);
                self.next_hop.set(found.map(|(_, next)| *next));
                let onward = found.map_or(Onward::No, |(onward, _)| *onward);
                let device = found.map_or(0, |(_, next)| next.device);
                Hop { onward, device }
            }

            fn found_hop(&self) -> Option<NextHop> {
                self.next_hop.get()
            }

            fn lane(&self) -> Option<&Cell<Lane>> {
                Some(&self.lane)
            }

            fn has_socket(&self, _tuple: &Tuple<$addr>) -> bool {
                false
            }

            fn decided(&self, _tuple: &Tuple<$addr>, _fate: Fate) {}
        }
    };
}

kernel_in_memory!(AddrV4, v4);
kernel_in_memory!(AddrV6, v6);

/// Whether two addresses are the same but for their last bits.
fn same_prefix<A: Address>(one: &A, other: &A, last: u32) -> bool {
    let bits = |address: &A| match address.ip() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    (bits(one) ^ bits(other)).checked_shr(last).unwrap_or(0) == 0
}

fn put<A: Ord + Copy>(
    rows: &mut BTreeMap<Tuple<A>, Flow<A>>,
    capacity: usize,
    tuple: &Tuple<A>,
    flow: &Flow<A>,
) -> Result<(), NotInserted> {
    if rows.len() >= capacity && !rows.contains_key(tuple) {
        return Err(NotInserted::Full);
    }
    rows.insert(*tuple, *flow);
    Ok(())
}

/// Marsaglia's generator: the same numbers in every run.
fn xorshift(state: &Cell<u32>) -> u32 {
    let mut word = state.get();
    word ^= word << 13;
    word ^= word >> 17;
    word ^= word << 5;
    state.set(word);
    word
}

/// Runs the program of a hook on a packet.
pub fn run_hook(world: &mut World, hook: Hook, bytes: &[u8]) -> (Fate, Vec<u8>) {
    let mut packet = MemoryPacket::new(bytes);
    let fate = match hook {
        Hook::Ingress => pipeline::ingress(&mut packet, world),
        Hook::Egress => pipeline::egress(&mut packet, world),
    };
    (fate, packet.bytes)
}

/// Runs a fixture in memory and returns the maps as it leaves them.
///
/// # Panics
/// When a step does not go as the fixture says.
pub fn run_fixture(fixture: &Fixture) -> World {
    let mut world = fixture.world.clone();
    for (number, step) in fixture.steps.iter().enumerate() {
        match step {
            Step::Change(change) => change(&mut world),
            Step::Packet {
                hook,
                input,
                fate,
                output,
            } => {
                let (actual, bytes) = run_hook(&mut world, *hook, input);
                let place = format!("{}, step {number}", fixture.name);
                assert_eq!(actual, *fate, "{place}");
                if fate.is_ok() {
                    assert_eq!(bytes, *output, "{place}: bytes");
                }
            }
        }
    }
    world
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DropReason;
    use crate::testing::{fixtures, tcp, udp};
    use proptest::prelude::*;
    use proxy_common::{FrontendKind, Locality, Proto, Verdict};

    #[test]
    fn every_fixture_holds_in_memory() {
        for fixture in fixtures() {
            run_fixture(&fixture);
        }
    }

    fn open_world() -> World {
        let backends = [
            ("10.244.1.5:8080", Locality::Local),
            ("10.244.2.6:8080", Locality::Remote),
        ];
        World::default()
            .service(
                Proto::Tcp,
                "10.96.0.10:80",
                FrontendKind::ClusterIp,
                &backends,
            )
            .service(
                Proto::Udp,
                "172.31.1.2:30053",
                FrontendKind::NodePort,
                &backends,
            )
    }

    #[test]
    fn a_full_flow_table_drops_first_packets_and_no_others() {
        let mut world = open_world();
        let first = tcp("10.244.1.9:40000", "10.96.0.10:80").syn().build();
        assert_eq!(
            run_hook(&mut world, Hook::Ingress, &first).0,
            Ok(Verdict::Created)
        );
        world.flow_capacity = world.v4.half_open.len();
        let later = tcp("10.244.1.9:40000", "10.96.0.10:80").build();
        assert_eq!(
            run_hook(&mut world, Hook::Ingress, &later).0,
            Ok(Verdict::Established)
        );
        let second = tcp("10.244.1.9:40001", "10.96.0.10:80").syn().build();
        let fate = run_hook(&mut world, Hook::Ingress, &second).0;
        assert_eq!(fate, Err(DropReason::FlowTableFull));
    }

    #[test]
    fn a_range_of_ports_runs_out_towards_one_backend() {
        let backends = [("10.244.2.6:53", Locality::Remote)];
        let world = World::default().with_snat_port(2000);
        let mut world = world.service(
            Proto::Udp,
            "172.31.1.2:30053",
            FrontendKind::NodePort,
            &backends,
        );
        let ask = |port: u16| udp(&format!("192.0.2.10:{port}"), "172.31.1.2:30053").build();
        let (_, between) = run_hook(&mut world, Hook::Ingress, &ask(40000));
        assert_eq!(
            run_hook(&mut world, Hook::Egress, &between).0,
            Ok(Verdict::Masked)
        );
        let (_, between) = run_hook(&mut world, Hook::Ingress, &ask(40001));
        let fate = run_hook(&mut world, Hook::Egress, &between).0;
        assert_eq!(fate, Err(DropReason::PortsExhausted));
    }

    #[test]
    fn backends_share_new_flows_evenly() {
        let mut world = open_world();
        for port in 10_000..14_000 {
            let first = tcp(&format!("10.244.1.9:{port}"), "10.96.0.10:80")
                .syn()
                .build();
            assert_eq!(
                run_hook(&mut world, Hook::Ingress, &first).0,
                Ok(Verdict::Created)
            );
        }
        let chosen = |id: u32| {
            world
                .v4
                .half_open
                .values()
                .filter(|flow| flow.backend.id == id)
                .count()
        };
        // Two rows a flow; 4,000 flows: the standard deviation is 32 flows.
        assert!(
            (1800..2200).contains(&(chosen(16) / 2)),
            "{}",
            chosen(16) / 2
        );
        assert_eq!(chosen(16) + chosen(17), 8000);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut world = open_world();
            for hook in [Hook::Ingress, Hook::Egress] {
                let (fate, output) = run_hook(&mut world, hook, &bytes);
                prop_assert!(fate.is_ok());
                prop_assert_eq!(output, bytes.clone());
            }
        }

        #[test]
        fn a_damaged_packet_keeps_its_length(
            position in 0usize..61,
            value in any::<u8>(),
            length in 0usize..62,
        ) {
            let mut bytes = tcp("10.244.1.9:40000", "10.96.0.10:80").syn().build();
            bytes[position] = value;
            bytes.truncate(length);
            let (_, output) = run_hook(&mut open_world(), Hook::Ingress, &bytes);
            prop_assert_eq!(output.len(), bytes.len());
        }

        #[test]
        fn a_reply_undoes_what_the_request_went_through(
            port in 1u16..,
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut world = open_world();
            let client = format!("192.0.2.10:{port}");
            let ask = udp(&client, "172.31.1.2:30053").payload(&payload).build();
            let (fate, between) = run_hook(&mut world, Hook::Ingress, &ask);
            prop_assert_eq!(fate, Ok(Verdict::Created));
            let (fate, outside) = run_hook(&mut world, Hook::Egress, &between);
            prop_assert!(fate.is_ok());
            let (src, dst) = sockets_of(&outside);
            let reply = udp(&dst, &src).payload(&payload).build();
            let (_, between) = run_hook(&mut world, Hook::Ingress, &reply);
            let (fate, back) = run_hook(&mut world, Hook::Egress, &between);
            prop_assert_eq!(fate, Ok(Verdict::Established));
            prop_assert_eq!(back, udp("172.31.1.2:30053", &client).payload(&payload).build());
        }
    }

    fn sockets_of(packet: &[u8]) -> (String, String) {
        let address = |at: usize| {
            std::net::Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
        };
        let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        (
            format!("{}:{}", address(26), port(34)),
            format!("{}:{}", address(30), port(36)),
        )
    }
}
