//! The cgroup that programs are attached to, and others who do the same.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use crate::foreign::Foreign;
use crate::sockets::{inside, tcp};
use crate::stage::{Stage, TARGET};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use proxy_common::{
    AddrV4, Address as _, Backend, Frontend, FrontendKey, FrontendKind, Locality, Port, Proto,
    RegionHeader, ServiceWord,
};
use proxy_user::datapath::cgroup::{attach, find_root, is_root, mounted_root};
use proxy_user::datapath::kernel::Kernel;
use proxy_user::datapath::pins::Pins;
use proxy_user::datapath::{Datapath as _, FamilyOp, Op};
use std::net::{Ipv4Addr, SocketAddr};
use xtask::cluster::Pod;

/// A service that only other people's programs know.
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);

/// Tells other people's programs of a service with this pod behind it.
fn teach(pins: &Pins, pod: &Pod) {
    let backend = Backend::new(AddrV4::new(pod.v4()), Port::new(TARGET), Locality::Local, 1);
    let key = FrontendKey::new(AddrV4::new(THEIRS), Port::new(80), Proto::Tcp);
    let ops = [
        Op::V4(FamilyOp::PutBackend {
            id: 1,
            row: backend,
        }),
        Op::PutRegion {
            start: 0,
            words: [&RegionHeader::of_remote(1, 1).words()[..], &[1]].concat(),
        },
        Op::PutService {
            id: 1,
            word: ServiceWord::new(0, 1),
        },
        Op::V4(FamilyOp::PutFrontend {
            key,
            row: Frontend::new(1, FrontendKind::ClusterIp),
        }),
    ];
    let (written, outcome) = Kernel::open(pins).unwrap().apply(&ops);
    outcome.unwrap();
    assert_eq!(written, ops.len());
}

#[test]
fn other_programs_at_the_same_cgroup_keep_running_before_and_after_ours() {
    let mut stage = Stage::new(&[]);
    let shell = inside(&stage, 1, &stage.shell);
    let paths = stage.cluster.node(1).paths().clone();
    let cgroup = paths.cgroup.clone().unwrap();
    let mut foreign = Foreign::load(&paths.bpffs.join("foreign"));
    teach(foreign.pins(), &stage.web[0]);
    let pins = foreign.pins().clone();
    attach(foreign.programs(), &pins, &cgroup, false).unwrap();
    let theirs = SocketAddr::new(THEIRS.into(), 80);
    let both_work = |stage: &Stage| {
        for to in stage.cluster_ips() {
            assert_eq!(tcp(&shell, to).unwrap().peer, to);
        }
        let told = tcp(&shell, theirs).unwrap();
        assert_eq!(
            (told.server.as_str(), told.peer),
            (stage.web[0].name(), theirs)
        );
        assert!(stage.count(1, "sockets", "socket-connected") > 0);
    };
    both_work(&stage);
    drop(stage.take_agent(1));
    for link in Pins::new(&paths.bpffs).cgroup_links() {
        std::fs::remove_file(link).unwrap();
    }
    stage.start_agent(1);
    both_work(&stage);
}

#[test]
fn a_root_of_cgroups_is_mounted_where_there_is_none() {
    let folder = std::env::temp_dir().join(format!("ferrule-cgroup-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    assert!(mounted_root().unwrap().is_some(), "this machine has one");
    // A thread with mounts of its own.
    let alone = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        while let Some(root) = mounted_root().unwrap() {
            umount2(&root.path, MntFlags::MNT_DETACH).unwrap();
        }
        let made = find_root(&folder).unwrap();
        assert!(made.starts_with(&folder) && is_root(&made), "{made:?}");
        assert_eq!(find_root(&folder).unwrap(), made, "it is found again");
    };
    std::thread::scope(|scope| scope.spawn(alone).join().unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
}
