//! kube-proxy's feature gates. One of them means something here.

use std::collections::BTreeMap;
use std::str::FromStr;

/// Whether Services are served on their `externalIPs`.
const EXTERNAL_IPS: &str = "AllowServiceExternalIPs";

/// Those that were named, each switched on or off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates(BTreeMap<String, bool>);

impl FeatureGates {
    /// What was said of externalIPs, if anything.
    pub(super) fn external_ips(&self) -> Option<bool> {
        self.0.get(EXTERNAL_IPS).copied()
    }

    /// The names of those that change nothing.
    pub(super) fn without_meaning(&self) -> impl Iterator<Item = &str> {
        let names = self.0.keys().map(String::as_str);
        names.filter(|name| *name != EXTERNAL_IPS)
    }
}

impl From<BTreeMap<String, bool>> for FeatureGates {
    fn from(gates: BTreeMap<String, bool>) -> Self {
        Self(gates)
    }
}

/// As the flag has it: `A=true,B=false`.
impl FromStr for FeatureGates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pairs = text.split(',').map(str::trim).filter(|it| !it.is_empty());
        let gate = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            let value = value.trim().to_ascii_lowercase().parse().ok()?;
            Some((name.trim().to_owned(), value))
        };
        let gates =
            pairs.map(|pair| gate(pair).ok_or(format!("'{pair}' is neither GATE=true nor =false")));
        Ok(Self(gates.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read_as_kube_proxy_writes_them() {
        let gates: FeatureGates = "AllowServiceExternalIPs=False, AllAlpha=true,"
            .parse()
            .unwrap();
        assert_eq!(gates.external_ips(), Some(false));
        assert_eq!(gates.without_meaning().collect::<Vec<_>>(), ["AllAlpha"]);
        let none: FeatureGates = "".parse().unwrap();
        assert_eq!(none.external_ips(), None);
        for wrong in ["AllowServiceExternalIPs", "A=maybe", "A=true B=true"] {
            let error = wrong.parse::<FeatureGates>().unwrap_err();
            assert!(error.contains("is neither GATE=true"), "{wrong}: {error}");
        }
    }
}
