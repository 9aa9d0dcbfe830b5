//! What matters of a ServiceCIDR: its ranges.

use super::{Cidr, Skipped, Why};
use crate::source::ObjectKey;
use k8s_openapi::api::networking::v1::ServiceCIDR;

/// The ranges of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    pub(super) cidrs: Vec<Cidr>,
    /// What of the object can't be used.
    pub(super) skipped: Vec<Skipped>,
}

/// Reads the object.
pub(super) fn ranges(key: &ObjectKey, object: &ServiceCIDR) -> Ranges {
    let mut ranges = Ranges::default();
    let listed = object.spec.iter().flat_map(|spec| &spec.cidrs).flatten();
    for (index, text) in listed.enumerate() {
        match text.parse() {
            Ok(cidr) => ranges.cidrs.push(cidr),
            Err(_) => {
                let field = format!("spec.cidrs[{index}]");
                let why = Why::NotACidr(text.clone());
                ranges.skipped.push(Skipped::new(key, field, why));
            }
        }
    }
    ranges
}
