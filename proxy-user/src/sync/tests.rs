mod figures;
mod health_checks;

use super::*;
use crate::datapath::Capacity;
use crate::datapath::fake::{Failing, Fake};
use crate::frontend::DetectLocal;
use crate::source::{Object, manifests};
use tokio::sync::{mpsc, watch};

const ROOM: Capacity = Capacity {
    frontends_v4: 10,
    frontends_v6: 10,
    services: 10,
    slots: 100,
    backends_v4: 4,
    backends_v6: 4,
    source_ranges: 64,
};

fn settings() -> Settings {
    Settings {
        node_name: "node-a".to_owned(),
        node_addresses: vec!["192.168.0.9".parse().unwrap()],
        followed: Followed::default(),
        snat_ports: 40000..=49999,
        sockets: Sockets::default(),
        first_generation: 1,
    }
}

fn sync(datapath: Fake) -> Sync<Fake> {
    Sync::new(settings(), datapath).unwrap()
}

fn objects(text: &str) -> Vec<Event> {
    let objects = manifests::objects(text).unwrap();
    objects.into_iter().map(Event::Apply).collect()
}

/// A Service with its slice.
fn service(backends: &str) -> Vec<Event> {
    objects(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web}},
           spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80, nodePort: 30080}}]}}}}
---
{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
  metadata: {{name: s, labels: {{kubernetes.io/service-name: web}}}}, addressType: IPv4,
  ports: [{{port: 8080}}], endpoints: [{backends}]}}"
    ))
}

const ONE: &str = "{addresses: [10.244.1.1]}";
const TWO: &str = "{addresses: [10.244.1.1]}, {addresses: [10.244.1.2]}";

#[test]
fn nothing_is_written_before_everything_is_known() {
    let mut first = sync(Fake::new(ROOM));
    first.apply(service(ONE));
    first.apply(vec![Event::Synced]);
    let before = first.datapath().content();
    let mut second = sync(first.into_datapath());
    second.apply(service("").into_iter().take(1).collect());
    assert_eq!(second.datapath().content(), before);
    assert!(!second.report().synced);
    second.apply(service(ONE));
    second.apply(vec![Event::Synced]);
    assert_eq!(
        second.datapath().content(),
        before,
        "ids and generations too"
    );
}

/// The node's object, with a range for its pods.
fn node(pod_cidrs: &str) -> Vec<Event> {
    objects(&format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: node-a}}, spec: {{podCIDRs: [{pod_cidrs}]}}}}"
    ))
}

#[test]
fn pods_are_known_by_what_the_settings_and_the_node_say_now() {
    let mut sync = sync(Fake::new(ROOM));
    sync.apply(vec![Event::Synced]);
    sync.apply(node(""));
    let row = |sync: &mut Sync<Fake>| *sync.datapath().config().unwrap();
    let known_by = |sync: &Sync<Fake>| sync.report().node.pods_known_by;
    let mut followed = Followed {
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        ..Followed::default()
    };
    sync.set_followed(followed.clone());
    let by_cluster = row(&mut sync);
    assert_eq!(known_by(&sync), ["10.244.0.0/16"]);
    followed.detect_local = DetectLocal::NodeCidr;
    sync.set_followed(followed.clone());
    let by_nothing = row(&mut sync);
    assert_ne!(by_nothing, by_cluster, "the node has no range yet");
    assert_eq!(known_by(&sync), [""; 0]);
    sync.apply(node("10.244.3.0/24"));
    let by_node = row(&mut sync);
    assert_ne!(by_node, by_nothing);
    assert_eq!(known_by(&sync), ["10.244.3.0/24"]);
    sync.apply(node("10.244.4.0/24, 'fd00:4::/64'"));
    assert_ne!(row(&mut sync), by_node);
    assert_eq!(known_by(&sync), ["10.244.4.0/24", "fd00:4::/64"]);
    followed.detect_local = DetectLocal::BridgeInterface("cni0".to_owned());
    sync.set_followed(followed);
    assert_eq!(known_by(&sync), ["cni0"]);
    assert_eq!(sync.report().node.detect_local, "BridgeInterface");
}

#[test]
fn what_the_settings_say_of_the_node_wins_over_its_object() {
    let mut sync = sync(Fake::new(ROOM));
    sync.apply(vec![Event::Synced]);
    sync.apply(objects(
        "{apiVersion: v1, kind: Node, metadata: {name: node-a}, status: {addresses: [
           {type: InternalIP, address: 192.168.0.1}, {type: InternalIP, address: 'fd00::1'}]}}",
    ));
    let addresses = sync.report().node.node_port_addresses;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.168.0.9", "fd00::1"]);
    let config = *sync.datapath().config().unwrap();
    assert_eq!(config, sync.wanted_config());
}

#[test]
fn cluster_addresses_of_the_node_itself_are_left_alone() {
    let mut sync = sync(Fake::new(ROOM));
    let dns: IpAddr = "10.96.0.1".parse().unwrap();
    sync.set_local_addresses([(dns, "nodelocaldns".to_owned())].into());
    sync.apply(service(ONE));
    sync.apply(vec![Event::Synced]);
    assert_eq!(sync.report().frontends.v4, 1, "the node port");
    let skipped = &sync.report().skipped[0];
    assert_eq!(skipped.field, "spec.clusterIPs");
    assert_eq!(
        skipped.why,
        "10.96.0.1 is an address of this node's device nodelocaldns"
    );
    sync.set_local_addresses(LocalAddresses::new());
    assert_eq!(sync.report().frontends.v4, 2);
    assert_eq!(sync.report().skipped, []);
    sync.datapath().fail(Some(Failing { every: 1 }));
    sync.set_local_addresses([("192.0.2.1".parse().unwrap(), "eth0".to_owned())].into());
    assert!(!sync.needs_retry(), "nobody's address: nothing is written");
    sync.set_local_addresses([(dns, "nodelocaldns".to_owned())].into());
    assert!(sync.needs_retry());
    sync.datapath().fail(None);
    sync.retry();
    assert_eq!(sync.report().frontends.v4, 1);
}

#[test]
fn the_configuration_is_tried_again() {
    let mut maps = Fake::new(ROOM);
    maps.fail(Some(Failing { every: 1 }));
    let mut sync = sync(maps);
    sync.apply(vec![Event::Synced]);
    assert!(sync.needs_retry());
    assert_eq!(
        sync.report().last_error.as_deref(),
        Some("CONFIG: failed on demand")
    );
    sync.datapath().fail(None);
    sync.retry();
    assert!(!sync.needs_retry());
    assert_eq!(sync.report().last_error, None);
}

#[test]
fn the_report_counts_what_is_in_the_maps() {
    let mut sync = sync(Fake::new(ROOM));
    sync.apply(vec![Event::Synced]);
    sync.apply(service(TWO));
    sync.apply(vec![Event::Problems {
        origin: "a.yaml".to_owned(),
        problems: vec!["a.yaml:1: broken".to_owned()],
    }]);
    let report = sync.report();
    assert_eq!((report.services, report.service_ports.v4), (1, 1));
    assert_eq!((report.frontends.v4, report.backends.v4), (2, 2));
    assert_eq!((report.frontends.v6, report.backends.v6), (0, 0));
    let fill: Vec<u32> = report.maps.iter().map(|map| map.used).collect();
    assert_eq!(fill, [3, 0, 1, 9, 2, 0, 0, 0]);
    assert_eq!(report.problems["a.yaml"], ["a.yaml:1: broken"]);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[tokio::test]
async fn the_loop_retries_answers_and_ends() {
    let mut maps = Fake::new(ROOM);
    maps.fail(Some(Failing { every: 3 }));
    let (events, receiver) = mpsc::channel(4);
    let (requests, asked) = mpsc::channel(4);
    let (_addresses, local) = watch::channel(LocalAddresses::new());
    let (_settings, followed) = watch::channel(Followed::default());
    let running = tokio::spawn(sync(maps).run(receiver, asked, local, followed, || {}));
    let mut first = service(TWO);
    first.push(Event::Synced);
    events.send(first.into()).await.unwrap();
    // More often than there are backend ids: freed ones must come back.
    for backends in [ONE, TWO].repeat(10) {
        events.send(service(backends).into()).await.unwrap();
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            let (reply, report) = oneshot::channel();
            requests.send(Request::Report(reply)).await.unwrap();
            if report.await.unwrap().pending == 0 {
                break;
            }
        }
    }
    drop(events);
    let maps = running.await.unwrap();
    assert_eq!(maps.content().backends_v4.len(), 2);
}

#[test]
fn a_service_of_no_one_goes_away_even_if_it_takes_several_tries() {
    let mut first = sync(Fake::new(ROOM));
    first.apply(service(TWO));
    first.apply(vec![Event::Synced]);
    let mut maps = first.into_datapath();
    maps.fail(Some(Failing { every: 2 }));
    let mut second = sync(maps);
    second.apply(vec![Event::Synced]);
    assert!(second.needs_retry());
    while second.needs_retry() {
        second.retry();
    }
    assert_eq!(second.datapath().content().to_string(), "");
    assert_eq!(second.report().services, 0);
}

#[test]
fn writes_given_up_halfway_leave_nothing_in_use() {
    let mut maps = Fake::new(ROOM);
    maps.fail(Some(Failing { every: 3 }));
    let mut sync = sync(maps);
    sync.apply(vec![Event::Synced]);
    for backends in ["", ONE, TWO].repeat(5) {
        sync.apply(service(backends));
        if let Some(batch) = sync.take_freed() {
            sync.release(batch);
        }
    }
    sync.datapath().fail(None);
    while sync.needs_retry() {
        sync.retry();
        let freed = sync.take_freed();
        freed.into_iter().for_each(|batch| sync.release(batch));
    }
    let used = |report: Report| report.maps.iter().map(|map| map.used).collect::<Vec<_>>();
    assert_eq!(used(sync.report()), [3, 0, 1, 9, 2, 0, 0, 0]);
}

#[test]
fn objects_of_other_nodes_and_repeated_events_write_nothing() {
    let mut sync = sync(Fake::new(ROOM));
    sync.apply(vec![Event::Synced]);
    sync.apply(service(TWO));
    sync.datapath().fail(Some(Failing { every: 1 }));
    sync.apply(service(TWO));
    sync.apply(vec![Event::Apply(Object::Node(Box::default()))]);
    assert!(!sync.needs_retry());
}
