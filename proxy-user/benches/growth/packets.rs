//! The packets whose cost may grow.

use super::axis::Point;
use super::contest::{self, Effort, Outcome};
use super::lab::{CALLS, Lab, Program, Proof, Trial};
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
/// Runs that make rows: the tables have to have room for those of all rounds.
const NEW: u32 = 250;

/// As they are printed.
pub(crate) const NAMES: [&str; 6] = [
    "established, one flow",
    "established, all flows in turn",
    "new flow, one service",
    "new flow, all services in turn",
    "no service, one address",
    "no service, many addresses",
];

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
pub(crate) fn round(lab: &mut Lab, point: Point, effort: Effort) -> Result<Vec<Outcome>> {
    let few = Effort {
        repeat: NEW,
        ..effort
    };
    let known = |flows| (("recur_v4", established(), Verdict::Established), flows);
    let new = |services| (("vary_v4", syn(), Verdict::Created), services);
    let foreign = |spread| (("vary_v4", foreign(), Verdict::NotService), spread);
    let kinds = [
        (known(1), effort),
        (known(point.flows), effort),
        (new(1), few),
        (new(point.size.services), few),
        (foreign(1), effort),
        (foreign(FOREIGNERS), effort),
    ];
    let mut outcomes = Vec::new();
    for (name, (((harness, packet, verdict), spread), effort)) in NAMES.into_iter().zip(kinds) {
        let proof = Proof::Counted(Counter::Passed(verdict));
        let product = Program::Product(harness, Hook::Ingress);
        let empty = Program::Bench(harness, "empty");
        let trials = [
            ("harness", trial(empty, &packet, spread, Proof::Returned)),
            (name, trial(product, &packet, spread, proof)),
        ];
        outcomes.extend(contest::round(lab, &trials, effort)?);
    }
    Ok(outcomes)
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
