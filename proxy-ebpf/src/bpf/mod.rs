//! All that touches the kernel directly; every `unsafe` of this crate is here.

pub(crate) mod maps;
mod object;
pub(crate) mod skb;
