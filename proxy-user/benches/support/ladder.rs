//! Where the nanoseconds of an established packet go: programs of which each goes one step further.

use super::contest::{Effort, Outcome, cell, merge, round, samples};
use super::lab::{Lab, Program, Proof, Size, Trial};
use super::packets::{Connection, Family};
use super::stats::Samples;
use anyhow::Result;
use proxy_common::{Counter, Verdict};
use proxy_user::datapath::hook::Hook;
use std::path::Path;

const PORT: u16 = 20_000;
const HARNESS: &str = "replay_v4";
/// Programs, and what each does besides what the one above does.
const STEPS: [(&str, &str); 9] = [
    ("step_parse", "parse: bytes to addresses, ports, flags"),
    ("step_filter", "filter: one byte for the pair of addresses"),
    ("step_look_up", "look-up: one row of FLOWS_V4"),
    (
        "step_time",
        "time: bpf_ktime_get_coarse_ns, and whether it is news",
    ),
    (
        "step_rewrite",
        "rewrite: addresses, ports, the header's checksum",
    ),
    (
        "step_address_sum",
        "TCP's checksum: helper, for the addresses",
    ),
    ("step_port_sum", "TCP's checksum: helper, for the ports"),
    ("step_counter", "counter: this CPU's own"),
    ("step_redirect", "a redirect's note, which only some need"),
];
const PRODUCT: &str = "the product's program";
const YARDSTICK: &str = "yardstick";
const FLOOR: &str = "yardstick without helpers for checksums";

/// Measures and prints.
pub(crate) fn run(bpffs: &Path, effort: Effort) -> Result<()> {
    let mut lab = Lab::load(&bpffs.join("ladder"), Size::of(10))?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut gross = [Samples::default(), Samples::default()];
    for number in 0..effort.rounds {
        let connection = Connection::open(&mut lab, Family::V4, PORT + number as u16)?;
        let trials = trials(&connection.forward);
        merge(&mut outcomes, round(&mut lab, &trials, effort)?);
        let empty = bench(Program::Alone("empty"), &connection.forward);
        for (samples, trial) in gross.iter_mut().zip([&empty, &trials[0].1]) {
            samples.0.push(lab.measure(trial, effort.repeat)?.0);
        }
    }
    print(&outcomes, &gross)
}

fn trials(packet: &[u8]) -> Vec<(&'static str, Trial)> {
    let of_bench = |name| bench(Program::Bench(HARNESS, name), packet);
    let established = Counter::Passed(Verdict::Established);
    let product = Trial {
        proof: Proof::Counted(established),
        ..bench(Program::Product(HARNESS, Hook::Ingress), packet)
    };
    let mut trials = vec![("harness", of_bench("empty"))];
    trials.extend(STEPS.map(|(program, what)| (what, of_bench(program))));
    trials.push((PRODUCT, product));
    trials.push((YARDSTICK, of_bench("yardstick_v4")));
    trials.push((FLOOR, of_bench("floor_v4")));
    trials
}

fn bench(program: Program, packet: &[u8]) -> Trial {
    Trial {
        program,
        packet: packet.to_vec(),
        spread: 1,
        salt: 0,
        proof: Proof::Returned,
    }
}

fn print(outcomes: &[Outcome], [empty, harness]: &[Samples; 2]) -> Result<()> {
    println!("An established packet at ingress, IPv4 and TCP: nanoseconds, median of all rounds");
    println!(
        "(middle half, least), without the run of an empty program ({}) and the harness ({}).\n",
        cell(empty).trim(),
        cell(harness).trim()
    );
    println!("{:56}{:23}all so far", "", "this step");
    let mut before = Samples(vec![0.0; empty.0.len()]);
    for (_, what) in STEPS {
        let so_far = samples(outcomes, what)?;
        let step = so_far.0.iter().zip(&before.0).map(|(now, then)| now - then);
        println!(
            "{what:56}{:23}{}",
            cell(&Samples(step.collect())),
            cell(so_far)
        );
        before = so_far.clone();
    }
    for what in [PRODUCT, YARDSTICK, FLOOR] {
        println!("{what:56}{:23}{}", "", cell(samples(outcomes, what)?));
    }
    println!();
    Ok(())
}
