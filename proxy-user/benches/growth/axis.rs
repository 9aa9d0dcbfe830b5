//! What grows, and through which numbers.

use super::lab::{MAX_FLOWS, Size};
use clap::ValueEnum;
use serde::Serialize;

/// What grows while the rest stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Axis {
    /// Services with two endpoints each; one flow.
    Services,
    /// Endpoints of one service; one flow.
    Endpoints,
    /// Established flows to one of 10 services.
    Flows,
}

/// What is laid out for one number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) at: u32,
    pub(crate) size: Size,
    /// Established flows.
    pub(crate) flows: u32,
}

/// Services where their number does not matter.
const FEW: u32 = 10;
/// Rows of tables that have room for so many flows, of two rows each, and some more.
const fn room(flows: u32) -> u32 {
    let wanted = flows * 2 + flows / 5;
    if wanted > MAX_FLOWS {
        wanted
    } else {
        MAX_FLOWS
    }
}

impl Axis {
    pub(crate) const ALL: [Self; 3] = [Self::Services, Self::Endpoints, Self::Flows];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Endpoints => "endpoints",
            Self::Flows => "flows",
        }
    }

    pub(crate) fn points(self) -> Vec<Point> {
        match self {
            Self::Services => {
                let point = |services| Point {
                    at: services,
                    size: Size::of(services),
                    flows: 1,
                };
                [1, 1_000, 10_000, 100_000].map(point).to_vec()
            }
            Self::Endpoints => {
                let point = |backends| Point {
                    at: backends,
                    size: Size {
                        backends,
                        ..Size::of(1)
                    },
                    flows: 1,
                };
                [1, 10, 100, 1_000, 5_000].map(point).to_vec()
            }
            Self::Flows => {
                let point = |flows| Point {
                    at: flows,
                    size: Size {
                        max_flows: room(flows),
                        ..Size::of(FEW)
                    },
                    flows,
                };
                [1, 1_000, 100_000, 1_000_000].map(point).to_vec()
            }
        }
    }
}
