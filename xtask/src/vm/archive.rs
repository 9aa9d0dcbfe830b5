//! Debian's archive: which kernels there are, and their packages.
//!
//! A configuration of apt of our own, so that other releases than the machine's can be read without
//! touching the machine's.

use super::cache;
use crate::command;
use crate::progress;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Releases that have a series of kernels each, and those of them with updates in the security
/// archive.
const RELEASES: [(&str, bool); 4] = [
    ("bullseye", true),
    ("bookworm", true),
    ("trixie", true),
    ("sid", false),
];
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Depends on the newest kernel for virtual machines.
const META: &str = "linux-image-cloud-amd64";
/// Lists are asked for again when they are older.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// The archive, as far as its lists have been read.
pub(super) struct Archive {
    folder: PathBuf,
}

/// A series of kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// Such as `5.10`.
    pub(super) name: String,
    /// The same as numbers.
    pub(super) numbers: (u32, u32),
    /// Debian's versions of the packages, such as `5.10.262-1`, in the order in which to try them.
    pub(super) versions: Vec<String>,
}

impl Archive {
    /// Reads the lists, unless they are of today. What can't be read is said; what was read earlier
    /// remains.
    pub(super) fn open() -> Result<Self> {
        let archive = Self {
            folder: cache::folder("apt")?,
        };
        archive.configure()?;
        let stamp = archive.folder.join("refreshed");
        let age = fs::metadata(&stamp)
            .and_then(|it| it.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_none_or(|age| age > FRESH) {
            match archive.refresh() {
                Ok(()) => fs::write(stamp, "")?,
                Err(error) => println!("  {error:#}; going on with what is there"),
            }
        }
        Ok(archive)
    }

    /// The versions of all kernels, newest first.
    pub(super) fn versions(&self) -> Result<Vec<String>> {
        let records = self.show(META)?;
        Ok(values(&records, "Version").map(str::to_owned).collect())
    }

    /// Downloads the packages of a kernel into a folder.
    pub(super) fn download(&self, version: &str, into: &Path) -> Result<()> {
        let packages = self.packages(version)?;
        let mut apt = self.apt("apt-get");
        apt.arg("download").args(packages).current_dir(into);
        let title = format!("downloading Linux {version}");
        progress::run(&title, "vm-download", apt)
    }

    /// What the package on top wants in exactly its own version: image, modules.
    fn packages(&self, version: &str) -> Result<Vec<String>> {
        let mut found = vec![format!("{META}={version}")];
        let mut next = 0;
        while let Some(package) = found.get(next) {
            for name in companions(&self.show(package)?, version) {
                let exact = format!("{name}={version}");
                if !found.contains(&exact) {
                    found.push(exact);
                }
            }
            next += 1;
        }
        // The one on top is empty.
        found.remove(0);
        ensure!(!found.is_empty(), "{META} {version} wants no kernel");
        Ok(found)
    }

    fn show(&self, package: &str) -> Result<String> {
        let mut apt = self.apt("apt-cache");
        let output = apt.args(["show", package]).output();
        let output = output.context("can't start apt-cache")?;
        if !output.status.success() {
            bail!("Debian's archive has no {package}, or its lists can't be read");
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.env("APT_CONFIG", self.folder.join("apt.conf"));
        apt
    }

    fn refresh(&self) -> Result<()> {
        let mut apt = self.apt("apt-get");
        apt.arg("update");
        progress::run("reading Debian's lists of packages", "vm-lists", apt)
    }

    fn configure(&self) -> Result<()> {
        for folder in [
            "lists/partial",
            "cache/archives/partial",
            "etc/apt.conf.d",
            "etc/preferences.d",
        ] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        fs::write(self.folder.join("sources.list"), sources(&mirror()?))?;
        let folder = self.folder.display();
        // A mirror that lags behind has lists past their date; their signatures hold all the same.
        // Without a user of its own apt may write into our folders.
        let configuration = format!(
            "Dir::Etc \"{folder}/etc\";
            Dir::Etc::sourcelist \"{folder}/sources.list\";
            Dir::Etc::sourceparts \"-\";
            Dir::State::lists \"{folder}/lists\";
            Dir::Cache \"{folder}/cache\";
            Acquire::Languages \"none\";
            Acquire::Check-Valid-Until \"false\";
            APT::Update::Error-Mode \"any\";
            APT::Architecture \"amd64\";
            APT::Sandbox::User \"root\";\n"
        );
        Ok(fs::write(self.folder.join("apt.conf"), configuration)?)
    }
}

/// The lines of sources.list; the security archive lies beside the main one.
fn sources(mirror: &str) -> String {
    let line = |mirror: &str, suite: &str| {
        format!("deb [signed-by={KEYS} arch=amd64] {mirror} {suite} main\n")
    };
    let mut text = String::new();
    for (release, has_updates) in RELEASES {
        text += &line(mirror, release);
        if has_updates {
            text += &line(
                &format!("{mirror}-security"),
                &format!("{release}-security"),
            );
        }
    }
    text
}

/// Where this machine's own apt reads Debian; told also before it has read any lists.
fn mirror() -> Result<String> {
    let format = [
        "indextargets",
        "--no-release-info",
        "--format",
        "$(REPO_URI)",
    ];
    let places = command::run("apt-get", &format)?;
    let mut places = places.lines().map(|place| place.trim_end_matches('/'));
    let main = places.find(|place| place.ends_with("/debian"));
    let main = main.context("apt reads no Debian archive here, where would kernels come from?")?;
    Ok(main.to_owned())
}

/// Whether no release lacks its series: with lists that are incomplete nobody knows the newest.
pub(super) fn are_all(series: &[Series]) -> bool {
    series.len() >= RELEASES.len()
}

/// Sorts versions into their series, oldest series first; within one they keep their order.
pub(super) fn group<'a>(versions: impl Iterator<Item = &'a str>) -> Vec<Series> {
    let mut found: BTreeMap<(u32, u32), Series> = BTreeMap::new();
    for version in versions {
        let Some(numbers) = numbers_of(version) else {
            continue;
        };
        let series = found.entry(numbers).or_insert_with(|| Series {
            name: format!("{}.{}", numbers.0, numbers.1),
            numbers,
            versions: Vec::new(),
        });
        if !series.versions.iter().any(|known| known == version) {
            series.versions.push(version.to_owned());
        }
    }
    found.into_values().collect()
}

/// `6.12.117-1` is of series 6.12.
fn numbers_of(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-', '~', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The kernel packages that a record depends on in exactly this version.
fn companions(record: &str, version: &str) -> Vec<String> {
    let wanted = format!("(= {version})");
    let dependencies = values(record, "Depends").flat_map(|line| line.split(", "));
    dependencies
        .filter_map(|dependency| dependency.split_once(' '))
        .filter(|(name, bound)| name.starts_with("linux-") && *bound == wanted)
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn values<'a>(records: &'a str, field: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = records.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter(move |(name, _)| *name == field)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: &str = "Package: linux-image-cloud-amd64
Version: 7.2.13-1
Depends: linux-base-cloud-amd64 (= 7.2.13-1), linux-image-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), kmod, linux-base (>= 4.3~)

Package: linux-image-cloud-amd64
Version: 6.12.117-1

Package: linux-image-cloud-amd64
Version: 6.12.107-1

Package: linux-image-cloud-amd64
Version: 5.10.262-1
";

    #[test]
    fn kernels_are_sorted_into_series() {
        let found = group(values(RECORDS, "Version"));
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.name.as_str(), it.versions.join(" ")))
            .collect();
        let expected = [
            ("5.10", "5.10.262-1"),
            ("6.12", "6.12.117-1 6.12.107-1"),
            ("7.2", "7.2.13-1"),
        ];
        assert_eq!(found, expected.map(|(name, all)| (name, all.to_owned())));
    }

    #[test]
    fn packages_of_the_same_kernel_are_told_from_tools() {
        assert_eq!(
            companions(RECORDS, "7.2.13-1"),
            [
                "linux-base-cloud-amd64",
                "linux-image-7.2.13+deb14-cloud-amd64"
            ]
        );
    }

    #[test]
    fn the_security_archive_lies_beside_the_main_one() {
        let text = sources("http://mirror.example/debian");
        assert_eq!(text.lines().count(), 7);
        assert!(text.contains("http://mirror.example/debian-security trixie-security main"));
    }
}
