use super::*;
use crate::source::Object;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

/// Far beyond what any step takes; only a broken test waits for so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A folder that goes away with the test, and a source that watches `sub` inside of it.
struct World {
    root: PathBuf,
    events: Option<mpsc::Receiver<Delivery>>,
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
                Ok(batch) => return batch.events.into_iter().map(line).collect(),
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

impl World {
    /// Waits until `wanted` is said; returns all that was said until then.
    fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut said = Vec::new();
        while !said.iter().any(|it| it == wanted) {
            said.extend(self.next());
        }
        said
    }
}

fn named(name: &str, address: &str) -> String {
    manifest(address).replace("name: a", &format!("name: {name}"))
}

/// As a shell does it with `> a.yaml`: an empty file at once, its content later.
#[test]
fn a_slow_writer_is_waited_for() {
    let pause = || thread::sleep(Duration::from_millis(300));
    let mut world = World::with_folder();
    let path = world.path("sub/a.yaml");
    let half = named("a", "10.0.0.1") + "---\n";
    fs::write(&path, half.clone() + &named("b", "10.0.0.2")).unwrap();
    world.start();
    assert_eq!(world.next(), ["10.0.0.1", "10.0.0.2", "synced"]);
    for address in ["10.0.0.3", "10.0.0.4"] {
        let mut file = fs::File::create(&path).unwrap();
        pause();
        file.write_all(half.as_bytes()).unwrap();
        // Neither another file's change nor another mode is a reason to read this one.
        fs::write(world.path("sub/other.yaml"), named("c", address)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(world.next(), [address]);
        pause();
        file.write_all(named("b", address).as_bytes()).unwrap();
        drop(file);
        assert_eq!(world.next(), [address]);
    }
}

#[test]
fn a_file_that_is_never_closed_is_read_after_a_silence() {
    let mut world = World::with_folder();
    world.start();
    assert_eq!(world.next(), ["synced"]);
    let start = Instant::now();
    let mut file = fs::File::create(world.path("sub/a.yaml")).unwrap();
    file.write_all(manifest("10.0.0.1").as_bytes()).unwrap();
    assert_eq!(world.next(), ["10.0.0.1"]);
    assert!(start.elapsed() >= watch::SILENCE, "{:?}", start.elapsed());
}

#[test]
fn a_new_link_is_read_at_once() {
    let mut world = World::with_folder();
    world.write("a.yaml", "10.0.0.1");
    world.start();
    assert_eq!(world.next(), ["synced"]);
    let start = Instant::now();
    symlink("../a.yaml", world.path("sub/a.yaml")).unwrap();
    assert_eq!(world.next(), ["10.0.0.1"]);
    assert!(start.elapsed() < Duration::from_millis(500));
}

#[test]
fn a_folder_made_again_is_followed_each_time() {
    let mut world = World::with_folder();
    world.write("sub/a.yaml", "10.0.0.0");
    world.start();
    world.next();
    for round in 1..=20 {
        fs::remove_dir_all(world.path("sub")).unwrap();
        fs::create_dir(world.path("sub")).unwrap();
        let start = Instant::now();
        let address = format!("10.0.0.{round}");
        world.write("sub/a.yaml", &address);
        world.until(&address);
        // And it is watched, not just found by comparing files.
        let address = format!("10.0.1.{round}");
        world.write("sub/a.yaml", &address);
        world.until(&address);
        let took = start.elapsed();
        assert!(took < watch::SILENCE, "{round}: {took:?}");
    }
}

#[test]
fn a_link_follows_its_target_which_is_left_to_settle() {
    let mut world = World::with_folder();
    let target = world.path("a.yaml");
    let half = named("a", "10.0.0.1") + "---\n";
    fs::write(&target, half.clone() + &named("b", "10.0.0.2")).unwrap();
    symlink("../a.yaml", world.path("sub/link.yaml")).unwrap();
    world.start();
    assert_eq!(world.next(), ["10.0.0.1", "10.0.0.2", "synced"]);
    let mut file = fs::File::create(&target).unwrap();
    thread::sleep(Duration::from_millis(1500));
    file.write_all(half.as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(300));
    file.write_all(named("b", "10.0.0.3").as_bytes()).unwrap();
    assert_eq!(world.next(), ["10.0.0.3"]);
}

/// That something else is made in the folder is no reason to read it.
#[test]
fn a_new_file_is_not_read_before_it_is_written() {
    let mut world = World::with_folder();
    world.start();
    assert_eq!(world.next(), ["synced"]);
    let mut file = fs::File::create(world.path("sub/a.yaml")).unwrap();
    let text = named("a", "10.0.0.1") + "---\n";
    file.write_all(text.as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(100));
    fs::create_dir(world.path("sub/folder")).unwrap();
    thread::sleep(Duration::from_millis(300));
    let text = named("b", "10.0.0.2");
    file.write_all(text.as_bytes()).unwrap();
    drop(file);
    assert_eq!(world.next(), ["10.0.0.1", "10.0.0.2"]);
}
