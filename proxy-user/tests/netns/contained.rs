//! The agent as the pods of deploy/ run it: prepared by `ferrule init`, then with few capabilities, and on a file
//! system that is read-only.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::stage::{START, Stage, binary, expect_service};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::cluster::{CLUSTER_CIDR, Node};

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const ACCEPT_LOCAL: &str = "/proc/sys/net/ipv4/conf/lo/accept_local";

/// Nothing below can be written any more, and /proc/sys neither.
const READ_ONLY: &str = "mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys
    mount -o remount,bind,ro /";

/// A script that lays out mounts of its own and becomes the agent, with the capabilities of the pod.
fn pod(stage: &Stage, mounts: &str) -> PathBuf {
    let script = stage.cluster.folder().join("ferrule-pod");
    let agent = binary();
    let text = format!(
        "#!/bin/sh
set -e
[ \"$ALONE\" ] || ALONE=1 exec unshare --mount \"$0\" \"$@\"
{mounts}
ulimit -l 64
exec setpriv --no-new-privs --bounding-set={} {} \"$@\"
",
        capabilities(),
        agent.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
    script
}

/// Those of the DaemonSet; below Linux 5.11 with the component for old kernels.
fn capabilities() -> &'static str {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    match version < (5, 11) {
        true => "-all,+bpf,+net_admin,+perfmon,+sys_resource",
        false => "-all,+bpf,+net_admin,+perfmon",
    }
}

/// What the agent gets, too.
const CONFIG: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
conntrack: {tcpCloseWaitTimeout: 30m, udpTimeout: 50s}
";
const CLOSE_WAIT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";

fn init(node: &Node, config: &Path) -> String {
    let paths = node.paths();
    let mut command = Command::new(binary());
    command.arg("init");
    command.arg("--bpffs").arg(&paths.bpffs);
    command.arg("--run-dir").arg(&paths.run_dir);
    command.arg("--config").arg(config);
    run(node, command)
}

/// What a command says in the node's network; it has to succeed.
fn run(node: &Node, mut command: Command) -> String {
    let said = node.namespace().run(|| command.output()).unwrap().unwrap();
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(said.status.success(), "{text}");
    text
}

fn reset(node: &Node) {
    let reset = || {
        std::fs::write(RESERVED, "\n").unwrap();
        std::fs::write(ACCEPT_LOCAL, "0").unwrap();
        std::fs::write(CLOSE_WAIT, "60").unwrap();
    };
    node.namespace().run(reset).unwrap();
}

fn bind(path: &Path) -> String {
    let path = path.display();
    format!("mount --bind {path} {path}")
}

#[test]
fn an_agent_in_its_pod_serves_with_what_init_has_prepared() {
    let mut stage = Stage::new(&[]);
    stage.take_agent(1).kill().unwrap();
    let node = stage.cluster.node(1);
    reset(node);
    let config = stage.cluster.folder().join("config.yaml");
    let text = format!("{CONFIG}clusterCIDR: {CLUSTER_CIDR}\n");
    std::fs::write(&config, text).unwrap();
    let said = init(node, &config);
    for done in [
        "reserved ports: 1024-32767",
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait: 1800",
        "net.netfilter.nf_conntrack_udp_timeout: 50",
    ] {
        assert!(said.contains(done), "{done}: {said}");
    }
    let mode = node
        .paths()
        .run_dir
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let run_dir = bind(&node.paths().run_dir);
    let script = pod(&stage, &format!("{run_dir}\n{READ_ONLY}"));
    let file = config.display().to_string();
    let mut agent = node.start_agent(&script, &["--config", &file]).unwrap();
    agent.wait_synced(START).unwrap();
    let status = agent.status().unwrap();
    assert_eq!(status["agent"]["warnings"].to_string(), "[]");
    assert_eq!(status["agent"]["reserved_ports"], "1024-32767");
    let has = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let effective = has.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.unwrap().trim(), 16).unwrap();
    // BPF, PERFMON and NET_ADMIN; SYS_RESOURCE.
    let wanted = 1 << 39 | 1 << 38 | 1 << 12;
    assert_eq!(effective & !(1 << 24), wanted, "{effective:x}");
    stage.agents[0] = Some(agent);
    expect_service(&stage);
    let again = init(stage.cluster.node(1), &config);
    assert_eq!(again, said, "it can be run beside an agent");
}

#[test]
fn init_mounts_bpffs_once_and_only_warns_of_settings() {
    let stage = Stage::new(&[]);
    let node = stage.cluster.node(1);
    reset(node);
    let folder = stage.cluster.folder().join("fresh");
    let (agent, folder) = (binary(), folder.display().to_string());
    let script = format!(
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit 1
         for _ in 1 2; do {} init --bpffs {folder}/bpf --run-dir {folder}/run || exit 1; done",
        agent.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let said = run(node, command);
    assert_eq!(said.matches("bpf: mounted").count(), 1, "{said}");
    assert_eq!(said.matches("bpf: is there").count(), 1, "{said}");
    let warning = "ferrule: warning: net.ipv4.ip_local_reserved_ports is not set to 1024-32767";
    assert_eq!(said.matches(warning).count(), 2, "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
}

#[test]
fn init_makes_room_for_what_netfilter_is_to_track() {
    let stage = Stage::new(&[]);
    // The real ones are the machine's.
    let settings = stage.cluster.folder().join("netfilter");
    std::fs::create_dir(&settings).unwrap();
    let write = |name: &str, value: &str| std::fs::write(settings.join(name), value).unwrap();
    let read = |name: &str| std::fs::read_to_string(settings.join(name)).unwrap();
    let init = |more: &str| {
        let script = format!(
            "mount --bind {} /proc/sys/net/netfilter || exit 1
             exec {} init --bpffs {folder}/bpf --run-dir {folder}/run --conntrack-min 600000 {more}",
            settings.display(),
            binary().display(),
            folder = stage.cluster.folder().display(),
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        run(stage.cluster.node(1), command)
    };
    write("nf_conntrack_max", "262144\n");
    write("nf_conntrack_buckets", "262144\n");
    let said = init("--conntrack-max-per-core 1 --conntrack-tcp-be-liberal");
    assert!(said.contains("nf_conntrack_max: 600000"), "{said}");
    assert_eq!(read("nf_conntrack_max"), "600000");
    assert_eq!(read("nf_conntrack_buckets"), "262144\n", "enough");
    write("nf_conntrack_buckets", "65536\n");
    init("--conntrack-max-per-core 1");
    assert_eq!(read("nf_conntrack_buckets"), "150000");
    write("nf_conntrack_max", "1000\n");
    init("--conntrack-max-per-core 0");
    assert_eq!(read("nf_conntrack_max"), "1000\n", "it is left alone");
    let count = std::fs::read_dir(&settings).unwrap().count();
    assert_eq!(count, 2, "what is not there is not made: {said}");
    assert!(!said.contains("warning: net.netfilter"), "{said}");
}

/// What an agent says that does not come up.
fn refusal(stage: &mut Stage, mounts: &str) -> String {
    drop(stage.agents[0].take());
    let script = pod(stage, mounts);
    let mut agent = stage.cluster.node(1).start_agent(&script, &[]).unwrap();
    format!("{:#}", agent.wait_synced(START).unwrap_err())
}

#[test]
fn a_bpffs_that_is_missing_or_read_only_is_named() {
    let mut stage = Stage::new(&[]);
    let bpffs = stage.cluster.node(1).paths().bpffs.display().to_string();
    let mounts = format!("mount --bind {bpffs} {bpffs}\nmount -o remount,bind,ro {bpffs}");
    let said = refusal(&mut stage, &mounts);
    assert!(
        said.contains(&format!("bpffs on {bpffs} is read-only")),
        "{said}"
    );
    let mounts = format!("mount --bind {} {bpffs}", stage.cluster.folder().display());
    let said = refusal(&mut stage, &mounts);
    assert!(said.contains(&format!("{bpffs} is not bpffs")), "{said}");
}

/// What the stage names for the node's cgroup comes last, and only for the agent: it has to find one by itself.
const WITHOUT_CGROUP: &str = "left=$#
[ \"$1\" = run ] || left=$((left + 2))
for flag do
    shift
    left=$((left - 1))
    [ $left -lt 2 ] || set -- \"$@\" \"$flag\"
done";

#[test]
fn without_a_root_of_cgroups_packets_are_translated_instead() {
    let mut stage = Stage::new(&[]);
    stage.take_agent(1).kill().unwrap();
    let hide = "while read -r _ _ _ _ point rest; do
    case \"$rest\" in *' - cgroup2 '*) mount -t tmpfs none \"$point\" ;; esac
done < /proc/self/mountinfo";
    let script = pod(&stage, &format!("{hide}\n{WITHOUT_CGROUP}"));
    let mut agent = stage.cluster.node(1).start_agent(&script, &[]).unwrap();
    agent.wait_synced(START).unwrap();
    let status = agent.status().unwrap();
    let problem = status["agent"]["sockets"]["problem"].to_string();
    assert!(
        problem.contains("no root of cgroup v2 is mounted"),
        "{problem}"
    );
    stage.agents[0] = Some(agent);
    expect_service(&stage);
}
