use super::*;

const CRITERIA: Criteria = Criteria {
    patience: Duration::from_secs(60),
    needs_node: true,
};
const V4: usize = IpFamily::V4 as usize;

fn well() -> Vitals {
    Vitals {
        synced: true,
        node: NodeState::Present,
        ..Vitals::default()
    }
}

fn after(seconds: u64, since: Instant) -> Instant {
    since + Duration::from_secs(seconds)
}

#[test]
fn a_change_may_wait_for_a_minute_and_nothing_may_wait_for_ever() {
    let start = Instant::now();
    let mut vitals = well();
    assert!(CRITERIA.judge(&vitals, after(1_000_000, start)).is_healthy);
    vitals.waiting_since[V4] = Some(start);
    assert!(CRITERIA.judge(&vitals, after(60, start)).is_healthy);
    let ill = CRITERIA.judge(&vitals, after(61, start));
    assert!(!ill.is_healthy);
    assert_eq!(ill.families, [("IPv4", (false, None))].into());
    vitals.waiting_since[V4] = Some(after(61, start));
    assert!(CRITERIA.judge(&vitals, after(61, start)).is_healthy);
    assert!(
        CRITERIA.judge(&vitals, start).is_healthy,
        "whatever the clock says"
    );
}

#[test]
fn a_node_that_leaves_is_not_eligible() {
    let eligible = |node, needs_node| {
        let criteria = Criteria {
            needs_node,
            ..CRITERIA
        };
        let vitals = Vitals { node, ..well() };
        let health = criteria.judge(&vitals, Instant::now());
        assert!(health.livez(UNIX_EPOCH).0, "the agent is well all the same");
        assert_eq!(health.healthz(UNIX_EPOCH).0, health.is_eligible);
        health.is_eligible
    };
    assert!(eligible(NodeState::Present, true));
    assert!(!eligible(NodeState::Leaving, false));
    assert!(!eligible(NodeState::Gone, false));
    assert!(!eligible(NodeState::NeverSeen, true));
    assert!(eligible(NodeState::NeverSeen, false));
}

#[test]
fn answers_have_the_fields_of_kube_proxy() {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let now = Instant::now();
    let mut vitals = well();
    vitals.written = [Some(at(1)), Some(at(2))];
    let health = CRITERIA.judge(&vitals, now);
    let text = serde_json::to_string(&health.healthz(at(3)).1).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"lastUpdated":"1970-01-01T00:00:03.000000000Z","#,
            r#""currentTime":"1970-01-01T00:00:03.000000000Z","nodeEligible":true,"healthy":true,"#,
            r#""status":{"IPv4":{"lastUpdated":"1970-01-01T00:00:01.000000000Z","healthy":true},"#,
            r#""IPv6":{"lastUpdated":"1970-01-01T00:00:02.000000000Z","healthy":true}}}"#
        )
    );
    vitals.waiting_since = [None, Some(now)];
    vitals.node = NodeState::Leaving;
    let ill = CRITERIA.judge(&vitals, after(100, now));
    let live = serde_json::to_value(ill.livez(at(3)).1).unwrap();
    assert_eq!(live["lastUpdated"], "1970-01-01T00:00:02.000000000Z");
    assert_eq!(live["status"]["IPv6"]["healthy"], false);
    assert!(live.get("nodeEligible").is_none());
    let node = serde_json::to_value(ill.healthz(at(3)).1).unwrap();
    assert_eq!(node["nodeEligible"], false);
    let unknown = serde_json::to_value(Time(None)).unwrap();
    assert_eq!(unknown, "0001-01-01T00:00:00Z");
}
