//! What the real kube-proxy does with packets, and what Ferrule would do: the datapath's decision on the host, asked
//! as `ferrule explain` asks it.

#[path = "conformance/cases.rs"]
mod cases;
#[path = "conformance/command.rs"]
mod command;
#[path = "conformance/modes.rs"]
mod modes;

use cases::{Case, FILES, Packet, path, read};
use command::{Folder, ask, command, line};
use modes::Row;
use proxy_user::explain::{Answer, Fate, Offline};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

#[test]
fn the_data_is_as_it_was_recorded() {
    for (name, recorded) in FILES {
        let found = digest(&SHA256, &fs::read(path(name)).unwrap());
        let found: String = found
            .as_ref()
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        assert_eq!(found, recorded, "{name}");
    }
}

/// How many packets there are, and how many of them agree.
#[derive(Debug, Default)]
struct Count {
    packets: usize,
    agree: usize,
}

impl Count {
    fn add(&mut self, agrees: bool) {
        self.packets += 1;
        self.agree += usize::from(agrees);
    }
}

#[test]
fn packets_fare_as_with_kube_proxy() {
    let (mut all, mut apart) = (Count::default(), BTreeMap::<Row, Count>::new());
    let mut differences = Vec::new();
    for case in read() {
        let mut node = Offline::new(&case.facts(), case.objects()).unwrap();
        for packet in &case.packets {
            let answer = node.explain(&packet.query());
            let differs = differs(packet, &answer);
            if let Some(row) = modes::row(&case, packet) {
                apart.entry(row).or_default().add(differs.is_none());
                continue;
            }
            all.add(differs.is_none());
            differences.extend(differs.map(|it| described(&case, packet, &it, &answer)));
        }
    }
    for (row, count) in &apart {
        println!(
            "{row:?}: {} packets, {} as there",
            count.packets, count.agree
        );
    }
    println!("others: {} packets, {} as there", all.packets, all.agree);
    assert!(all.packets > 4500, "{all:?}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// In what the answer differs from what was recorded.
fn differs(packet: &Packet, answer: &Answer) -> Option<String> {
    let output = packet.output.first().map_or("", String::as_str);
    let fate = match output {
        "" | "ACCEPT" => Fate::Pass,
        "DROP" => Fate::Drop,
        "REJECT" => Fate::Reject,
        _ => Fate::Forward,
    };
    if answer.verdict != fate {
        return Some(format!("{:?}, not {fate:?}", answer.verdict));
    }
    let mut backends = packet.output.clone();
    backends.sort_unstable();
    if fate == Fate::Forward && backends != answer.backends {
        return Some(format!("{:?}, not {backends:?}", answer.backends));
    }
    let masked = packet.masq.filter(|masked| *masked != answer.masquerade)?;
    Some(format!("masquerade is not {masked}"))
}

fn described(case: &Case, packet: &Packet, differs: &str, answer: &Answer) -> String {
    let steps = answer.steps.join("; ");
    format!("{}: {}: {differs} ({steps})", case.id, packet.name)
}

/// The command line, over the manifests of a case, asked for everything again and again.
#[test]
fn the_command_answers_as_the_library_line_by_line() {
    let case = read()
        .into_iter()
        .max_by_key(|case| case.packets.len())
        .unwrap();
    let folder = Folder::with(&case.manifest());
    let mut library = Offline::new(&case.facts(), case.objects()).unwrap();
    let queries: Vec<&Packet> = case.packets.iter().cycle().take(1000).collect();
    let lines: Vec<String> = queries.iter().map(|packet| line(packet)).collect();
    let output = ask(&folder, &case, &(lines.join("\n") + "\n"));
    assert!(output.status.success(), "{output:?}");
    let answers = String::from_utf8(output.stdout).unwrap();
    let expected = queries
        .iter()
        .map(|packet| library.explain(&packet.query()));
    let expected: Vec<String> = expected
        .map(|answer| serde_json::to_string(&answer).unwrap())
        .collect();
    assert_eq!(answers.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_query_that_makes_no_sense_is_answered_in_its_place() {
    let case = read().into_iter().next().unwrap();
    let folder = Folder::with(&case.manifest());
    let good = line(&case.packets[1]);
    let output = ask(&folder, &case, &format!("{good}\nnonsense\n\n{good}"));
    assert_eq!(output.status.code(), Some(1));
    let answers = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = answers
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let is_error: Vec<bool> = answers.iter().map(|it| it["error"].is_string()).collect();
    assert_eq!(is_error, [false, true, true, false]);
    assert_eq!(answers[0], answers[3]);
    let problem = String::from_utf8(output.stderr).unwrap();
    assert!(
        problem.ends_with("2 of 4 queries could not be answered\n"),
        "{problem}"
    );
}

#[test]
fn one_answer_has_the_fields_of_the_contract_and_no_others() {
    let case = read().into_iter().next().unwrap();
    let folder = Folder::with(&case.manifest());
    let packet = &case.packets[1];
    let (from, to) = (
        packet.source.to_string(),
        format!("{}:{}", packet.dest, packet.dest_port),
    );
    let mut command = command(&folder, &case);
    let output = command
        .args(["-o", "json", "--from", &from, "--to", &to])
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut answer = answer.as_object().unwrap().clone();
    assert!(
        !answer
            .remove("steps")
            .unwrap()
            .as_array()
            .unwrap()
            .is_empty()
    );
    let expected = json!({
        "verdict": "forward",
        "reason": "created",
        "service": "ns1/svc1:p80",
        "frontend": {"kind": "ClusterIP", "address": "172.30.0.41", "port": 80, "protocol": "TCP"},
        "backends": ["10.180.0.1:80"],
        "masquerade": false,
        "affinity": false,
        "client_address_kept": true,
    });
    assert_eq!(Value::Object(answer), expected);
}
