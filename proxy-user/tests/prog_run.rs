//! Ring 3: the fixture table in the kernel, agreeing byte for byte with the host; and what only the
//! kernel can show.

#[path = "prog_run/arrays.rs"]
mod arrays;
#[expect(
    dead_code,
    reason = "shared with the ring on the host, which asks for more"
)]
#[path = "conformance/cases.rs"]
mod cases;
#[path = "prog_run/conformance.rs"]
mod conformance;
#[path = "prog_run/expiry.rs"]
mod expiry;
#[path = "prog_run/loaded.rs"]
mod loaded;
#[path = "conformance/modes.rs"]
mod modes;
#[expect(dead_code, reason = "shared with ring 2, which uses all of it")]
#[path = "scenarios/runner.rs"]
mod runner;

use loaded::Loaded;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use proxy_common::{FrontendKind, Hook, Locality, Proto};
use proxy_ebpf::testing::{Step, World, fixtures, tcp, udp};
use proxy_ebpf::{Fate, Verdict};
use proxy_user::datapath::features::{Feature, Features};
use runner::{Run, Scenario, Trouble};
use std::collections::BTreeMap;

#[test]
fn every_fixture_holds_in_the_kernel() {
    let mut loaded = Loaded::new("fixtures");
    for fixture in fixtures() {
        let mut world = fixture.world.clone();
        loaded.clear_flows();
        loaded.write(&world);
        for (number, step) in fixture.steps.iter().enumerate() {
            let place = format!("{}, step {number}", fixture.name);
            match step {
                Step::Change(change) => {
                    change(&mut world);
                    loaded.write(&world);
                    loaded.write_flows(&world);
                }
                Step::Packet {
                    hook,
                    input,
                    fate,
                    output,
                } => {
                    let (actual, bytes) = loaded.run_both(&mut world, *hook, input);
                    assert_eq!(actual, *fate, "{place}");
                    assert!(fate.is_err() || bytes == *output, "{place}: {bytes:?}");
                }
            }
            loaded.assert_flows(&world, &place);
        }
    }
}

/// One backend each, so that nothing depends on random numbers.
fn deterministic_world() -> World {
    let local = [("10.244.1.5:8080", Locality::Local)];
    let remote = [("10.244.2.6:53", Locality::Remote)];
    let remote_v6 = [("[fd00:10:244:2::6]:8080", Locality::Remote)];
    World::default()
        .service(Proto::Tcp, "10.96.0.10:80", FrontendKind::ClusterIp, &local)
        .service(
            Proto::Udp,
            "172.31.1.2:30053",
            FrontendKind::NodePort,
            &remote,
        )
        .service(
            Proto::Tcp,
            "[fd00:172:31:1::2]:30080",
            FrontendKind::NodePort,
            &remote_v6,
        )
}

fn seeds() -> Vec<Vec<u8>> {
    vec![
        tcp("10.244.1.9:20000", "10.96.0.10:80").syn().build(),
        tcp("10.244.1.9:20000", "10.96.0.10:80").build(),
        udp("192.0.2.10:20000", "172.31.1.2:30053").build(),
        udp("192.0.2.10:20000", "10.244.2.6:53").build(),
        udp("10.244.2.6:53", "172.31.1.2:20000").build(),
        tcp("[2001:db8::10]:20000", "[fd00:172:31:1::2]:30080")
            .syn()
            .build(),
        tcp("[2001:db8::10]:20000", "[fd00:10:244:2::6]:8080").build(),
    ]
}

/// A seed with some bytes changed and perhaps its end cut off, at one of the hooks.
fn damaged() -> impl Strategy<Value = (Hook, Vec<u8>)> {
    let seed = prop::sample::select(seeds());
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = prop::option::weighted(0.3, any::<prop::sample::Index>());
    let hook = prop::sample::select(vec![Hook::Ingress, Hook::Egress]);
    (seed, changes, cut, hook).prop_map(|(mut bytes, changes, cut, hook)| {
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        // The kernel's test run refuses packets that are shorter than their network header.
        let shortest = 54.min(bytes.len());
        let length = cut.map_or(bytes.len(), |cut| {
            shortest + cut.index(bytes.len() - shortest + 1)
        });
        bytes.truncate(length);
        (hook, bytes)
    })
}

#[test]
fn damaged_packets_fare_the_same_in_the_kernel_and_in_memory() {
    let mut loaded = Loaded::new("damaged");
    let start = deterministic_world();
    loaded.write(&start);
    let mut runner = TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    });
    let packets = prop::collection::vec(damaged(), 1..8);
    let loaded = std::cell::RefCell::new(loaded);
    let outcome = runner.run(&packets, |packets| {
        let mut loaded = loaded.borrow_mut();
        loaded.clear_flows();
        let mut world = start.clone();
        for (hook, packet) in packets {
            let _ = loaded.run_both(&mut world, hook, &packet);
        }
        loaded.assert_flows(&world, "after damaged packets");
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Headers that could be anything, of IPv4, IPv6 or another EtherType.
fn random_packet() -> impl Strategy<Value = Vec<u8>> {
    let ethertype = prop::sample::select(vec![[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06]]);
    let version = prop::sample::select(vec![0x45, 0x46, 0x4f, 0x60, 0x00]);
    let protocol = prop::sample::select(vec![6, 17, 1, 44, 58, 132]);
    let bytes = prop::collection::vec(any::<u8>(), 60..200);
    (bytes, ethertype, version, protocol).prop_map(|(mut bytes, ethertype, version, protocol)| {
        bytes[12..14].copy_from_slice(&ethertype);
        bytes[14] = version;
        let place = if ethertype == [0x08, 0x00] { 23 } else { 20 };
        bytes[place] = protocol;
        bytes
    })
}

#[test]
fn random_bytes_pass_untouched() {
    let mut loaded = Loaded::new("random");
    loaded.write(&deterministic_world());
    let mut runner = TestRunner::new(Config {
        cases: 2000,
        failure_persistence: None,
        ..Config::default()
    });
    let loaded = std::cell::RefCell::new(loaded);
    let outcome = runner.run(&random_packet(), |bytes| {
        for hook in [Hook::Ingress, Hook::Egress] {
            let (fate, output) = loaded.borrow_mut().run(hook, &bytes);
            prop_assert!(fate.is_ok(), "{fate:?}");
            prop_assert_eq!(&output, &bytes);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_backend_gets_its_share_of_new_flows() {
    let sockets = [
        "10.244.1.5:8080",
        "10.244.1.6:8080",
        "10.244.2.5:8080",
        "10.244.2.6:8080",
    ];
    let backends = sockets.map(|socket| (socket, Locality::Local));
    let world = World::default().service(
        Proto::Tcp,
        "10.96.0.10:80",
        FrontendKind::ClusterIp,
        &backends,
    );
    let mut loaded = Loaded::new("shares");
    loaded.write(&world);
    let mut chosen: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for port in 10_000..14_000 {
        let first = tcp(&format!("10.244.1.9:{port}"), "10.96.0.10:80")
            .syn()
            .build();
        let (fate, output) = loaded.run(Hook::Ingress, &first);
        assert_eq!(fate, Ok(Verdict::Created) as Fate);
        *chosen.entry(output[30..34].to_vec()).or_default() += 1;
    }
    // 1,000 expected, the standard deviation is 27.
    assert_eq!(chosen.len(), 4, "{chosen:?}");
    assert!(
        chosen.values().all(|count| (850..1150).contains(count)),
        "{chosen:?}"
    );
}

#[test]
fn scenarios_hold_in_the_kernels_maps() {
    for name in Scenario::all() {
        let scenario = Scenario::read(&name);
        if scenario.has_capacity() {
            continue;
        }
        let loaded = Loaded::new(&name);
        let run = Run::new(&scenario, Trouble::None, |_| loaded.open_maps()).finish();
        scenario.assert(&run, "in the kernel");
    }
}

/// Features that come with a version, and whether stable kernels of older versions may have got them.
const SINCE: [(Feature, (u32, u32), bool); 12] = [
    (Feature::TcPrograms, (4, 1), false),
    (Feature::LruHash, (4, 10), false),
    (Feature::Btf, (5, 2), false),
    (Feature::RingBuffer, (5, 8), false),
    (Feature::SocketIterators, (5, 9), false),
    (Feature::CoarseClock, (5, 11), false),
    (Feature::MapIteration, (5, 13), false),
    (Feature::ReturnValue, (6, 1), false),
    (Feature::SocketDestroy, (6, 5), false),
    (Feature::Tcx, (6, 6), false),
    (Feature::SourceLookup, (6, 7), true),
    (Feature::ChecksumIpv6, (6, 16), true),
];

#[test]
fn features_are_found_on_the_kernels_that_have_them() {
    let features = Features::probe().unwrap();
    let mut numbers = features.release().split(['.', '-', '+']);
    let mut number = || numbers.next().unwrap().parse::<u32>().unwrap();
    let version = (number(), number());
    for (feature, since, has_backports) in SINCE {
        let (name, found) = (feature.name(), features.has(feature));
        let is_due = version >= since;
        assert!(
            found == is_due || found && has_backports,
            "{name} on {version:?}: {found}"
        );
        let text = format!("{}.{}", since.0, since.1);
        let told = feature.since();
        assert!(told.starts_with(&text), "{name} is told as {told}");
    }
}
