//! Lists, single objects, discovery, writes, and who may come in.

use super::client::{connect, get, open, send, write};
use super::{names, plain, pod, server, service};
use crate::api::Options;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const SERVICES: &str = "/api/v1/services";

#[test]
fn a_list_has_one_version_and_items_without_kind() {
    let server = plain();
    server.apply_all([service("b"), service("a")]).unwrap();
    let (code, list) = get(&server, SERVICES);
    assert_eq!((code, names(&list)), (200, vec!["a", "b"]));
    assert_eq!(list["kind"], "ServiceList");
    assert_eq!(list["metadata"], json!({"resourceVersion": "102"}));
    let item = &list["items"][0];
    assert!(item.get("kind").is_none() && item.get("apiVersion").is_none());
    assert_eq!(item["metadata"]["resourceVersion"], "102");
    assert_eq!(item["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(
        item["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
}

#[test]
fn an_object_has_its_kind_and_one_that_is_stored_already_keeps_its_version() {
    let server = plain();
    server.apply(service("a")).unwrap();
    let path = "/api/v1/namespaces/default/services/a";
    let (code, first) = get(&server, path);
    assert_eq!((code, &first["kind"]), (200, &"Service".into()));
    server.apply(service("a")).unwrap();
    assert_eq!(get(&server, path).1, first);
    let (code, status) = get(&server, "/api/v1/namespaces/default/services/b");
    assert_eq!((code, &status["reason"]), (404, &"NotFound".into()));
}

#[test]
fn selectors_and_namespaces_choose() {
    let server = plain();
    server
        .apply_all([pod("a", "node1"), pod("b", "node2"), service("a")])
        .unwrap();
    let chosen = |path: &str| get(&server, path).1;
    let on_node = chosen("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode1");
    assert_eq!(names(&on_node), ["a"]);
    let labelled = chosen("/api/v1/services?labelSelector=app+in+%28a%2Cb%29%2C%21x");
    assert_eq!(names(&labelled), ["a"]);
    assert!(names(&chosen("/api/v1/namespaces/other/pods")).is_empty());
    let (code, _) = get(&server, "/api/v1/services?fieldSelector=spec.nodeName%3Da");
    assert_eq!(code, 400);
}

#[test]
fn pages_show_the_version_of_the_first_until_it_is_compacted() {
    let server = plain();
    server.apply_all(["a", "b", "c", "d"].map(service)).unwrap();
    let (_, first) = get(&server, &format!("{SERVICES}?limit=2"));
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    let next = |list: &Value, limit: usize| {
        let token = list["metadata"]["continue"].as_str().unwrap();
        get(
            &server,
            &format!("{SERVICES}?limit={limit}&continue={token}"),
        )
    };
    server.delete("Service", "default", "c").unwrap();
    server.apply(service("bb")).unwrap();
    let (_, second) = next(&first, 2);
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"], json!({"resourceVersion": "104"}));

    server.compact();
    let (code, expired) = next(&first, 2);
    assert_eq!((code, &expired["reason"]), (410, &"Expired".into()));
    let (code, rest) = next(&expired, 5);
    assert_eq!((code, names(&rest)), (200, vec!["bb", "d"]));
}

#[test]
fn versions_are_newest_any_at_least_or_exact() {
    let server = plain();
    server.apply_all([service("a"), service("b")]).unwrap();
    let list = |query: &str| get(&server, &format!("{SERVICES}?{query}"));
    assert_eq!(names(&list("resourceVersion=0&limit=1").1), ["a", "b"]);
    assert_eq!(names(&list("resourceVersion=101").1), ["a", "b"]);
    let exact = list("resourceVersion=101&resourceVersionMatch=Exact").1;
    assert_eq!(names(&exact), ["a"]);
    assert_eq!(names(&list("resourceVersion=101&limit=5").1), ["a"]);
    let (code, future) = list("resourceVersion=200");
    assert_eq!(code, 504);
    assert_eq!(
        future["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    server.compact();
    assert_eq!(
        list("resourceVersion=101&resourceVersionMatch=Exact").0,
        410
    );
    for (query, code) in [
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422),
        ("resourceVersion=1&resourceVersionMatch=Foo", 422),
        ("sendInitialEvents=true", 422),
        ("resourceVersion=x", 400),
        ("limit=x", 400),
        ("continue=x", 400),
    ] {
        assert_eq!(list(query).0, code, "{query}");
    }
}

#[test]
fn a_list_of_the_future_waits_for_it() {
    let server = plain();
    std::thread::scope(|scope| {
        let list = scope.spawn(|| get(&server, &format!("{SERVICES}?resourceVersion=101")));
        while server.requests().is_empty() {
            std::thread::yield_now();
        }
        server.apply(service("a")).unwrap();
        let (code, list) = list.join().unwrap();
        assert_eq!((code, names(&list)), (200, vec!["a"]));
    });
}

#[test]
fn paths_and_methods_that_are_not_there_are_refused_with_a_status() {
    let server = plain();
    let (code, status) = get(&server, "/api/v1/foos");
    assert_eq!((code, &status["kind"]), (404, &"Status".into()));
    let (code, status) = write(
        &server,
        "PUT /api/v1/services",
        "application/json",
        &json!({}),
    );
    assert_eq!((code, &status["reason"]), (405, &"MethodNotAllowed".into()));
    assert_eq!(get(&server, "/version").1["minor"], "36");
    assert_eq!(open(&server, "/readyz").text().unwrap(), "ok");
    let groups = get(&server, "/apis").1;
    assert_eq!(groups["groups"].as_array().unwrap().len(), 3);
    let slices = get(&server, "/apis/discovery.k8s.io/v1").1;
    assert_eq!(slices["resources"][0]["kind"], "EndpointSlice");
}

#[test]
fn objects_can_be_written_over_http() {
    let server = plain();
    let collection = "POST /api/v1/namespaces/default/services";
    let (code, made) = write(&server, collection, "application/json", &service("a"));
    assert_eq!(code, 201);
    assert_eq!(
        write(&server, collection, "application/json", &service("a")).0,
        409
    );

    let path = "/api/v1/namespaces/default/services/a";
    let patch = json!({"spec": {"clusterIP": null, "type": "NodePort"}});
    let merge = "application/merge-patch+json";
    let (code, patched) = write(&server, &format!("PATCH {path}"), merge, &patch);
    assert_eq!((code, &patched["spec"]["type"]), (200, &"NodePort".into()));
    assert!(patched["spec"].get("clusterIP").is_none());
    assert_eq!(patched["metadata"]["uid"], made["metadata"]["uid"]);

    let put = format!("PUT {path}");
    let (code, conflict) = write(&server, &put, "application/json", &made);
    assert_eq!((code, &conflict["reason"]), (409, &"Conflict".into()));
    assert_eq!(write(&server, &put, "application/json", &patched).0, 200);
    assert_eq!(
        write(&server, &format!("DELETE {path}"), "", &json!({})).0,
        200
    );
    assert_eq!(get(&server, path).0, 404);
}

#[test]
fn events_that_clients_post_are_kept() {
    let server = plain();
    for path in [
        "POST /api/v1/namespaces/default/events",
        "POST /apis/events.k8s.io/v1/namespaces/default/events",
    ] {
        let event = json!({"metadata": {"generateName": "x."}, "reason": "Synced"});
        assert_eq!(write(&server, path, "application/json", &event).0, 201);
    }
    let events = server.events();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event["reason"] == "Synced"));
}

#[test]
fn without_the_token_nobody_comes_in_and_without_the_right_nobody_reads() {
    let server = server(Options {
        tls: false,
        ..Options::default()
    });
    let ask = |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        let answer = send(connect(&server), &format!("GET {SERVICES}"), &header, "");
        let mut answer = answer.unwrap();
        (answer.code, answer.json().unwrap())
    };
    assert_eq!(ask("wrong").1["reason"], "Unauthorized");
    assert_eq!(get(&server, SERVICES).0, 401);
    assert_eq!(get(&server, "/version").0, 200);
    assert_eq!(ask("test-token").0, 200);
    server.forbid(&["services"]);
    let (code, status) = ask("test-token");
    assert_eq!(code, 403);
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("cannot list resource \"services\""),
        "{message}"
    );
    server.forbid(&[]);
    server.set_token("fresh");
    assert_eq!(ask("test-token").0, 401);
    assert_eq!(ask("fresh").0, 200);
}

#[test]
fn tls_is_trusted_by_whoever_has_the_files() {
    let server = server(Options::default());
    server.apply(service("a")).unwrap();
    let folder = scratch("tls");
    server.write_service_account(&folder).unwrap();
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(folder.join("ca.crt")).unwrap();
    roots.add(authority).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let token = fs::read_to_string(folder.join("token")).unwrap();
    for name in ["kubernetes.default.svc", "127.0.0.1"] {
        let name = ServerName::try_from(name).unwrap();
        let client = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let stream = StreamOwned::new(client, connect(&server));
        let header = format!("Authorization: Bearer {token}\r\n");
        let answer = send(stream, &format!("GET {SERVICES}"), &header, "");
        assert_eq!(names(&answer.unwrap().json().unwrap()), ["a"]);
    }
    let stranger = ServerName::try_from("example.org").unwrap();
    let client = ClientConnection::new(config, stranger).unwrap();
    let stream = StreamOwned::new(client, connect(&server));
    assert!(send(stream, "GET /version", "", "").is_err());
    let kubeconfig = folder.join("kubeconfig");
    server.write_kubeconfig(&kubeconfig).unwrap();
    let kubeconfig: Value = serde_json::from_slice(&fs::read(kubeconfig).unwrap()).unwrap();
    assert_eq!(kubeconfig["clusters"][0]["cluster"]["server"], server.url());
    assert_eq!(kubeconfig["users"][0]["user"]["token"], "test-token");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn requests_are_remembered() {
    let server = plain();
    get(&server, "/api/v1/nodes?limit=1");
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    let seen = &requests[0];
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str()),
        ("GET", "/api/v1/nodes")
    );
    assert_eq!(
        (seen.query.as_str(), seen.user_agent.as_str()),
        ("limit=1", "test/1")
    );
}

fn scratch(name: &str) -> PathBuf {
    let folder = format!("ferrule-api-{name}-{}", std::process::id());
    std::env::temp_dir().join(folder)
}
