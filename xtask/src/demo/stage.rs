//! What the demo plays on: cluster, pods, service, agents.

use crate::cluster::{Agent, Cluster, Pod, Protocol, Service, ServicePort, Source};
use crate::process::wait_for;
use crate::traffic::Server;
use crate::{progress, workspace};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Port of the pods.
pub(super) const TARGET_PORT: u16 = 8080;
/// Port of the Service's addresses.
pub(super) const PORT: u16 = 80;
/// Port of all nodes.
pub(super) const NODE_PORT: u16 = 30080;
/// The Service's addresses, IPv4 first.
pub(super) const CLUSTER_IPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa)),
];

const NODES: u8 = 3;

/// Where the agents find the objects.
#[derive(Clone, Copy, Debug)]
pub(super) enum Objects {
    /// In the cluster's folder of manifests.
    Folder,
    /// At an API server on the client.
    Api,
}

/// Everything that runs; dropping it removes all of it.
#[derive(Debug)]
pub(super) struct Stage {
    // Agents and servers go before the cluster that they live in.
    agents: Vec<Agent>,
    servers: Vec<Server>,
    /// The kubeconfig of the API server, if there is one.
    kubeconfig: Option<PathBuf>,
    /// The pods behind the Service, one on each node.
    pub(super) backends: Vec<Pod>,
    /// A pod on node 1 that only asks.
    pub(super) shell: Pod,
    pub(super) cluster: Cluster,
}

/// Builds the agent and returns where it is.
pub(super) fn build() -> Result<PathBuf> {
    println!("build");
    let args = ["build", "--release", "-p", "proxy-user", "--bin", "ferrule"];
    let title = "cargo build --release -p proxy-user";
    progress::run(title, "demo-build", workspace::cargo(&args)?)?;
    // Nothing is left to do now but to say where the program is.
    let output = workspace::cargo(&args)?
        .arg("--message-format=json")
        .stderr(Stdio::null())
        .output()?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut programs = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    programs.next().context("cargo names no program ferrule")
}

impl Stage {
    pub(super) fn set(binary: &Path, objects: Objects) -> Result<Self> {
        println!("cluster");
        let start = Instant::now();
        let mut cluster = Cluster::create(NODES)?;
        let shell = cluster.add_pod(1, "shell")?;
        let backends = (1..=NODES)
            .map(|node| cluster.add_pod(node, &format!("web-{node}")))
            .collect::<Result<Vec<Pod>>>()?;
        cluster.check_rules()?;
        let service = service(&backends);
        println!(
            "  ok {NODES} nodes and {} pods ({:.1} s)",
            backends.len() + 1,
            start.elapsed().as_secs_f64()
        );
        let kubeconfig = match objects {
            Objects::Api => Some(serve_api(&cluster, &service)?),
            Objects::Folder => {
                cluster.manifests()?.write(&service)?;
                None
            }
        };
        let mut stage = Self {
            agents: Vec::new(),
            servers: Vec::new(),
            kubeconfig,
            backends,
            shell,
            cluster,
        };
        stage.start(binary)?;
        Ok(stage)
    }

    fn start(&mut self, binary: &Path) -> Result<()> {
        for pod in &self.backends {
            self.servers.push(Server::start(pod, TARGET_PORT)?);
        }
        let start = Instant::now();
        for node in self.cluster.nodes() {
            let source = self.kubeconfig.as_deref();
            let source = source.map_or(Source::Manifests, Source::Kubeconfig);
            self.agents
                .push(node.start_agent_from(source, binary, &[])?);
        }
        for agent in &mut self.agents {
            agent.wait_synced(Duration::from_secs(10))?;
        }
        println!(
            "  ok {} agents in sync ({:.1} s)",
            self.agents.len(),
            start.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// What the agents logged, for whoever looks into a failure.
    pub(super) fn print_logs(&self) {
        for (agent, node) in self.agents.iter().zip(self.cluster.nodes()) {
            eprintln!("log of the agent of {}:\n{}", node.name(), agent.log());
        }
    }

    /// Leaves everything up, with servers that outlive this process, and says how to use it.
    pub(super) fn keep(self, binary: &Path) -> Result<()> {
        println!("{}", instructions(&self, binary));
        drop(self.servers);
        for pod in &self.backends {
            self.cluster.spawn(pod.namespace(), serve_command(pod)?)?;
        }
        self.agents.into_iter().for_each(Agent::keep);
        self.cluster.keep()
    }
}

fn service(backends: &[Pod]) -> Service {
    let port = |name: &str, protocol| ServicePort {
        name: name.to_owned(),
        protocol,
        port: PORT,
        target_port: TARGET_PORT,
        node_port: Some(NODE_PORT),
    };
    Service {
        name: "web".to_owned(),
        cluster_ips: CLUSTER_IPS.to_vec(),
        ports: vec![
            port("stream", Protocol::Tcp),
            port("datagram", Protocol::Udp),
        ],
        pods: backends.to_vec(),
        spec_lines: Vec::new(),
    }
}

/// Starts an API server with the cluster's objects, in a process that lasts as long as the cluster,
/// and returns its kubeconfig.
fn serve_api(cluster: &Cluster, service: &Service) -> Result<PathBuf> {
    let start = Instant::now();
    let objects: Vec<Value> = cluster
        .objects()
        .into_iter()
        .chain(service.objects()?)
        .collect();
    let file = cluster.folder().join("objects.json");
    fs::write(&file, Value::from(objects).to_string())?;
    let kubeconfig = cluster.folder().join("kubeconfig");
    let mut serve = own_command("serve-api")?;
    serve.arg(cluster.api_listen().to_string()).arg(&kubeconfig);
    serve.arg("--objects").arg(file);
    for address in cluster.api_addresses() {
        serve.args(["--address", &address.to_string()]);
    }
    let mut server = cluster.spawn(cluster.client().namespace(), serve)?;
    wait_for(Duration::from_secs(10), || {
        kubeconfig.exists() || matches!(server.try_wait(), Ok(Some(_)))
    });
    ensure!(kubeconfig.exists(), "the API server does not start");
    println!("  ok API server ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(kubeconfig)
}

fn serve_command(pod: &Pod) -> Result<Command> {
    let mut serve = own_command("serve")?;
    serve
        .args([pod.name(), pod.namespace().name()])
        .args(pod.addresses().map(|address| address.to_string()))
        .arg(TARGET_PORT.to_string());
    Ok(serve)
}

/// This program with another command, as a process that Ctrl-C does not end.
fn own_command(name: &str) -> Result<Command> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(env::current_exe()?);
    command
        .arg(name)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    Ok(command)
}

fn instructions(stage: &Stage, binary: &Path) -> String {
    let node = stage.cluster.node(1);
    let enter = |pod: &Pod| format!("nsenter --net={}", pod.namespace().path().display());
    let ask = |address: IpAddr, port| format!("bash -c 'head -1 </dev/tcp/{address}/{port}'");
    let [node4, _] = node.addresses();
    let (bpffs, run_dir) = (node.paths().bpffs.display(), node.paths().run_dir.display());
    [
        "the cluster stays up; try".to_owned(),
        format!("  {} {}", enter(&stage.shell), ask(CLUSTER_IPS[0], PORT)),
        format!(
            "  {} {}",
            enter(stage.cluster.client()),
            ask(node4, NODE_PORT)
        ),
        format!(
            "  nsenter --net={} {} status --bpffs {bpffs} --run-dir {run_dir}",
            node.namespace().path().display(),
            binary.display()
        ),
        format!("  bpftool map dump pinned {bpffs}/ferrule/FRONTENDS_V4"),
        change(stage),
        "  cargo xtask demo --down".to_owned(),
    ]
    .join("\n")
}

/// How to change the objects.
fn change(stage: &Stage) -> String {
    let Some(kubeconfig) = &stage.kubeconfig else {
        let folder = &stage.cluster.node(1).paths().manifests;
        return format!(
            "  ls {}   # change them: the agents follow",
            folder.display()
        );
    };
    format!(
        "  nsenter --net={} kubectl --kubeconfig {} edit service web   # the agents follow",
        stage.cluster.client().namespace().path().display(),
        kubeconfig.display()
    )
}
