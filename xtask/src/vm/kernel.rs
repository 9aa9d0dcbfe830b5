//! Kernels, unpacked from Debian's packages; nothing is installed.

use super::archive::{Archive, Series};
use super::cache;
use crate::command;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What tests and the node's rules stand on; their dependencies come with them. A kernel may lack
/// some, or have them built in.
const MODULES: [&str; 22] = [
    "veth",
    "bridge",
    "br_netfilter",
    "dummy",
    "nf_conntrack",
    "nf_tables",
    "nft_ct",
    "nft_counter",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_objref",
    "sch_ingress",
    "cls_bpf",
    "vxlan",
    "tun",
    "ipip",
    "wireguard",
    "8021q",
    "bonding",
    "tcp_diag",
    "udp_diag",
];

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Such as `5.10`.
    pub(super) series: String,
    /// The same as numbers.
    pub(super) numbers: (u32, u32),
    /// Debian's version, such as `5.10.262-1`.
    pub(super) version: String,
    /// The bootable file.
    pub(super) image: PathBuf,
    /// Whether it is the newest of all that there are.
    pub(super) is_newest: bool,
    /// Modules without compression, in the order in which they have to be loaded.
    pub(super) modules: Vec<PathBuf>,
}

impl Kernel {
    /// The newest of a series that is in the cache or can be downloaded.
    pub(super) fn prepare(archive: &Archive, series: &Series) -> Result<Self> {
        for version in &series.versions {
            match Self::unpacked(archive, series, version) {
                Ok(kernel) => return Ok(kernel),
                // An archive that drops old packages may still list them.
                Err(error) => println!("  not Linux {version}: {error:#}"),
            }
        }
        bail!("no kernel {} can be had, see above", series.name)
    }

    fn unpacked(archive: &Archive, series: &Series, version: &str) -> Result<Self> {
        let folder = folder(version)?;
        let root = folder.join("root");
        if !root.exists() {
            unpack(archive, version, &folder)?;
            remove_others(series, version)?;
        }
        let name = only_entry(&root.join("lib/modules"))?;
        Ok(Self {
            series: series.name.clone(),
            numbers: series.numbers,
            version: version.to_owned(),
            is_newest: false,
            image: image(&root, &name)?,
            modules: modules(&folder, &root, &name)?,
        })
    }

    /// The versions that earlier runs have unpacked.
    pub(super) fn cached() -> Result<Vec<String>> {
        let entries = fs::read_dir(cache::folder("kernels")?)?.flatten();
        Ok(entries
            .filter(|entry| entry.path().join("root").exists())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect())
    }
}

fn folder(version: &str) -> Result<PathBuf> {
    cache::folder(&format!("kernels/{version}"))
}

/// The folder `root` comes last: where it is, everything is.
fn unpack(archive: &Archive, version: &str, folder: &Path) -> Result<()> {
    let (packages, part) = (folder.join("packages"), folder.join("part"));
    for made in [&packages, &part] {
        let _ = fs::remove_dir_all(made);
        fs::create_dir_all(made)?;
    }
    archive.download(version, &packages)?;
    for package in fs::read_dir(&packages)? {
        let package = package?.path();
        let places = [package.to_string_lossy(), part.to_string_lossy()];
        command::run("dpkg-deb", &["--extract", &places[0], &places[1]])?;
    }
    // Newer packages have all of it below usr.
    if !part.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", part.join("lib"))?;
    }
    let name = only_entry(&part.join("lib/modules"))?;
    command::run("depmod", &["-b", &part.to_string_lossy(), &name])?;
    fs::remove_dir_all(&packages)?;
    Ok(fs::rename(part, folder.join("root"))?)
}

/// What is left of other kernels of the series.
fn remove_others(series: &Series, version: &str) -> Result<()> {
    let entries = fs::read_dir(cache::folder("kernels")?)?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    for other in names.filter(|name| name != version) {
        if other.starts_with(&format!("{}.", series.name)) {
            fs::remove_dir_all(folder(&other)?)?;
        }
    }
    Ok(())
}

fn only_entry(folder: &Path) -> Result<String> {
    let mut entries = fs::read_dir(folder)
        .with_context(|| format!("can't read {}", folder.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(entries.len() == 1, "not one kernel in {}", folder.display());
    Ok(entries.remove(0).file_name().to_string_lossy().into_owned())
}

fn image(root: &Path, name: &str) -> Result<PathBuf> {
    let places = [
        root.join("boot").join(format!("vmlinuz-{name}")),
        root.join("lib/modules").join(name).join("vmlinuz"),
    ];
    let place = places.into_iter().find(|place| place.exists());
    place.with_context(|| format!("the packages of {name} have no vmlinuz"))
}

/// Unpacks the modules beside the kernel, unless they are there.
fn modules(folder: &Path, root: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let (list, unpacked) = (folder.join("modules.list"), folder.join("modules"));
    let wanted = MODULES.join("\n");
    if fs::read_to_string(&list).ok().as_ref() != Some(&wanted) {
        let _ = fs::remove_dir_all(&unpacked);
        fs::create_dir_all(&unpacked)?;
        for (number, source) in in_load_order(root, name).iter().enumerate() {
            decompress(source, &unpacked, number)?;
        }
        fs::write(list, wanted)?;
    }
    let entries = fs::read_dir(&unpacked)?.collect::<Result<Vec<_>, _>>()?;
    let mut modules: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    modules.sort();
    Ok(modules)
}

/// What each module needs comes before it.
fn in_load_order(root: &Path, name: &str) -> Vec<PathBuf> {
    let root = root.to_string_lossy();
    let mut found = Vec::new();
    for module in MODULES {
        // Without the machine's own options for modules.
        let query = [
            "-C",
            "/dev/null",
            "-d",
            &root,
            "-S",
            name,
            "--show-depends",
            module,
        ];
        // A module that this kernel does not have: what needs it will say so.
        let text = command::run("modprobe", &query).unwrap_or_default();
        let paths = text.lines().filter_map(|line| line.strip_prefix("insmod "));
        for path in paths.map(|path| PathBuf::from(path.trim())) {
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// The number at the front of the name keeps the order.
fn decompress(source: &Path, into: &Path, number: usize) -> Result<()> {
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let plain = into.join(format!("{number:03}-{}", name.trim_end_matches(".xz")));
    if !name.ends_with(".xz") {
        fs::copy(source, plain).with_context(|| format!("copying {}", source.display()))?;
        return Ok(());
    }
    let mut xz = Command::new("xz");
    xz.args(["--decompress", "--stdout"])
        .arg(source)
        .stdout(Stdio::from(File::create(plain)?));
    let status = xz.status().context("can't start xz")?;
    ensure!(status.success(), "xz can't decompress {}", source.display());
    Ok(())
}
