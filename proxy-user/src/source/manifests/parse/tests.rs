use super::*;
use proptest::prelude::*;

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata:
  name: web
  annotations: {long: story}
spec:
  clusterIP: 10.96.0.1
  ports:
  - name: http
    port: 80
";

fn objects(text: &str) -> Vec<String> {
    let parsed = parse(text.as_bytes()).unwrap();
    parsed
        .objects
        .iter()
        .map(|it| it.key().to_string())
        .collect()
}

fn broken(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn an_object_is_read_without_the_metadata_that_nobody_needs() {
    let parsed = parse(SERVICE.as_bytes()).unwrap();
    let Object::Service(service) = &parsed.objects[0] else {
        panic!("{parsed:?}");
    };
    assert_eq!(service.metadata.annotations, None);
    assert_eq!(service.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(
        service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port,
        80
    );
}

#[test]
fn a_wrong_value_is_reported_with_line_and_field() {
    let text = SERVICE.replace("port: 80", "port: x");
    let message = broken(&text);
    assert_eq!(
        message,
        "10: spec.ports[0].port: invalid i32, in \"port: x\""
    );
    let message = broken(&SERVICE.replace("  clusterIP", " clusterIP"));
    assert!(message.starts_with("8: spec: "), "{message}");
}

#[test]
fn lines_are_counted_from_the_start_of_the_file() {
    let text = format!(
        "{SERVICE}---\n# two\n{}",
        SERVICE.replace("port: 80", "port: x")
    );
    let message = broken(&text);
    assert!(message.starts_with("22: spec.ports[0].port: "), "{message}");
}

#[test]
fn lines_are_right_inside_of_a_list() {
    let text = "kind: List
apiVersion: v1
items:
- apiVersion: v1
  kind: ConfigMap
  data: {a: b}
- apiVersion: v1
  kind: Service
  metadata: {name: a}
  spec:
    ports:
    - port: [1]
";
    let message = broken(text);
    assert!(
        message.starts_with("12: items[1].spec.ports[0].port: "),
        "{message}"
    );
}

#[test]
fn lists_and_typed_lists_are_opened() {
    let text = "apiVersion: v1
items:
- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: x}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}
- {apiVersion: v1, kind: Node, metadata: {name: n}}
kind: List
---
{\"kind\": \"EndpointSliceList\", \"apiVersion\": \"discovery.k8s.io/v1\", \"items\": [
  {\"metadata\": {\"name\": \"s\"}, \"addressType\": \"IPv4\", \"endpoints\": []}]}
---
kind: ServiceList
apiVersion: v1
items:
---
";
    let parsed = parse(text.as_bytes()).unwrap();
    assert_eq!(
        objects(text),
        ["Service x/a", "Node n", "EndpointSlice default/s"]
    );
    assert_eq!(parsed.ignored, 1);
}

#[test]
fn other_kinds_are_ignored_even_if_they_share_the_name() {
    let text = "apiVersion: serving.knative.dev/v1\nkind: Service\nspec: {ports: 3}\n";
    assert_eq!(parse(text.as_bytes()).unwrap().ignored, 1);
}

#[test]
fn what_makes_an_object_must_be_there() {
    assert_eq!(broken("kind: Service\n"), "1: apiVersion: missing");
    assert_eq!(broken("apiVersion: v1\n"), "1: kind: missing");
    let nameless = "---\n---\napiVersion: v1\nkind: Service\n";
    assert_eq!(broken(nameless), "2: metadata.name: missing");
}

#[test]
fn nothing_is_no_object() {
    for text in ["", "\n", "---\n---\n", "# only\n", "null\n"] {
        assert_eq!(parse(text.as_bytes()), Ok(Parsed::default()), "{text:?}");
    }
}

#[test]
fn text_that_is_no_object_is_an_error() {
    for text in [
        "hello",
        "- a\n- b\n",
        "a: [",
        "\u{0}",
        "{",
        "a: b: c",
        "kind: [v1]",
    ] {
        assert!(parse(text.as_bytes()).is_err(), "{text:?}");
    }
    assert_eq!(
        parse(b"a: 1\n\xff").unwrap_err().to_string(),
        "2: not UTF-8"
    );
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "apiVersion: v1\n",
        "kind: Service\n",
        "kind: List\n",
        "items:\n",
        "- ",
        "  ",
        "---\n",
        "metadata: ",
        "{name: a}\n",
        "spec:\n",
        "ports:\n",
        "port: 80\n",
        "&a ",
        "*a",
        "<<: *a\n",
        "!!int ",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "|\n",
        ">-\n",
        ": ",
        "\t",
        "\n",
        "#",
        "? ",
        "...\n",
        "99999999999999999999",
        "~",
        "\u{feff}",
        "%YAML 1.2\n",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        tells_what_is_wrong(&bytes)?;
    }

    #[test]
    fn any_text_made_of_yaml_is_taken(text in pieces()) {
        tells_what_is_wrong(text.as_bytes())?;
    }
}

/// Whatever can't be read is told by a line of the file and words.
fn tells_what_is_wrong(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Err(broken) = parse(bytes) {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        prop_assert!((1..=lines + 1).contains(&broken.line), "{broken}");
        prop_assert!(!broken.what.trim().is_empty(), "{broken:?}");
    }
    Ok(())
}
