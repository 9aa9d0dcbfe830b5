//! What deploy/ has for Kubernetes: that objects are of their kinds to the last field, and that they fit each
//! other and the agent.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

#[path = "deploy/kustomize.rs"]
mod kustomize;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::{Resource, api::events::v1::Event};
use kustomize::{Filled, build, deploy};
use proxy_user::source::kube::watched;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const COMPONENTS: [&str; 3] = ["close-in-pods", "old-kernels", "seccomp"];

/// The objects of the cluster, with components, and what takes them off again.
fn whole(name: &str, components: &[&str]) -> Vec<Value> {
    build(Filled::new(name, components).path()).unwrap()
}

fn only<T: Resource + DeserializeOwned>(objects: &[Value]) -> T {
    let mut found = objects.iter().filter(|it| it["kind"] == T::KIND);
    let object = found.next().unwrap_or_else(|| panic!("no {}", T::KIND));
    assert!(found.next().is_none(), "several {}", T::KIND);
    serde_json::from_value(object.clone()).unwrap()
}

fn pod(objects: &[Value]) -> PodSpec {
    let daemons: DaemonSet = only(objects);
    daemons.spec.unwrap().template.spec.unwrap()
}

fn agent(objects: &[Value]) -> Container {
    pod(objects).containers.remove(0)
}

/// Reads an object of this type; returns what the type does not know, and what is not as it was written.
fn strange<T: Resource + DeserializeOwned + Serialize>(object: &Value) -> Vec<String> {
    assert_eq!(object["apiVersion"], T::API_VERSION, "{object}");
    let mut strange = Vec::new();
    let read = serde_ignored::deserialize(object, |path| {
        strange.push(format!("{}: {path} is unknown", T::KIND));
    });
    let read: T = read.unwrap_or_else(|error| panic!("{}: {error}: {object}", T::KIND));
    let again = serde_json::to_value(&read).unwrap();
    if strange.is_empty() && again != *object {
        strange.push(format!("{}: it is read as {again}", T::KIND));
    }
    strange
}

fn strange_of(object: &Value) -> Vec<String> {
    match object["kind"].as_str().unwrap() {
        DaemonSet::KIND => strange::<DaemonSet>(object),
        ConfigMap::KIND => strange::<ConfigMap>(object),
        ServiceAccount::KIND => strange::<ServiceAccount>(object),
        ClusterRole::KIND => strange::<ClusterRole>(object),
        ClusterRoleBinding::KIND => strange::<ClusterRoleBinding>(object),
        other => vec![format!("nothing here knows a {other}")],
    }
}

#[test]
fn every_object_is_of_its_kind_to_the_last_field() {
    let mut objects = whole("kinds", &COMPONENTS);
    assert_eq!(objects.len(), 6, "{objects:?}");
    objects.extend(build(&deploy().join("cleanup")).unwrap());
    let strange: Vec<String> = objects.iter().flat_map(strange_of).collect();
    assert_eq!(strange, [""; 0]);
}

#[test]
fn every_object_can_be_deleted_by_one_label() {
    let objects = whole("label", &COMPONENTS);
    let label = |object: &Value| object["metadata"]["labels"]["app.kubernetes.io/name"].clone();
    let others: Vec<&Value> = objects.iter().filter(|it| label(it) != "ferrule").collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn fields_that_are_misspelt_or_of_another_type_are_found() {
    let mut object = build(&deploy().join("cleanup")).unwrap().remove(0);
    object["spec"]["template"]["spec"]["hostNetworks"] = true.into();
    let found = strange_of(&object);
    assert!(found[0].contains("hostNetworks is unknown"), "{found:?}");
    object["spec"]["template"]["spec"]["hostNetwork"] = "true".into();
    std::panic::catch_unwind(|| strange_of(&object)).unwrap_err();
}

#[test]
fn nothing_is_built_without_the_api_servers_addresses() {
    let error = build(&deploy()).unwrap_err();
    assert!(error.contains("cluster.env"), "{error}");
    let example = std::fs::read_to_string(deploy().join("cluster.env.example")).unwrap();
    assert!(
        example.ends_with("\nFERRULE_API_SERVERS=\n"),
        "to be filled in"
    );
    let servers = agent(&whole("servers", &[])).env.unwrap();
    let servers = servers.iter().find(|it| it.name == "FERRULE_API_SERVERS");
    let source = servers.unwrap().value_from.clone().unwrap();
    let source = source.config_map_key_ref.unwrap();
    assert_eq!(source.name, "ferrule-cluster");
    assert_eq!(source.optional, None, "the pod waits until it is there");
}

/// Group and plural of a kind.
type Kind = (String, String);

fn kind<T: Resource>() -> Kind {
    (T::GROUP.to_owned(), T::URL_PATH_SEGMENT.to_owned())
}

#[test]
fn the_agent_may_do_what_it_does_and_nothing_else() {
    let watched = watched().into_iter().map(|kind| (kind, ["list", "watch"]));
    let written = (kind::<Event>(), ["create", "patch"]);
    let rights = watched.chain([written]);
    let needed: BTreeSet<String> = rights
        .flat_map(|((group, plural), verbs)| {
            verbs.map(|verb| format!("{:?}", (&group, &plural, verb)))
        })
        .collect();
    let objects = whole("rights", &[]);
    let role: ClusterRole = only(&objects);
    let mut given = BTreeSet::new();
    for rule in role.rules.unwrap() {
        assert_eq!((rule.non_resource_urls, rule.resource_names), (None, None));
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.iter().flatten() {
                let right = |verb: &String| format!("{:?}", (&group, resource, verb));
                given.extend(rule.verbs.iter().map(right));
            }
        }
    }
    assert_eq!(given, needed);
    let binding: ClusterRoleBinding = only(&objects);
    let account: ServiceAccount = only(&objects);
    assert_eq!(binding.role_ref.name, role.metadata.name.unwrap());
    let subject = &binding.subjects.unwrap()[0];
    assert_eq!(Some(&subject.name), account.metadata.name.as_ref());
    assert_eq!(subject.namespace, account.metadata.namespace);
    assert_eq!(pod(&objects).service_account_name, account.metadata.name);
}

#[test]
fn pods_are_found_by_their_daemon_set_and_by_who_looks_for_kube_proxy() {
    let objects = whole("labels", &[]);
    let daemons: DaemonSet = only(&objects);
    let cleanup: DaemonSet = only(&build(&deploy().join("cleanup")).unwrap());
    assert_eq!(
        daemons.metadata.name, cleanup.metadata.name,
        "it takes its place"
    );
    let selector = |it: &DaemonSet| it.spec.clone().unwrap().selector.match_labels.unwrap();
    assert_eq!(
        selector(&daemons),
        selector(&cleanup),
        "it can't be changed"
    );
    assert!(
        !selector(&daemons).contains_key("k8s-app"),
        "that is kube-proxy's own"
    );
    for daemons in [&daemons, &cleanup] {
        let template = daemons.spec.clone().unwrap().template;
        let labels = template.metadata.unwrap().labels.unwrap();
        let mut wanted = selector(daemons).into_iter();
        assert!(wanted.all(|(key, value)| labels.get(&key) == Some(&value)));
    }
    let template = daemons.spec.unwrap().template.metadata.unwrap();
    assert_eq!(template.labels.unwrap()["k8s-app"], "kube-proxy");
}

#[test]
fn pods_run_on_every_node_in_its_network_before_all_others() {
    for objects in [
        whole("pods", &[]),
        build(&deploy().join("cleanup")).unwrap(),
    ] {
        let pod = pod(&objects);
        assert_eq!(pod.host_network, Some(true));
        assert_eq!(pod.dns_policy.as_deref(), Some("Default"));
        assert_eq!(
            pod.priority_class_name.as_deref(),
            Some("system-node-critical")
        );
        let tolerations = pod.tolerations.unwrap();
        let all = &tolerations[0];
        assert_eq!(all.operator.as_deref(), Some("Exists"));
        assert_eq!((&all.key, &all.effect), (&None, &None));
        let volumes: BTreeSet<String> =
            pod.volumes.unwrap().into_iter().map(|it| it.name).collect();
        let containers = pod
            .containers
            .into_iter()
            .chain(pod.init_containers.into_iter().flatten());
        for container in containers {
            let mounts = container.volume_mounts.unwrap();
            let unknown = mounts.iter().find(|it| !volumes.contains(&it.name));
            assert!(unknown.is_none(), "{unknown:?}");
            let context = container.security_context.unwrap();
            assert_eq!(context.read_only_root_filesystem, Some(true));
            let limits = container.resources.unwrap().limits.unwrap();
            assert!(limits.contains_key("memory") && !limits.contains_key("cpu"));
        }
    }
}

#[test]
fn the_agent_has_its_capabilities_and_no_others() {
    let with = |components: &[&str]| {
        let agent = agent(&whole(&format!("caps{}", components.len()), components));
        let context = agent.security_context.unwrap();
        assert_eq!(context.privileged, None);
        assert_eq!(context.allow_privilege_escalation, Some(false));
        let capabilities = context.capabilities.unwrap();
        assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
        capabilities.add.unwrap()
    };
    assert_eq!(with(&[]), ["BPF", "NET_ADMIN", "PERFMON"]);
    assert_eq!(
        with(&["close-in-pods", "old-kernels"]),
        ["BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN", "SYS_RESOURCE"]
    );
}

#[test]
fn no_profile_of_the_runtime_confines_the_agent() {
    let objects = whole("profiles", &[]);
    let agent = agent(&objects);
    let context = agent.security_context.unwrap();
    assert_eq!(context.seccomp_profile.unwrap().type_, "Unconfined");
    assert_eq!(context.app_armor_profile.unwrap().type_, "Unconfined");
    // As Kubernetes before 1.30 reads it.
    let daemons: DaemonSet = only(&objects);
    let template = daemons.spec.unwrap().template.metadata.unwrap();
    let key = format!(
        "container.apparmor.security.beta.kubernetes.io/{}",
        agent.name
    );
    assert_eq!(template.annotations.unwrap()[&key], "unconfined");
}

#[test]
fn probes_ask_where_the_agent_answers() {
    let objects = whole("probes", &[]);
    let config: ConfigMap = objects
        .iter()
        .filter(|it| it["metadata"]["name"] == "ferrule-config")
        .map(|it| serde_json::from_value(it.clone()).unwrap())
        .next()
        .unwrap();
    let config: Value = serde_saphyr::from_str(&config.data.unwrap()["config.yaml"]).unwrap();
    assert_eq!(config["healthzBindAddress"], "0.0.0.0:10256");
    let agent = agent(&objects);
    for probe in [agent.liveness_probe, agent.startup_probe] {
        let asked = serde_json::to_value(probe.unwrap().http_get.unwrap()).unwrap();
        // Not /healthz, which also says whether load balancers should use the node.
        assert_eq!(
            asked,
            serde_json::json!({ "path": "/livez", "port": 10256 })
        );
    }
    let ready = agent
        .readiness_probe
        .unwrap()
        .exec
        .unwrap()
        .command
        .unwrap();
    assert_eq!(ready, ["/ferrule", "status", "--synced"]);
    let stays = pod(&objects).termination_grace_period_seconds;
    assert!(stays.is_some_and(|seconds| seconds <= 10));
}

/// Whether the program knows these arguments, and what it says of the command.
fn understands(arguments: &[String]) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_ferrule"));
    let said = Command::new(program).args(arguments).arg("--help").output();
    let said = said.unwrap();
    let error = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{arguments:?}: {error}");
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn the_program_understands_what_the_pods_start_it_with() {
    for objects in [
        whole("args", &[]),
        build(&deploy().join("cleanup")).unwrap(),
    ] {
        let pod = pod(&objects);
        let containers = pod
            .containers
            .iter()
            .chain(pod.init_containers.iter().flatten());
        for container in containers {
            assert_eq!(container.image.as_deref(), Some("ferrule:0.1.0"));
            assert_eq!(container.command, None, "the image names the program");
            let help = understands(container.args.as_ref().unwrap());
            for variable in container.env.iter().flatten() {
                assert!(
                    help.contains(&format!("[env: {}=", variable.name)),
                    "{help}"
                );
            }
            let probe = container.readiness_probe.as_ref();
            if let Some(exec) = probe.and_then(|it| it.exec.as_ref()) {
                understands(&exec.command.as_ref().unwrap()[1..]);
            }
        }
    }
}

/// The values that a unit gives this key, in its order.
fn unit_values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn the_unit_starts_the_program_with_flags_that_its_environment_file_replaces() {
    let unit = std::fs::read_to_string(deploy().join("ferrule.service")).unwrap();
    let start = unit_values(&unit, "ExecStart");
    assert_eq!(start, ["/usr/local/bin/ferrule run $FERRULE_ARGS"]);
    let flags = unit_values(&unit, "Environment")[0].trim_matches('"');
    let flags = flags.strip_prefix("FERRULE_ARGS=").unwrap();
    let words = ["run"].into_iter().chain(flags.split(' '));
    understands(&words.map(str::to_owned).collect::<Vec<_>>());
    assert!(unit.find("Environment=") < unit.find("EnvironmentFile="));
    let families = unit_values(&unit, "RestrictAddressFamilies")[0];
    let families: BTreeSet<&str> = families.split(' ').collect();
    let needed = ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"];
    assert_eq!(families, BTreeSet::from(needed));
}
