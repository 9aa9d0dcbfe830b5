//! What is installed on a node: links, qdiscs, programs.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::stage::Stage;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{SchedClassifier, TcAttachType};
use proxy_user::datapath::devices::{self, Marked};
use proxy_user::datapath::features::{Feature, Features};
use xtask::cluster::Namespace;

/// How programs can be attached on this kernel, the best way first.
pub(crate) fn methods() -> Vec<&'static str> {
    let features = Features::probe_used().unwrap();
    let links = features.has(Feature::Tcx).then_some("tcx");
    links.into_iter().chain(["clsact"]).collect()
}

/// What of ours is on the devices of a node: ids of links, places of filters.
pub(crate) fn attached(stage: &Stage, node: u8) -> Vec<String> {
    let node = stage.cluster.node(node);
    let mut pins: Vec<_> = std::fs::read_dir(node.paths().bpffs.join("ferrule/links"))
        .unwrap()
        .map(|pin| pin.unwrap().path())
        .collect();
    pins.sort();
    let id = |path| PinnedLink::from_pin(path).map(FdLink::from);
    let links = pins
        .iter()
        .map(|path| format!("link {}", id(path).unwrap().info().unwrap().id()));
    let filters = ["ingress", "egress"]
        .iter()
        .flat_map(|hook| filters(node.namespace(), "eth0", hook));
    links.chain(filters).collect()
}

/// The filters at a hook, as tc prints them, without what a new program changes.
pub(crate) fn filters(place: &Namespace, device: &str, hook: &str) -> Vec<String> {
    let text = place.command("tc", &["filter", "show", "dev", device, hook]);
    let text = text.unwrap_or_default();
    let lines = text.lines().filter(|line| line.contains(" handle "));
    lines
        .map(|line| line.split("ferrule").next().unwrap().to_owned())
        .collect()
}

/// All qdiscs of a namespace, as tc prints them.
pub(crate) fn qdiscs(place: &Namespace) -> String {
    place.command("tc", &["qdisc", "show"]).unwrap()
}

/// Whether any tcx program is on any device of a namespace.
pub(crate) fn programs_attached(place: &Namespace) -> bool {
    let attached = place.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let devices = runtime
            .block_on(devices::current(Marked::default()))
            .unwrap();
        devices.iter().any(|device| {
            [TcAttachType::Ingress, TcAttachType::Egress]
                .into_iter()
                .any(|kind| {
                    let query = SchedClassifier::query_tcx(&device.name, kind);
                    query.is_ok_and(|(_, programs)| !programs.is_empty())
                })
        })
    });
    attached.unwrap()
}

/// Whether a program of this name is at the ingress of a device, as link or filter.
pub(crate) fn is_program_on(place: &Namespace, device: &str, name: &str) -> bool {
    let query = || SchedClassifier::query_tcx(device, TcAttachType::Ingress);
    let linked = place.run(query).unwrap().is_ok_and(|(_, programs)| {
        let mut names = programs.iter().map(|program| program.name_as_str());
        names.any(|it| it == Some(name))
    });
    let filters = place.command("tc", &["filter", "show", "dev", device, "ingress"]);
    linked || filters.is_ok_and(|text| text.contains(name))
}

/// How many programs are on the two hooks of a device, as links or filters.
pub(crate) fn programs_on(place: &Namespace, device: &str) -> usize {
    let count = |kind| {
        let query = SchedClassifier::query_tcx(device, kind);
        query.map_or(0, |(_, programs)| programs.len())
    };
    let kinds = [TcAttachType::Ingress, TcAttachType::Egress];
    let links: usize = place.run(|| kinds.into_iter().map(count).sum()).unwrap();
    let filters = ["ingress", "egress"].map(|hook| filters(place, device, hook).len());
    links + filters.iter().sum::<usize>()
}
