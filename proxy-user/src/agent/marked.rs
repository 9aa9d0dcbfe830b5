//! Which devices are something that only the operator can tell; what the configuration file says of it may change.

use crate::datapath::devices::{DeviceNames, Marked};
use crate::frontend::DetectLocal;
use crate::sync::Followed;
use tokio::sync::watch;

/// The devices, and the work of following the settings, which ends with these.
pub(super) fn follow(
    fast_lane: DeviceNames,
    mut followed: watch::Receiver<Followed>,
) -> (watch::Receiver<Marked>, impl Future<Output = ()>) {
    let mark = move |followed: &Followed| Marked {
        fast_lane: fast_lane.clone(),
        pods: of_pods(&followed.detect_local),
    };
    let (sender, receiver) = watch::channel(mark(&followed.borrow_and_update()));
    let following = async move {
        while followed.changed().await.is_ok() {
            let now = mark(&followed.borrow_and_update());
            sender.send_if_modified(|known| {
                let is_new = *known != now;
                *known = now;
                is_new
            });
        }
    };
    (receiver, following)
}

/// The devices that packets of pods come in by, if pods are told by that.
pub fn of_pods(detect: &DetectLocal) -> DeviceNames {
    match detect {
        DetectLocal::BridgeInterface(name) => DeviceNames::named(name),
        DetectLocal::InterfaceNamePrefix(start) => DeviceNames::starting(start),
        DetectLocal::ClusterCidr | DetectLocal::NodeCidr => DeviceNames::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_mode_marks_other_devices() {
        let of = |detect_local| Followed {
            detect_local,
            ..Followed::default()
        };
        let bridge = DetectLocal::BridgeInterface("cbr0".to_owned());
        let (sender, followed) = watch::channel(of(bridge));
        let (mut marked, following) = follow(DeviceNames::default(), followed);
        let following = tokio::spawn(following);
        assert!(marked.borrow_and_update().pods.has("cbr0"));
        sender.send_replace(of(DetectLocal::InterfaceNamePrefix("veth".to_owned())));
        marked.changed().await.unwrap();
        let pods = marked.borrow_and_update().pods.clone();
        assert!(pods.has("veth1") && !pods.has("cbr0"));
        drop(sender);
        following.await.unwrap();
    }
}
