//! The end of flows that nobody uses any more.
//!
//! The agent reads the tables and decides; a packet may come between that and the removal. So rows are
//! compared here once more, a moment before they go.

use crate::family::Family;
use crate::kernel::Kernel;
use crate::packet::Packet;
use bytemuck::Pod;
use proxy_common::{AddrV4, AddrV6, FlowRole, Request, Table, Tuple, Unused};

/// Removes what a request of the agent names, and returns how many of its flows are gone.
#[inline(always)]
pub fn remove_unused<P, K>(packet: &mut P, kernel: &mut K) -> u32
where
    P: Packet,
    K: Kernel<AddrV4> + Kernel<AddrV6>,
{
    packet.make_readable(offset::<AddrV6>(Request::MOST));
    let Some(request) = packet.load::<Request>(Request::OFFSET) else {
        return 0;
    };
    let Some(table) = request.table() else {
        return 0;
    };
    if request.is_of::<AddrV4>() {
        remove_all::<AddrV4, P, K>(packet, kernel, table, request.count())
    } else {
        remove_all::<AddrV6, P, K>(packet, kernel, table, request.count())
    }
}

/// Where an entry lies.
#[inline(always)]
const fn offset<A>(index: usize) -> usize {
    Request::ENTRIES + index * size_of::<Unused<A>>()
}

/// A function of its own to the verifier too: both families as one would be too much of a stack.
#[inline(never)]
fn remove_all<A: Family, P: Packet, K: Kernel<A>>(
    packet: &P,
    kernel: &mut K,
    table: Table,
    count: usize,
) -> u32
where
    Unused<A>: Pod,
{
    let mut removed = 0;
    for index in 0..Request::MOST {
        if index >= count {
            break;
        }
        let Some(unused) = packet.load(offset::<A>(index)) else {
            break;
        };
        removed += u32::from(remove(kernel, table, &unused));
    }
    removed
}

/// Removes a flow if no packet has found its rows since they were read: the way there first, so that no
/// packet is sent whose answer could not be translated.
#[inline(never)]
fn remove<A: Family, K: Kernel<A>>(kernel: &mut K, table: Table, unused: &Unused<A>) -> bool {
    let key = &unused.key;
    let Some(row) = kernel.flow(table, key) else {
        return false;
    };
    let twin = row.twin(key);
    if row.last_seen != unused.seen || row.masks() && is_needed(kernel, key) {
        return false;
    }
    let twin_seen = seen(kernel, table, &twin, key);
    if twin_seen == ALONE {
        kernel.remove_flow(table, key);
        return true;
    }
    if twin_seen != u64::from(unused.twin_seen.number()) {
        return false;
    }
    kernel.remove_flow(table, key);
    kernel.remove_flow(table, &twin);
    true
}

/// No time: there is no other row.
const ALONE: u64 = u64::MAX;
/// No time either: the row is a way back, and its way there needs it.
const NEEDED: u64 = u64::MAX - 1;

/// When a packet last found the way back that belongs to the row of `key`. A function of its own to the
/// verifier too, which forgets afterwards what has been compared.
#[inline(never)]
fn seen<A: Family, K: Kernel<A>>(kernel: &K, table: Table, twin: &Tuple<A>, key: &Tuple<A>) -> u64 {
    match kernel.flow(table, twin) {
        Some(row) if row.twin(twin) == *key => {
            if row.is_answer() {
                u64::from(row.last_seen.number())
            } else {
                NEEDED
            }
        }
        _ => ALONE,
    }
}

/// Whether there is a flow between the edges that still wants another source: its first packet may be
/// on its way from one to the other.
#[inline(never)]
fn is_needed<A: Family, K: Kernel<A>>(kernel: &K, between: &Tuple<A>) -> bool {
    let answer = between.reversed();
    let leads_back = |table| {
        let row = kernel.flow(table, &answer);
        row.is_some_and(|row| row.has_role(FlowRole::UnDnat))
    };
    leads_back(Table::Confirmed) || leads_back(Table::HalfOpen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MemoryPacket, World, run_hook, tcp, udp};
    use bytemuck::Zeroable as _;
    use proxy_common::{BackendRef, Flow, FrontendKind, Hook, Locality, Port, Proto, Ticks};

    fn request<A: Family>(table: Table, unused: &[Unused<A>]) -> MemoryPacket
    where
        Unused<A>: Pod,
    {
        let mut bytes = vec![0; Request::OFFSET];
        bytes.extend(bytemuck::bytes_of(&Request::new::<A>(table, unused.len())));
        bytes.extend(bytemuck::cast_slice::<_, u8>(unused));
        MemoryPacket::new(&bytes)
    }

    fn expire(world: &mut World, unused: &[Unused<AddrV4>]) -> u32 {
        remove_unused(&mut request(Table::HalfOpen, unused), world)
    }

    /// A masked flow to a backend on another node: four rows.
    fn masked() -> World {
        let backend = [("10.244.2.6:53", Locality::Remote)];
        let frontend = "172.31.1.2:30053";
        let mut world =
            World::default().service(Proto::Udp, frontend, FrontendKind::NodePort, &backend);
        let ask = udp("192.0.2.10:20000", frontend).build();
        let (_, between) = run_hook(&mut world, Hook::Ingress, &ask);
        run_hook(&mut world, Hook::Egress, &between)
            .0
            .expect("it is masked");
        assert_eq!(world.v4.half_open.len(), 4);
        world
    }

    fn of_role(world: &World, role: FlowRole) -> Unused<AddrV4> {
        let mut rows = world.v4.half_open.iter();
        let (key, row) = rows
            .find(|(_, row)| row.has_role(role))
            .expect("there is one");
        let twin_seen = world.v4.half_open.get(&row.twin(key));
        Unused {
            key: *key,
            seen: row.last_seen,
            twin_seen: twin_seen.map_or(Ticks::new(0), |row| row.last_seen),
        }
    }

    fn roles(world: &World) -> Vec<FlowRole> {
        let mut roles: Vec<_> = world.v4.half_open.values().flat_map(Flow::role).collect();
        roles.sort_unstable();
        roles
    }

    #[test]
    fn a_flow_goes_with_both_rows_and_its_mask_after_it() {
        let mut world = masked();
        let [there, mask] = [FlowRole::Dnat, FlowRole::Snat].map(|role| of_role(&world, role));
        assert_eq!(expire(&mut world, &[mask]), 0);
        assert_eq!(expire(&mut world, &[there]), 1);
        assert_eq!(roles(&world), [FlowRole::Snat, FlowRole::UnSnat]);
        assert_eq!(expire(&mut world, &[mask]), 1);
        assert!(world.v4.half_open.is_empty());
    }

    #[test]
    fn one_request_takes_several_flows_in_their_order() {
        let mut world = masked();
        let both = [FlowRole::Dnat, FlowRole::Snat].map(|role| of_role(&world, role));
        assert_eq!(expire(&mut world, &both), 2);
        assert!(world.v4.half_open.is_empty());
    }

    #[test]
    fn a_flow_of_which_either_row_has_been_used_stays() {
        for used in [FlowRole::Dnat, FlowRole::UnDnat] {
            let mut world = masked();
            let there = of_role(&world, FlowRole::Dnat);
            let key = of_role(&world, used).key;
            let row = world.v4.half_open.get_mut(&key).expect("it is there");
            row.last_seen = Ticks::new(row.last_seen.number() + 1);
            assert_eq!(expire(&mut world, &[there]), 0, "{used:?}");
            assert_eq!(world.v4.half_open.len(), 4, "{used:?}");
        }
    }

    #[test]
    fn a_way_back_goes_only_when_it_is_alone() {
        let mut world = masked();
        let back = of_role(&world, FlowRole::UnDnat);
        let there = of_role(&world, FlowRole::Dnat);
        assert_eq!(expire(&mut world, &[back]), 0);
        world.v4.half_open.remove(&there.key);
        assert_eq!(expire(&mut world, &[back]), 1);
        assert_eq!(roles(&world), [FlowRole::Snat, FlowRole::UnSnat]);
    }

    #[test]
    fn a_way_there_goes_without_a_way_back_that_belongs_to_another_flow() {
        let mut world = masked();
        let there = of_role(&world, FlowRole::Dnat);
        let back = of_role(&world, FlowRole::UnDnat);
        let row = world.v4.half_open.get_mut(&back.key).expect("it is there");
        row.dport = Port::new(1);
        assert_eq!(expire(&mut world, &[there]), 1);
        assert!(world.v4.half_open.contains_key(&back.key));
    }

    #[test]
    fn the_other_table_is_left_alone() {
        let mut world = masked();
        let there = of_role(&world, FlowRole::Dnat);
        let mut packet = request(Table::Confirmed, &[there]);
        assert_eq!(remove_unused(&mut packet, &mut world), 0);
        assert_eq!(world.v4.half_open.len(), 4);
    }

    #[test]
    fn both_families_are_understood() {
        let socket = |port| (AddrV6::zeroed(), Port::new(port));
        let key = Tuple::new(Proto::Tcp, socket(1), socket(2));
        let seen = Ticks::new(7);
        let row = Flow::new(FlowRole::Dnat, &key, (0, 0), BackendRef::zeroed(), seen);
        let mut world = World::default();
        world.v6.flows.insert(key, row);
        let twin_seen = Ticks::new(0);
        let unused = Unused {
            key,
            seen,
            twin_seen,
        };
        let mut packet = request(Table::Confirmed, &[unused]);
        assert_eq!(remove_unused(&mut packet, &mut world), 1);
        assert!(world.v6.flows.is_empty());
    }

    #[test]
    fn packets_that_are_no_requests_change_nothing() {
        let mut world = masked();
        for bytes in [
            Vec::new(),
            vec![0xff; 200],
            tcp("10.0.0.1:1", "10.0.0.2:2").build(),
        ] {
            assert_eq!(remove_unused(&mut MemoryPacket::new(&bytes), &mut world), 0);
        }
        assert_eq!(world.v4.half_open.len(), 4);
    }
}
