//! Devices, by their names.

use std::str::FromStr;

/// Some devices: names, or their starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNames {
    names: Vec<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Whole(String),
    Start(String),
}

impl DeviceNames {
    /// The device of this name.
    pub fn named(name: &str) -> Self {
        Self {
            names: vec![Name::Whole(name.to_owned())],
        }
    }

    /// Those whose names start so.
    pub fn starting(start: &str) -> Self {
        Self {
            names: vec![Name::Start(start.to_owned())],
        }
    }

    /// Whether there are none.
    pub const fn is_off(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a device of this name is one of them.
    pub fn has(&self, device: &str) -> bool {
        self.names.iter().any(|name| match name {
            Name::Whole(name) => device == name,
            Name::Start(start) => device.starts_with(start),
        })
    }
}

impl FromStr for DeviceNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::default());
        }
        let names = text.split(',').map(|name| name.trim().parse());
        let names = names.collect::<Result<_, _>>()?;
        Ok(Self { names })
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// What the kernel keeps of a name (IFNAMSIZ).
        const LONGEST: usize = 15;
        let is_off = |letter: char| letter == '*' || letter == '/' || letter.is_whitespace();
        let (name, is_start) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text, false),
        };
        if text.is_empty() {
            return Err("a name is missing".into());
        }
        if name.len() > LONGEST || name.contains(is_off) {
            return Err(format!(
                "'{text}' is neither a device nor the start of one with a * behind"
            ));
        }
        let name = name.to_owned();
        Ok(if is_start {
            Self::Start(name)
        } else {
            Self::Whole(name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_or_begin_as_named() {
        let lane: DeviceNames = "eth0, cali*".parse().unwrap();
        assert!(lane.has("eth0") && lane.has("cali12ab") && lane.has("cali"));
        assert!(!lane.has("eth1") && !lane.has("eth01") && !lane.has("veth0"));
        assert!(!lane.is_off());
        let all: DeviceNames = "*".parse().unwrap();
        assert!(all.has("anything"));
    }

    #[test]
    fn none_belongs_to_it_when_it_is_off() {
        let off: DeviceNames = "off".parse().unwrap();
        assert!(off.is_off() && !off.has("off"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in [
            "",
            "eth0,",
            "*eth",
            "a*b",
            "a/b",
            "a name",
            "longer-than-fifteen",
        ] {
            let refused = wrong.parse::<DeviceNames>().unwrap_err();
            assert!(!refused.is_empty(), "{wrong}");
        }
    }
}
