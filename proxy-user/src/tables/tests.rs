use super::*;
use crate::datapath::Datapath;
use crate::datapath::fake::Fake;
use crate::flows::ticks;
use crate::frontend::{
    Backend, Cidr, Frontend, FrontendKind, IpFamily, Protocol, ServiceName, ServicePort, StaysLocal,
};
use proptest::prelude::*;
use proptest::sample::subsequence;
use proxy_common::{Address, FrontendTrait, RegionHeader};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const ROOM: Capacity = Capacity {
    frontends_v4: 100,
    frontends_v6: 100,
    services: 100,
    slots: 2000,
    backends_v4: 1000,
    backends_v6: 1000,
    source_ranges: 64,
};

/// What clients see: the backends behind each frontend, and whose clients may dial it.
type Seen = BTreeMap<SocketAddr, Behind>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Behind {
    /// In the order of a region; whether each is on this node, and answers under policy Local and Cluster.
    backends: Vec<(SocketAddr, [bool; 3])>,
    affinity: Option<u32>,
    sources: Option<BTreeSet<(IpAddr, u8)>>,
}

fn name() -> ServiceName {
    ServiceName::new("default", "web")
}

fn address(family: IpFamily, last: u8) -> IpAddr {
    match family {
        IpFamily::V4 => Ipv4Addr::new(10, 0, 0, last).into(),
        IpFamily::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into(),
    }
}

fn port() -> impl Strategy<Value = ServicePort> {
    let family = prop::sample::select(vec![IpFamily::V4, IpFamily::V6]);
    let frontends = subsequence((1..6u8).collect::<Vec<_>>(), 0..4);
    let backends = subsequence((1..8u8).collect::<Vec<_>>(), 0..7);
    let sources = prop::option::of(subsequence((1..4u8).collect::<Vec<_>>(), 1..3));
    let lists = prop::collection::vec(0..8u8, 8);
    let affinity = prop::option::of((1..3u64).prop_map(Duration::from_secs));
    let shape = (family, frontends, backends, lists, affinity, sources);
    shape.prop_map(|(family, frontends, backends, lists, affinity, sources)| {
        let frontend = |last| Frontend {
            address: address(family, last),
            port: 80,
            protocol: Protocol::Tcp,
            kind: if last % 2 == 0 {
                FrontendKind::LoadBalancer
            } else {
                FrontendKind::ClusterIp
            },
        };
        let backend = |last: u8| Backend {
            address: address(family, last + 100),
            port: 8080,
            local: lists[usize::from(last)] & 1 != 0,
            in_local: lists[usize::from(last)] & 3 == 3,
            in_cluster: lists[usize::from(last)] & 4 != 0,
        };
        let range = |last: u8| Cidr::of(address(family, last + 200));
        let sources = sources.map(|sources| sources.into_iter().map(range).collect());
        ServicePort {
            name: String::new(),
            family,
            frontends: frontends.into_iter().map(frontend).collect(),
            backends: backends.into_iter().map(backend).collect(),
            stays_local: StaysLocal::default(),
            affinity,
            source_ranges: sources,
            closes_tcp: false,
        }
    })
}

/// Versions of one Service.
fn versions() -> impl Strategy<Value = Vec<Vec<ServicePort>>> {
    prop::collection::vec(prop::collection::vec(port(), 0..4), 1..8)
}

/// What clients should see; of two ports with one frontend the first has it.
fn wanted(ports: &[ServicePort]) -> Seen {
    let mut seen = Seen::new();
    for port in ports {
        let mut backends: Vec<_> = port.backends.iter().collect();
        let place = |it: &&Backend| match (it.in_local, it.in_cluster) {
            (true, in_both) => u8::from(in_both),
            (false, in_cluster) => 3 - u8::from(in_cluster),
        };
        backends.sort_by_key(place);
        let at = |it: &Backend| {
            let traits = [it.local, it.in_local, it.in_cluster];
            (SocketAddr::new(it.address, it.port), traits)
        };
        let sources = port.source_ranges.as_ref();
        let sources = |kind| sources.filter(|_| kind == FrontendKind::LoadBalancer);
        for frontend in &port.frontends {
            let key = SocketAddr::new(frontend.address, frontend.port);
            seen.entry(key).or_insert_with(|| Behind {
                backends: backends.iter().map(|it| at(it)).collect(),
                affinity: port.affinity.map(ticks),
                sources: sources(frontend.kind)
                    .map(|it| it.iter().map(|it| (it.first(), it.prefix())).collect()),
            });
        }
    }
    seen
}

/// What clients do see, read as the programs read it; panics at anything incomplete.
fn seen(dump: &Dump) -> Seen {
    let mut seen = Seen::new();
    seen.extend(seen_in(
        dump,
        &dump.frontends_v4,
        &dump.backends_v4,
        &dump.ranges_v4,
    ));
    seen.extend(seen_in(
        dump,
        &dump.frontends_v6,
        &dump.backends_v6,
        &dump.ranges_v6,
    ));
    seen
}

fn seen_in<A: Family>(
    dump: &Dump,
    frontends: &[(proxy_common::FrontendKey<A>, proxy_common::Frontend)],
    backends: &[(u32, proxy_common::Backend<A>)],
    ranges: &[RangeKey<A>],
) -> Seen {
    let services: BTreeMap<_, _> = dump.services.iter().copied().collect();
    let backends: BTreeMap<_, _> = backends.iter().copied().collect();
    let read = |(key, row): &(proxy_common::FrontendKey<A>, proxy_common::Frontend)| {
        let word = services.get(&row.service).expect("a service word");
        let region = &dump.slots[word.region() as usize..];
        assert_eq!(region[0], word.generation(), "the region's generation");
        let header: [u32; RegionHeader::WORDS as usize] = *region.first_chunk().expect("a header");
        let header: RegionHeader = bytemuck::cast(header);
        let ids = &region[RegionHeader::WORDS as usize..][..header.backends as usize];
        let cluster = header.cluster_from..header.cluster_to;
        let behind = (0..).zip(ids).map(|(index, id)| {
            let row = backends.get(id).expect("a backend");
            let at = SocketAddr::new(row.address.ip(), row.port.number());
            let lists = [index < header.local, cluster.contains(&index)];
            (at, [row.is_local(), lists[0], lists[1]])
        });
        let set = ranges.iter().filter(|key| key.range.set == header.sources);
        let set = set.map(|key| (key.range.address.ip(), key.prefix));
        let is_restricted = row.has(FrontendTrait::Restricted);
        let behind = Behind {
            backends: behind.collect(),
            affinity: Some(header.affinity).filter(|_| row.has(FrontendTrait::Sticks)),
            sources: is_restricted.then(|| set.collect()),
        };
        (SocketAddr::new(key.address.ip(), key.port.number()), behind)
    };
    let dialled = frontends.iter().filter(|(key, _)| !key.is_of_address());
    dialled.map(read).collect()
}

/// What holds for a frontend, and where a backend runs, may be seen early; who it is may not.
fn addresses(behind: &Behind) -> Vec<(SocketAddr, [bool; 2])> {
    let backends = behind.backends.iter();
    backends
        .map(|(at, [_, local, cluster])| (*at, [*local, *cluster]))
        .collect()
}

/// Every cluster address that can be dialled is known as such.
fn knows_addresses<A: Family>(
    frontends: &[(proxy_common::FrontendKey<A>, proxy_common::Frontend)],
) -> bool {
    let of_kind = |kind: proxy_common::FrontendKind| {
        let rows = frontends.iter().filter(move |(_, row)| row.is(kind));
        rows.map(|(key, _)| key.address).collect::<BTreeSet<_>>()
    };
    of_kind(proxy_common::FrontendKind::ClusterIp) == of_kind(proxy_common::FrontendKind::Address)
}

/// Everything but frontends that rows are made of.
fn used(tables: &ServiceTables) -> Vec<Freed> {
    let all = tables.beyond(&ServiceTables::default());
    let ids = all.into_iter();
    ids.filter(|it| !matches!(it, Freed::Frontend(..)))
        .collect()
}

fn overlap(a: &Freed, b: &Freed) -> bool {
    match (a, b) {
        (
            Freed::Region { start, words },
            Freed::Region {
                start: other,
                words: length,
            },
        ) => start < &(other + length) && other < &(start + words),
        (a, b) => a == b,
    }
}

/// One port with these frontends and backends.
fn v4_port(frontends: &[u8], backends: &[u8]) -> ServicePort {
    let frontend = |&last: &u8| Frontend {
        address: address(IpFamily::V4, last),
        port: 80,
        protocol: Protocol::Tcp,
        kind: FrontendKind::ClusterIp,
    };
    let backend = |&last: &u8| Backend {
        address: address(IpFamily::V4, last),
        port: 8080,
        local: false,
        in_local: false,
        in_cluster: true,
    };
    ServicePort {
        name: String::new(),
        family: IpFamily::V4,
        frontends: frontends.iter().map(frontend).collect(),
        backends: backends.iter().map(backend).collect(),
        stays_local: StaysLocal::default(),
        affinity: None,
        source_ranges: None,
        closes_tcp: false,
    }
}

#[test]
fn a_frontend_that_leaves_never_sees_the_backends_of_those_that_stay() {
    let mut ids = Ids::new(ROOM, 7);
    let empty = ServiceTables::default();
    let before = [v4_port(&[1, 2], &[101])];
    let before = encode(&name(), &before, &empty, &mut ids).unwrap().tables;
    let after = [v4_port(&[1], &[101, 102])];
    let after = encode(&name(), &after, &before, &mut ids).unwrap().tables;
    assert!(before.services.keys().ne(after.services.keys()));
    let first = |tables: &ServiceTables| {
        let (id, row) = tables.v4.backends.first_key_value().unwrap();
        (*id, row.of_service(0))
    };
    assert_eq!(first(&after), first(&before), "flows go on");
}

#[test]
fn a_region_is_restored_only_if_it_is_what_its_word_promises() {
    let v4 = |last| proxy_common::AddrV4::new(Ipv4Addr::new(10, 0, 0, last));
    let port = proxy_common::Port::new(80);
    let frontend = |service: u32| {
        let key = proxy_common::FrontendKey::new(v4(service as u8), port, proxy_common::Proto::Tcp);
        let kind = proxy_common::FrontendKind::ClusterIp;
        (key, proxy_common::Frontend::new(service, kind))
    };
    let backend = |id| {
        let local = proxy_common::Locality::Remote;
        (id, proxy_common::Backend::new(v4(id as u8), port, local, 1))
    };
    let region = |generation, ids: &[u32]| {
        let header = RegionHeader::of_remote(generation, ids.len() as u32);
        [&header.words()[..], ids].concat()
    };
    // At 0 a good one; at 1 one that begins inside of it; at 9 one without its backend; at 17 a stale one.
    let dump = Dump {
        frontends_v4: [1, 2, 3, 4].map(frontend).into(),
        services: [(1, (0, 9)), (2, (1, 2)), (3, (9, 7)), (4, (17, 8))]
            .map(|(id, (start, generation))| {
                (id, proxy_common::ServiceWord::new(start, generation))
            })
            .into(),
        slots: [region(9, &[1, 0]), region(7, &[5]), region(7, &[])].concat(),
        backends_v4: [0, 1].map(backend).into(),
        ..Dump::default()
    };
    let (mut orphans, ids) = Orphans::restore(&dump, ROOM, 99);
    let mut kept = Vec::new();
    while let Some((id, rows)) = orphans.pop() {
        kept.extend(rows.regions.into_keys().map(|start| (id, start)));
    }
    assert_eq!(kept, [(1, 0)]);
    assert_eq!(ids.used(Map::Slots), 9);
}

proptest! {
    #[test]
    fn every_prefix_of_a_diff_is_sound_and_all_of_it_arrives(versions in versions()) {
        let mut ids = Ids::new(ROOM, 7);
        let mut maps = Fake::new(ROOM);
        let mut actual = ServiceTables::default();
        let mut before = Seen::new();
        for ports in versions {
            let desired = encode(&name(), &ports, &actual, &mut ids).unwrap().tables;
            let after = wanted(&ports);
            let mut freed = Vec::new();
            for op in diff(&actual, &desired) {
                maps.apply(std::slice::from_ref(&op)).1.unwrap();
                actual.apply(&op, &mut freed);
                for (frontend, behind) in seen(&maps.content()) {
                    let now = Some(addresses(&behind));
                    let sides = [&before, &after].map(|side| side.get(&frontend));
                    let wanted = sides.map(|side| side.map(addresses));
                    prop_assert!(wanted.contains(&now), "{frontend}: {now:?} is none of {wanted:?}");
                    if let Some(sources) = behind.sources {
                        let sides = sides.map(|side| side.and_then(|it| it.sources.clone()));
                        // Whom a frontend was for it may be for a little longer, or nobody.
                        prop_assert!(sources.is_empty() || sides.contains(&Some(sources)), "{frontend}");
                    }
                }
            }
            prop_assert_eq!(&actual, &desired);
            let content = maps.content();
            prop_assert_eq!(&seen(&content), &after);
            prop_assert!(knows_addresses(&content.frontends_v4) && knows_addresses(&content.frontends_v6));
            prop_assert!(!content.to_string().contains("broken"), "{content}");
            ids.free(freed);
            if let Some(batch) = ids.seal() {
                ids.release(batch);
            }
            before = after;
        }
    }

    #[test]
    fn nothing_is_used_again_before_its_release(
        versions in versions(), releases in prop::collection::vec(any::<bool>(), 8)
    ) {
        let mut ids = Ids::new(ROOM, 7);
        let mut actual = ServiceTables::default();
        let mut quarantine: Vec<Freed> = Vec::new();
        let mut generations = BTreeSet::new();
        for (ports, release) in versions.into_iter().zip(releases) {
            let desired = encode(&name(), &ports, &actual, &mut ids).unwrap().tables;
            for used in used(&desired) {
                prop_assert!(!quarantine.iter().any(|freed| overlap(freed, &used)), "{used:?}");
            }
            for (_, word) in desired.services.iter().filter(|(id, word)| actual.services.get(id) != Some(word)) {
                prop_assert!(generations.insert(word.generation()));
            }
            let mut freed = Vec::new();
            for op in diff(&actual, &desired) {
                actual.apply(&op, &mut freed);
            }
            quarantine.extend(freed.iter().filter(|it| !matches!(it, Freed::Frontend(..))));
            ids.free(freed);
            if release && let Some(batch) = ids.seal() {
                ids.release(batch);
                quarantine.clear();
            }
        }
        for map in Map::ALL {
            let mut count = used(&actual);
            count.extend(&quarantine);
            let expected: u32 = count.iter().map(|it| match (map, it) {
                (Map::Services, Freed::Service(_))
                | (Map::BackendsV4, Freed::BackendV4(_))
                | (Map::BackendsV6, Freed::BackendV6(_))
                | (Map::SourceRangesV4 | Map::SourceRangesV6, Freed::SourceSet(_)) => 1,
                (Map::Slots, Freed::Region { words, .. }) => *words,
                _ => 0,
            }).sum();
            if !matches!(map, Map::FrontendsV4 | Map::FrontendsV6) {
                prop_assert_eq!(ids.used(map), expected, "{}", map);
            }
        }
    }

    #[test]
    fn ids_are_kept_as_long_as_what_they_stand_for(
        from in port().prop_filter("can be dialled", |port| !port.frontends.is_empty()),
        to in port(),
    ) {
        let mut ids = Ids::new(ROOM, 7);
        let to = ServicePort { frontends: from.frontends.clone(), family: from.family, ..to };
        let to_backends = to.backends.iter().map(|it| Backend {
            address: address(from.family, match it.address {
                IpAddr::V4(v4) => v4.octets()[3],
                IpAddr::V6(v6) => v6.octets()[15],
            }),
            ..*it
        });
        let to = ServicePort { backends: to_backends.collect(), ..to };
        let first = encode(&name(), std::slice::from_ref(&from), &ServiceTables::default(), &mut ids).unwrap().tables;
        let second = encode(&name(), &[to], &first, &mut ids).unwrap().tables;
        prop_assert!(first.services.keys().eq(second.services.keys()));
        for (id, row) in &first.v4.backends {
            let same = second.v4.backends.iter().find(|(_, it)| it.address == row.address);
            prop_assert!(same.is_none_or(|(other, it)| other == id && it.generation == row.generation));
        }
    }

    #[test]
    fn after_a_restart_there_is_nothing_to_do(versions in versions()) {
        let mut ids = Ids::new(ROOM, 7);
        let mut maps = Fake::new(ROOM);
        let mut actual = ServiceTables::default();
        for ports in &versions {
            let desired = encode(&name(), ports, &actual, &mut ids).unwrap().tables;
            let ops = diff(&actual, &desired);
            maps.apply(&ops).1.unwrap();
            let mut freed = Vec::new();
            ops.iter().for_each(|op| actual.apply(op, &mut freed));
            ids.free(freed);
            if let Some(batch) = ids.seal() {
                ids.release(batch);
            }
        }
        let ports = versions.last().unwrap();
        let (mut orphans, mut ids) = Orphans::restore(&maps.content(), ROOM, 99);
        let restored = orphans.take(ports);
        prop_assert_eq!(&restored, &actual);
        prop_assert!(orphans.pop().is_none());
        ids.adopt(&name(), restored.dialled());
        let desired = encode(&name(), ports, &restored, &mut ids).unwrap().tables;
        prop_assert_eq!(diff(&restored, &desired), []);
    }

    #[test]
    fn a_full_map_takes_nothing(ports in prop::collection::vec(port(), 1..4), small in 0..12u32) {
        let capacity = Capacity {
            frontends_v4: small, services: small, slots: small * 4, backends_v4: small, ..ROOM
        };
        let mut ids = Ids::new(capacity, 7);
        if let Err(full) = encode(&name(), &ports, &ServiceTables::default(), &mut ids) {
            prop_assert!(full.needed > full.capacity || full.map == Map::Slots, "{full}");
            prop_assert!(Map::ALL.into_iter().all(|map| ids.used(map) == 0));
        }
    }

    #[test]
    fn any_dump_is_restored_without_losing_a_row(
        frontends in prop::collection::vec((1..6u8, 0..6u32), 0..6),
        services in prop::collection::btree_map(1..6u32, (0..40u32, 0..3u32), 0..6),
        slots in prop::collection::vec(0..6u32, 0..48),
        backends in prop::collection::btree_set(1..6u32, 0..6),
    ) {
        let v4 = |last| proxy_common::AddrV4::new(Ipv4Addr::new(10, 0, 0, last));
        let port = proxy_common::Port::new(80);
        let frontends: BTreeMap<_, _> = frontends.into_iter().map(|(last, service)| (
            proxy_common::FrontendKey::new(v4(last), port, proxy_common::Proto::Tcp),
            proxy_common::Frontend::new(service, proxy_common::FrontendKind::ClusterIp),
        )).collect();
        let backend = |id: u32| proxy_common::Backend::new(v4(id as u8), port, proxy_common::Locality::Remote, 1);
        let dump = Dump {
            frontends_v4: frontends.into_iter().collect(),
            services: services.into_iter().map(|(id, (start, generation))| {
                (id, proxy_common::ServiceWord::new(start, generation + 1))
            }).collect(),
            slots,
            backends_v4: backends.into_iter().map(|id| (id, backend(id))).collect(),
            ..Dump::default()
        };
        let (mut orphans, ids) = Orphans::restore(&dump, ROOM, 99);
        let mut all = ServiceTables::default();
        while let Some((_, rows)) = orphans.pop() {
            all.absorb(rows);
        }
        let mut words = BTreeSet::new();
        for (start, region) in &all.regions {
            let run = *start as usize..*start as usize + region.len();
            prop_assert_eq!(&dump.slots[run.clone()], region.as_slice());
            prop_assert!(run.into_iter().all(|word| words.insert(word)), "regions overlap");
        }
        prop_assert_eq!(ids.used(Map::Slots) as usize, words.len());
        let mut maps = dump.clone();
        maps.slots.clear();
        let kept = Dump {
            frontends_v4: all.v4.frontends.into_iter().collect(),
            services: all.services.into_iter().collect(),
            backends_v4: all.v4.backends.into_iter().collect(),
            ..Dump::default()
        };
        prop_assert_eq!(kept, maps);
    }
}
