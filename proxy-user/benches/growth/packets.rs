//! The packets whose cost may grow.

use super::axis::{Axis, Point};
use super::contest::{self, Effort, Outcome};
use super::lab::{CALLS, Lab, MAX_FLOWS, Program, Proof, Trial};
use super::services::{FIRST_V4, PORT};
use anyhow::Result;
use proxy_common::{Counter, Verdict};
use proxy_ebpf::testing::tcp;
use proxy_user::datapath::hook::Hook;
use std::net::SocketAddr;

/// The low 14 bits of its address are free for the harness, and so is the port.
const CLIENT: &str = "10.244.64.0:0";
/// No service; the harness counts up from here.
const FOREIGN: &str = "10.250.0.0:443";
const FOREIGNERS: u32 = 65_536;
/// Runs that make rows, two each: half of a table of half-open flows has room for those of all rounds, of two kinds.
const fn few(rounds: u32) -> u32 {
    MAX_FLOWS / 2 / 2 / 2 / (2 * CALLS * rounds)
}

const ONE_FLOW: &str = "established, one flow";
const ALL_FLOWS: &str = "established, all flows in turn";
const ONE_SERVICE: &str = "new flow, one service";
const ALL_SERVICES: &str = "new flow, all services in turn";
const ONE_ADDRESS: &str = "no service, one address";
const MANY_ADDRESSES: &str = "no service, many addresses";

/// What is measured along an axis: flows take turns where there are many, and services too.
pub(crate) const fn names(axis: Axis) -> &'static [&'static str] {
    match axis {
        Axis::Services => &[
            ONE_FLOW,
            ONE_SERVICE,
            ALL_SERVICES,
            ONE_ADDRESS,
            MANY_ADDRESSES,
        ],
        Axis::Endpoints => &[ONE_FLOW, ONE_SERVICE, ONE_ADDRESS, MANY_ADDRESSES],
        Axis::Flows => &[
            ONE_FLOW,
            ALL_FLOWS,
            ONE_SERVICE,
            ONE_ADDRESS,
            MANY_ADDRESSES,
        ],
    }
}

/// Makes the established flows.
pub(crate) fn crowd(lab: &mut Lab, point: Point) -> Result<()> {
    let trial = trial(
        Program::Alone("crowd_v4"),
        &established(),
        point.flows,
        Proof::Hit,
    );
    lab.measure(&trial, point.flows.div_ceil(CALLS))?;
    Ok(())
}

/// Measures each kind of packet once.
pub(crate) fn round(
    lab: &mut Lab,
    axis: Axis,
    point: Point,
    effort: Effort,
) -> Result<Vec<Outcome>> {
    let few = Effort {
        repeat: few(effort.rounds),
        ..effort
    };
    let mut outcomes = Vec::new();
    for &name in names(axis) {
        let effort = match name {
            ONE_SERVICE | ALL_SERVICES => few,
            _ => effort,
        };
        outcomes.extend(contest::round(lab, &trials(name, point), effort)?);
    }
    Ok(outcomes)
}

/// The harness, and a kind of packet.
fn trials(name: &'static str, point: Point) -> [(&'static str, Trial); 2] {
    let (harness, packet, verdict) = match name {
        ONE_FLOW | ALL_FLOWS => ("recur_v4", established(), Verdict::Established),
        ONE_SERVICE | ALL_SERVICES => ("vary_v4", syn(), Verdict::Created),
        _ => ("vary_v4", foreign(), Verdict::NotService),
    };
    let spread = match name {
        ALL_FLOWS => point.flows,
        ALL_SERVICES => point.size.services,
        MANY_ADDRESSES => FOREIGNERS,
        _ => 1,
    };
    let proof = Proof::Counted(Counter::Passed(verdict));
    let product = Program::Product(harness, Hook::Ingress);
    let empty = Program::Bench(harness, "empty");
    [
        ("harness", trial(empty, &packet, spread, Proof::Returned)),
        (name, trial(product, &packet, spread, proof)),
    ]
}

fn frontend() -> String {
    SocketAddr::new(FIRST_V4.into(), PORT).to_string()
}

fn established() -> Vec<u8> {
    tcp(CLIENT, &frontend()).build()
}

fn syn() -> Vec<u8> {
    tcp(CLIENT, &frontend()).syn().build()
}

fn foreign() -> Vec<u8> {
    tcp(CLIENT, FOREIGN).build()
}

fn trial(program: Program, packet: &[u8], spread: u32, proof: Proof) -> Trial {
    Trial {
        program,
        packet: packet.to_vec(),
        spread,
        salt: 0,
        proof,
    }
}
