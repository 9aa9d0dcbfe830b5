//! The matrix as a table in docs/testing.md, made of what the tests ask and expect.

use crate::cells::{Exit, Place, Source, Way, cells, pairs, source};
use crate::matrix::{ROWS, Row};
use std::fmt::Write as _;
use std::path::Path;
use xtask::cluster::Families;

const BEGIN: &str = "<!-- matrix: written by the test table -->\n";
const END: &str = "<!-- end of the matrix -->\n";

#[test]
fn the_matrix_in_the_documents_is_the_one_that_is_tested() {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let path = Path::new(&package).join("../docs/testing.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table's beginning");
    let (written, after) = rest.split_once(END).expect("the table's end");
    let wanted = table();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let text = [before, BEGIN, &wanted, END, after].concat();
        std::fs::write(path, text).unwrap();
        return;
    }
    assert_eq!(written, wanted, "UPDATE_EXPECT=1 writes it anew");
}

fn table() -> String {
    let titles: Vec<String> = pairs().map(|(way, place)| title(way, place)).collect();
    let mut text = format!("| network | runs | cells | {} |\n", titles.join(" | "));
    let _ = writeln!(text, "|---|---|---|{}", "---|".repeat(titles.len()));
    ROWS.iter().for_each(|row| text += &line(row));
    text
}

fn title(way: Way, place: Place) -> String {
    let way = match way {
        Way::ClusterIp => "C",
        Way::NodePort => "N",
        Way::OwnNodePort => "P",
    };
    let place = match place {
        Place::Local => "local",
        Place::Remote => "remote",
        Place::Host => "host",
        Place::RemoteHost => "remote host",
        Place::Hairpin => "itself",
    };
    format!("{way} {place}")
}

fn line(row: &Row) -> String {
    let runs = match xtask::vm::needed_device(&format!("matrix::{}", row.test)) {
        Some(kind) => format!("guests ({kind})"),
        None => "here".to_owned(),
    };
    let count = cells(row.shape).count();
    let sources: Vec<String> = pairs()
        .map(|(way, place)| {
            let [v4, v6] = [false, true].map(|is_v6| name(source(row.shape, way, place, is_v6)));
            match row.shape.families {
                Families::V4 => v4,
                Families::V6 => v6,
                Families::Both if v4 == v6 => v4,
                Families::Both => format!("{v4}, {v6}"),
            }
        })
        .collect();
    format!(
        "| {} | {runs} | {count} | {} |\n",
        row.network,
        sources.join(" | ")
    )
}

fn name(source: Source) -> String {
    let exit = |exit| match exit {
        Exit::Uplink => "node",
        Exit::Second => "eth1",
        Exit::Tunnel => "tunnel",
        Exit::Pod => "gateway",
    };
    match source {
        Source::Client => "client".to_owned(),
        Source::Masked(by) => exit(by).to_owned(),
        Source::Plugin(by) => format!("{}*", exit(by)),
    }
}
