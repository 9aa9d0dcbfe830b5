//! The server as a client sees it.

mod client;
mod faults;
mod lists;
mod watches;

use super::{ApiServer, Options};
use serde_json::{Value, json};
use std::net::TcpListener;

fn server(options: Options) -> ApiServer {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ApiServer::start(listener, options).unwrap()
}

fn plain() -> ApiServer {
    server(Options::plain())
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]},
    })
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node},
    })
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}
