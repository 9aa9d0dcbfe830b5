//! Measurements that settle how the datapath is built.

use super::contest::{Effort, Outcome, cell, merge, round};
use super::lab::{Lab, Program, Proof, Size, Trial};
use super::packets::Family;
use super::services::BACKENDS;
use anyhow::Result;
use proxy_common::{Counter, Verdict};
use std::path::Path;

/// Services, and rows of the tables that are looked up.
const ROWS: u32 = 100_000;
/// The last word of keys that are in the tables.
const SALT: u32 = 6;
const MAPPED: u32 = 0xffff_u32.to_be();
const ADDRESS: u32 = 0x0a60_0001_u32.to_be();
const PORTS: u32 = 0x1f90_0050_u32.to_be();

/// Measures and prints.
pub(crate) fn run(bpffs: &Path, effort: Effort) -> Result<()> {
    let mut lab = Lab::load(&bpffs.join("decisions"), Size::of(ROWS))?;
    fill(&mut lab)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for _ in 0..effort.rounds {
        for trials in [
            rewrites(),
            look_ups(1),
            look_ups(ROWS),
            choices(1),
            choices(ROWS),
        ] {
            merge(&mut outcomes, round(&mut lab, &trials, effort)?);
        }
    }
    println!(
        "Nanoseconds: median (middle half, least) of all rounds; a program that does the rest"
    );
    println!("of the work is taken off. {ROWS} rows, flows or services.\n");
    for outcome in outcomes {
        println!("{:48}{}", outcome.name, cell(&outcome.net));
    }
    println!();
    Ok(())
}

fn fill(lab: &mut Lab) -> Result<()> {
    let rows = 0..ROWS;
    let of_one = rows
        .clone()
        .map(|row| ([row, ADDRESS, PORTS, SALT], [row; 8]));
    lab.fill("KEYS_16", of_one)?;
    let of_both = rows.map(|row| {
        let key = [0, 0, MAPPED, row, 0, 0, MAPPED, ADDRESS, PORTS, SALT];
        (key, [row; 14])
    });
    lab.fill("KEYS_40", of_both)?;
    let slots = (1..=ROWS).flat_map(|service| {
        let backends = (1..=BACKENDS).map(move |slot| ([service, slot], [ADDRESS, PORTS]));
        [([service, 0], [BACKENDS, 0])].into_iter().chain(backends)
    });
    lab.fill("HASHED_SLOTS", slots)
}

/// Direct access or copies.
fn rewrites() -> Vec<(&'static str, Trial)> {
    let packet = Family::V4.foreign();
    let counted = Proof::Counted(Counter::Passed(Verdict::Established));
    let trial = |name, proof| Trial {
        program: Program::Bench("replay_v4", name),
        packet: packet.clone(),
        spread: 1,
        salt: 0,
        proof,
    };
    vec![
        ("harness", trial("empty", Proof::Returned)),
        (
            "parse and rewrite: direct access",
            trial("rewrite_direct", counted),
        ),
        (
            "parse and rewrite: copied by helpers",
            trial("rewrite_copied", counted),
        ),
    ]
}

/// Tables of one family, or of both.
fn look_ups(spread: u32) -> Vec<(&'static str, Trial)> {
    let names = if spread == 1 {
        [
            "hit, the same row: 16-byte key",
            "hit, the same row: 40-byte key",
            "miss, the same key: 16-byte key",
            "miss, the same key: 40-byte key",
        ]
    } else {
        [
            "hit, all rows in turn: 16-byte key",
            "hit, all rows in turn: 40-byte key",
            "miss, as many keys in turn: 16-byte key",
            "miss, as many keys in turn: 40-byte key",
        ]
    };
    vec![
        (
            "harness",
            alone("look_up_nothing", spread, SALT, Proof::Hit),
        ),
        (names[0], alone("look_up_16", spread, SALT, Proof::Hit)),
        (names[1], alone("look_up_40", spread, SALT, Proof::Hit)),
        (
            names[2],
            alone("look_up_16", spread, SALT + 1, Proof::Missed),
        ),
        (
            names[3],
            alone("look_up_40", spread, SALT + 1, Proof::Missed),
        ),
    ]
}

/// Regions of arrays, or hashed slots.
fn choices(spread: u32) -> Vec<(&'static str, Trial)> {
    let names = if spread == 1 {
        [
            "choose, the same service: arrays",
            "choose, the same service: hashed slots",
        ]
    } else {
        [
            "choose, all services in turn: arrays",
            "choose, all services in turn: hashed slots",
        ]
    };
    vec![
        ("harness", alone("choose_nothing", spread, SALT, Proof::Hit)),
        (names[0], alone("choose_regions", spread, SALT, Proof::Hit)),
        (names[1], alone("choose_hashed", spread, SALT, Proof::Hit)),
    ]
}

fn alone(name: &'static str, spread: u32, salt: u32, proof: Proof) -> Trial {
    Trial {
        program: Program::Alone(name),
        packet: Family::V4.foreign(),
        spread,
        salt,
        proof,
    }
}
