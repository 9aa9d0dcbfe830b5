//! Addresses and ports, from the text and numbers of objects.

use super::{IpFamily, Why};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// The text of an address range is address/prefix, and the prefix no longer than the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address range")]
pub struct NotACidr;

impl Cidr {
    /// Any address of the range, as it was written.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Length of the prefix, in bits.
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The first address of the range.
    pub fn first(&self) -> IpAddr {
        match (self.address, self.mask()) {
            (IpAddr::V4(address), IpAddr::V4(mask)) => (address & mask).into(),
            (IpAddr::V6(address), IpAddr::V6(mask)) => (address & mask).into(),
            (address, _) => address,
        }
    }

    /// Ones where all of its addresses are the same.
    pub fn mask(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => {
                let host = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Ipv4Addr::from_bits(!host).into()
            }
            IpAddr::V6(_) => {
                let host = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Ipv6Addr::from_bits(!host).into()
            }
        }
    }

    /// The range that has just this address.
    pub const fn of(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix }
    }

    /// The same range, by its first address.
    #[must_use]
    pub fn canonical(&self) -> Self {
        Self {
            address: self.first(),
            ..*self
        }
    }

    /// Whether the address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differs = match (self.address, address) {
            (IpAddr::V4(range), IpAddr::V4(address)) => (range.to_bits() ^ address.to_bits())
                .checked_shr(32 - u32::from(self.prefix))
                .unwrap_or(0)
                .into(),
            (IpAddr::V6(range), IpAddr::V6(address)) => (range.to_bits() ^ address.to_bits())
                .checked_shr(128 - u32::from(self.prefix))
                .unwrap_or(0),
            _ => u128::MAX,
        };
        differs == 0
    }
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let (address, prefix) = text.trim().split_once('/').ok_or(NotACidr)?;
        let address = read(address).ok_or(NotACidr)?;
        let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| is_number);
        let prefix: u8 = prefix.ok_or(NotACidr)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return Err(NotACidr);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Reads an address as the API server does: spaces around it, leading zeros and IPv4 in the
/// clothes of IPv6 are tolerated.
pub(super) fn parse(text: &str) -> Result<IpAddr, Why> {
    let address = read(text.trim()).map(|address| address.to_canonical());
    address.ok_or_else(|| Why::NotAnAddress(text.to_owned()))
}

fn read(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| leading_zeros(text))
}

/// Reads an address that packets can be sent to and that is of the given family.
pub(super) fn parse_usable(text: &str, family: IpFamily) -> Result<IpAddr, Why> {
    let address = parse(text)?;
    if IpFamily::of(address) != family {
        return Err(Why::WrongFamily {
            address,
            expected: family,
        });
    }
    unreserved(address)
}

/// Reads an address that packets can be sent to.
pub(super) fn parse_unreserved(text: &str) -> Result<IpAddr, Why> {
    unreserved(parse(text)?)
}

/// Reads an address of a load balancer, which may be link-local.
pub(super) fn parse_balancer(text: &str) -> Result<IpAddr, Why> {
    let address = parse(text)?;
    if is_link_local(address) {
        return Ok(address);
    }
    unreserved(address)
}

/// Reads a port number.
pub(super) fn port(number: i32) -> Result<u16, Why> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(Why::PortOutOfRange(number)),
    }
}

fn unreserved(address: IpAddr) -> Result<IpAddr, Why> {
    let is_reserved = is_link_local(address)
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast();
    if is_reserved {
        return Err(Why::ReservedAddress(address));
    }
    Ok(address)
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// std refuses leading zeros because some programs read them as octal; Kubernetes reads decimal.
fn leading_zeros(text: &str) -> Option<IpAddr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts
        .next()
        .is_none()
        .then(|| Ipv4Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_api_server_reads_them() {
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        for text in [
            "10.0.0.1",
            " 10.0.0.1\n",
            "010.000.0.001",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(parse(text), Ok(v4), "{text:?}");
        }
        for text in [
            "",
            "10.0.0",
            "10.0.0.1.2",
            "10.0.0.256",
            "10.0.0.+1",
            "a::b::c",
            "None",
        ] {
            assert_eq!(parse(text), Err(Why::NotAnAddress(text.into())), "{text:?}");
        }
    }

    #[test]
    fn reserved_addresses_are_not_usable() {
        for text in ["0.0.0.0", "127.0.0.1", "169.254.0.1", "224.0.0.1"] {
            let why = parse_usable(text, IpFamily::V4);
            assert_eq!(why, Err(Why::ReservedAddress(text.parse().unwrap())));
        }
        for text in ["::", "::1", "fe80::1", "ff02::1"] {
            let why = parse_usable(text, IpFamily::V6);
            assert_eq!(why, Err(Why::ReservedAddress(text.parse().unwrap())));
        }
    }

    #[test]
    fn ports_are_sixteen_bits_and_not_zero() {
        assert_eq!(port(65535), Ok(65535));
        for number in [0, -1, 65536, 70000, i32::MIN] {
            assert_eq!(port(number), Err(Why::PortOutOfRange(number)));
        }
    }

    #[test]
    fn a_range_is_an_address_and_a_prefix_that_fits() {
        let cidr: Cidr = "10.244.0.0/16".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.244.0.0/16");
        let canonical = |text: &str| text.parse::<Cidr>().unwrap().canonical().to_string();
        for (text, wanted) in [
            (" 010.001.002.003/28", "10.1.2.0/28"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("fd00::1:2/0", "::/0"),
            ("fd00::1:2/112", "fd00::1:0/112"),
            ("fd00::1/128", "fd00::1/128"),
        ] {
            assert_eq!(canonical(text), wanted, "{text}");
        }
        for text in [
            "10.244.0.0",
            "10.244.0.0/33",
            "fd00::/129",
            "x/8",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/",
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(NotACidr), "{text}");
        }
    }
}
