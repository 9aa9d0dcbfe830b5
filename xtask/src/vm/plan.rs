//! What a guest runs: which tests, and on which kernels.

use super::kernel::Kernel;
use crate::command;

/// A program of tests and its core: what says, within ten minutes of emulation, whether the
/// programs load, attach and translate on a kernel.
struct Suite {
    program: &'static str,
    core: &'static [&'static str],
    flags: &'static str,
}

const SUITES: [Suite; 3] = [
    Suite {
        program: "cluster",
        core: &[
            "packets_that_conntrack_calls_invalid_are_dropped_and_counted",
            "pods_that_leave_the_cluster_are_masqueraded_as_their_node",
        ],
        flags: "",
    },
    Suite {
        program: "prog_run",
        core: &[
            "damaged_packets_fare_the_same_in_the_kernel_and_in_memory",
            "every_backend_gets_its_share_of_new_flows",
            "every_fixture_holds_in_the_kernel",
            "features_are_found_on_the_kernels_that_have_them",
            "random_bytes_pass_untouched",
        ],
        flags: "",
    },
    Suite {
        program: "netns",
        core: &[
            "fast_lane::it_carries_pods_on_routed_veths",
            "closing::connected_datagram_sockets_are_closed_when_their_backend_goes_and_no_others",
            "order::a_new_device_with_a_bandwidth_limit_keeps_it",
            "report::check_tells_what_the_kernel_has_and_what_is_used_instead",
            "restart::traffic_goes_on_when_the_agent_is_killed_and_the_next_one_adopts_it",
            "service::a_service_is_reached_from_pods_and_from_outside",
            "sockets::sockets_get_a_backend_and_are_told_of_what_they_dialled",
        ],
        flags: "--test-threads=1",
    },
];

/// Tests that older kernels can't run: name, and the first series that can.
const FROM: [(&str, (u32, u32)); 7] = [
    (
        "restart::the_other_way_of_attaching_takes_the_place_of_the_first",
        (6, 6),
    ),
    // Which network namespace a process is in was not to be known, nor that of a node, which is not the
    // machine's first one here.
    (
        "opting_out::pods_that_have_opted_out_are_known_by_their_network_namespace",
        (5, 14),
    ),
    (
        "opting_out::pods_with_a_sidecar_of_istio_are_left_alone",
        (5, 14),
    ),
    (
        "socket_modes::node_ports_answer_on_loopback_for_processes_of_the_node_alone",
        (5, 14),
    ),
    (
        "socket_modes::node_ports_can_not_be_bound_on_the_node_if_that_is_wanted",
        (5, 14),
    ),
    (
        "socket_modes::only_sockets_of_the_node_or_none_are_served_if_that_is_wanted",
        (5, 14),
    ),
    // A device that is up could not be renamed.
    (
        "changes_of_the_node::renamed_devices_keep_their_programs_and_connections",
        (6, 2),
    ),
];

/// Tests that would take a guest too long, and see nothing of its kernel that shorter ones don't.
const TOO_LONG: [&str; 3] = [
    "flood::a_flood_of_half_open_connections_costs_no_established_one",
    "socket_modes::a_million_short_sockets_leave_nothing_behind",
    "storm::traffic_does_not_notice_that_the_agent_is_killed_a_hundred_times",
];

/// Tests of applications, and of what a shell lays out as a container runtime would. Guests have neither: whole
/// distributions would have to be packed for them.
const WITHOUT_APPLICATIONS: [&str; 9] = [
    "api::a_pod_on_a_node_with_empty_maps_needs_the_servers_own_addresses",
    "contained::a_bpffs_that_is_missing_or_read_only_is_named",
    "contained::an_agent_in_its_pod_serves_with_what_init_has_prepared",
    "contained::init_makes_room_for_what_netfilter_is_to_track",
    "contained::init_mounts_bpffs_once_and_only_warns_of_settings",
    "contained::without_a_root_of_cgroups_packets_are_translated_instead",
    "programs::curl_and_nginx_reach_web_servers",
    "programs::redis_clients_reach_redis",
    "programs::resolvers_reach_name_servers_with_sockets_of_either_kind",
];

/// Tests that need a kind of device which a kernel may lack. Debian's have them all.
const NEEDS: [(&str, &str); 8] = [
    ("fast_lane::it_carries_on_a_bond", "bond"),
    ("fast_lane::it_carries_on_a_vlan", "vlan"),
    ("fast_lane::it_carries_over_ipip", "ipip"),
    ("fast_lane::it_carries_over_wireguard", "wireguard"),
    ("matrix::services_work_on_a_bond", "bond"),
    ("matrix::services_work_on_a_vlan", "vlan"),
    ("matrix::services_work_over_ipip", "ipip"),
    ("matrix::services_work_over_wireguard", "wireguard"),
];

/// What a guest need not say in the core: to the fast lane a bond is as a VLAN, ipip as WireGuard, and the way in
/// which the newest kernels do the rest is tried by ring 4 on this machine's, the other by the oldest guest.
const SAID_ALREADY: [&str; 6] = [
    "fast_lane::it_carries_on_a_bond",
    "fast_lane::it_carries_over_ipip",
    "fast_lane::it_carries_pods_on_routed_veths",
    "closing::connected_datagram_sockets_are_closed_when_their_backend_goes_and_no_others",
    "order::a_new_device_with_a_bandwidth_limit_keeps_it",
    "report::check_tells_what_the_kernel_has_and_what_is_used_instead",
];

/// Tests whose packets go another way before a series of kernels: part of the core there.
const OTHERWISE_BEFORE: [(&str, (u32, u32)); 2] = [
    // What comes out of the tunnel still carries the outer header.
    ("matrix::services_work_over_ipip", (5, 14)),
    ("fast_lane::it_carries_over_ipip", (5, 14)),
];

/// The tests that this machine's kernel can't run, and the kind of device that it lacks.
pub(crate) fn left_to_guests() -> impl Iterator<Item = (&'static str, &'static str)> {
    NEEDS.into_iter().filter(|(_, kind)| lacks(kind))
}

/// Whether the kernel knows no devices of a kind. It may load a module for the question.
fn lacks(kind: &str) -> bool {
    // Never made: no device has such a name.
    let made = command::run("ip", &["link", "add", "name", ".", "type", kind]);
    made.is_err_and(|error| error.to_string().contains("Unknown device type"))
}

/// The kind of device, as `ip link add type` has it, without which a test can't run.
#[must_use]
pub fn needed_device(test: &str) -> Option<&'static str> {
    let found = NEEDS.iter().find(|(name, _)| *name == test);
    found.map(|(_, kind)| *kind)
}

/// What has to hold on a kernel without IPv6.
const WITHOUT_IPV6: [&str; 2] = [
    "families::dual_stack_services_make_no_noise_on_nodes_of_one_family",
    "matrix::services_work_without_ipv6_addresses",
];

/// How much a guest runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The core of each suite.
    Core,
    /// No test.
    Nothing,
    /// Every test that the kernel can run.
    All,
    /// Tests whose name contains this.
    Named(String),
}

/// How a kernel is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// With all that it has.
    Usual,
    /// Without IPv6.
    WithoutIpv6,
}

impl Boot {
    /// What the kernel is told.
    pub(super) fn parameters(self) -> &'static str {
        match self {
            Self::Usual => "",
            Self::WithoutIpv6 => "ipv6.disable=1",
        }
    }

    /// What follows the kernel's name in results.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Usual => "",
            Self::WithoutIpv6 => "-v4",
        }
    }
}

/// How a kernel has to be booted for what is to be run.
pub(super) fn boots(kernel: &Kernel, scope: &Scope) -> Vec<Boot> {
    let has_both = match scope {
        Scope::Core => kernel.is_newest,
        Scope::All => true,
        Scope::Nothing | Scope::Named(_) => false,
    };
    match has_both {
        true => vec![Boot::Usual, Boot::WithoutIpv6],
        false => vec![Boot::Usual],
    }
}

/// One command of a guest, and how many tests it has to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The command, words separated by single spaces.
    pub(super) command: String,
    /// `None`: as many as there are.
    pub(super) tests: Option<u64>,
}

/// The commands for a kernel.
pub(super) fn steps(kernel: &Kernel, scope: &Scope, boot: Boot) -> Vec<Step> {
    if boot == Boot::WithoutIpv6 {
        return vec![exact("netns", "--test-threads=1", &WITHOUT_IPV6)];
    }
    let suites = SUITES.iter().filter(|_| *scope != Scope::Nothing);
    suites
        .map(|suite| match scope {
            Scope::Core => exact(suite.program, suite.flags, &core(suite, kernel)),
            Scope::All | Scope::Nothing => step(suite.program, suite.flags, &skips(kernel), None),
            Scope::Named(name) => step(suite.program, suite.flags, name, None),
        })
        .collect()
}

/// The core of a suite; of devices, on the newest kernel those that the machine's own may lack.
fn core(suite: &Suite, kernel: &Kernel) -> Vec<&'static str> {
    let needs = NEEDS.iter().filter(|_| kernel.is_newest);
    let older = OTHERWISE_BEFORE.iter();
    let older = older.filter(|(_, changed)| kernel.numbers < *changed);
    let devices = needs.map(|(name, _)| *name);
    let devices = devices.chain(older.map(|(name, _)| *name));
    let devices = devices.filter(|_| suite.program == "netns");
    let all = suite.core.iter().copied().chain(devices);
    all.filter(|name| !(kernel.is_newest && SAID_ALREADY.contains(name)))
        .collect()
}

fn exact(program: &str, flags: &str, names: &[&str]) -> Step {
    let arguments = format!("--exact {}", names.join(" "));
    step(program, flags, &arguments, Some(names.len() as u64))
}

fn step(program: &str, flags: &str, arguments: &str, tests: Option<u64>) -> Step {
    let words = [&format!("/bin/{program}"), flags, arguments];
    let words = words.into_iter().filter(|word| !word.is_empty());
    let command = words.collect::<Vec<_>>().join(" ");
    Step { command, tests }
}

/// The tests that are not run on a kernel, and why.
pub(super) fn left_out(kernel: &Kernel) -> impl Iterator<Item = (&'static str, String)> {
    let numbers = kernel.numbers;
    let newer = FROM.into_iter().filter(move |(_, from)| numbers < *from);
    let newer = newer.map(|(name, (major, minor))| (name, format!("from {major}.{minor}")));
    let long = TOO_LONG.map(|name| (name, "takes too long".to_owned()));
    let missing = WITHOUT_APPLICATIONS.map(|name| (name, "no applications".to_owned()));
    newer.chain(long).chain(missing)
}

fn skips(kernel: &Kernel) -> String {
    let skips = left_out(kernel).map(|(name, _)| format!("--skip {name}"));
    skips.collect::<Vec<_>>().join(" ")
}
