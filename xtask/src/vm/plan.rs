//! What a guest runs: which tests, and on which kernels.

use super::kernel::Kernel;

/// A program of tests and its core: what says, within a minute and a half of emulation, whether the
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
            "order::a_new_device_with_a_bandwidth_limit_keeps_it",
            "report::check_tells_what_the_kernel_has_and_what_is_used_instead",
            "restart::traffic_goes_on_when_the_agent_is_killed_and_the_next_one_adopts_it",
            "service::a_service_is_reached_from_pods_and_from_outside",
        ],
        flags: "--test-threads=1",
    },
];

/// Tests that older kernels can't run: name, and the first series that can.
const FROM: [(&str, (u32, u32)); 1] = [(
    "restart::the_other_way_of_attaching_takes_the_place_of_the_first",
    (6, 6),
)];

/// Tests that would take a guest too long, and see nothing of its kernel that shorter ones don't.
const TOO_LONG: [&str; 2] = [
    "flood::a_flood_of_half_open_connections_costs_no_established_one",
    "storm::traffic_does_not_notice_that_the_agent_is_killed_a_hundred_times",
];

/// Tests that need a kind of device which a kernel may lack. Debian's have them all.
const NEEDS: [(&str, &str); 4] = [
    ("matrix::services_work_on_a_bond", "bond"),
    ("matrix::services_work_on_a_vlan", "vlan"),
    ("matrix::services_work_over_ipip", "ipip"),
    ("matrix::services_work_over_wireguard", "wireguard"),
];

/// The kind of device, as `ip link add type` has it, without which a test can't run.
#[must_use]
pub fn needed_device(test: &str) -> Option<&'static str> {
    let found = NEEDS.iter().find(|(name, _)| *name == test);
    found.map(|(_, kind)| *kind)
}

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

/// One command of a guest, and how many tests it has to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The command, words separated by single spaces.
    pub(super) command: String,
    /// `None`: as many as there are.
    pub(super) tests: Option<u64>,
}

/// The commands for a kernel.
pub(super) fn steps(kernel: &Kernel, scope: &Scope) -> Vec<Step> {
    let suites = SUITES.iter().filter(|_| *scope != Scope::Nothing);
    suites
        .map(|suite| {
            let (arguments, tests) = match scope {
                Scope::Core => {
                    let names = suite.core.join(" ");
                    (format!("--exact {names}"), Some(suite.core.len() as u64))
                }
                Scope::All | Scope::Nothing => (skips(kernel), None),
                Scope::Named(name) => (name.clone(), None),
            };
            let words = [&format!("/bin/{}", suite.program), suite.flags, &arguments];
            let words = words.into_iter().filter(|word| !word.is_empty());
            let command = words.collect::<Vec<_>>().join(" ");
            Step { command, tests }
        })
        .collect()
}

/// The tests that are not run on a kernel, and why.
pub(super) fn left_out(kernel: &Kernel) -> impl Iterator<Item = (&'static str, String)> {
    let numbers = kernel.numbers;
    let newer = FROM.into_iter().filter(move |(_, from)| numbers < *from);
    let newer = newer.map(|(name, (major, minor))| (name, format!("from {major}.{minor}")));
    newer.chain(TOO_LONG.map(|name| (name, "takes too long".to_owned())))
}

fn skips(kernel: &Kernel) -> String {
    let skips = left_out(kernel).map(|(name, _)| format!("--skip {name}"));
    skips.collect::<Vec<_>>().join(" ")
}
