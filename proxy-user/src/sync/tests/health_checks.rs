//! What is told of health checks, and when.

use super::*;

/// A Service that load balancers ask after, with endpoints on this node and elsewhere.
fn asked(port: u16, here: &[&str]) -> Vec<Event> {
    let here = here
        .iter()
        .map(|ip| format!("{{addresses: [{ip}], nodeName: node-a}}"));
    let endpoints: Vec<String> = here
        .chain(["{addresses: [10.244.2.1]}".to_owned()])
        .collect();
    objects(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web, uid: u-1}},
           spec: {{clusterIP: 10.96.0.1, type: LoadBalancer, externalTrafficPolicy: Local,
                  healthCheckNodePort: {port}, ports: [{{port: 80}}]}}}}
---
{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
  metadata: {{name: s, labels: {{kubernetes.io/service-name: web}}}}, addressType: IPv4,
  ports: [{{port: 8080}}], endpoints: [{}]}}",
        endpoints.join(",")
    ))
}

const HERE: [&str; 2] = ["10.244.1.1", "10.244.1.2"];

fn local(told: &watch::Receiver<HealthChecks>) -> Option<usize> {
    let told = told.borrow();
    told.services.values().next()?.local_endpoints[0]
}

#[test]
fn numbers_are_there_to_be_read_and_only_ports_wake_somebody() {
    let mut sync = sync(Fake::new(ROOM));
    let mut told = sync.health_checks();
    sync.apply(asked(32000, &HERE));
    assert_eq!(local(&told), None, "nothing is written yet");
    sync.apply(vec![Event::Synced]);
    assert_eq!(local(&told), Some(2));
    assert!(told.has_changed().unwrap());
    let uid = told
        .borrow_and_update()
        .services
        .values()
        .next()
        .unwrap()
        .uid
        .clone();
    assert_eq!(&*uid, "u-1");
    sync.apply(asked(32000, &[]));
    assert_eq!(local(&told), Some(0));
    assert!(!told.has_changed().unwrap());
    sync.apply(asked(32001, &[]));
    assert!(told.has_changed().unwrap());
    told.mark_unchanged();
    sync.apply(vec![Event::Delete(
        ServiceName::new("default", "web").key(),
    )]);
    assert!(told.has_changed().unwrap());
    assert_eq!(local(&told), None);
}

#[test]
fn they_follow_what_has_been_written() {
    let mut sync = sync(Fake::new(ROOM));
    let told = sync.health_checks();
    sync.apply(vec![Event::Synced]);
    sync.datapath().fail(Some(Failing { every: 1 }));
    sync.apply(asked(32000, &HERE));
    assert_eq!(
        local(&told),
        None,
        "nobody is to come before there are rows"
    );
    sync.datapath().fail(None);
    sync.retry();
    assert_eq!(local(&told), Some(2));
    // Four is all the room there is: what was written goes on, and so does its health check.
    sync.apply(asked(
        32000,
        &["10.244.1.1", "10.244.1.2", "10.244.1.3", "10.244.1.4"],
    ));
    assert!(sync.needs_retry());
    assert_eq!(local(&told), Some(4));
}

#[test]
fn a_service_that_there_was_no_room_for_asks_nobody_to_come() {
    let mut sync = sync(Fake::new(ROOM));
    let told = sync.health_checks();
    sync.apply(vec![Event::Synced]);
    sync.apply(asked(
        32000,
        &["10.244.1.1", "10.244.1.2", "10.244.1.3", "10.244.1.4"],
    ));
    assert!(sync.needs_retry());
    assert_eq!(local(&told), None);
    sync.apply(asked(32000, &HERE));
    assert_eq!(local(&told), Some(2));
}

#[test]
fn addresses_are_those_of_node_ports_as_they_change() {
    let mut sync = sync(Fake::new(ROOM));
    let mut told = sync.health_checks();
    let local = [("198.51.100.1", "eth1"), ("2001:db8::1", "eth1")];
    let local = local.map(|(ip, device)| (ip.parse().unwrap(), device.to_owned()));
    sync.set_local_addresses(local.into());
    let mut at = || {
        let told = told.borrow_and_update();
        told.addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(at(), ["192.168.0.9"]);
    let mut list = |text: &str| {
        let node_ports = text.parse().unwrap();
        sync.set_followed(Followed {
            node_ports,
            ..Followed::default()
        });
    };
    list("198.51.100.0/24");
    assert_eq!(at(), ["198.51.100.1", "::"]);
    list("all");
    assert_eq!(at(), ["0.0.0.0", "::"]);
}
