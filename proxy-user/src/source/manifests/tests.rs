use super::*;
use crate::source::Object;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

/// Far beyond what any step takes; only a broken test waits for so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A folder that goes away with the test, and a source that watches `sub` inside of it.
struct World {
    root: PathBuf,
    events: Option<mpsc::Receiver<Vec<Event>>>,
    source: Option<JoinHandle<()>>,
}

impl World {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ferrule-manifests-{}-{unique}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir(&root).unwrap();
        Self {
            root,
            events: None,
            source: None,
        }
    }

    fn with_folder() -> Self {
        let world = Self::new();
        fs::create_dir(world.path("sub")).unwrap();
        world
    }

    fn start(&mut self) {
        let (sender, receiver) = mpsc::channel(16);
        let source = Manifests::new(self.path("sub"));
        self.source = Some(thread::spawn(move || source.run(&sender)));
        self.events = Some(receiver);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, address: &str) {
        fs::write(self.path(name), manifest(address)).unwrap();
    }

    /// The next batch as short lines.
    fn next(&mut self) -> Vec<String> {
        let events = self.events.as_mut().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match events.try_recv() {
                Ok(batch) => return batch.into_iter().map(line).collect(),
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.events = None;
        if let Some(source) = self.source.take() {
            source.join().unwrap();
        }
        fs::remove_dir_all(&self.root).unwrap();
    }
}

fn manifest(address: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec:\n  clusterIP: {address}\n")
}

fn line(event: Event) -> String {
    match event {
        Event::Apply(Object::Service(service)) => service.spec.unwrap().cluster_ip.unwrap(),
        Event::Delete(key) => format!("-{}", key.name),
        Event::Synced => "synced".to_owned(),
        Event::Problems { problems, .. } => match problems.as_slice() {
            [] => "well".to_owned(),
            problems => problems.join("; "),
        },
        Event::Apply(other) => panic!("{other:?}"),
    }
}

#[test]
fn files_are_read_and_followed() {
    let mut world = World::with_folder();
    world.write("sub/a.yaml", "10.0.0.1");
    world.write("sub/.a.yaml.swp", "10.0.0.9");
    world.write("sub/notes.txt", "10.0.0.9");
    fs::create_dir(world.path("sub/folder.yaml")).unwrap();
    world.start();
    assert_eq!(world.next(), ["10.0.0.1", "synced"]);
    // 50 ms is the goal; a busy test machine gets some more.
    let start = Instant::now();
    world.write("sub/a.yaml", "10.0.0.2");
    assert_eq!(world.next(), ["10.0.0.2"]);
    fs::remove_file(world.path("sub/a.yaml")).unwrap();
    assert_eq!(world.next(), ["-a"]);
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_file_renamed_over_another_is_a_change_of_it() {
    let mut world = World::with_folder();
    world.write("sub/a.yaml", "10.0.0.1");
    world.start();
    world.next();
    world.write("sub/a.yaml.tmp", "10.0.0.2");
    fs::rename(world.path("sub/a.yaml.tmp"), world.path("sub/a.yaml")).unwrap();
    assert_eq!(world.next(), ["10.0.0.2"]);
}

#[test]
fn a_swapped_link_as_in_a_mounted_config_map_is_a_change() {
    let mut world = World::with_folder();
    for (version, address) in [("..1", "10.0.0.1"), ("..2", "10.0.0.2")] {
        fs::create_dir(world.path("sub").join(version)).unwrap();
        world.write(&format!("sub/{version}/a.yaml"), address);
    }
    symlink("..1", world.path("sub/..data")).unwrap();
    symlink("..data/a.yaml", world.path("sub/a.yaml")).unwrap();
    world.start();
    assert_eq!(world.next(), ["10.0.0.1", "synced"]);
    symlink("..2", world.path("sub/..data_tmp")).unwrap();
    fs::rename(world.path("sub/..data_tmp"), world.path("sub/..data")).unwrap();
    assert_eq!(world.next(), ["10.0.0.2"]);
}

#[test]
fn a_folder_that_comes_later_and_is_replaced_is_followed() {
    let mut world = World::new();
    world.start();
    let said = world.next();
    assert!(said[0].contains("No such file"), "{said:?}");
    fs::create_dir(world.path("new")).unwrap();
    world.write("new/a.yaml", "10.0.0.1");
    fs::rename(world.path("new"), world.path("sub")).unwrap();
    assert_eq!(world.next(), ["well", "10.0.0.1", "synced"]);
    fs::rename(world.path("sub"), world.path("old")).unwrap();
    let said = world.next();
    assert_eq!(said[1..], ["-a"], "{said:?}");
    fs::create_dir(world.path("sub")).unwrap();
    assert_eq!(world.next(), ["well"]);
    world.write("sub/b.yaml", "10.0.0.3");
    assert_eq!(world.next(), ["10.0.0.3"]);
}

#[test]
fn a_broken_file_is_named_and_forgiven() {
    let mut world = World::with_folder();
    world.write("sub/a.yaml", "10.0.0.1");
    world.start();
    world.next();
    let broken = manifest("10.0.0.2") + "  ports:\n  - port: http\n";
    fs::write(world.path("sub/a.yaml"), broken).unwrap();
    let said = world.next();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("/sub/a.yaml:7: spec.ports[0].port: "),
        "{said:?}"
    );
    world.write("sub/a.yaml", "10.0.0.3");
    assert_eq!(world.next(), ["10.0.0.3", "well"]);
}
