//! Flags and the file together: what counts, and what has to be said of it.

use super::file::{File, Wrong};
use super::kube_proxy::ProxyMode;
use super::listen::ListenFlags;
use super::{ConntrackFlags, Run};
use crate::frontend::DetectLocal;
use anyhow::{Result, bail};

/// Settings to run with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Those that count, whether a flag or the file has them.
    pub run: Run,
    /// The file behind them.
    pub file: Option<File>,
}

impl Run {
    /// Reads the file of `--config`, if there is one, and puts it in the place of flags.
    ///
    /// # Errors
    /// The file is wrong, or the settings contradict each other.
    pub fn load(self) -> Result<Loaded> {
        let file = self.config.as_deref();
        let file = file.map(|path| File::read(path, self.localhost_nodeports));
        let file = file.transpose()?;
        let run = match &file {
            Some(file) => self.with_file(file),
            None => self,
        };
        run.check()?;
        Ok(Loaded { run, file })
    }

    /// Takes a new content of the file.
    ///
    /// # Errors
    /// It is wrong, or contradicts a flag.
    pub fn reload(self, bytes: &[u8]) -> Result<Loaded> {
        let path = self.config.clone().unwrap_or_default();
        let file = File::parse(&path, bytes, self.localhost_nodeports)?;
        let run = self.with_file(&file);
        let wrong = |error: anyhow::Error| Wrong::new(&path, vec![error.to_string()]);
        run.check().map_err(wrong)?;
        let file = Some(file);
        Ok(Loaded { run, file })
    }

    /// These flags with the fields of the file in the place of those of the same meaning. As in kube-proxy,
    /// the node's name and how much is logged are taken from flags first.
    pub fn with_file(mut self, file: &File) -> Self {
        let meaning = file.meaning.clone();
        let verbosity = self.kube_proxy.verbosity;
        self.hostname_override = self.hostname_override.or(meaning.hostname_override);
        if self.source.manifests.is_none() {
            self.source.kubeconfig = meaning.kubeconfig;
        }
        self.bind_address = meaning.bind_address;
        self.listen = ListenFlags {
            healthz_bind_address: meaning.healthz,
            metrics_bind_address: meaning.metrics,
            bind_address_hard_fail: meaning.bind_address_hard_fail,
            ..ListenFlags::default()
        };
        self.cluster_cidr = meaning.cluster_cidr;
        self.kube_proxy = meaning.kube_proxy;
        self.kube_proxy.verbosity = verbosity.or(self.kube_proxy.verbosity);
        self.conntrack = ConntrackFlags::of(&file.meaning);
        self
    }

    fn check(&self) -> Result<()> {
        let node_ports = &self.kube_proxy.nodeport_addresses;
        if node_ports.names_localhost() && !self.has_localhost_nodeports() {
            bail!("--nodeport-addresses: localhost takes --localhost-nodeports");
        }
        self.followed().map(drop)
    }
}

impl Loaded {
    /// What the operator should know: settings that count for nothing.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let unread = self.run.given.without_meaning();
        if !unread.is_empty() {
            warnings.push(format!("flags without a meaning here: {}", flags(&unread)));
        }
        for range in self.run.kube_proxy.nodeport_addresses.loopback_ranges() {
            if !self.run.has_localhost_nodeports() {
                warnings.push(format!("NodePorts on {range} take --localhost-nodeports"));
            }
        }
        warnings.extend(self.of_detection());
        warnings.extend(self.of_gates());
        if let Some(file) = &self.file {
            warnings.extend(self.of_file(file));
        }
        warnings
    }

    /// The range by which pods are to be known may be missing.
    fn of_detection(&self) -> Option<String> {
        let run = &self.run;
        let followed = run.followed().ok()?;
        let is_missing = followed.detect_local == DetectLocal::ClusterCidr
            && followed.cluster_cidrs.is_empty()
            && !followed.masquerade_all;
        is_missing.then(|| {
            let setting = match self.file {
                Some(_) => "clusterCIDR",
                None => "--cluster-cidr",
            };
            format!(
                "pods are to be known by ClusterCIDR, but there is no {setting}: no client counts as a pod, and \
                 no flow to a ClusterIP is masked"
            )
        })
    }

    fn of_gates(&self) -> Option<String> {
        let gates = &self.run.kube_proxy.feature_gates;
        let unread: Vec<&str> = gates.without_meaning().collect();
        let unread = unread.join(", ");
        (!unread.is_empty()).then(|| format!("feature gates without a meaning here: {unread}"))
    }

    fn of_file(&self, file: &File) -> Vec<String> {
        let path = file.path.display();
        let own = file
            .warnings
            .iter()
            .map(|warning| format!("{path}: {warning}"));
        let mut warnings: Vec<String> = own.collect();
        let unread = file.without_meaning();
        if !unread.is_empty() {
            warnings.push(format!(
                "{path}: without a meaning here: {}",
                unread.join(", ")
            ));
        }
        let mut ignored = self.run.given.in_file();
        ignored.retain(|flag| !["v", "hostname-override"].contains(flag));
        if !ignored.is_empty() {
            let ignored = flags(&ignored);
            warnings.push(format!(
                "flags that do not count, because {path} does: {ignored}"
            ));
        }
        warnings
    }

    /// Where NodePorts are served, if it is a default that may surprise.
    pub fn hint(&self) -> Option<String> {
        let kube_proxy = &self.run.kube_proxy;
        let mode = match kube_proxy.proxy_mode {
            ProxyMode::Unsaid | ProxyMode::Nftables => return None,
            mode @ (ProxyMode::Iptables | ProxyMode::Ipvs) => mode,
        };
        kube_proxy.nodeport_addresses.is_empty().then(|| {
            format!(
                "NodePorts are served on all addresses of the node, as kube-proxy does in mode {mode}; \
                 nodePortAddresses: [primary] takes those of the Node object alone"
            )
        })
    }
}

fn flags(names: &[&str]) -> String {
    let names = names.iter().map(|name| match *name {
        "v" => "-v".to_owned(),
        name => format!("--{name}"),
    });
    names.collect::<Vec<_>>().join(", ")
}
