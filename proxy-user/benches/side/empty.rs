//! Programs that do nothing, where the product's would be.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use proxy_user::datapath::devices::{self, Marked};
use xtask::cluster::Namespace;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ferrule-bench"));

/// They are attached as long as this lives.
pub(crate) struct Empty {
    _object: Ebpf,
}

impl Empty {
    /// On all devices of a namespace that the product would take.
    pub(crate) fn start(place: &Namespace) -> Result<Self> {
        let mut object = Ebpf::load(OBJECT)?;
        let program: &mut SchedClassifier = object
            .program_mut("empty")
            .context("no program empty")?
            .try_into()?;
        program.load()?;
        for device in place.run(suitable)?? {
            for hook in [TcAttachType::Egress, TcAttachType::Ingress] {
                let options = TcAttachOptions::TcxOrder(LinkOrder::last());
                place.run(|| program.attach_with_options(&device, hook, options))??;
            }
        }
        Ok(Self { _object: object })
    }
}

fn suitable() -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let devices = runtime.block_on(devices::current(Marked::default()))?;
    let suitable = devices
        .into_iter()
        .filter(|device| device.suitability.framing().is_some());
    Ok(suitable.map(|device| device.name).collect())
}
