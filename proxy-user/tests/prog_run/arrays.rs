//! The arrays of services, which are written through memory.

use crate::loaded::Loaded;
use proxy_common::{
    AddrV4, AddrV6, Address as _, Backend, Locality, Port, RegionHeader, ServiceWord,
};
use proxy_user::datapath::{Datapath as _, Error, FamilyOp, Map, Op};
use std::net::{Ipv4Addr, Ipv6Addr};

fn backend_v4(id: u32) -> Op {
    let address = AddrV4::new(Ipv4Addr::new(10, 244, 1, 1));
    let row = Backend::new(address, Port::new(8080), Locality::Local, 7);
    Op::V4(FamilyOp::PutBackend { id, row })
}

fn backend_v6(id: u32) -> Op {
    let address = AddrV6::new(Ipv6Addr::LOCALHOST);
    let row = Backend::new(address, Port::new(8080), Locality::Remote, 8);
    Op::V6(FamilyOp::PutBackend { id, row })
}

/// What a region of one backend holds.
fn words() -> Vec<u32> {
    [&RegionHeader::of_remote(9, 1).words()[..], &[5]].concat()
}

fn region(start: u32) -> Op {
    let words = words();
    Op::PutRegion { start, words }
}

fn service(id: u32) -> Op {
    let word = ServiceWord::new(11, 9);
    Op::PutService { id, word }
}

#[test]
fn first_and_last_rows_are_written_read_by_others_and_cleared() {
    let mut loaded = Loaded::new("arrays");
    let room = loaded.open_maps().capacity();
    let [last_v4, last_v6] = [room.backends_v4 - 1, room.backends_v6 - 1];
    let last_service = room.services - 1;
    loaded.apply(&[
        backend_v4(1),
        backend_v4(last_v4),
        backend_v6(1),
        backend_v6(last_v6),
        region(11),
        region(room.slots - words().len() as u32),
        service(1),
        service(last_service),
    ]);
    let dump = loaded.open_maps().dump().unwrap();
    let (v4, v6) = (&dump.backends_v4, &dump.backends_v6);
    assert_eq!(
        v4.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        [1, last_v4]
    );
    assert_eq!(
        v6.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        [1, last_v6]
    );
    assert_eq!(v4[0].1, v4[1].1);
    assert_eq!(v4[1].1.address.ip().to_string(), "10.244.1.1");
    assert!(v4[1].1.is_local() && !v6[1].1.is_local());
    assert_eq!(v6[1].1.generation, 8);
    assert_eq!(dump.slots[11..], words(), "as far as services point");
    let word = ServiceWord::new(11, 9);
    assert_eq!(dump.services, [(1, word), (last_service, word)]);
    // The kernel finds them where the agent has put them.
    let slots = loaded.array::<u32>("SLOTS");
    let found = [11, 12, 18, room.slots - 1].map(|index| slots.get(&index, 0).unwrap());
    assert_eq!(found, [9, 1, 5, 5]);

    let clears = |id_v4, id_v6, id| {
        [
            Op::V4(FamilyOp::ClearBackend { id: id_v4 }),
            Op::V6(FamilyOp::ClearBackend { id: id_v6 }),
            Op::ClearService { id },
        ]
    };
    loaded.apply(&clears(1, 1, 1));
    loaded.apply(&clears(last_v4, last_v6, last_service));
    let dump = loaded.open_maps().dump().unwrap();
    assert!(dump.backends_v4.is_empty() && dump.backends_v6.is_empty());
    assert!(dump.services.is_empty());
}

#[test]
fn what_is_beyond_the_end_changes_nothing_and_names_the_map() {
    let loaded = Loaded::new("beyond");
    let mut maps = loaded.open_maps();
    let room = maps.capacity();
    let beyond = [
        (backend_v4(room.backends_v4), Map::BackendsV4),
        (backend_v6(u32::MAX), Map::BackendsV6),
        (region(room.slots - words().len() as u32 + 1), Map::Slots),
        (region(u32::MAX), Map::Slots),
        (service(room.services), Map::Services),
    ];
    for (op, wanted) in beyond {
        let (applied, outcome) = maps.apply(&[backend_v4(1), op, backend_v4(2)]);
        assert_eq!(applied, 1, "{wanted}");
        let Err(Error::Full { map }) = outcome else {
            panic!("{wanted}: {outcome:?}");
        };
        assert_eq!(map, wanted);
    }
    let slots = loaded.array::<u32>("SLOTS");
    assert_eq!(slots.get(&(room.slots - 2), 0).unwrap(), 0);
    let written: Vec<u32> = maps
        .dump()
        .unwrap()
        .backends_v4
        .iter()
        .map(|it| it.0)
        .collect();
    assert_eq!(written, [1]);
}
