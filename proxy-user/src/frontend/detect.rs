//! How packets of this node's pods are told from others: kube-proxy's `detectLocalMode`.

use super::Cidr;
use std::fmt;

/// A mode, and the name that belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DetectLocal {
    /// Their sources are in the ranges of the cluster's pods.
    #[default]
    ClusterCidr,
    /// Their sources are in the ranges that the node's object gives to its pods.
    NodeCidr,
    /// They come in by this device, a bridge.
    BridgeInterface(String),
    /// They come in by a device whose name starts so.
    InterfaceNamePrefix(String),
}

/// What is wrong with a mode or a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAMode {
    /// There is no such mode.
    #[error("'{0}' is neither ClusterCIDR, NodeCIDR, BridgeInterface nor InterfaceNamePrefix")]
    Unknown(String),
    /// The name of the bridge.
    #[error("{0}")]
    Bridge(NotAName),
    /// The start of devices' names.
    #[error("{0}")]
    Prefix(NotAName),
}

/// Why no device has such a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAName {
    /// It is missing.
    #[error("must not be empty in mode {0}")]
    Empty(&'static str),
    /// The kernel takes 15 bytes, without `/`, `:` and white space.
    #[error("'{0}' is not the name of a device, nor the start of one")]
    Impossible(String),
}

/// The kernel's IFNAMSIZ, without the zero at the end.
const LONGEST_NAME: usize = 15;

impl DetectLocal {
    /// Reads a mode, which is `ClusterCIDR` if it is empty; names that belong to other modes do not matter.
    ///
    /// # Errors
    /// There is no such mode, or the name that it needs is none.
    pub fn of(mode: &str, bridge: &str, prefix: &str) -> Result<Self, NotAMode> {
        match mode {
            "" | "ClusterCIDR" => Ok(Self::ClusterCidr),
            "NodeCIDR" => Ok(Self::NodeCidr),
            "BridgeInterface" => name(bridge, "BridgeInterface")
                .map(Self::BridgeInterface)
                .map_err(NotAMode::Bridge),
            "InterfaceNamePrefix" => name(prefix, "InterfaceNamePrefix")
                .map(Self::InterfaceNamePrefix)
                .map_err(NotAMode::Prefix),
            other => Err(NotAMode::Unknown(other.to_owned())),
        }
    }

    /// The ranges by which pods are known, of those of the cluster and of the node; none if they are known by
    /// devices.
    pub fn ranges<'a>(&self, cluster: &'a [Cidr], node: &'a [Cidr]) -> &'a [Cidr] {
        match self {
            Self::ClusterCidr => cluster,
            Self::NodeCidr => node,
            Self::BridgeInterface(_) | Self::InterfaceNamePrefix(_) => &[],
        }
    }

    /// By what pods are known, for people: these ranges, or devices.
    pub fn names(&self, ranges: &[Cidr]) -> Vec<String> {
        match self {
            Self::ClusterCidr | Self::NodeCidr => ranges.iter().map(Cidr::to_string).collect(),
            Self::BridgeInterface(device) => vec![device.clone()],
            Self::InterfaceNamePrefix(prefix) => vec![format!("{prefix}*")],
        }
    }
}

fn name(text: &str, mode: &'static str) -> Result<String, NotAName> {
    let is_foreign = |it: char| it.is_whitespace() || it == '/' || it == ':';
    match text.trim() {
        "" => Err(NotAName::Empty(mode)),
        name if name.len() > LONGEST_NAME || name.contains(is_foreign) => {
            Err(NotAName::Impossible(name.to_owned()))
        }
        name => Ok(name.to_owned()),
    }
}

/// The mode alone, as kube-proxy spells it.
impl fmt::Display for DetectLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterCidr => "ClusterCIDR",
            Self::NodeCidr => "NodeCIDR",
            Self::BridgeInterface(_) => "BridgeInterface",
            Self::InterfaceNamePrefix(_) => "InterfaceNamePrefix",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_spelt_as_by_kube_proxy_and_take_their_own_name() {
        let read = |mode: &str| DetectLocal::of(mode, "cbr0", "veth").unwrap();
        assert_eq!(read(""), DetectLocal::ClusterCidr);
        assert_eq!(read("NodeCIDR"), DetectLocal::NodeCidr);
        let bridge = DetectLocal::BridgeInterface("cbr0".to_owned());
        assert_eq!(read("BridgeInterface"), bridge);
        let prefix = DetectLocal::InterfaceNamePrefix("veth".to_owned());
        assert_eq!(read("InterfaceNamePrefix"), prefix);
        for mode in [
            "ClusterCIDR",
            "NodeCIDR",
            "BridgeInterface",
            "InterfaceNamePrefix",
        ] {
            assert_eq!(read(mode).to_string(), mode);
        }
    }

    #[test]
    fn what_no_device_can_be_called_is_refused_in_the_mode_that_needs_it() {
        let unknown = DetectLocal::of("clusterCIDR", "", "").unwrap_err();
        assert!(unknown.to_string().contains("'clusterCIDR' is neither"));
        let missing = DetectLocal::of("BridgeInterface", " ", "veth");
        let empty = NotAName::Empty("BridgeInterface");
        assert_eq!(missing, Err(NotAMode::Bridge(empty)));
        let missing = DetectLocal::of("InterfaceNamePrefix", "cbr0", "");
        let empty = NotAName::Empty("InterfaceNamePrefix");
        assert_eq!(missing, Err(NotAMode::Prefix(empty)));
        for wrong in ["a-name-of-16-byte", "a/b", "a b", "eth0:1"] {
            let error = DetectLocal::of("InterfaceNamePrefix", "", wrong).unwrap_err();
            let impossible = NotAName::Impossible(wrong.to_owned());
            assert_eq!(error, NotAMode::Prefix(impossible));
            assert!(DetectLocal::of("NodeCIDR", wrong, wrong).is_ok());
        }
        assert!(DetectLocal::of("BridgeInterface", "fifteen-bytes-1", "").is_ok());
    }

    #[test]
    fn ranges_are_those_of_the_mode() {
        let cluster = ["10.244.0.0/16".parse().unwrap()];
        let node = ["10.244.1.0/24".parse().unwrap()];
        let ranges = |mode| {
            let mode = DetectLocal::of(mode, "cbr0", "veth").unwrap();
            mode.ranges(&cluster, &node).to_vec()
        };
        assert_eq!(ranges("ClusterCIDR"), cluster);
        assert_eq!(ranges("NodeCIDR"), node);
        assert_eq!(ranges("BridgeInterface"), []);
        assert_eq!(ranges("InterfaceNamePrefix"), []);
        let names = |mode| {
            let mode = DetectLocal::of(mode, "cbr0", "veth").unwrap();
            mode.names(mode.ranges(&cluster, &node))
        };
        assert_eq!(names("ClusterCIDR"), ["10.244.0.0/16"]);
        assert_eq!(names("BridgeInterface"), ["cbr0"]);
        assert_eq!(names("InterfaceNamePrefix"), ["veth*"]);
    }
}
