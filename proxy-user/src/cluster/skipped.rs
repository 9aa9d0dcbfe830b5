//! Why an object, or part of one, can't be used.

use super::{IpFamily, ServiceName};
use crate::source::ObjectKey;
use std::fmt;
use std::net::IpAddr;

/// A part of an object that can't be used; everything else of it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// The object.
    pub object: ObjectKey,
    /// Path of the field inside the object.
    pub field: String,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Why {
    /// It has to be there.
    #[error("missing")]
    Missing,
    /// Not the text of an IP address.
    #[error("not an IP address: {0:?}")]
    NotAnAddress(String),
    /// Not the text of an address range.
    #[error("not an address range: {0:?}")]
    NotACidr(String),
    /// Neither `IPv4` nor `IPv6`.
    #[error("not an address family: {0:?}")]
    NotAFamily(String),
    /// An address of one family where one of the other belongs.
    #[error("{address} is not an {} address", expected.name())]
    WrongFamily {
        /// What is there.
        address: IpAddr,
        /// What should be there.
        expected: IpFamily,
    },
    /// Loopback, link-local, multicast or unspecified.
    #[error("{0} is reserved and can't be a service's or an endpoint's address")]
    ReservedAddress(IpAddr),
    /// Neither `true` nor `false`.
    #[error("{0:?} is neither true nor false")]
    NotABool(String),
    /// Not a point in time.
    #[error("{0:?} is not a time as RFC 3339 has it")]
    NotATime(String),
    /// Neither `on` nor `off`.
    #[error("{0:?} is neither on nor off")]
    NeitherOnNorOff(String),
    /// None of the words that have a meaning there.
    #[error("{value:?} is not one of: {known}")]
    UnknownValue {
        /// What is there.
        value: String,
        /// What may be there.
        known: &'static str,
    },
    /// How long a client is remembered is 1 to 86400 seconds.
    #[error("{0} seconds are not between 1 and 86400")]
    TimeoutOutOfRange(i32),
    /// An address of a family of which there already is one.
    #[error("{0} is the second cluster address of its family")]
    SecondOfFamily(IpAddr),
    /// Two ports of a Service can't be told apart.
    #[error("another port has the same name and protocol: {0:?}")]
    NameTaken(String),
    /// Ports are 1 to 65535.
    #[error("port {0} is not between 1 and 65535")]
    PortOutOfRange(i32),
    /// None of TCP, UDP and SCTP.
    #[error("protocol {0:?} is not supported")]
    UnsupportedProtocol(String),
    /// A Service none of whose ports can be used.
    #[error("no usable port")]
    NoUsablePort,
    /// Address, port and protocol are another Service's.
    #[error("{frontend} is already served for Service {holder}")]
    FrontendTaken {
        /// Address, port and protocol.
        frontend: String,
        /// Whose it is.
        holder: ServiceName,
    },
    /// A cluster address that this node has: it is not a Service's here.
    #[error("{address} is an address of this node's device {device}")]
    AddressOfNode {
        /// The address.
        address: IpAddr,
        /// A device that has it.
        device: String,
    },
}

impl Why {
    /// The kind of reason, in a word or two.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NotAnAddress(_) => "not-an-address",
            Self::NotACidr(_) => "not-a-cidr",
            Self::NotAFamily(_) => "not-a-family",
            Self::WrongFamily { .. } => "wrong-family",
            Self::ReservedAddress(_) => "reserved-address",
            Self::NotABool(_) => "not-a-bool",
            Self::NotATime(_) => "not-a-time",
            Self::NeitherOnNorOff(_) => "neither-on-nor-off",
            Self::UnknownValue { .. } => "unknown-value",
            Self::TimeoutOutOfRange(_) => "timeout-out-of-range",
            Self::SecondOfFamily(_) => "second-of-family",
            Self::NameTaken(_) => "name-taken",
            Self::PortOutOfRange(_) => "port-out-of-range",
            Self::UnsupportedProtocol(_) => "unsupported-protocol",
            Self::NoUsablePort => "no-usable-port",
            Self::FrontendTaken { .. } => "frontend-taken",
            Self::AddressOfNode { .. } => "address-of-node",
        }
    }
}

impl Skipped {
    /// A reason for not using this field.
    pub fn new(object: &ObjectKey, field: impl Into<String>, why: Why) -> Self {
        Self {
            object: object.clone(),
            field: field.into(),
            why,
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.why)
    }
}
