//! Sets of ports as the kernel writes them: `8080,30000-32767`.

use std::fmt;
use std::num::ParseIntError;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// First and last ports, sorted, with ports that are not in the set between any two.
    ranges: Vec<(u16, u16)>,
}

impl Ports {
    /// The ports that are in at least one of both.
    pub fn union(&self, other: &Self) -> Self {
        Self::merged(self.ranges.iter().chain(&other.ranges).copied().collect())
    }

    fn merged(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self { ranges: merged }
    }
}

impl FromIterator<RangeInclusive<u16>> for Ports {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        Self::merged(ranges.into_iter().map(RangeInclusive::into_inner).collect())
    }
}

impl FromStr for Ports {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let parts = text.trim().split(',').filter(|part| !part.is_empty());
        let ranges = parts.map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Ok((first.trim().parse()?, last.trim().parse()?))
        });
        Ok(Self::merged(ranges.collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.ranges.iter().enumerate() {
            let separator = if number == 0 { "" } else { "," };
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Ports {
        text.parse().unwrap()
    }

    #[test]
    fn a_union_has_what_either_has_in_as_few_ranges_as_can_be() {
        for (one, other, both) in [
            ("", "1024-29999,30000-32767", "1024-32767"),
            ("8080,9148\n", "30000-32767", "8080,9148,30000-32767"),
            (
                "31000,40000-50000",
                "30000-32767",
                "30000-32767,40000-50000",
            ),
            ("1-65535", "30000-32767", "1-65535"),
            ("65535", "65534-65535", "65534-65535"),
            ("", "", ""),
        ] {
            assert_eq!(ports(one).union(&ports(other)).to_string(), both);
            assert_eq!(ports(other).union(&ports(one)).to_string(), both);
        }
    }

    #[test]
    fn what_is_no_list_of_ports_is_refused() {
        for text in ["a", "1-", "70000", "1;2"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
        assert_eq!(ports("9-5,7"), ports("7"), "an empty range");
    }

    #[test]
    fn ranges_become_a_set() {
        let set: Ports = [30000..=32767, 1024..=29999].into_iter().collect();
        assert_eq!(set.to_string(), "1024-32767");
    }
}
