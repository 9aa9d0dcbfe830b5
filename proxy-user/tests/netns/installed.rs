//! What is installed on a node: links, qdiscs, programs.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::stage::Stage;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{SchedClassifier, TcAttachType};
use proxy_user::datapath::devices;
use xtask::cluster::Namespace;

/// Ids of the pinned links of a node, in the order of their names.
pub(crate) fn links(stage: &Stage, node: u8) -> Vec<u32> {
    let folder = stage.cluster.node(node).paths().bpffs.join("ferrule/links");
    let mut pins: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|pin| pin.unwrap().path())
        .collect();
    pins.sort();
    let id = |path| PinnedLink::from_pin(path).map(FdLink::from);
    pins.iter()
        .map(|path| id(path).unwrap().info().unwrap().id())
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
        let devices = runtime.block_on(devices::current()).unwrap();
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

/// How many tcx programs are on the two hooks of a device.
pub(crate) fn programs_on(place: &Namespace, device: &str) -> usize {
    let count = |kind| {
        let query = SchedClassifier::query_tcx(device, kind);
        query.map_or(0, |(_, programs)| programs.len())
    };
    let kinds = [TcAttachType::Ingress, TcAttachType::Egress];
    place.run(|| kinds.into_iter().map(count).sum()).unwrap()
}
