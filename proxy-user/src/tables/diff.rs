//! The ops that turn some rows into others, in an order that is safe for packets at any moment.

use super::{Family, FamilyOp, FamilyTables, Op, ServiceTables};
use proxy_common::{AddrV4, AddrV6};

/// The ops that turn `actual` into `desired`.
///
/// After every prefix of them each frontend leads only to complete, valid backends. That holds
/// for several Services at once if their ops are brought together by [`sort`].
pub fn diff(actual: &ServiceTables, desired: &ServiceTables) -> Vec<Op> {
    let mut ops = Vec::new();
    family::<AddrV4>(actual, desired, &mut ops);
    family::<AddrV6>(actual, desired, &mut ops);
    for (&start, words) in &desired.regions {
        if actual.regions.get(&start) != Some(words) {
            ops.push(Op::PutRegion {
                start,
                words: words.clone(),
            });
        }
    }
    for (&id, &word) in &desired.services {
        if actual.services.get(&id) != Some(&word) {
            ops.push(Op::PutService { id, word });
        }
    }
    let cleared = actual.services.keys();
    let cleared = cleared.filter(|id| !desired.services.contains_key(id));
    ops.extend(cleared.map(|&id| Op::ClearService { id }));
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
    frontends(actual, desired, ops);
    backends(actual, desired, ops);
}

fn frontends<A: Family>(actual: &FamilyTables<A>, desired: &FamilyTables<A>, ops: &mut Vec<Op>) {
    for (&key, &row) in &desired.frontends {
        if actual.frontends.get(&key) != Some(&row) {
            ops.push(A::op(FamilyOp::PutFrontend { key, row }));
        }
    }
    for &key in actual.frontends.keys() {
        if !desired.frontends.contains_key(&key) {
            ops.push(A::op(FamilyOp::DeleteFrontend { key }));
        }
    }
}

fn backends<A: Family>(actual: &FamilyTables<A>, desired: &FamilyTables<A>, ops: &mut Vec<Op>) {
    for (&id, &row) in &desired.backends {
        if actual.backends.get(&id) != Some(&row) {
            ops.push(A::op(FamilyOp::PutBackend { id, row }));
        }
    }
    for &id in actual.backends.keys() {
        if !desired.backends.contains_key(&id) {
            ops.push(A::op(FamilyOp::ClearBackend { id }));
        }
    }
}
