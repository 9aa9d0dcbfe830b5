//! Ring 4: real connections through real programs, in a cluster made of network namespaces.

#[path = "netns/affinity.rs"]
mod affinity;
#[path = "netns/api.rs"]
mod api;
#[path = "netns/cells.rs"]
mod cells;
#[path = "netns/cgroups.rs"]
mod cgroups;
#[path = "netns/change.rs"]
mod change;
#[path = "netns/changes_of_the_node.rs"]
mod changes_of_the_node;
#[path = "netns/clash.rs"]
mod clash;
#[path = "netns/cleanup.rs"]
mod cleanup;
#[path = "netns/closing.rs"]
mod closing;
#[path = "netns/configuration.rs"]
mod configuration;
#[path = "netns/contained.rs"]
mod contained;
#[path = "netns/everywhere.rs"]
mod everywhere;
#[path = "netns/expiry.rs"]
mod expiry;
#[path = "netns/explain.rs"]
mod explain;
#[path = "netns/families.rs"]
mod families;
#[path = "netns/fast_lane.rs"]
mod fast_lane;
#[path = "netns/firewall.rs"]
mod firewall;
#[path = "netns/flood.rs"]
mod flood;
#[path = "netns/foreign.rs"]
mod foreign;
#[path = "netns/fragments.rs"]
mod fragments;
#[path = "netns/health.rs"]
mod health;
#[path = "netns/health_checks.rs"]
mod health_checks;
#[path = "netns/hops.rs"]
mod hops;
#[path = "netns/host.rs"]
mod host;
#[path = "netns/installed.rs"]
mod installed;
#[path = "netns/load_balancers.rs"]
mod load_balancers;
#[path = "netns/local_address.rs"]
mod local_address;
#[path = "netns/local_detection.rs"]
mod local_detection;
#[path = "netns/matrix.rs"]
mod matrix;
#[path = "netns/mtu.rs"]
mod mtu;
#[path = "netns/nobody.rs"]
mod nobody;
#[path = "netns/odd_callers.rs"]
mod odd_callers;
#[path = "netns/opting_out.rs"]
mod opting_out;
#[path = "netns/order.rs"]
mod order;
#[path = "netns/others.rs"]
mod others;
#[path = "netns/policy.rs"]
mod policy;
#[path = "netns/ports.rs"]
mod ports;
#[path = "netns/programs.rs"]
mod programs;
#[path = "netns/questions.rs"]
mod questions;
#[path = "netns/race.rs"]
mod race;
#[path = "netns/refused.rs"]
mod refused;
#[path = "netns/report.rs"]
mod report;
#[path = "netns/restart.rs"]
mod restart;
#[path = "netns/rows.rs"]
mod rows;
#[path = "netns/service.rs"]
mod service;
#[path = "netns/settings.rs"]
mod settings;
#[path = "netns/shaped.rs"]
mod shaped;
#[path = "netns/shapes.rs"]
mod shapes;
#[path = "netns/snat.rs"]
mod snat;
#[path = "netns/socket_modes.rs"]
mod socket_modes;
#[path = "netns/sockets.rs"]
mod sockets;
#[path = "netns/stage.rs"]
mod stage;
#[path = "netns/stale_udp.rs"]
mod stale_udp;
#[path = "netns/storm.rs"]
mod storm;
#[path = "netns/table.rs"]
mod table;
#[path = "netns/traffic_policies.rs"]
mod traffic_policies;
#[path = "netns/tunnel.rs"]
mod tunnel;
#[path = "netns/upkeep.rs"]
mod upkeep;
