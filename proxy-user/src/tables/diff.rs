//! The ops that turn some rows into others, in an order that is safe for packets at any moment.

use super::{Family, FamilyOp, Op, ServiceTables};
use proxy_common::{AddrV4, AddrV6};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// The ops that turn `actual` into `desired`.
///
/// After every prefix of them each frontend leads only to complete, valid backends. That holds
/// for several Services at once if their ops are brought together by [`sort`].
pub fn diff(actual: &ServiceTables, desired: &ServiceTables) -> Vec<Op> {
    let mut ops = Vec::new();
    family::<AddrV4>(actual, desired, &mut ops);
    family::<AddrV6>(actual, desired, &mut ops);
    for change in changes(&actual.regions, &desired.regions) {
        // Nothing has to be done about those that nobody points at any more.
        if let Change::Put(&start, words) = change {
            let words = words.clone();
            ops.push(Op::PutRegion { start, words });
        }
    }
    for change in changes(&actual.services, &desired.services) {
        ops.push(match change {
            Change::Put(&id, &word) => Op::PutService { id, word },
            Change::Remove(&id) => Op::ClearService { id },
        });
    }
    sort(&mut ops, |op| op);
    ops
}

/// Brings ops into a safe order: first what is pointed at, then what points at it; removal the
/// other way round.
pub fn sort<T>(ops: &mut [T], op: impl Fn(&T) -> &Op) {
    ops.sort_by_key(|item| op(item).phase());
}

fn family<A: Family>(actual: &ServiceTables, desired: &ServiceTables, ops: &mut Vec<Op>) {
    let (actual, desired) = (actual.family::<A>(), desired.family::<A>());
    for change in changes(&actual.frontends, &desired.frontends) {
        ops.push(A::op(match change {
            Change::Put(&key, &row) => FamilyOp::PutFrontend { key, row },
            Change::Remove(&key) => FamilyOp::DeleteFrontend { key },
        }));
    }
    for change in changes(&actual.backends, &desired.backends) {
        ops.push(A::op(match change {
            Change::Put(&id, &row) => FamilyOp::PutBackend { id, row },
            Change::Remove(&id) => FamilyOp::ClearBackend { id },
        }));
    }
    let (is, wanted) = (&actual.ranges, &desired.ranges);
    let new = wanted.difference(is).map(|&key| FamilyOp::PutRange { key });
    ops.extend(new.map(A::op));
    let old = is
        .difference(wanted)
        .map(|&key| FamilyOp::DeleteRange { key });
    ops.extend(old.map(A::op));
}

enum Change<'a, K, V> {
    /// A row that is new or another one.
    Put(&'a K, &'a V),
    Remove(&'a K),
}

/// What separates some rows from others, by one walk over both.
fn changes<'a, K: Ord, V: PartialEq>(
    actual: &'a BTreeMap<K, V>,
    desired: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = Change<'a, K, V>> {
    let (mut actual, mut desired) = (actual.iter().peekable(), desired.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (actual.peek(), desired.peek()) {
                (Some((is, _)), Some((wanted, _))) => is.cmp(wanted),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            let is = actual.next_if(|_| order.is_le());
            let wanted = desired.next_if(|_| order.is_ge());
            match (is, wanted) {
                (Some((key, _)), None) => return Some(Change::Remove(key)),
                (Some((_, is)), Some((_, wanted))) if is == wanted => {}
                (_, wanted) => return wanted.map(|(key, value)| Change::Put(key, value)),
            }
        }
    })
}
