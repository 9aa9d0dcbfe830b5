//! What kustomize makes of a folder, as far as the folders in deploy/ use it: not every Debian has a kustomize
//! that knows components.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A kustomization; what is not here is not used in deploy/.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kustomization {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    config_map_generator: Vec<Generator>,
    #[serde(default)]
    images: Vec<Image>,
    #[serde(default)]
    components: Vec<String>,
    #[serde(default)]
    patches: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Generator {
    name: String,
    namespace: String,
    #[serde(default)]
    files: Vec<String>,
    #[serde(default)]
    envs: Vec<String>,
    options: Options,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Image {
    name: String,
    new_name: String,
    new_tag: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    target: Target,
    patch: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    name: String,
}

/// All objects, without the hashes in the names of ConfigMaps.
pub(crate) fn build(folder: &Path) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    apply(folder, &mut objects)?;
    Ok(objects)
}

/// Adds the resources of a folder, and changes what is there.
fn apply(folder: &Path, objects: &mut Vec<Value>) -> Result<(), String> {
    let path = folder.join("kustomization.yaml");
    let kustomization: Kustomization =
        serde_saphyr::from_str(&read(&path)?).map_err(|error| format!("{path:?}: {error}"))?;
    let version = match kustomization.kind.as_str() {
        "Kustomization" => "kustomize.config.k8s.io/v1beta1",
        "Component" => "kustomize.config.k8s.io/v1alpha1",
        other => return Err(format!("{path:?}: kind {other}")),
    };
    assert_eq!(kustomization.api_version, version, "{path:?}");
    for resource in &kustomization.resources {
        let resource = folder.join(resource);
        match resource.is_dir() {
            true => apply(&resource, objects)?,
            false => objects.extend(documents(&resource)?),
        }
    }
    for generator in &kustomization.config_map_generator {
        objects.push(generate(folder, generator)?);
    }
    for component in &kustomization.components {
        apply(&folder.join(component), objects)?;
    }
    for patch in &kustomization.patches {
        change(patch, objects)?;
    }
    for image in &kustomization.images {
        objects
            .iter_mut()
            .for_each(|object| set_image(image, object));
    }
    Ok(())
}

fn documents(file: &Path) -> Result<Vec<Value>, String> {
    serde_saphyr::from_multiple(&read(file)?).map_err(|error| format!("{file:?}: {error}"))
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{file:?}: {error}"))
}

fn generate(folder: &Path, generator: &Generator) -> Result<Value, String> {
    let mut content = serde_json::Map::new();
    for file in &generator.files {
        content.insert(file.clone(), read(&folder.join(file))?.into());
    }
    for file in &generator.envs {
        let text = read(&folder.join(file))?;
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once('=').unwrap();
            content.insert(key.to_owned(), value.into());
        }
    }
    let Generator {
        name,
        namespace,
        options,
        ..
    } = generator;
    let metadata = json!({ "name": name, "namespace": namespace, "labels": options.labels });
    Ok(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": content }))
}

fn change(patch: &Patch, objects: &mut [Value]) -> Result<(), String> {
    let Patch { target, patch } = patch;
    let is_meant =
        |it: &&mut Value| it["kind"] == target.kind && it["metadata"]["name"] == target.name;
    let object = objects.iter_mut().find(is_meant);
    let object = object.ok_or_else(|| format!("nothing is a {target:?}"))?;
    let patch: json_patch::Patch =
        serde_saphyr::from_str(patch).map_err(|error| error.to_string())?;
    json_patch::patch(object, &patch).map_err(|error| error.to_string())
}

fn set_image(image: &Image, object: &mut Value) {
    for containers in ["initContainers", "containers"] {
        let containers = object.pointer_mut(&format!("/spec/template/spec/{containers}"));
        for container in containers
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if container["image"] == image.name {
                container["image"] = format!("{}:{}", image.new_name, image.new_tag).into();
            }
        }
    }
}

/// A copy of deploy/ in which the required value is set, and these components are switched on.
pub(crate) struct Filled(PathBuf);

impl Filled {
    pub(crate) fn new(name: &str, components: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("ferrule-{name}-{}", std::process::id()));
        copy(&deploy(), &folder);
        let example = read(&folder.join("cluster.env.example")).unwrap();
        let filled = example.replace("SERVERS=", "SERVERS=192.0.2.1:6443,[2001:db8::1]:6443");
        std::fs::write(folder.join("cluster.env"), filled).unwrap();
        let path = folder.join("kustomization.yaml");
        let mut text = read(&path).unwrap();
        if !components.is_empty() {
            text += "components:\n";
        }
        for component in components {
            text += &format!("  - components/{component}\n");
        }
        std::fs::write(path, text).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        // It is below the folder for what is temporary.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(std::fs::copy(&from, &to).unwrap()),
        }
    }
}

/// Builds a folder `whole` among these files.
fn build_of(name: &str, files: &[(&str, &str)]) -> Result<Vec<Value>, String> {
    let top = std::env::temp_dir().join(format!("ferrule-build-{name}-{}", std::process::id()));
    for (path, text) in files {
        let path = top.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let built = build(&top.join("whole"));
    std::fs::remove_dir_all(&top).unwrap();
    built
}

const POD: &str = "kind: Pod\nmetadata: {name: a}\n\
                   spec: {template: {spec: {containers: [{image: x}]}}}\n";
const COMPONENT: &str = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches:\n\
    - target: {kind: Pod, name: a}\n  patch: |-\n    - {op: add, path: /spec/more, value: 1}\n";

fn kustomization(fields: &str) -> String {
    format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n{fields}")
}

#[test]
fn resources_are_generated_patched_and_given_their_image() {
    let whole = kustomization(
        "resources: [../base]\ncomponents: [../more]\n\
         images: [{name: x, newName: y/x, newTag: '1'}]\n\
         configMapGenerator:\n- {name: c, namespace: n, envs: [e], files: [f], options: {labels: {l: v}}}\n",
    );
    let built = build_of(
        "whole",
        &[
            ("whole/kustomization.yaml", &whole),
            ("whole/e", "# none\n\nKEY=a=b\n"),
            ("whole/f", "text\n"),
            (
                "base/kustomization.yaml",
                &kustomization("resources: [pod.yaml]"),
            ),
            ("base/pod.yaml", POD),
            ("more/kustomization.yaml", COMPONENT),
        ],
    );
    let containers = json!([{ "image": "y/x:1" }]);
    let pod = json!({ "kind": "Pod", "metadata": { "name": "a" },
        "spec": { "more": 1, "template": { "spec": { "containers": containers } } } });
    let metadata = json!({ "name": "c", "namespace": "n", "labels": { "l": "v" } });
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
        "data": { "KEY": "a=b", "f": "text\n" } });
    assert_eq!(built.unwrap(), [pod, map]);
}

#[test]
fn what_the_builder_does_not_know_is_an_error() {
    let unknown = kustomization("namePrefix: a-\n");
    let error = build_of("unknown", &[("whole/kustomization.yaml", &unknown)]).unwrap_err();
    assert!(error.contains("namePrefix"), "{error}");
    let nothing = kustomization("components: [../more]\n");
    let files = [
        ("whole/kustomization.yaml", nothing.as_str()),
        ("more/kustomization.yaml", COMPONENT),
    ];
    let error = build_of("target", &files).unwrap_err();
    assert!(error.contains("nothing is a"), "{error}");
}
