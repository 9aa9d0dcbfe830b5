//! All that touches the kernel directly; every `unsafe` of this crate is here.

mod kernel;
#[macro_use]
pub(crate) mod maps;
mod object;
mod redirect;
pub(crate) mod route;
pub(crate) mod skb;
