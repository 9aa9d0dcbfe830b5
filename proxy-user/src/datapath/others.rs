//! Others on this node who serve Services, too, or have left behind what they served them with.
//!
//! Only what three capabilities suffice to see; programs by name take CAP_SYS_ADMIN on top.

use crate::datapath::firewall::named_chains;
use aya::programs::loaded_programs;
use nix::net::if_::if_nametoindex;
use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// What the operator should know of others, one line each, with what to do. `is_agent_here`: whether Ferrule's own
/// agent runs on this node, which then has kube-proxy's ports.
pub fn warnings(bpffs: &Path, is_agent_here: bool) -> Vec<String> {
    let mut found: Vec<String> = kube_proxy(is_agent_here).into_iter().collect();
    found.extend(PROXIES.iter().filter_map(|proxy| proxy.find(bpffs)));
    found
}

/// Where kube-proxy tells its health, and its mode.
const HEALTH: u16 = 10256;
const METRICS: u16 = 10249;
/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes; more than an answer of the right kind has.
const LONGEST_ANSWER: usize = 4096;
/// What Ferrule answers in the place of a mode.
const OURS: &str = "ferrule";
/// The device to which kube-proxy gives service addresses in its mode ipvs.
const IPVS: &str = "kube-ipvs0";

/// kube-proxy as it runs, else what it has left behind.
fn kube_proxy(is_agent_here: bool) -> Option<String> {
    let mode = mode((Ipv4Addr::LOCALHOST, METRICS).into(), PATIENCE);
    let running = match mode.as_deref() {
        Some(OURS) => return leftovers(),
        Some(mode) => format!("kube-proxy is running (mode {mode})"),
        None if !is_agent_here && listens(HEALTH) => {
            format!(
                "port {HEALTH} is taken, where kube-proxy tells its health: it seems to be running"
            )
        }
        None => return leftovers(),
    };
    let remedy = "stop it: Services would be served twice, and what it has set up goes on after that until \
                  kube-proxy --cleanup";
    Some(format!("{running}; {remedy}"))
}

fn leftovers() -> Option<String> {
    let rules = named_chains().unwrap_or_default();
    let is_theirs = |table: &str, chain: &str| table == "kube-proxy" || chain == "KUBE-SERVICES";
    let rules = rules.iter().filter(|it| is_theirs(&it.table, &it.name));
    let rules: BTreeSet<String> = rules
        .map(|it| format!("table {} {}", it.family, it.table))
        .collect();
    let device = if_nametoindex(IPVS)
        .is_ok()
        .then(|| format!("device {IPVS}"));
    let all: Vec<String> = rules.into_iter().chain(device).collect();
    (!all.is_empty()).then(|| {
        format!(
            "kube-proxy has left behind {}; remove it by kube-proxy --cleanup, or restart the node",
            all.join(", ")
        )
    })
}

/// What answers where kube-proxy says its mode, within this time; `None`: nothing, or something else.
fn mode(to: SocketAddr, patience: Duration) -> Option<String> {
    const MODES: [&str; 4] = ["iptables", "ipvs", "nftables", OURS];
    let deadline = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
    stream.set_write_timeout(Some(patience)).ok()?;
    stream
        .write_all(b"GET /proxyMode HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .ok()?;
    let answer = read_until(&mut stream, deadline).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let mode = MODES.iter().find(|mode| body.trim() == **mode)?;
    Some((*mode).to_owned())
}

/// All that is sent, or as much as tells that it is not the answer. However slowly it comes: the deadline is that of
/// all reads together.
fn read_until(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    while answer.len() < LONGEST_ANSWER {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => break,
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    Ok(answer)
}

/// Whether a TCP socket of this network namespace listens on a port.
fn listens(port: u16) -> bool {
    let listens = |family: &str| {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{family}"));
        text.is_ok_and(|text| text.lines().any(|line| is_listener(line, port)))
    };
    ["tcp", "tcp6"].into_iter().any(listens)
}

/// Whether a line of /proc/net/tcp (proc_pid_net(5)) is about a listener on a port.
fn is_listener(line: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let (Some(local), Some(_), Some(state)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let local = local.rsplit_once(':').map(|(_, port)| port);
    let local = local.and_then(|port| u16::from_str_radix(port, 16).ok());
    state == LISTEN && local == Some(port)
}

/// Another service proxy in eBPF, and what gives it away.
struct Proxy {
    name: &'static str,
    devices: &'static [&'static str],
    /// How its maps begin in the folders where it pins them.
    maps: (&'static str, &'static str),
    /// How its programs begin that serve sockets or packets.
    programs: &'static str,
    /// How to tell it to leave Services alone.
    remedy: &'static str,
}

const PROXIES: [Proxy; 2] = [
    Proxy {
        name: "Cilium",
        devices: &["cilium_host", "cilium_net"],
        maps: ("tc/globals", "cilium_lb"),
        programs: "cil_",
        remedy: "kubeProxyReplacement: false, or remove it",
    },
    Proxy {
        name: "Calico in eBPF",
        devices: &["bpfin.cali", "bpfout.cali"],
        maps: ("tc/globals", "cali_v4_nat"),
        programs: "cali_",
        remedy: "linuxDataplane: Iptables or Nftables, or remove it",
    },
];

impl Proxy {
    fn find(&self, bpffs: &Path) -> Option<String> {
        let evidence = self.evidence(bpffs)?;
        let Self { name, remedy, .. } = self;
        Some(format!(
            "{name} is on this node ({evidence}); see that it does not serve Services as well: {remedy}"
        ))
    }

    fn evidence(&self, bpffs: &Path) -> Option<String> {
        let devices = self.devices.iter();
        let mut devices = devices.filter(|it| if_nametoindex(**it).is_ok());
        let device = devices.next().map(|device| format!("device {device}"));
        device
            .or_else(|| self.map(bpffs).map(|map| format!("map {map}")))
            .or_else(|| self.program().map(|program| format!("program {program}")))
    }

    fn map(&self, bpffs: &Path) -> Option<String> {
        let (folder, start) = self.maps;
        let entries = std::fs::read_dir(bpffs.join(folder)).ok()?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names = names.map(|name| name.to_string_lossy().into_owned());
        names.find(|name| name.starts_with(start))
    }

    fn program(&self) -> Option<String> {
        // Without the right to list them the first one is an error.
        let programs = loaded_programs().map_while(Result::ok);
        let mut names = programs.filter_map(|it| it.name_as_str().map(str::to_owned));
        names.find(|name| name.starts_with(self.programs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Whoever answers the one who asks for the mode, piece by piece until the other one leaves.
    fn answering(piece: &'static [u8]) -> (SocketAddr, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let answer = move || {
            let (mut client, _) = listener.accept().unwrap();
            while client.write_all(piece).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        (address, std::thread::spawn(answer))
    }

    #[test]
    fn whoever_answers_without_an_end_is_left_in_time() {
        // At this pace all that is read at most would take a minute and more.
        let (address, server) = answering(b"x");
        let asked = Instant::now();
        assert_eq!(mode(address, Duration::from_millis(100)), None);
        assert!(asked.elapsed() < Duration::from_secs(20));
        // It ends when the other side has gone.
        server.join().unwrap();
        let (address, server) = answering(&[b'x'; 8192]);
        assert_eq!(mode(address, Duration::from_secs(3600)), None, "too much");
        server.join().unwrap();
    }

    #[test]
    fn listeners_are_told_from_connections_to_the_same_port() {
        let line = |local: &str, state: &str| {
            format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000")
        };
        assert!(is_listener(&line("00000000:2810", "0A"), HEALTH));
        let v6 = format!("{}:2810", "0".repeat(32));
        assert!(is_listener(&line(&v6, "0A"), HEALTH));
        assert!(!is_listener(&line("00000000:2810", "01"), HEALTH));
        assert!(!is_listener(&line("00000000:2811", "0A"), HEALTH));
        assert!(!is_listener("  sl  local_address rem_address   st", HEALTH));
    }
}
