//! The rules of kube-proxy, as it writes them for Services of this kind (1.36, measured from a real one): nftables,
//! and iptables with either of its backends.

use crate::services::{PORT, Services};
use anyhow::{Context as _, Result, bail};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xtask::cluster::Namespace;

/// Who writes the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// `nft`.
    Nftables,
    /// `iptables-legacy-restore`: one list of rules, which the kernel takes as a whole.
    Legacy,
    /// `iptables-nft-restore`: the same rules, each one in nf_tables.
    OverNftables,
}

const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

impl Writer {
    fn program(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Nftables => ("nft", &["-f", "-"]),
            Self::Legacy => ("iptables-legacy-restore", &["--noflush"]),
            Self::OverNftables => ("iptables-nft-restore", &["--noflush"]),
        }
    }

    /// Loads rules in a namespace, in one transaction; returns how long that took.
    pub(crate) fn load(self, place: &Namespace, rules: &str, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        place.run(|| feed(self.program(), rules, limit))??;
        Ok(start.elapsed())
    }

    /// The rules for these Services.
    pub(crate) fn rules(self, services: Services, endpoints: &[String]) -> String {
        match self {
            Self::Nftables => nftables(services, endpoints),
            Self::Legacy | Self::OverNftables => iptables(services, endpoints),
        }
    }
}

/// Gives a program its input, and ends it if it takes too long.
fn feed((name, args): (&str, &[&str]), input: &str, limit: Duration) -> Result<()> {
    let program = xtask::setup::find(name).with_context(|| format!("no {name}"))?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no input")?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        // It may end before it has read all.
        scope.spawn(move || stdin.write_all(input.as_bytes()));
        loop {
            if let Some(status) = child.try_wait()? {
                return match status.success() {
                    true => Ok(()),
                    false => bail!("{name} has failed ({status})"),
                };
            }
            if start.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                bail!("{name} was not done after {} s", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

/// Sets and maps of addresses, and a chain for each port.
fn nftables(services: Services, endpoints: &[String]) -> String {
    let addresses = services
        .numbers()
        .map(|number| Services::address(number).to_string());
    let addresses = addresses.collect::<Vec<_>>().join(", ");
    let (mut chains, mut elements) = (String::new(), Vec::new());
    let mut hairpin = Vec::new();
    for number in services.numbers() {
        let (address, name) = (Services::address(number), Services::name(number));
        for proto in PROTOCOLS {
            let chain = format!("service-{number:08X}-default/{name}/{proto}/{proto}");
            elements.push(format!("{address} . {proto} . {PORT} : goto {chain}"));
            let target = Services::target(number);
            let targets = endpoints.iter().enumerate();
            let targets = targets.map(|(index, ip)| format!("{index} : {ip} . {target}"));
            let targets = targets.collect::<Vec<_>>().join(", ");
            let count = endpoints.len();
            let _ = writeln!(
                chains,
                "  chain {chain} {{ meta l4proto {proto} dnat ip to numgen random mod {count} map {{ {targets} }}; }}"
            );
            hairpin.extend(
                endpoints
                    .iter()
                    .map(|ip| format!("{ip} . {ip} . {proto} . {target}")),
            );
        }
    }
    hairpin.sort_unstable();
    hairpin.dedup();
    NFTABLES
        .replace("@CLUSTER_IPS@", &addresses)
        .replace("@HAIRPIN@", &hairpin.join(", "))
        .replace("@ELEMENTS@", &elements.join(", "))
        .replace("@CHAINS@", &chains)
}

/// The frame of the rules.
const NFTABLES: &str = "
table ip kube-proxy {
  set hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service; elements = { @HAIRPIN@ } }
  set cluster-ips { type ipv4_addr; elements = { @CLUSTER_IPS@ } }
  set nodeport-ips { type ipv4_addr; elements = { 172.31.1.2 } }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map service-nodeports { type inet_proto . inet_service : verdict; }
  chain filter-prerouting-pre-dnat { type filter hook prerouting priority dstnat - 10; ct state new jump firewall-check; }
  chain filter-output-pre-dnat { type filter hook output priority -110; ct state new jump firewall-check; }
  chain filter-input {
    type filter hook input priority filter;
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }
  chain filter-forward {
    type filter hook forward priority filter;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain filter-output {
    type filter hook output priority filter;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
  chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain services {
    ip daddr @cluster-ips ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x4000
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain masquerading {
    meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random
    ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
  }
  chain cluster-ips-check {
    ip daddr @cluster-ips reject
    ip daddr 10.96.0.0/12 drop
  }
  @CHAINS@
}
add element ip kube-proxy service-ips { @ELEMENTS@ }
";

/// One list of all Services, and chains for each of them and their endpoints.
fn iptables(services: Services, endpoints: &[String]) -> String {
    let (mut declared, mut list, mut rules) = (String::new(), String::new(), String::new());
    for number in services.numbers() {
        let (address, name) = (Services::address(number), Services::name(number));
        let target = Services::target(number);
        for proto in PROTOCOLS {
            let port = format!("default/{name}:{proto}");
            let service = format!("KUBE-SVC-{proto}{number:08X}AAAAA").to_uppercase();
            let _ = writeln!(declared, ":{service} - [0:0]");
            let _ = writeln!(
                list,
                "-A KUBE-SERVICES -d {address}/32 -p {proto} -m comment --comment \"{port} cluster IP\" \
                 -m {proto} --dport {PORT} -j {service}"
            );
            let _ = writeln!(
                rules,
                "-A {service} ! -s 10.244.0.0/16 -d {address}/32 -p {proto} -m comment --comment \"{port} cluster IP\" \
                 -m {proto} --dport {PORT} -j KUBE-MARK-MASQ"
            );
            for (index, ip) in endpoints.iter().enumerate() {
                let endpoint = format!("KUBE-SEP-{proto}{number:08X}{index:05}").to_uppercase();
                let _ = writeln!(declared, ":{endpoint} - [0:0]");
                let left = endpoints.len() - index;
                let chance = match left {
                    1 => String::new(),
                    _ => format!(
                        "-m statistic --mode random --probability {:.11} ",
                        1.0 / left as f64
                    ),
                };
                let _ = writeln!(
                    rules,
                    "-A {service} -m comment --comment \"{port} -> {ip}:{target}\" {chance}-j {endpoint}\n\
                     -A {endpoint} -s {ip}/32 -m comment --comment \"{port}\" -j KUBE-MARK-MASQ\n\
                     -A {endpoint} -p {proto} -m comment --comment \"{port}\" -m {proto} \
                     -j DNAT --to-destination {ip}:{target}"
                );
            }
        }
    }
    format!(
        "{IPTABLES_FILTER}{IPTABLES_NAT}{declared}{IPTABLES_HOOKS}{list}{IPTABLES_LAST}{rules}COMMIT\n"
    )
}

const IPTABLES_FILTER: &str = "*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

const IPTABLES_NAT: &str = "*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
";

const IPTABLES_HOOKS: &str = "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
";

const IPTABLES_LAST: &str = "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
";
