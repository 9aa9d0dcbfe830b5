//! Ferrule's agent: Kubernetes objects in, BPF maps and links out. Data moves one way.
//!
//! ```text
//!   source     objects from a folder of manifests
//!      | Event
//!   cluster    mirror of Services, EndpointSlices and this Node
//!      | names of Services to look at again
//!   frontend   what may be dialled, and which backends answer
//!      | ServicePort
//!   tables     desired content of every map; what separates it from the actual one
//!      | Op, in a safe order
//!   datapath   the maps, and the programs on the devices
//! ```
//!
//! Beside it `flows` says what the flow tables hold and what of it has ended; `datapath::sweep` does it.
//!
//! `explain` runs the programs' own decision over a copy of the maps, and says what came of it.
//!
//! `sync` owns all of it and is the only one to call down; `agent` runs the tasks; `cli` reads what
//! they leave. Everything between `source` and `datapath` is a function of values.

pub mod agent;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod datapath;
pub mod explain;
pub mod flows;
pub mod frontend;
pub mod health;
pub mod http;
pub mod metrics;
pub mod source;
pub mod sync;
pub mod tables;
