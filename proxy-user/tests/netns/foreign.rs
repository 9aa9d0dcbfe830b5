//! Other people's programs on a device: our own ones once more, with maps of their own that know no
//! services, so that they count what they are shown and let it through.
#![expect(clippy::unwrap_used, reason = "support of tests: to panic is to fail")]

use aya::Ebpf;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, TcAttachType};
use proxy_user::datapath::features::Features;
use proxy_user::datapath::hook::{Framing, Hook};
use proxy_user::datapath::object::{self, Options, Sizes, program};
use proxy_user::datapath::pins::Pins;
use proxy_user::datapath::readings::counters;
use std::path::Path;
use xtask::cluster::Namespace;

pub(crate) struct Foreign {
    pins: Pins,
    programs: Ebpf,
}

const HOOKS: [(Hook, TcAttachType); 2] = [
    (Hook::Ingress, TcAttachType::Ingress),
    (Hook::Egress, TcAttachType::Egress),
];

impl Foreign {
    /// With maps in a folder of bpffs.
    pub(crate) fn load(bpffs: &Path) -> Self {
        std::fs::create_dir(bpffs).unwrap();
        let pins = Pins::new(bpffs);
        let options = Options {
            pins: pins.clone(),
            sizes: Sizes {
                max_flows: 1024,
                ..Sizes::DEFAULT
            },
            log_decisions: false,
            has_fast_lane: false,
            has_random_in_packet: false,
            features: Features::probe_used().expect("the kernel answers"),
        };
        let loaded = object::load(&options).expect("the programs load");
        Self {
            pins,
            programs: loaded.programs,
        }
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    pub(crate) fn programs(&mut self) -> &mut Ebpf {
        &mut self.programs
    }

    /// As links: behind everybody at ingress, before everybody at egress.
    pub(crate) fn attach_links(&mut self, place: &Namespace, device: &str) {
        let attach = || {
            for (hook, kind) in HOOKS {
                let order = match hook {
                    Hook::Ingress => LinkOrder::last(),
                    Hook::Egress => LinkOrder::first(),
                };
                let program = program(&mut self.programs, hook, Framing::Ethernet).unwrap();
                let options = TcAttachOptions::TcxOrder(order);
                program.attach_with_options(device, kind, options).unwrap();
            }
        };
        place.run(attach).unwrap();
    }

    /// As filters in a clsact qdisc, which is made if there is none.
    pub(crate) fn attach_filters(&mut self, place: &Namespace, device: &str, priority: u16) {
        // There may be one.
        let _ = place.run(|| qdisc_add_clsact(device)).unwrap();
        for (hook, _) in HOOKS {
            self.attach_filter(place, device, hook, priority);
        }
    }

    /// As a filter in the qdisc that is there.
    pub(crate) fn attach_filter(
        &mut self,
        place: &Namespace,
        device: &str,
        hook: Hook,
        priority: u16,
    ) {
        let program = program(&mut self.programs, hook, Framing::Ethernet).unwrap();
        let options = TcAttachOptions::Netlink(NlOptions {
            priority,
            handle: TcHandle::new(0, 7),
            classid: None,
        });
        let (_, kind) = HOOKS.into_iter().find(|(it, _)| *it == hook).unwrap();
        let attach = || program.attach_with_options(device, kind, options).unwrap();
        place.run(attach).unwrap();
    }

    /// How many packets both programs have seen.
    pub(crate) fn seen(&self) -> u64 {
        counters(&self.pins)
            .unwrap()
            .iter()
            .map(|(_, count)| count)
            .sum()
    }
}
