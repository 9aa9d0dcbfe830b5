//! `ferrule cleanup`: all of ours goes, nothing of others.

use crate::foreign::Foreign;
use crate::installed::{methods, programs_attached, qdiscs};
use crate::stage::{PATIENCE, SHORT, Stage, ask, binary};
use proxy_user::datapath::leftovers::find;
use proxy_user::datapath::pins::Pins;
use xtask::cluster::Protocol;

#[test]
fn cleanup_leaves_nothing_behind() {
    for method in methods() {
        let mut stage = Stage::new(&["--attach", method]);
        let node = stage.cluster.node(1);
        let (place, paths) = (node.namespace().clone(), node.paths().clone());
        assert!(qdiscs(&place).contains("clsact") == (method == "clsact"));
        let places = [
            "--bpffs".to_owned(),
            paths.bpffs.display().to_string(),
            "--run-dir".to_owned(),
            paths.run_dir.display().to_string(),
        ];
        let cleanup = |extra: &[&str]| {
            let arguments = ["cleanup"].iter().chain(extra).copied();
            let arguments: Vec<&str> = arguments.chain(places.iter().map(String::as_str)).collect();
            place
                .command(&binary().to_string_lossy(), &arguments)
                .unwrap()
        };
        let dry = cleanup(&["--dry-run"]);
        assert!(dry.contains("would remove"), "{dry}");
        assert!(
            ask(
                &stage.shell,
                Protocol::Tcp,
                stage.cluster_ips()[0],
                PATIENCE
            )
            .is_ok()
        );
        // With the agent of this node running it is stopped first.
        assert!(cleanup(&[]).contains("stopped the agent"));
        drop(stage.take_agent(1));
        assert_eq!(cleanup(&[]), "nothing to remove\n");
        assert!(!paths.bpffs.join("ferrule").exists(), "nothing is pinned");
        assert!(!paths.run_dir.exists(), "the run folder is gone");
        std::fs::create_dir(&paths.run_dir).unwrap();
        std::fs::write(paths.run_dir.join("foreign"), "").unwrap();
        assert!(!cleanup(&[]).contains("foreign"), "files of others stay");
        assert!(
            paths.run_dir.join("foreign").exists(),
            "files of others stay"
        );
        assert!(!qdiscs(&place).contains("clsact"));
        assert!(!programs_attached(&place), "no program is left on a device");
        assert!(ask(&stage.shell, Protocol::Tcp, stage.cluster_ips()[0], SHORT).is_err());
    }
}

#[test]
fn cleanup_leaves_a_qdisc_that_others_use() {
    let mut stage = Stage::new(&["--attach", "clsact"]);
    let node = stage.cluster.node(1);
    let (place, paths) = (node.namespace().clone(), node.paths().clone());
    let mut foreign = Foreign::load(&paths.bpffs.join("foreign"));
    foreign.attach_filters(&place, "eth0", 7);
    stage.take_agent(1).stop().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let pins = Pins::new(&paths.bpffs);
    let found = place
        .run(|| runtime.block_on(find(&pins, &paths.run_dir)).unwrap())
        .unwrap();
    assert!(
        !found
            .iter()
            .any(|leftover| leftover.to_string().contains("qdisc of eth0")),
        "{found:?}"
    );
    place
        .run(|| {
            found
                .iter()
                .for_each(|leftover| runtime.block_on(leftover.remove()).unwrap());
        })
        .unwrap();
    let filters = place
        .command("tc", &["filter", "show", "dev", "eth0", "ingress"])
        .unwrap();
    assert!(
        filters.contains("pref 7") && !filters.contains("pref 1 "),
        "{filters}"
    );
}
