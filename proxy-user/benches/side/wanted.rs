//! What is wanted of whom, against whom.

use crate::contestant::Contestant::{
    Bystander, Direct, Empty, Fast, IptablesLegacy, Nftables, Sockets, Stack,
};
use crate::contestant::Environment::{Bare, Tracking};
use crate::contestant::{Contestant, Environment};
use crate::load::Kind::{self, Datagram, FirstDatagram, Request, Short, Stream};

/// A ratio of rates within one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) of: Contestant,
    pub(crate) kinds: &'static [Kind],
    pub(crate) against: Contestant,
    /// `None`: in both.
    pub(crate) environment: Option<Environment>,
    /// How many Services there may be.
    pub(crate) services: [u32; 2],
    pub(crate) at_least: f64,
}

const ANY: [u32; 2] = [0, u32::MAX];

const fn wanted(
    of: Contestant,
    kinds: &'static [Kind],
    against: Contestant,
    environment: Option<Environment>,
    at_least: f64,
) -> Wanted {
    Wanted {
        of,
        kinds,
        against,
        environment,
        services: ANY,
        at_least,
    }
}

pub(crate) const ALL: [Wanted; 11] = [
    wanted(Sockets, &[Request, Stream], Direct, None, 0.99),
    wanted(Sockets, &[Short], Direct, None, 0.96),
    wanted(Stack, &[Request, Datagram, Stream], Empty, None, 0.98),
    wanted(Stack, &[Short, FirstDatagram], Empty, None, 0.95),
    wanted(
        Stack,
        &[Request, Short, Datagram, FirstDatagram],
        Nftables,
        Some(Bare),
        1.10,
    ),
    wanted(Stack, &[Stream], Nftables, Some(Bare), 1.0),
    wanted(
        Stack,
        &[Request, Short, Datagram],
        Nftables,
        Some(Tracking),
        1.0,
    ),
    wanted(
        Fast,
        &[Request, Short, Datagram],
        Nftables,
        Some(Tracking),
        1.08,
    ),
    wanted(Fast, &[Request, Datagram], Direct, Some(Bare), 1.0),
    wanted(Bystander, &Kind::ALL, Empty, None, 0.98),
    Wanted {
        services: [10_000, 10_000],
        ..wanted(Stack, &[Short], IptablesLegacy, None, 5.0)
    },
];

impl Wanted {
    pub(crate) fn applies(&self, environment: Environment, services: u32) -> bool {
        self.environment.is_none_or(|it| it == environment)
            && (self.services[0]..=self.services[1]).contains(&services)
    }
}
