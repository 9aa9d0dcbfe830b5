//! The programs in this machine's kernel, with maps of their own, run on packets by
//! BPF_PROG_TEST_RUN.

use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use proxy_common::{
    AddrV4, AddrV6, Affinity, AffinityKey, Counter, Device, Flow, FragmentKey, FragmentPorts, Hook,
    Mark, Refusals, SourceRange, Table, Ticks, Tuple, Unused,
};
use proxy_ebpf::expiry::remove_unused;
use proxy_ebpf::testing::{FamilyTables, MemoryPacket, World, run_hook};
use proxy_ebpf::{DropReason, Fate};
use proxy_user::datapath::bpf::{self, Row};
use proxy_user::datapath::features::Features;
use proxy_user::datapath::filter::{FILTERS, FilterMap};
use proxy_user::datapath::hook::Framing;
use proxy_user::datapath::kernel::Kernel;
use proxy_user::datapath::object::{self, EXPIRE, Options, Sizes};
use proxy_user::datapath::pins::{PINNED_MAPS, Pins};
use proxy_user::datapath::readings::counters;
use proxy_user::datapath::sweep::{self, Sweep, request};
use proxy_user::datapath::{Datapath as _, FamilyOp, Op, RangeKey, hook};
use proxy_user::flows::{FlowReport, Timeouts};
use proxy_user::tables::Family;
use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Loaded programs; the maps' pins go away with the value.
pub(crate) struct Loaded {
    folder: PathBuf,
    pins: Pins,
    programs: Ebpf,
    kernel: Kernel,
    /// What was written of the world, to be taken back.
    written: Vec<Op>,
}

fn filter(pins: &Pins, name: &str) -> FilterMap {
    FilterMap::open(pins, name).expect("the map is pinned")
}

impl Loaded {
    /// With empty maps.
    pub(crate) fn new(name: &str) -> Self {
        let sizes = Sizes {
            max_flows: 65536,
            ..Sizes::DEFAULT
        };
        Self::with(name, sizes, false)
    }

    /// With empty maps, some of which are small, and random words that come with each packet.
    pub(crate) fn drawing_from_packets(name: &str) -> Self {
        let sizes = Sizes {
            max_flows: 2048,
            max_backends: 4096,
            max_affinities: 1024,
        };
        Self::with(name, sizes, true)
    }

    fn with(name: &str, sizes: Sizes, has_random_in_packet: bool) -> Self {
        // A network without routes and sockets, as in memory.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let folder = own_folder(name);
        let pins = Pins::new(&folder);
        let options = Options {
            pins: pins.clone(),
            sizes,
            log_decisions: false,
            has_fast_lane: false,
            has_random_in_packet,
            features: Features::probe_used().expect("the kernel answers"),
        };
        let object::Loaded {
            kernel, programs, ..
        } = object::load(&options).expect("the programs load: run as root, with bpffs mounted");
        // They know of all rows: there are none.
        for name in FILTERS {
            filter(&pins, name).begin_epoch();
        }
        Self {
            folder,
            pins,
            programs,
            kernel,
            written: Vec::new(),
        }
    }

    /// The maps once more, as another owner would open them.
    pub(crate) fn open_maps(&self) -> Kernel {
        Kernel::open(&self.pins).expect("the maps are pinned")
    }

    /// Makes the service maps those of a world.
    pub(crate) fn write(&mut self, world: &World) {
        let undo: Vec<Op> = self.written.drain(..).rev().collect();
        self.apply(&undo);
        let mut ops = family_ops(&world.v4);
        ops.extend(family_ops(&world.v6));
        ops.extend(world.slots.iter().map(|(start, word)| Op::PutRegion {
            start: *start,
            words: vec![*word],
        }));
        ops.extend(world.services.iter().map(|(id, word)| Op::PutService {
            id: *id,
            word: *word,
        }));
        self.apply(&ops);
        self.written = ops.iter().filter_map(undone).collect();
        self.clear::<u32, Device>("DEVICES");
        let mut devices = self.open::<u32, Device>("DEVICES");
        for (index, row) in &world.devices {
            let outcome = devices.insert(Row(*index), Row(*row), 0);
            outcome.expect("a device is written");
        }
        self.kernel
            .configure(&world.config)
            .expect("CONFIG is written");
    }

    /// Writes ops to the maps.
    pub(crate) fn apply(&mut self, ops: &[Op]) {
        let (_, outcome) = self.kernel.apply(ops);
        outcome.expect("the ops are written");
    }

    /// Forgets all flows and fragments.
    pub(crate) fn clear_flows(&self) {
        self.clear_tables();
        self.clear::<AffinityKey, Affinity>("AFFINITIES");
        self.clear::<FragmentKey<AddrV4>, FragmentPorts>("FRAGMENTS_V4");
        self.clear::<FragmentKey<AddrV6>, FragmentPorts>("FRAGMENTS_V6");
    }

    fn clear_tables(&self) {
        for table in TABLES {
            self.clear::<Tuple<AddrV4>, Flow<AddrV4>>(&format!("{table}_V4"));
            self.clear::<Tuple<AddrV6>, Flow<AddrV6>>(&format!("{table}_V6"));
        }
    }

    fn clear<Key, Value>(&self, name: &str)
    where
        Row<Key>: aya::Pod,
        Row<Value>: aya::Pod,
    {
        let mut rows = self.open::<Key, Value>(name);
        let keys: Vec<Row<Key>> = rows.keys().flatten().collect();
        for key in keys {
            rows.remove(&key).expect("a row is removed");
        }
    }

    /// Makes the flows those of a world.
    pub(crate) fn write_flows(&self, world: &World) {
        self.clear_tables();
        for (table, name) in [Table::Confirmed, Table::HalfOpen].into_iter().zip(TABLES) {
            self.put(&format!("{name}_V4"), world.v4.rows(table));
            self.put(&format!("{name}_V6"), world.v6.rows(table));
        }
    }

    fn put<A: Family>(&self, name: &str, rows: &Flows<A>)
    where
        Row<Tuple<A>>: aya::Pod,
        Row<Flow<A>>: aya::Pod,
    {
        let mut flows = self.open::<Tuple<A>, Flow<A>>(name);
        let [v4, v6] = FILTERS;
        let filter = filter(&self.pins, if name.ends_with("4") { v4 } else { v6 });
        for (tuple, flow) in rows {
            filter.note(tuple, flow);
            let outcome = flows.insert(Row(*tuple), Row(*flow), 0);
            outcome.expect("a flow is written");
        }
    }

    /// The flows of both families, as the programs have left them.
    pub(crate) fn flows(&self, table: Table) -> (Flows<AddrV4>, Flows<AddrV6>) {
        let name = match table {
            Table::Confirmed => TABLES[0],
            Table::HalfOpen => TABLES[1],
        };
        (
            self.rows::<AddrV4>(&format!("{name}_V4")),
            self.rows::<AddrV6>(&format!("{name}_V6")),
        )
    }

    fn rows<A: Family>(&self, name: &str) -> Flows<A>
    where
        Row<Tuple<A>>: aya::Pod,
        Row<Flow<A>>: aya::Pod,
    {
        let rows = self.open::<Tuple<A>, Flow<A>>(name);
        rows.iter()
            .flatten()
            .map(|(tuple, flow)| (tuple.0, flow.0))
            .collect()
    }

    fn open<Key, Value>(&self, name: &str) -> HashMap<MapData, Row<Key>, Row<Value>>
    where
        Row<Key>: aya::Pod,
        Row<Value>: aya::Pod,
    {
        let data = MapData::from_pin(self.pins.map(name)).expect("the map is pinned");
        Map::from_map_data(data)
            .and_then(TryInto::try_into)
            .expect("it is a hash map of this shape")
    }

    /// An array as the kernel sees it.
    pub(crate) fn array<Value: aya::Pod>(&self, name: &str) -> Array<MapData, Value> {
        let data = MapData::from_pin(self.pins.map(name)).expect("the map is pinned");
        Map::from_map_data(data)
            .and_then(TryInto::try_into)
            .expect("it is an array of this shape")
    }

    /// Runs the program of a hook on a packet.
    pub(crate) fn run(&mut self, hook: Hook, packet: &[u8]) -> (Fate, Vec<u8>) {
        self.run_drawing(hook, packet, 0)
    }

    /// The same with a random word; it counts for programs that take them from packets.
    pub(crate) fn run_drawing(&mut self, hook: Hook, packet: &[u8], word: u32) -> (Fate, Vec<u8>) {
        let before = counters(&self.pins).expect("COUNTERS can be read");
        let (action, output) = test_run(self.program(hook), packet, &context(word, 0));
        let after = counters(&self.pins).expect("COUNTERS can be read");
        let counted: Vec<Counter> = before
            .iter()
            .zip(&after)
            .filter(|((_, before), (_, after))| before != after)
            .map(|((counter, _), _)| *counter)
            .collect();
        let [counter] = counted[..] else {
            panic!("one packet was counted as {counted:?}");
        };
        (fate(counter, action), output)
    }

    /// Forgets flows that are not confirmed, and whose connections lead where.
    pub(crate) fn forget_flows(&self) {
        self.clear::<Tuple<AddrV4>, Flow<AddrV4>>("HALF_OPEN_V4");
        self.clear::<Tuple<AddrV6>, Flow<AddrV6>>("HALF_OPEN_V6");
        self.clear::<AffinityKey, Affinity>("AFFINITIES");
    }

    /// Forgets who has been refused.
    pub(crate) fn forget_refusals(&self) {
        self.clear::<AddrV4, Refusals>("REFUSALS_V4");
        self.clear::<AddrV6, Refusals>("REFUSALS_V6");
    }

    /// Whether a flow that is not confirmed is marked so.
    pub(crate) fn has_half_open(&self, mark: Mark) -> bool {
        let (v4, v6) = self.flows(Table::HalfOpen);
        v4.values().any(|row| row.has(mark)) || v6.values().any(|row| row.has(mark))
    }

    /// The program that decides about a packet by itself, with the same maps.
    pub(crate) fn judge(&self) -> Judge {
        let mut loader = EbpfLoader::new();
        for name in PINNED_MAPS {
            loader.map_pin_path(name, self.pins.map(name));
            let info = MapInfo::from_pin(self.pins.map(name)).expect("the map is pinned");
            loader.map_max_entries(name, info.max_entries());
        }
        loader.override_global("RANDOM_IN_PACKET", &1_u8, true);
        let mut object = loader.load(BENCH).expect("the object is whole");
        let program = object.program_mut("judge").expect("the object has it");
        let program: &mut SchedClassifier = program.try_into().expect("a classifier");
        program.load().expect("the program loads");
        Judge(object)
    }

    fn program(&mut self, hook: Hook) -> &mut SchedClassifier {
        let hook = match hook {
            Hook::Ingress => hook::Hook::Ingress,
            Hook::Egress => hook::Hook::Egress,
        };
        object::program(&mut self.programs, hook, Framing::Ethernet)
            .expect("the object has the program")
    }

    /// Asks the program that removes flows, in the kernel and in memory, and wants the same of both.
    pub(crate) fn expire<A: Family>(
        &mut self,
        world: &mut World,
        table: Table,
        unused: &[Unused<A>],
    ) -> u32
    where
        Unused<A>: bytemuck::Pod,
    {
        let packet = request(table, unused);
        let expected = remove_unused(&mut MemoryPacket::new(&packet), world);
        let program = object::named(&mut self.programs, EXPIRE).expect("the object has it");
        let program = program.fd().expect("it is loaded");
        let removed = bpf::run(program.as_fd(), &packet).expect("the program runs");
        assert_eq!(removed, expected, "kernel and memory differ in {unused:?}");
        removed
    }

    /// What the agent does each second.
    pub(crate) fn sweep(&mut self, timeouts: Timeouts) -> (Sweep, watch::Receiver<FlowReport>) {
        let settings = sweep::Settings {
            timeouts,
            snat_ports: 1024..=29999,
            owns_devices: Arc::new(true.into()),
        };
        Sweep::open(&self.pins, &mut self.programs, settings).expect("the tables are pinned")
    }

    /// Runs a packet in the kernel and in memory, and wants the same of both.
    pub(crate) fn run_both(
        &mut self,
        world: &mut World,
        hook: Hook,
        packet: &[u8],
    ) -> (Fate, Vec<u8>) {
        let expected = run_hook(world, hook, packet);
        let actual = self.run(hook, packet);
        assert_eq!(
            actual.0, expected.0,
            "kernel and memory differ in what becomes of {packet:?}"
        );
        if actual.0.is_ok() {
            assert_eq!(
                actual.1, expected.1,
                "kernel and memory differ in the bytes of {packet:?}"
            );
        }
        actual
    }

    /// Wants the same flows in the kernel and in memory.
    pub(crate) fn assert_flows(&self, world: &World, place: &str) {
        for table in [Table::Confirmed, Table::HalfOpen] {
            let (v4, v6) = self.flows(table);
            let (v4, v6) = (timeless(&v4), timeless(&v6));
            assert_eq!(
                v4,
                timeless(world.v4.rows(table)),
                "IPv4, {table:?}, {place}"
            );
            assert_eq!(
                v6,
                timeless(world.v6.rows(table)),
                "IPv6, {table:?}, {place}"
            );
        }
    }
}

/// See [`Loaded::judge`].
pub(crate) struct Judge(Ebpf);

impl Judge {
    /// What it returns, and the packet as it is then.
    pub(crate) fn run(&mut self, packet: &[u8], word: u32, is_host: bool) -> (u32, Vec<u8>) {
        let program = self.0.program_mut("judge").expect("the object has it");
        let program: &mut SchedClassifier = program.try_into().expect("a classifier");
        test_run(program, packet, &context(word, is_host.into()))
    }
}

static BENCH: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ferrule-bench"));

/// The start of a packet's context (`struct __sk_buff`): a random word in its control block, and a mark.
fn context(word: u32, mark: u32) -> [u8; 52] {
    const MARK: usize = 8;
    const CONTROL_BLOCK: usize = 48;
    let mut context = [0; 52];
    context[MARK..MARK + 4].copy_from_slice(&mark.to_ne_bytes());
    context[CONTROL_BLOCK..].copy_from_slice(&word.to_ne_bytes());
    context
}

/// What a program returns, and the packet as it is then.
fn test_run(program: &SchedClassifier, packet: &[u8], context: &[u8]) -> (u32, Vec<u8>) {
    let mut output = vec![0; packet.len() + 64];
    let options = TestRunOptions {
        data_in: Some(packet),
        data_out: Some(&mut output),
        ctx_in: Some(context),
        ..TestRunOptions::new()
    };
    let result = program.test_run(options).expect("the program runs");
    output.truncate(result.data_size_out as usize);
    (result.return_value, output)
}

/// The names of both tables, without the family.
const TABLES: [&str; 2] = ["FLOWS", "HALF_OPEN"];

/// The kernel has a time of its own.
fn timeless<A: Family>(rows: &Flows<A>) -> Flows<A> {
    let row = |(tuple, flow): (&Tuple<A>, &Flow<A>)| {
        let mut flow = *flow;
        flow.last_seen = Ticks::new(0);
        (*tuple, flow)
    };
    rows.iter().map(row).collect()
}

pub(crate) type Flows<A> = BTreeMap<Tuple<A>, Flow<A>>;

impl Drop for Loaded {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// The action must be the one that belongs to what was counted.
fn fate(counter: Counter, action: u32) -> Fate {
    const TC_ACT_UNSPEC: u32 = u32::MAX;
    const TC_ACT_SHOT: u32 = 2;
    const TC_ACT_REDIRECT: u32 = 7;
    match counter {
        Counter::Passed(verdict) => {
            let passes = [TC_ACT_UNSPEC, TC_ACT_REDIRECT].contains(&action);
            assert!(passes, "{verdict:?}: action {action}");
            Ok(verdict)
        }
        Counter::Dropped(reason) => {
            assert_eq!(action, TC_ACT_SHOT, "{reason:?}");
            Err::<_, DropReason>(reason)
        }
        Counter::Socket(call) => panic!("a packet was counted as {call:?}"),
    }
}

fn family_ops<A: Family>(tables: &FamilyTables<A>) -> Vec<Op> {
    let backends = tables
        .backends
        .iter()
        .map(|(id, row)| FamilyOp::PutBackend { id: *id, row: *row });
    let frontends = tables
        .frontends
        .iter()
        .map(|(key, row)| FamilyOp::PutFrontend {
            key: *key,
            row: *row,
        });
    let ranges = tables.source_ranges.iter().map(|(bits, range)| {
        let prefix = (bits - SourceRange::<A>::SET_BITS) as u8;
        let key = RangeKey {
            range: *range,
            prefix,
        };
        FamilyOp::PutRange { key }
    });
    backends.chain(frontends).chain(ranges).map(A::op).collect()
}

/// What takes an op back; regions may stay, nothing points there.
fn undone(op: &Op) -> Option<Op> {
    fn family<A>(op: &FamilyOp<A>) -> Option<FamilyOp<A>>
    where
        proxy_common::FrontendKey<A>: Copy,
        A: Copy,
    {
        match op {
            FamilyOp::PutBackend { id, .. } => Some(FamilyOp::ClearBackend { id: *id }),
            FamilyOp::PutFrontend { key, .. } => Some(FamilyOp::DeleteFrontend { key: *key }),
            FamilyOp::PutRange { key } => Some(FamilyOp::DeleteRange { key: *key }),
            FamilyOp::DeleteFrontend { .. }
            | FamilyOp::ClearBackend { .. }
            | FamilyOp::DeleteRange { .. } => None,
        }
    }
    match op {
        Op::V4(op) => family(op).map(Op::V4),
        Op::V6(op) => family(op).map(Op::V6),
        Op::PutService { id, .. } => Some(Op::ClearService { id: *id }),
        Op::PutRegion { .. } | Op::ClearService { .. } => None,
    }
}

const BPFFS: &str = "/sys/fs/bpf";
const PREFIX: &str = "ferrule-test-";

/// A folder on bpffs for this test; those of processes that are gone are removed.
fn own_folder(name: &str) -> PathBuf {
    assert!(
        nix::unistd::geteuid().is_root(),
        "running programs in the kernel needs root"
    );
    for entry in std::fs::read_dir(BPFFS)
        .expect("bpffs is mounted")
        .flatten()
    {
        let folder = entry.file_name().to_string_lossy().into_owned();
        let owner = folder
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|pid: u32| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(&entry.path());
        }
    }
    let folder = format!("{PREFIX}{}-{name}", std::process::id());
    let folder = Path::new(BPFFS).join(folder);
    std::fs::create_dir(&folder).expect("the folder is new");
    folder
}

fn remove(folder: &Path) {
    if folder.exists() {
        std::fs::remove_dir_all(folder).expect("pins can be removed");
    }
}
