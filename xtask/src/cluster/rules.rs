//! What is always in force on a node, because real nodes have it and proxies trip over it: strict
//! reverse-path filter, conntrack that drops INVALID, and the masquerading of a CNI plugin.

use super::namespace::Namespace;
use super::plan::{CLUSTER_CIDR_V4, CLUSTER_CIDR_V6, NodePlan};
use super::shape::{Families, Masquerade};
use anyhow::{Context, Result, ensure};
use std::path::Path;

const FORWARDING: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
];

/// Those of the families that the kernel has.
fn forwarding() -> Vec<(&'static str, &'static str)> {
    let has_v6 = Families::of_kernel() == Families::Both;
    let keys = FORWARDING.into_iter();
    keys.filter(|(key, _)| has_v6 || !key.starts_with("ipv6"))
        .collect()
}

/// Turns on forwarding and the strict reverse-path filter, also for devices yet to come.
pub(crate) fn forward_strictly(namespace: &Namespace) -> Result<()> {
    namespace.sysctls(&forwarding())?;
    // Devices that were there before took their value from the old default.
    namespace.run(|| {
        rp_filters()?.iter().try_for_each(|(device, _)| {
            Ok(std::fs::write(
                format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"),
                "1",
            )?)
        })
    })?
}

/// Switches IPv6 off where it is not wanted.
pub(crate) fn restrict_families(namespace: &Namespace, families: Families) -> Result<()> {
    match families {
        Families::V4 if Families::of_kernel() == Families::Both => namespace.sysctls(&[
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
        ]),
        Families::V4 | Families::Both | Families::V6 => Ok(()),
    }
}

/// Says whether netfilter sees what a bridge switches: `0` or `1`.
pub(crate) fn filter_switched(namespace: &Namespace, value: &str) -> Result<()> {
    let is_there = namespace.run(|| Path::new("/proc/sys/net/bridge").exists())?;
    // Without br_netfilter it never does.
    if !is_there && value == "0" {
        return Ok(());
    }
    namespace.sysctls(&[
        ("bridge/bridge-nf-call-iptables", value),
        ("bridge/bridge-nf-call-ip6tables", value),
    ])
}

/// Loads the netfilter rules of a node.
pub(crate) fn load(namespace: &Namespace, plan: NodePlan, masquerade: Masquerade) -> Result<()> {
    let (v4, v6) = (plan.pod_cidr_v4(), plan.pod_cidr_v6());
    let inwards = match masquerade {
        Masquerade::Never => return Ok(()),
        Masquerade::Outside => String::new(),
        Masquerade::Both => format!(
            "ip saddr != {CLUSTER_CIDR_V4} ip daddr != {v4} ip daddr {CLUSTER_CIDR_V4} masquerade random
             ip6 saddr != {CLUSTER_CIDR_V6} ip6 daddr != {v6} ip6 daddr {CLUSTER_CIDR_V6} masquerade random"
        ),
    };
    // Redirects are dropped apart: Linux 5.10 sends one when a node turns a translated packet around,
    // about a connection that the receiving node does not know.
    let ruleset = format!(
        "table inet cni {{
            counter invalid {{ }}
            counter redirects {{ }}
            chain forward {{
                type filter hook forward priority filter; policy accept;
                ct state invalid icmp type redirect counter name redirects drop
                ct state invalid counter name invalid drop
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr {v4} ip daddr != {CLUSTER_CIDR_V4} masquerade
                ip6 saddr {v6} ip6 daddr != {CLUSTER_CIDR_V6} masquerade
                {inwards}
            }}
        }}"
    );
    namespace
        .run(|| crate::command::run_with_input("nft", &["-f", "-"], &ruleset))?
        .with_context(|| format!("rules of {}", namespace.name()))?;
    Ok(())
}

/// Packets that the node dropped because conntrack called them INVALID.
pub(crate) fn invalid_drops(namespace: &Namespace) -> Result<u64> {
    let redirects = if kernel_redirects()? {
        0
    } else {
        dropped(namespace, "redirects")?
    };
    Ok(redirects + dropped(namespace, "invalid")?)
}

/// Whether the kernel is of those that send redirects about translated packets.
fn kernel_redirects() -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(release.starts_with("5."))
}

fn dropped(namespace: &Namespace, counter: &str) -> Result<u64> {
    let text = namespace.command("nft", &["-j", "list", "counter", "inet", "cni", counter])?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    let objects = json["nftables"]
        .as_array()
        .context("nft prints no objects")?;
    objects
        .iter()
        .find_map(|object| object["counter"]["packets"].as_u64())
        .context("nft prints no counter")
}

/// Fails unless forwarding, strict reverse-path filter and netfilter rules are all in force.
pub(crate) fn check(namespace: &Namespace) -> Result<()> {
    let name = namespace.name();
    namespace.run(|| -> Result<()> {
        for (key, value) in forwarding() {
            let found = std::fs::read_to_string(format!("/proc/sys/net/{key}"))?;
            ensure!(found.trim() == value, "{name}: {key} is {}", found.trim());
        }
        for (device, value) in rp_filters()? {
            ensure!(value == "1", "{name}: rp_filter of {device} is {value}");
        }
        Ok(())
    })??;
    let rules = namespace.command("nft", &["list", "table", "inet", "cni"])?;
    for wanted in [
        "ct state invalid counter name \"invalid\" drop",
        &format!("ip daddr != {CLUSTER_CIDR_V4} masquerade"),
        &format!("ip6 daddr != {CLUSTER_CIDR_V6} masquerade"),
    ] {
        ensure!(rules.contains(wanted), "{name}: nft lacks '{wanted}'");
    }
    Ok(())
}

/// Device and its reverse-path filter, for all devices of the thread's namespace.
fn rp_filters() -> Result<Vec<(String, String)>> {
    let devices = std::fs::read_dir("/proc/sys/net/ipv4/conf")?;
    devices
        .map(|device| {
            let device = device?;
            let value = std::fs::read_to_string(device.path().join("rp_filter"))?;
            let name = device.file_name().to_string_lossy().into_owned();
            Ok((name, value.trim().to_owned()))
        })
        .collect()
}
