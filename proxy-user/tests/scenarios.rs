//! Ring 2: objects and steps in, content of all maps out, one file per feature.
//!
//! `UPDATE_EXPECT=1` rewrites the expectations. A scenario is a list of steps, each a line
//! `== step` and what follows it:
//!
//! - `capacity`: sizes of maps, `NAME max_entries`; the first step, if at all
//! - `apply`: manifests; `delete`: `Kind namespace/name`
//! - `local`: addresses of the node's devices, `IP DEVICE`
//! - `restart`: the agent is killed and started again
//! - `expect`: the maps, then what load balancers are told, what is skipped or can't be written

#[expect(dead_code, reason = "shared with ring 3, which asks for more")]
#[path = "scenarios/runner.rs"]
mod runner;

use proxy_user::datapath::fake::{Failing, Fake};
use runner::{Run, Scenario, Trouble};

/// The given scenario in calm weather, with failing writes, and with crashes amid failing writes.
fn check(name: &str) {
    let scenario = Scenario::read(name);
    let calm = Run::new(&scenario, Trouble::None, Fake::new).finish();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return scenario.rewrite(&calm);
    }
    scenario.assert(&calm, "calm");
    for every in 2..=7 {
        let failing = |capacity| {
            let mut fake = Fake::new(capacity);
            fake.fail(Some(Failing { every }));
            fake
        };
        let stormy = Run::new(&scenario, Trouble::Failures, failing).finish();
        scenario.assert(&stormy, &format!("every {every}. write fails"));
        let crashing = Run::new(&scenario, Trouble::Crashes, failing).finish();
        scenario.assert(
            &crashing,
            &format!("every {every}. write fails, with crashes"),
        );
    }
}

macro_rules! scenarios {
    ($($test:ident $name:literal)*) => {
        $(#[test]
        fn $test() {
            check($name);
        })*

        #[test]
        fn every_scenario_is_run() {
            assert_eq!(Scenario::all(), [$($name),*]);
        }
    };
}

scenarios! {
    bad_objects "bad-objects"
    bad_services "bad-services"
    close_tcp "close-tcp"
    clusterip "clusterip"
    conflict "conflict"
    delete "delete"
    dual_stack "dual-stack"
    duplicate_addresses "duplicate-addresses"
    endpoints_come_and_go "endpoints-come-and-go"
    external_ips "external-ips"
    external_traffic_policy "external-traffic-policy"
    health_check "health-check"
    ignored "ignored"
    internal_traffic_policy "internal-traffic-policy"
    list_and_multidoc "list-and-multidoc"
    load_balancer "load-balancer"
    local_address "local-address"
    nodeport "nodeport"
    not_ready_addresses "not-ready-addresses"
    one_address_twice "one-address-twice"
    restart "restart"
    sctp "sctp"
    service_ranges "service-ranges"
    session_affinity "session-affinity"
    several_ports "several-ports"
    several_slices "several-slices"
    source_ranges "source-ranges"
    table_full "table-full"
    terminating "terminating"
    topology_nodes "topology-nodes"
    topology_zones "topology-zones"
}
