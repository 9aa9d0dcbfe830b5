//! Whether a new flow takes the fast lane.

use super::{Lane, Rest, exit, fast_device, hop, is_dying, is_ours, is_plain};
use crate::family::Family;
use crate::kernel::{Journey, Kernel, Onward};
use crate::open::Plan;
use crate::packet::Hooked;
use crate::parse::Headers;
use crate::service;
use proxy_common::{Device, Proto, Tuple};

/// Decides whether a new flow passes the stack by; then [`super::leave`] knows the way of its first packet.
#[inline(always)]
pub fn choose<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &P,
    kernel: &K,
    headers: &Headers<A>,
    plan: &mut Plan<A>,
) {
    // What comes again goes as before.
    let may_be_fast = !plan.renews || plan.is_fast;
    plan.is_fast = false;
    let is_judged = !is_plain::<A, P>(headers) || is_dying::<A, P>(packet);
    if kernel.has_fast_lane() && may_be_fast && !is_judged {
        plan.is_fast = is_open(packet, kernel, &headers.tuple, plan);
    }
}

/// A function of its own to the verifier too: the stack it needs is needed for this call only.
#[inline(never)]
fn is_open<A: Family, P: Hooked, K: Kernel<A>>(
    packet: &P,
    kernel: &K,
    original: &Tuple<A>,
    plan: &mut Plan<A>,
) -> bool {
    let (Some(lane), Some(arrival)) = (kernel.lane(), fast_device(kernel, packet.device())) else {
        return false;
    };
    lane.set(Lane::Stack);
    if is_ours(packet, arrival)
        && keeps_addresses(kernel, original, plan)
        && leads_back(kernel, original, plan, arrival)
    {
        lane.set(lead::<A, P, K>(kernel, original, plan, arrival));
    }
    lane.get() != Lane::Stack
}

/// Whether answers go by the device that the client is at, all that may come by the widest device.
#[inline(always)]
fn leads_back<A: Family, K: Kernel<A>>(
    kernel: &K,
    original: &Tuple<A>,
    plan: &Plan<A>,
    arrival: &Device,
) -> bool {
    let there = hop(kernel, &first_journey(original, plan, arrival));
    let Some(departure) = fast_device(kernel, there.device) else {
        return false;
    };
    let journey = Journey {
        src: &plan.to.dst,
        dst: &original.src,
        device: there.device,
        length: departure.mtu,
    };
    let back = hop(kernel, &journey);
    is_clear(back.onward, arrival) && back.device == arrival.routed_as
}

/// How the first packet leaves. The plan remembers between which devices.
#[inline(always)]
fn lead<A: Family, P: Hooked, K: Kernel<A>>(
    kernel: &K,
    original: &Tuple<A>,
    plan: &mut Plan<A>,
    arrival: &Device,
) -> Lane {
    let there = hop(kernel, &first_journey(original, plan, arrival));
    // Back where it has come from: there client and backend may see each other, and answers pass this node by.
    let turns_round = there.device == arrival.routed_as && !plan.masked;
    let rest = if plan.masked {
        Rest::Source
    } else {
        Rest::Nothing
    };
    match fast_device(kernel, there.device) {
        Some(departure) if is_clear(there.onward, departure) && !turns_round => {
            plan.comes_by = arrival.routed_as;
            plan.leaves_by = there.device;
            exit::<P>(there.onward, departure, rest)
        }
        _ => Lane::Stack,
    }
}

/// That of a first packet; as long as any that may come by the device.
#[inline(always)]
fn first_journey<'a, A>(
    original: &'a Tuple<A>,
    plan: &'a Plan<A>,
    arrival: &Device,
) -> Journey<'a, A> {
    Journey {
        src: &original.src,
        dst: &plan.to.dst,
        device: arrival.routed_as,
        length: arrival.mtu,
    }
}

/// Whether a packet can go on at once. Where there are no Ethernet headers nobody is asked for an address.
#[inline(always)]
fn is_clear(onward: Onward, departure: &Device) -> bool {
    match onward {
        Onward::Known => true,
        Onward::Unknown => departure.is_bare(),
        Onward::TooLong | Onward::No => false,
    }
}

/// Whether nobody else would give the flow another source on its way out: CNI plugins do so for what is not from
/// pod to pod. What goes to a pod of this node comes back through it, whoever asks. But fragments of IPv6 are the
/// stack's, where an answer in fragments would be the first of its flow.
#[inline(always)]
fn keeps_addresses<A: Family, K: Kernel<A>>(
    kernel: &K,
    original: &Tuple<A>,
    plan: &Plan<A>,
) -> bool {
    let Some(config) = kernel.config() else {
        return false;
    };
    let cluster = A::of_node(config).cluster;
    let is_inside = cluster.contains(&original.src) && cluster.contains(&plan.to.dst);
    let is_here = || service::known(kernel, plan.backend).is_some_and(|it| it.is_local());
    let is_whole = !A::FRAGMENTS_BY_EXTENSION || original.proto_number() == Proto::Tcp as u32;
    let is_ours = || is_whole && (plan.masked || is_here());
    cluster.is_known() && (is_inside || is_ours())
}

#[cfg(test)]
mod tests {
    use crate::kernel::{Gateway, NextHop, Onward};
    use crate::testing::{World, run_hook, tcp};
    use crate::{Fate, Verdict};
    use bytemuck::Zeroable as _;
    use proxy_common::{
        AddrV4, Address as _, Device, DeviceTrait, DeviceTraits, FrontendKind, Hook, Locality,
        Mark, Proto,
    };

    /// Where the test's packets come in, and where what is not for the client goes.
    const ARRIVAL: u32 = 1;
    const DEPARTURE: u32 = 2;
    const POD: &str = "10.244.1.9";
    const OUTSIDE: &str = "192.0.2.10";
    const REMOTE: &str = "10.244.2.6";
    const CLUSTER_IP: &str = "10.96.0.10:80";

    fn device(index: u32) -> Device {
        Device {
            routed_as: index,
            mtu: 1500,
            traits: DeviceTraits::default().with(DeviceTrait::Fast, true),
            ..Device::zeroed()
        }
    }

    fn address(text: &str) -> AddrV4 {
        AddrV4::new(text.parse().expect("an address"))
    }

    fn to(onward: Onward, device: u32) -> (Onward, NextHop) {
        let gateway = Gateway::zeroed();
        let next = NextHop {
            device,
            gateway,
            macs: Default::default(),
        };
        (onward, next)
    }

    /// A Service with a remote backend; all that is wanted of the fast lane is there.
    fn world() -> World {
        let backends = [("10.244.2.6:8080", Locality::Remote)];
        let mut world =
            World::default().service(Proto::Tcp, CLUSTER_IP, FrontendKind::ClusterIp, &backends);
        world.devices = [ARRIVAL, DEPARTURE].map(|it| (it, device(it))).into();
        world.v4.hops = [
            (address(REMOTE), to(Onward::Known, DEPARTURE)),
            (address(POD), to(Onward::Known, ARRIVAL)),
            (address(OUTSIDE), to(Onward::Known, ARRIVAL)),
        ]
        .into();
        world
    }

    /// A SYN to the Service, in a frame for the device (whose address is all zeros), with this time to live.
    fn first(client: &str, hops: u8) -> Vec<u8> {
        let mut bytes = tcp(&format!("{client}:20000"), CLUSTER_IP).syn().build();
        bytes[..6].fill(0);
        bytes[22] = hops;
        bytes
    }

    /// What becomes of a packet, and whether its flow passes the stack by; then it has gone one hop.
    fn run(world: &mut World, packet: &[u8]) -> (Fate, bool) {
        let (fate, output) = run_hook(world, Hook::Ingress, packet);
        let mut rows = world.v4.half_open.values();
        let is_fast = rows.all(|row| row.has(Mark::Fast));
        // Rows with a device are else those of a process of this node.
        let mut rows = world.v4.half_open.values();
        assert!(rows.all(|row| (row.device != 0) == is_fast), "devices");
        assert_eq!(output[22] != packet[22], is_fast, "time to live");
        (fate, is_fast)
    }

    fn is_fast(world: &mut World, packet: &[u8]) -> bool {
        let (fate, is_fast) = run(world, packet);
        assert_eq!(fate, Ok(Verdict::Created));
        is_fast
    }

    #[test]
    fn a_flow_between_devices_of_the_lane_takes_it_and_goes_on() {
        let mut world = world();
        assert!(is_fast(&mut world, &first(POD, 64)));
        let mut later = tcp(&format!("{POD}:20000"), CLUSTER_IP).build();
        later[..6].fill(0);
        assert_eq!(run(&mut world, &later), (Ok(Verdict::Fast), true));
        // One that has been overheard is the stack's, and so is one at its end.
        later[0] = 2;
        let overheard = run_hook(&mut world, Hook::Ingress, &later);
        assert_eq!(
            (overheard.0, overheard.1[22]),
            (Ok(Verdict::Established), 64)
        );
        later[0] = 0;
        later[22] = 1;
        let dying = run_hook(&mut world, Hook::Ingress, &later);
        assert_eq!((dying.0, dying.1[22]), (Ok(Verdict::Established), 1));
    }

    #[test]
    fn what_the_stack_would_judge_or_answer_does_not() {
        assert!(!is_fast(&mut world(), &first(POD, 1)), "at its end");
        let mut overheard = first(POD, 64);
        overheard[0] = 2;
        assert!(!is_fast(&mut world(), &overheard), "of another host");
        let mut optional = tcp(&format!("{POD}:20000"), CLUSTER_IP).syn();
        optional = optional.options(&[1, 1, 1, 0]);
        let mut optional = optional.build();
        optional[..6].fill(0);
        assert!(!is_fast(&mut world(), &optional), "with options");
    }

    #[test]
    fn nor_does_a_flow_whose_way_is_not_clear_there_and_back() {
        for (peer, onward, device) in [
            (REMOTE, Onward::Unknown, DEPARTURE),
            (REMOTE, Onward::TooLong, DEPARTURE),
            (REMOTE, Onward::No, 0),
            (REMOTE, Onward::Known, ARRIVAL),
            (REMOTE, Onward::Known, 3),
            (POD, Onward::Unknown, ARRIVAL),
            (POD, Onward::TooLong, ARRIVAL),
            (POD, Onward::No, 0),
            (POD, Onward::Known, DEPARTURE),
        ] {
            let mut world = world();
            world.v4.hops.insert(address(peer), to(onward, device));
            let packet = first(POD, 64);
            assert!(!is_fast(&mut world, &packet), "{peer} {onward:?} {device}");
        }
        for index in [ARRIVAL, DEPARTURE] {
            let mut world = world();
            world.devices.get_mut(&index).expect("a device").traits = DeviceTraits::default();
            assert!(!is_fast(&mut world, &first(POD, 64)), "device {index}");
        }
    }

    #[test]
    fn a_masked_flow_may_go_back_where_it_has_come_from() {
        let mut world = world();
        let back = to(Onward::Known, ARRIVAL);
        world.v4.hops.insert(address(REMOTE), back);
        assert!(is_fast(&mut world, &first(OUTSIDE, 64)));
    }

    #[test]
    fn a_flow_that_others_would_masquerade_does_not() {
        let mut world = world();
        world.config.v4.cluster.mask = address("255.255.255.0");
        world.config.v4.cluster.address = address("10.244.1.0");
        assert!(
            !is_fast(&mut world, &first(POD, 64)),
            "to outside of the cluster"
        );
        world.v4.half_open.clear();
        world.config.v4.cluster.mask = address("0.0.0.0");
        assert!(
            !is_fast(&mut world, &first(POD, 64)),
            "without --cluster-cidr"
        );
    }

    #[test]
    fn a_first_segment_that_comes_again_goes_as_before() {
        let mut world = world();
        world
            .v4
            .hops
            .insert(address(REMOTE), to(Onward::Unknown, DEPARTURE));
        assert!(!is_fast(&mut world, &first(POD, 64)));
        world
            .v4
            .hops
            .insert(address(REMOTE), to(Onward::Known, DEPARTURE));
        assert!(!is_fast(&mut world, &first(POD, 64)), "known by now");
        world.v4.half_open.clear();
        assert!(is_fast(&mut world, &first(POD, 64)));
        assert!(is_fast(&mut world, &first(POD, 64)));
    }

    #[test]
    fn a_route_that_leads_out_of_the_lane_leads_through_the_stack() {
        let mut world = world();
        assert!(is_fast(&mut world, &first(POD, 64)));
        world.v4.hops.insert(address(REMOTE), to(Onward::Known, 3));
        let other = Device {
            traits: DeviceTraits::default(),
            ..device(3)
        };
        world.devices.insert(3, other);
        let mut later = tcp(&format!("{POD}:20000"), CLUSTER_IP).build();
        later[..6].fill(0);
        let (fate, output) = run_hook(&mut world, Hook::Ingress, &later);
        assert_eq!((fate, output[22]), (Ok(Verdict::Established), 64));
    }
}
