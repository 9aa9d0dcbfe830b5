//! Applications as people run them, before a Service and behind it.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::sockets::inside;
use crate::stage::{Stage, eventually};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddrV4};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use xtask::cluster::{Pod, Protocol, Service, ServicePort};
use xtask::setup::find;

/// The addresses of the Service that all of them ask.
const SERVICE: [&str; 2] = ["10.96.0.80", "fd00:10:96::80"];
/// Where its pods listen.
const BACKEND: u16 = 8081;
/// A name that only the pods know; each gives another address.
const NAME: &str = "who.answers.test";
/// As often as three pods are all drawn by, but for one run in 10,000.
const OFTEN: usize = 26;

/// Programs in pods; they end with it.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A stage, its pod `shell`, and a folder for what programs read.
struct Applications {
    running: Running,
    shell: Pod,
    folder: PathBuf,
    service: Service,
    stage: Stage,
}

impl Applications {
    /// A Service on this port, with a program in each of its pods.
    fn new(protocol: Protocol, port: u16, program: impl Fn(&Pod, &Path) -> Command) -> Self {
        let stage = Stage::new(&[]);
        let folder = stage.cluster.folder().join("applications");
        std::fs::create_dir(&folder).unwrap();
        let service = Service {
            name: "app".into(),
            cluster_ips: SERVICE.map(|ip| ip.parse().unwrap()).to_vec(),
            ports: vec![ServicePort {
                name: "app".into(),
                protocol,
                port,
                target_port: BACKEND,
                node_port: None,
            }],
            pods: stage.web.clone(),
            spec_lines: Vec::new(),
        };
        stage.cluster.manifests().unwrap().write(&service).unwrap();
        let mut applications = Self {
            running: Running(Vec::new()),
            shell: inside(&stage, 1, &stage.shell),
            folder,
            service,
            stage,
        };
        for pod in applications.stage.web.clone() {
            let command = program(&pod, &applications.folder);
            applications.start(&pod, command);
        }
        applications
    }

    fn start(&mut self, pod: &Pod, mut command: Command) {
        let log = self.folder.join(format!("{}.log", pod.name()));
        let log = std::fs::File::create(log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = self.stage.cluster.spawn(pod.namespace(), command);
        self.running.0.push(child.unwrap());
    }

    /// What a program in the shell says, if it succeeds.
    fn ask(&self, program: &str, args: &[&str]) -> Option<String> {
        let said = self.shell.namespace().command(program, args).ok()?;
        Some(said.trim().to_owned())
    }

    /// All that is said by asking often, after it has worked once.
    fn answers(&self, program: &str, args: &[&str]) -> BTreeSet<String> {
        eventually("it answers", || self.ask(program, args).is_some());
        let ask = |_| self.ask(program, args).expect("it goes on answering");
        (0..OFTEN).map(ask).collect()
    }

    fn count(&self, call: &str) -> u64 {
        self.stage.count(1, "sockets", call)
    }

    /// The first pod is no longer behind the Service.
    fn remove_first(&mut self) {
        let gone = self.service.pods.remove(0);
        let manifests = self.stage.cluster.manifests().unwrap();
        manifests.write(&self.service).unwrap();
        let gone = SocketAddrV4::new(gone.v4(), BACKEND);
        eventually("the maps follow", || !self.stage.has_backend(1, gone));
    }
}

fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| panic!("no {program}: cargo xtask setup")))
}

fn names(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod.name().to_owned()).collect()
}

/// A web server with this in the place of its answer. It is one process: workers outlive a master that is killed.
fn nginx(pod: &Pod, folder: &Path, port: u16, location: &str) -> Command {
    let home = folder.join(format!("nginx-{}", pod.name()));
    std::fs::create_dir(&home).unwrap();
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; user root; error_log stderr;
         events {{}}
         http {{
           access_log off;
           client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
           uwsgi_temp_path uwsgi; scgi_temp_path scgi;
           server {{ listen {port}; listen [::]:{port}; location / {{ {location} }} }}
         }}
"
    );
    let config = home.join("nginx.conf");
    std::fs::write(&config, text).unwrap();
    let mut nginx = command("nginx");
    nginx.args(["-e", "stderr", "-p"]).arg(&home);
    nginx.arg("-c").arg(&config);
    nginx
}

#[test]
fn curl_and_nginx_reach_web_servers() {
    let mut web = Applications::new(Protocol::Tcp, 80, |pod, folder| {
        let answer = format!("return 200 {};", pod.name());
        nginx(pod, folder, BACKEND, &answer)
    });
    let pods = names(&web.stage.web);
    for (ip, host) in [SERVICE[0], "[fd00:10:96::80]"].into_iter().zip(SERVICE) {
        let url = format!("http://{ip}/");
        let said = web.answers("curl", &["-sS", "-w", " %{remote_ip}", &url]);
        let wanted = pods.iter().map(|pod| format!("{pod} {host}"));
        assert_eq!(said, wanted.collect(), "curl");
    }
    let before = web.count("socket-connected");
    let shell = web.shell.clone();
    let pass = format!("proxy_pass http://{};", SERVICE[0]);
    let proxy = nginx(&shell, &web.folder, 8082, &pass);
    web.start(&shell, proxy);
    let said = web.answers("curl", &["-sSf", "http://127.0.0.1:8082/"]);
    assert_eq!(said, pods, "nginx");
    assert!(web.count("socket-connected") > before + OFTEN as u64);
    web.stage.assert_undisturbed();
}

#[test]
fn redis_clients_reach_redis() {
    let redis = Applications::new(Protocol::Tcp, 6379, |_, folder| {
        // Debian has one program for all, which goes by its name.
        let mut server = command("redis-check-rdb");
        let port = BACKEND.to_string();
        server.arg0("redis-server").current_dir(folder);
        server.args(["--port", &port, "--bind", "*", "-::*", "--save", ""]);
        server.args(["--protected-mode", "no", "--appendonly", "no"]);
        server
    });
    for host in SERVICE {
        let pong = redis.answers("redis-cli", &["-h", host, "ping"]);
        assert_eq!(pong, BTreeSet::from(["PONG".to_owned()]));
        let load = ["-h", host, "-q", "-n", "2000", "-c", "20", "-t", "set,get"];
        let load = redis.ask("redis-benchmark", &load).expect("it ends well");
        let counts = load.matches("requests per second").count();
        assert_eq!(counts, 2, "{load}");
    }
    assert!(redis.count("socket-connected") > 80);
    redis.stage.assert_undisturbed();
}

/// A name server that knows what it is told.
fn dnsmasq(at: IpAddr, port: u16, more: &[String]) -> Command {
    let mut dnsmasq = command("dnsmasq");
    dnsmasq.args(["--keep-in-foreground", "--no-resolv", "--no-hosts"]);
    dnsmasq.args(["--conf-file=/dev/null", "--pid-file=", "--user=root"]);
    dnsmasq.args(["--bind-interfaces", "--cache-size=0"]);
    dnsmasq.arg(format!("--listen-address={at}"));
    dnsmasq.arg(format!("--port={port}"));
    dnsmasq.args(more);
    dnsmasq
}

/// What the resolver of the C library finds, which asks this name server.
fn resolve(dns: &Applications, server: &str) -> BTreeSet<String> {
    let config = dns.folder.join("resolv.conf");
    let text = format!("nameserver {server}\noptions timeout:2 attempts:1\n");
    std::fs::write(&config, text).unwrap();
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec getent ahostsv4 {NAME}",
        config.display()
    );
    let said = dns.answers("unshare", &["--mount", "sh", "-c", &script]);
    let first = |text: &String| text.split_whitespace().next().map(str::to_owned);
    said.iter().filter_map(first).collect()
}

#[test]
fn resolvers_reach_name_servers_with_sockets_of_either_kind() {
    let mut dns = Applications::new(Protocol::Udp, 53, |pod, _| {
        let known = format!("--address=/{NAME}/{}", pod.v4());
        dnsmasq(pod.v4().into(), BACKEND, &[known])
    });
    let all: Vec<String> = dns
        .stage
        .web
        .iter()
        .map(|pod| pod.v4().to_string())
        .collect();
    let all: BTreeSet<String> = all.into_iter().collect();
    assert_eq!(resolve(&dns, SERVICE[0]), all, "the C library");
    let before = dns.count("socket-sent");
    let shell = dns.shell.clone();
    let upstream = format!("--server={}", SERVICE[0]);
    let forwarder = dnsmasq(shell.v4().into(), 53, &[upstream]);
    dns.start(&shell, forwarder);
    let server = shell.v4().to_string();
    assert_eq!(resolve(&dns, &server), all, "by way of a forwarder");
    assert!(dns.count("socket-sent") > before + OFTEN as u64);
    dns.remove_first();
    let left: BTreeSet<String> = all.iter().skip(1).cloned().collect();
    assert_eq!(resolve(&dns, &server), left, "one is gone");
    assert_eq!(resolve(&dns, SERVICE[0]), left, "one is gone");
    dns.stage.assert_undisturbed();
}
