//! Watches without faults.

use super::client::{Answer, get, open};
use super::{plain, pod, server, service};
use crate::api::{ApiServer, Options};
use serde_json::Value;
use std::net::TcpStream;
use std::time::Duration;

fn watch(server: &ApiServer, query: &str) -> Answer<TcpStream> {
    let answer = open(server, &format!("/api/v1/services?watch=1&{query}"));
    assert_eq!(answer.code, 200);
    answer
}

fn quick() -> ApiServer {
    server(Options {
        bookmark_interval: Duration::from_millis(20),
        ..Options::plain()
    })
}

#[test]
fn a_watch_resumes_after_the_version_it_names() {
    let server = plain();
    server.apply_all([service("a"), service("b")]).unwrap();
    server.apply(pod("other", "node1")).unwrap();
    let mut watch = watch(&server, "resourceVersion=101");
    assert_eq!(watch.event(), "ADDED b@102");
    let mut changed = service("a");
    changed["spec"]["ports"][0]["port"] = 81.into();
    server.apply(changed).unwrap();
    assert_eq!(watch.event(), "MODIFIED a@104");
    server.delete("Service", "default", "b").unwrap();
    assert_eq!(watch.event(), "DELETED b@105");
    assert_eq!(server.open_watches("services"), 1);
    server.close_watches();
    assert_eq!(watch.event(), "END");
    assert_eq!(server.open_watches("services"), 0);
}

#[test]
fn events_have_their_type_first_and_whole_objects() {
    let server = plain();
    server.apply(service("a")).unwrap();
    let line = watch(&server, "resourceVersion=0").line().unwrap().unwrap();
    assert!(
        line.starts_with("{\"type\":\"ADDED\",\"object\":{\"kind\":\"Service\""),
        "{line}"
    );
    let event: Value = serde_json::from_str(&line).unwrap();
    let object = get(&server, "/api/v1/namespaces/default/services/a").1;
    assert_eq!(event["object"], object);
}

#[test]
fn without_a_version_a_watch_begins_with_what_exists() {
    let server = plain();
    server.apply_all([service("a"), service("b")]).unwrap();
    for query in ["", "resourceVersion=0", "resourceVersion="] {
        let mut watch = watch(&server, query);
        assert_eq!(
            [watch.event(), watch.event()],
            ["ADDED a@101", "ADDED b@102"]
        );
    }
}

#[test]
fn what_leaves_a_selector_is_deleted_as_it_was_and_what_enters_is_added() {
    let server = plain();
    server.apply(service("a")).unwrap();
    let mut watch = watch(&server, "resourceVersion=101&labelSelector=app%3Da");
    let mut other = service("a");
    other["metadata"]["labels"]["app"] = "z".into();
    server.apply(other.clone()).unwrap();
    let line = watch.line().unwrap().unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "a");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], "102");
    other["spec"]["type"] = "NodePort".into();
    server.apply(other).unwrap();
    server.apply(service("a")).unwrap();
    assert_eq!(watch.event(), "ADDED a@104");
}

#[test]
fn bookmarks_name_the_newest_version_of_anything() {
    let server = quick();
    server.apply(pod("a", "node1")).unwrap();
    let mut silent = watch(&server, "resourceVersion=100&timeoutSeconds=1");
    let mut marked = watch(&server, "resourceVersion=100&allowWatchBookmarks=true");
    assert_eq!(marked.event(), "BOOKMARK @101");
    server.apply(pod("b", "node1")).unwrap();
    while marked.event() != "BOOKMARK @102" {}
    assert_eq!(silent.event(), "END");
}

#[test]
fn a_watch_ends_when_its_time_is_up_after_a_last_bookmark() {
    let server = plain();
    let query = "resourceVersion=100&allowWatchBookmarks=true&timeoutSeconds=3";
    let mut watch = watch(&server, query);
    assert_eq!([watch.event(), watch.event()], ["BOOKMARK @100", "END"]);
}

#[test]
fn a_streaming_list_ends_with_an_annotated_bookmark() {
    let server = plain();
    server.apply(service("a")).unwrap();
    let mut watch = watch(
        &server,
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
    );
    assert_eq!(watch.event(), "ADDED a@101");
    let end: Value = serde_json::from_str(&watch.line().unwrap().unwrap()).unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["kind"], "Service");
    let metadata = &end["object"]["metadata"];
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(metadata["resourceVersion"], "101");
    server.apply(service("b")).unwrap();
    assert_eq!(watch.event(), "ADDED b@102");
}

#[test]
fn a_server_without_streaming_lists_says_so() {
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let path = format!("/api/v1/services?{query}");
    let old = server(Options {
        streaming_lists: false,
        ..Options::plain()
    });
    let (code, status) = get(&old, &path);
    assert_eq!((code, &status["reason"]), (422, &"Invalid".into()));
    assert_eq!(status["details"]["causes"][0]["field"], "sendInitialEvents");
    for query in [
        "sendInitialEvents=true",
        "resourceVersionMatch=NotOlderThan",
    ] {
        let (code, _) = get(&plain(), &format!("/api/v1/services?watch=1&{query}"));
        assert_eq!(code, 422, "{query}");
    }
}

#[test]
fn who_resumes_from_before_a_compaction_is_told_in_the_stream() {
    let server = plain();
    let mut open = watch(&server, "resourceVersion=100");
    server.apply_all([service("a"), service("b")]).unwrap();
    server.compact();
    let mut late = watch(&server, "resourceVersion=101");
    assert_eq!(
        [late.event(), late.event()],
        ["ERROR 410 \"Expired\"", "END"]
    );
    assert_eq!([open.event(), open.event()], ["ADDED a@101", "ADDED b@102"]);
    server.apply(service("c")).unwrap();
    assert_eq!(open.event(), "ADDED c@103");
    assert_eq!(watch(&server, "resourceVersion=102").event(), "ADDED c@103");
}

#[test]
fn history_is_as_long_as_it_is_told() {
    let server = server(Options {
        history: 2,
        ..Options::plain()
    });
    server.apply_all(["a", "b", "c"].map(service)).unwrap();
    assert_eq!(
        watch(&server, "resourceVersion=100").event(),
        "ERROR 410 \"Expired\""
    );
    assert_eq!(watch(&server, "resourceVersion=101").event(), "ADDED b@102");
}

#[test]
fn a_watch_of_the_future_hears_of_later_versions_only() {
    let server = plain();
    let mut watch = watch(&server, "resourceVersion=102");
    server.apply_all(["a", "b", "c"].map(service)).unwrap();
    assert_eq!(watch.event(), "ADDED c@103");
}

#[test]
fn a_watch_whose_client_has_gone_is_closed() {
    let server = plain();
    let open = watch(&server, "resourceVersion=100");
    assert_eq!(server.open_watches("services"), 1);
    drop(open);
    let closed = || server.open_watches("services") == 0;
    assert!(crate::process::wait_for(Duration::from_secs(10), closed));
}
