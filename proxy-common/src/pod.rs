//! Proof that the generic rows are plain bytes, family by family.
//!
//! bytemuck's derive refuses generic structs because it can't see their padding; here it is
//! measured for each family that exists.
#![expect(
    unsafe_code,
    reason = "the derive of Pod does not take generic structs"
)]

use crate::{
    AddrV4, AddrV6, Backend, BackendRef, Flow, FragmentKey, FrontendKey, MOST_SERVICE_RANGES,
    NodeFamily, Port, Range, ServiceRanges, SourceRange, Ticks, Tuple, Unused,
};
use bytemuck::{Pod, Zeroable};

/// Implements `Pod` for a row after checking that its fields fill it without padding.
macro_rules! plain_row {
    ($row:ty, $($field:ty),+) => {
        const _: () = assert!(size_of::<$row>() == 0 $(+ size_of::<$field>())+);
        // SAFETY: repr(C), every field is Pod, and by the assertion above no byte lies between them.
        unsafe impl Zeroable for $row {}
        // SAFETY: as above; the type is Copy and has no invalid bit patterns because no field has.
        unsafe impl Pod for $row {}
    };
}

macro_rules! plain_rows {
    ($addr:ty) => {
        plain_row!(Tuple<$addr>, $addr, $addr, Port, Port, u32);
        plain_row!(
            Flow<$addr>,
            $addr,
            $addr,
            Port,
            Port,
            u16,
            u16,
            u32,
            u32,
            BackendRef,
            Ticks,
            u32
        );
        plain_row!(Unused<$addr>, Tuple<$addr>, Ticks, Ticks);
        plain_row!(FragmentKey<$addr>, $addr, $addr, u32, u32);
        plain_row!(FrontendKey<$addr>, $addr, Port, u16);
        plain_row!(Backend<$addr>, $addr, Port, u16, u32, u32);
        plain_row!(SourceRange<$addr>, u32, $addr);
        plain_row!(Range<$addr>, $addr, $addr);
        plain_row!(
            ServiceRanges<$addr>,
            u32,
            [Range<$addr>; MOST_SERVICE_RANGES]
        );
        plain_row!(
            NodeFamily<$addr>,
            $addr,
            $addr,
            u32,
            Range<$addr>,
            Range<$addr>,
            ServiceRanges<$addr>
        );
    };
}

plain_rows!(AddrV4);
plain_rows!(AddrV6);

const _: () = assert!(size_of::<Tuple<AddrV4>>() == 16);
const _: () = assert!(size_of::<Tuple<AddrV6>>() == 40);
const _: () = assert!(size_of::<Flow<AddrV4>>() == 40);
const _: () = assert!(size_of::<Flow<AddrV6>>() == 64);
