//! Ring 4: real connections through real programs, in a cluster made of network namespaces.

#[path = "netns/change.rs"]
mod change;
#[path = "netns/cleanup.rs"]
mod cleanup;
#[path = "netns/expiry.rs"]
mod expiry;
#[path = "netns/foreign.rs"]
mod foreign;
#[path = "netns/installed.rs"]
mod installed;
#[path = "netns/order.rs"]
mod order;
#[path = "netns/ports.rs"]
mod ports;
#[path = "netns/report.rs"]
mod report;
#[path = "netns/restart.rs"]
mod restart;
#[path = "netns/service.rs"]
mod service;
#[path = "netns/shapes.rs"]
mod shapes;
#[path = "netns/stage.rs"]
mod stage;
#[path = "netns/tunnel.rs"]
mod tunnel;
#[path = "netns/upkeep.rs"]
mod upkeep;
