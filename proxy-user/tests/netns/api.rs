//! Agents that watch an API server: from nothing, through an outage, and as a pod.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::stage::{
    FLOWS, PATIENCE, SHORT, START, TARGET, ask, binary, eventually, expect_all, web_service, within,
};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::api::{ApiServer, Options};
use xtask::cluster::{Agent, Cluster, Pod, Protocol, Service, Source};
use xtask::traffic::Server;

/// One node with a pod that asks and a pod that serves, and an API server that knows them.
struct Place {
    server: ApiServer,
    shell: Pod,
    web: Pod,
    service: Service,
    _answers: Server,
    cluster: Cluster,
}

impl Place {
    fn new() -> Self {
        let mut cluster = Cluster::create(1).unwrap();
        let shell = cluster.add_pod(1, "shell").unwrap();
        let web = cluster.add_pod(1, "web").unwrap();
        let answers = Server::start(&web, TARGET).unwrap();
        let server = cluster.start_api(Options::default()).unwrap();
        let service = web_service(std::slice::from_ref(&web));
        server.apply_all(service.objects().unwrap()).unwrap();
        server
            .write_kubeconfig(&cluster.folder().join("kubeconfig"))
            .unwrap();
        Self {
            server,
            shell,
            web,
            service,
            _answers: answers,
            cluster,
        }
    }

    fn start(&self) -> Agent {
        let kubeconfig = self.cluster.folder().join("kubeconfig");
        let source = Source::Kubeconfig(&kubeconfig);
        let agent = self
            .cluster
            .node(1)
            .start_agent_from(source, &binary(), &FLOWS);
        agent.unwrap()
    }

    /// The pod behind the Service answers, over both families and protocols.
    fn expect_answers(&self) {
        for address in &self.service.cluster_ips {
            let to = (*address, 80).into();
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let source = self.shell.addresses()[usize::from(address.is_ipv6())];
                expect_all(
                    &self.shell,
                    protocol,
                    to,
                    std::slice::from_ref(&self.web),
                    |_| source,
                );
            }
        }
    }

    fn has_problem(agent: &Agent, text: &str) -> bool {
        // There is nothing before it has begun to listen.
        let status = agent.status().unwrap_or_default();
        let watches = status["agent"]["watches"].as_array().into_iter().flatten();
        let mut problems = watches.filter_map(|watch| watch["problem"].as_str());
        problems.any(|problem| problem.contains(text))
    }
}

#[test]
fn services_come_from_an_api_server_and_outlast_its_outage() {
    let mut place = Place::new();
    let mut agent = place.start();
    agent.wait_synced(START).unwrap();
    place.expect_answers();

    place.server.outage();
    within(START, "the outage is noticed", || {
        Place::has_problem(&agent, "API server https://")
    });
    place.expect_answers();
    // The next agent finds nobody to ask. What is in the maps stays.
    agent.kill().unwrap();
    agent = place.start();
    within(START, "it says so", || {
        Place::has_problem(&agent, "API server https://")
    });
    assert_eq!(agent.status().unwrap()["agent"]["sync"]["synced"], false);
    place.expect_answers();

    // Meanwhile the cluster changes, and forgets how.
    let gone = place.service.cluster_ips[1];
    place.service.cluster_ips.truncate(1);
    place
        .server
        .apply_all(place.service.objects().unwrap())
        .unwrap();
    place.server.compact();
    place.server.heal();
    agent.wait_synced(START).unwrap();
    place.expect_answers();
    eventually(
        "the address that is no longer the Service's answers no more",
        || ask(&place.shell, Protocol::Tcp, (gone, 80).into(), SHORT).is_err(),
    );
    assert!(!Place::has_problem(&agent, ""), "all is well again");
    agent.stop().unwrap();
}

/// A script that becomes the agent as a pod with this service account.
fn as_pod(cluster: &Cluster, account: &Path) -> PathBuf {
    const WHERE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let script = cluster.folder().join("ferrule-pod");
    let text = format!(
        "#!/bin/sh
set -e
[ \"$ALONE\" ] || ALONE=1 exec unshare --mount \"$0\" \"$@\"
mkdir -p {folder}/upper {folder}/work {folder}/root
mount -t tmpfs tmpfs {folder}/root
mkdir -p {folder}/root/kubernetes.io/serviceaccount
cp {account}/* {folder}/root/kubernetes.io/serviceaccount/
mkdir -p /var/run/secrets
mount --bind {folder}/root /var/run/secrets
test -s {WHERE}/token
export KUBERNETES_SERVICE_HOST=10.96.0.1 KUBERNETES_SERVICE_PORT=443
exec {} \"$@\"
",
        binary().display(),
        folder = cluster.folder().display(),
        account = account.display(),
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
    script
}

#[test]
fn a_pod_on_a_node_with_empty_maps_needs_the_servers_own_addresses() {
    let place = Place::new();
    let account = place.cluster.folder().join("account");
    place.server.write_service_account(&account).unwrap();
    let script = as_pod(&place.cluster, &account);
    let node = place.cluster.node(1);
    // Nobody serves 10.96.0.1 here yet.
    let agent = node
        .start_agent_from(Source::ServiceAccount, &script, &FLOWS)
        .unwrap();
    within(START, "the setting is named", || {
        Place::has_problem(
            &agent,
            "give the API servers' own addresses with --api-servers",
        )
    });
    let said = agent.log().matches("--api-servers").count();
    assert_eq!(said, 1, "{}", agent.log());
    let mut cleanup = Command::new(binary());
    cleanup
        .arg("cleanup")
        .arg("--bpffs")
        .arg(&node.paths().bpffs);
    cleanup.arg("--run-dir").arg(&node.paths().run_dir);
    let cleaned = node.namespace().run(|| cleanup.output()).unwrap().unwrap();
    assert!(cleaned.status.success(), "{cleaned:?}");
    drop(agent);

    let address = place.server.url();
    let address = address.strip_prefix("https://").unwrap();
    let args = [&FLOWS[..], &["--api-servers", address]].concat();
    let mut agent = node
        .start_agent_from(Source::ServiceAccount, &script, &args)
        .unwrap();
    agent.wait_synced(START).unwrap();
    place.expect_answers();
    // From now on the node has the Service by which pods find the server: the next agent does without.
    agent.stop().unwrap();
    let mut agent = node
        .start_agent_from(Source::ServiceAccount, &script, &FLOWS)
        .unwrap();
    agent.wait_synced(START).unwrap();
    let reached = ask(
        &place.shell,
        Protocol::Tcp,
        (place.service.cluster_ips[0], 80).into(),
        PATIENCE,
    );
    assert_eq!(reached.unwrap().server, "web");
    agent.stop().unwrap(); // Only the mount point is left, unless it is others' too.
    let _ = std::fs::remove_dir("/var/run/secrets");
}
