//! Established packets on one CPU, and on two at once: nothing that a packet writes is shared.

use super::contest::{Effort, cell};
use super::cpu;
use super::lab::{CALLS, Lab, Program, Proof, Size, Trial};
use super::packets::{Connection, Family};
use super::stats::Samples;
use anyhow::{Context as _, Result, ensure};
use proxy_common::{Counter, Verdict};
use proxy_user::datapath::hook::Hook;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

const CPUS: [usize; 2] = [0, 1];
/// Client ports of the two flows.
const PORTS: [u16; 2] = [20_000, 30_000];
const HARNESS: &str = "replay_v4";
/// Calls have to be long beside what it takes two threads to begin.
const REPEAT_TIMES: u32 = 4;
/// What the two may cost, of what one costs.
const WANTED: f64 = 1.05;
const ESTABLISHED: Counter = Counter::Passed(Verdict::Established);

/// What is run on both CPUs, and whether the product counts it.
struct Contest {
    name: &'static str,
    trials: [Trial; 2],
    is_counted: bool,
    /// Nanoseconds a packet, round by round: each CPU alone (the mean of both), and both at once.
    times: [Samples; 2],
}

/// Measures and prints; on a machine with one CPU there is nothing to measure.
pub(crate) fn run(bpffs: &Path, effort: Effort, cpus: usize) -> Result<()> {
    if cpus < CPUS.len() {
        println!("Cores: this machine has one.");
        return Ok(());
    }
    // Two harnesses, so that they share nothing, over the same maps.
    let folder = bpffs.join("cores");
    let mut labs = [
        Lab::load(&folder, Size::of(10))?,
        Lab::load(&folder, Size::of(10))?,
    ];
    let mut contests = contests(&mut labs)?;
    let repeat = effort.repeat * REPEAT_TIMES;
    for _ in 0..effort.rounds {
        for contest in &mut contests {
            measure(&mut labs, contest, repeat)
                .with_context(|| format!("{}, two CPUs", contest.name))?;
        }
    }
    print(&contests);
    Ok(())
}

fn contests(labs: &mut [Lab; 2]) -> Result<Vec<Contest>> {
    let mut open = |port| Connection::open(&mut labs[0], Family::V4, port);
    let [one, other] = [open(PORTS[0])?, open(PORTS[1])?];
    let bench = |name| Program::Bench(HARNESS, name);
    let product = |hook| Program::Product(HARNESS, hook);
    let (ingress, egress) = (product(Hook::Ingress), product(Hook::Egress));
    let forward = [&one.forward, &other.forward];
    let reply = [&one.reply, &other.reply];
    Ok(vec![
        contest("harness", bench("empty"), forward, false),
        contest("established, ingress", ingress, forward, true),
        contest("established, egress", egress, reply, true),
        contest("the same flow, ingress", ingress, [forward[0]; 2], true),
        contest(
            "yardstick of ingress",
            bench("yardstick_v4"),
            forward,
            false,
        ),
    ])
}

fn contest(
    name: &'static str,
    program: Program,
    packets: [&Vec<u8>; 2],
    is_counted: bool,
) -> Contest {
    let trial = |packet: &Vec<u8>| Trial {
        program,
        packet: packet.clone(),
        spread: 1,
        salt: 0,
        proof: Proof::Returned,
    };
    Contest {
        name,
        trials: packets.map(trial),
        is_counted,
        times: Default::default(),
    }
}

fn measure(labs: &mut [Lab; 2], contest: &mut Contest, repeat: u32) -> Result<()> {
    let before = labs[0].counted(ESTABLISHED)?;
    let [one, other] = labs;
    let [first, second] = &contest.trials;
    let alone = Barrier::new(1);
    let mean = |times: [f64; 2]| f64::midpoint(times[0], times[1]);
    let apart = [
        on(CPUS[0], &alone, one, first, repeat)?,
        on(CPUS[1], &alone, other, second, repeat)?,
    ];
    let together = Barrier::new(2);
    let both = thread::scope(|scope| {
        let second = scope.spawn(|| on(CPUS[1], &together, other, second, repeat));
        let first = on(CPUS[0], &together, one, first, repeat);
        let second = second.join().expect("a measurement does not panic");
        Ok::<_, anyhow::Error>([first?, second?])
    })?;
    let found = labs[0].counted(ESTABLISHED)? - before;
    let wanted = match contest.is_counted {
        true => u64::from(repeat * CALLS) * 4,
        false => 0,
    };
    ensure!(found == wanted, "{found} counted instead of {wanted}");
    for (samples, times) in contest.times.iter_mut().zip([apart, both]) {
        samples.0.push(mean(times));
    }
    Ok(())
}

/// Runs a trial on a CPU when all are there.
fn on(cpu: usize, start: &Barrier, lab: &mut Lab, trial: &Trial, repeat: u32) -> Result<f64> {
    let moved = cpu::stay_on(cpu);
    start.wait();
    moved?;
    Ok(lab.measure(trial, repeat)?.0)
}

fn print(contests: &[Contest]) {
    println!("Two CPUs at once, each with a flow of its own: nanoseconds a packet, median of all");
    println!("rounds (middle half, least), without the harness; IPv4.\n");
    println!("{:26}{:23}{:23}ratio", "", "one CPU", "two at once");
    let Some((harness, rest)) = contests.split_first() else {
        return;
    };
    for contest in rest {
        let [one, two] = [0, 1].map(|index| net(&contest.times[index], &harness.times[index]));
        let ratio = super::contest::ratio(&two, &one);
        let word = if ratio <= WANTED { "ok" } else { "MISSED" };
        println!(
            "{:26}{:23}{:23}{ratio:.3}  wanted <= {WANTED:.2}  {word}",
            contest.name,
            cell(&one),
            cell(&two),
        );
    }
    let [one, two] = &harness.times;
    println!(
        "{:26}{:23}{:23}{:.3}\n",
        harness.name,
        cell(one),
        cell(two),
        super::contest::ratio(two, one)
    );
}

fn net(gross: &Samples, harness: &Samples) -> Samples {
    let times = gross.0.iter().zip(&harness.0);
    Samples(times.map(|(gross, harness)| gross - harness).collect())
}
