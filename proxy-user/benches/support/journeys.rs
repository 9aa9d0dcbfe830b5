//! What the datapath does to packets, in nanoseconds, with few services and with many.

use super::contest::{Effort, Outcome, cell, merge, ratio, round, samples};
use super::lab::{Lab, MAX_FLOWS, Program, Proof, Size, Trial};
use super::packets::{Connection, Family};
use super::stats::Samples;
use anyhow::{Result, ensure};
use proxy_common::{Counter, Verdict};
use proxy_user::datapath::hook::Hook;
use std::path::Path;

/// How many services there are.
const SERVICES: [u32; 3] = [10, 1_000, 100_000];
/// Client ports that no varied packet has.
const FIRST_PORT: u16 = 20_000;
/// Ratios that are wanted at most.
const TO_YARDSTICK: f64 = 1.3;
const MANY_TO_FEW: f64 = 1.1;

const ESTABLISHED_IN: &str = "established, ingress";
const ESTABLISHED_OUT: &str = "established, egress";
const YARDSTICK_IN: &str = "yardstick of ingress";
const YARDSTICK_OUT: &str = "yardstick of egress";
const NEW: &str = "new flow";

/// Outcomes by number of services and family.
type Tables = Vec<[Vec<Outcome>; 2]>;

/// Measures, prints the table and the verdicts.
pub(crate) fn run(bpffs: &Path, effort: Effort) -> Result<()> {
    let mut labs = Vec::new();
    for services in SERVICES {
        let folder = bpffs.join("journeys").join(services.to_string());
        labs.push(Lab::load(&folder, Size::of(services))?);
    }
    let mut tables: Tables = vec![Default::default(); labs.len()];
    let mut empty = Samples::default();
    for number in 0..effort.rounds {
        let port = FIRST_PORT + number as u16;
        for family in Family::ALL {
            for (lab, table) in labs.iter_mut().zip(&mut tables) {
                let known = &mut table[family as usize];
                merge(known, journeys(lab, family, port, effort)?);
            }
        }
        empty
            .0
            .push(labs[0].measure(&alone("empty"), effort.repeat)?.0);
    }
    full_tables(&mut labs, &mut tables, effort)?;
    print(&tables, &empty)
}

fn journeys(lab: &mut Lab, family: Family, port: u16, effort: Effort) -> Result<Vec<Outcome>> {
    let trials = replayed(lab_connection(lab, family, port)?, family);
    let mut outcomes = round(lab, &trials, effort)?;
    let trials = varied(family, lab.services, [NEW, SPREAD]);
    outcomes.extend(round(lab, &trials, few_flows(effort))?);
    Ok(outcomes)
}

const SPREAD: &str = "new flow, all services";
const FULL: &str = "new flow, full table";
const FULL_SPREAD: &str = "the same, all services";

/// Fills the flow tables with other connections, then measures new ones, for which old ones go.
fn full_tables(labs: &mut [Lab], tables: &mut Tables, effort: Effort) -> Result<()> {
    for lab in &mut *labs {
        for family in Family::ALL {
            let [_, (_, fill), _] = varied(family, lab.services, [FULL, FULL_SPREAD]);
            lab.measure(&fill, MAX_FLOWS / 5)?;
        }
    }
    let effort = Effort {
        repeat: effort.repeat / 5,
        ..effort
    };
    for _ in 0..effort.rounds {
        for family in Family::ALL {
            for (lab, table) in labs.iter_mut().zip(&mut *tables) {
                let trials = varied(family, lab.services, [FULL, FULL_SPREAD]);
                merge(&mut table[family as usize], round(lab, &trials, effort)?);
            }
        }
    }
    Ok(())
}

/// The table must have room for the flows of all rounds.
fn few_flows(effort: Effort) -> Effort {
    Effort {
        repeat: effort.repeat.min(MAX_FLOWS / 30 / effort.rounds),
        ..effort
    }
}

/// A connection, checked: the yardstick makes of its packets what the product does.
fn lab_connection(lab: &mut Lab, family: Family, port: u16) -> Result<Connection> {
    let connection = Connection::open(lab, family, port)?;
    let trials = replayed(connection, family);
    let outputs = trials
        .iter()
        .map(|(_, trial)| Ok(lab.measure(trial, 1)?.1))
        .collect::<Result<Vec<_>>>()?;
    for (one, other) in [(1, 2), (3, 4)] {
        ensure!(
            outputs[one] == outputs[other],
            "the yardstick measures something else"
        );
    }
    Connection::open(lab, family, port)
}

/// Packets that are the same in each run; the first trial is the harness.
fn replayed(connection: Connection, family: Family) -> [(&'static str, Trial); 7] {
    let harness = family.of(["replay_v4", "replay_v6"]);
    let product = |hook, packet: &Vec<u8>, verdict| {
        let proof = Proof::Counted(Counter::Passed(verdict));
        trial(Program::Product(harness, hook), packet, 1, proof)
    };
    let bench = |name, packet| trial(Program::Bench(harness, name), packet, 1, Proof::Returned);
    let yardstick = family.of(["yardstick_v4", "yardstick_v6"]);
    let (foreign, Connection { forward, reply }) = (family.foreign(), connection);
    let (known, none) = (Verdict::Established, Verdict::NotService);
    [
        ("harness", bench("empty", &forward)),
        (ESTABLISHED_IN, product(Hook::Ingress, &forward, known)),
        (YARDSTICK_IN, bench(yardstick, &forward)),
        (ESTABLISHED_OUT, product(Hook::Egress, &reply, known)),
        (YARDSTICK_OUT, bench(yardstick, &reply)),
        (
            "no service, ingress",
            product(Hook::Ingress, &foreign, none),
        ),
        ("no service, egress", product(Hook::Egress, &foreign, none)),
    ]
}

/// First packets, each of another client: to one service, and to all of them in turn.
fn varied(family: Family, services: u32, names: [&'static str; 2]) -> [(&'static str, Trial); 3] {
    let harness = family.of(["vary_v4", "vary_v6"]);
    let packet = family.syn(0);
    let created = Proof::Counted(Counter::Passed(Verdict::Created));
    let product = Program::Product(harness, Hook::Ingress);
    let empty = Program::Bench(harness, "empty");
    [
        ("harness", trial(empty, &packet, 1, Proof::Returned)),
        (names[0], trial(product, &packet, 1, created)),
        (names[1], trial(product, &packet, services, created)),
    ]
}

fn alone(name: &'static str) -> Trial {
    trial(
        Program::Alone(name),
        &Family::V4.foreign(),
        1,
        Proof::Returned,
    )
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

fn print(tables: &Tables, empty: &Samples) -> Result<()> {
    println!(
        "Nanoseconds a packet: median (middle half, least) of all rounds; the run of an empty"
    );
    println!(
        "program ({}) and the harness are taken off.\n",
        cell(empty).trim()
    );
    let headings = SERVICES.map(|services| format!("{services} services"));
    println!(
        "{:29}{:23}{:23}{}",
        "", headings[0], headings[1], headings[2]
    );
    for family in Family::ALL {
        for (index, outcome) in tables[0][family as usize].iter().enumerate() {
            let cells: String = tables
                .iter()
                .map(|table| format!("{:23}", cell(&table[family as usize][index].net)))
                .collect();
            println!("{:24}{:5}{}", outcome.name, family.name(), cells.trim_end());
        }
    }
    println!();
    for family in Family::ALL {
        verdicts(tables, family)?;
    }
    Ok(())
}

fn verdicts(tables: &Tables, family: Family) -> Result<()> {
    let of = |index: usize, name| samples(&tables[index][family as usize], name);
    let last = tables.len() - 1;
    for (name, yardstick) in [
        (ESTABLISHED_IN, YARDSTICK_IN),
        (ESTABLISHED_OUT, YARDSTICK_OUT),
    ] {
        let got = ratio(of(0, name)?, of(0, yardstick)?);
        verdict(
            &format!("{name}, {} : yardstick", family.name()),
            TO_YARDSTICK,
            got,
        );
    }
    for name in [ESTABLISHED_IN, ESTABLISHED_OUT, NEW] {
        let got = ratio(of(last, name)?, of(0, name)?);
        let what = format!("{name}, {}: 100000 services : 10", family.name());
        verdict(&what, MANY_TO_FEW, got);
    }
    Ok(())
}

fn verdict(what: &str, wanted: f64, got: f64) {
    let word = if got <= wanted { "ok" } else { "MISSED" };
    println!("{what:56} wanted <= {wanted:.2}  got {got:.2}  {word}");
}
