//! The image: one program, which runs where nothing else is.

use std::path::Path;
use std::process::Command;
use xtask::image::{Arch, build, unpack};

/// Runs what the image starts, with the image's file system and nothing else; returns all that it says.
fn run(root: &Path, entry: &str, arguments: &[&str]) -> (bool, String) {
    let said = Command::new("chroot")
        .arg(root)
        .arg(entry)
        .args(arguments)
        .output();
    let said = said.expect("chroot starts");
    let text = [said.stdout, said.stderr].concat();
    (
        said.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// As [`run`], with the file systems of the kernel that a container has.
fn run_in_pod(root: &Path, command: &str) -> String {
    let root = root.display();
    let script = format!(
        "set -e; cd {root}; mkdir proc sys
        mount -t proc proc proc; mount --rbind /sys sys; chroot . {command}"
    );
    let said = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .output()
        .expect("unshare starts");
    let text = [said.stdout, said.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn the_image_holds_one_program_that_needs_nothing_else() {
    let arch = if cfg!(target_arch = "aarch64") {
        Arch::Arm64
    } else {
        Arch::Amd64
    };
    let archive = build(arch, "ferrule:test", None).expect("the image is built");
    let root = std::env::temp_dir().join(format!("ferrule-image-{}", std::process::id()));
    let config = unpack(&archive, &root).expect("the archive is one of OCI");
    assert_eq!(
        config["config"]["Entrypoint"],
        serde_json::json!(["/ferrule"])
    );
    assert_eq!(config["architecture"], arch.name());
    let files = std::fs::read_dir(&root).expect("it is unpacked").flatten();
    let files: Vec<_> = files.map(|file| file.file_name()).collect();
    assert_eq!(files, ["ferrule"]);
    let (is_well, said) = run(&root, "/ferrule", &["--version"]);
    assert!(is_well && said.starts_with("ferrule "), "{said}");
    // There is neither /proc nor /sys: it says what it misses.
    let (is_well, said) = run(&root, "/ferrule", &["check"]);
    assert!(!is_well && said.starts_with("ferrule: "), "{said}");
    let said = run_in_pod(&root, "/ferrule check");
    assert!(said.contains("Ferrule runs here"), "{said}");
    let (is_well, said) = run(&root, "/ferrule", &["init", "--bpffs", "/ferrule"]);
    assert!(!is_well && said.contains("making /ferrule"), "{said}");
    std::fs::remove_dir_all(&root).expect("the folder is removed");
}
