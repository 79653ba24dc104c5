//! Answers of the API that tests start from.

use baton_core::deploy::Policy;
use baton_wire::api::{CostsView, CountsView, DeployView, PolicyView, ServiceStatus};

/// A release id.
pub fn release() -> String {
    "9f3a2b7c1d5e".to_owned() + &"0".repeat(52)
}

/// A rollout of [`release`].
pub fn deploy() -> DeployView {
    DeployView {
        id: "7c1d5e9f3a2b".to_owned() + &"0".repeat(20),
        service: "web".to_owned(),
        epoch: 5,
        kind: "rollout".to_owned(),
        parent: None,
        of: None,
        release: release(),
        fallback: None,
        policy: PolicyView::of(&Policy::safe()),
        reason: String::new(),
        actor: "kim@laptop".to_owned(),
        created_ms: 1_795_209_567_000,
        switched: false,
        accepted: "durable".to_owned(),
        warrant: None,
        replaces: None,
        costs: None,
    }
}

/// 240 members in the second phase of [`deploy`].
pub fn status(state: &str) -> ServiceStatus {
    let counts = CountsView {
        live: 238,
        silent: 2,
        behind: 41,
        staged: 100,
        trying: 3,
        proving: 12,
        proven: 82,
        refused: 0,
        drained: 200,
    };
    ServiceStatus {
        service: "web".to_owned(),
        version: 17,
        deploy: Some(deploy()),
        state: state.to_owned(),
        needs_person: None,
        trouble: None,
        waits: Some("15 of 15 slots are taken by web-1, web-2, web-3 and 12 others".to_owned()),
        waits_code: Some("slots-taken".to_owned()),
        phase: 2,
        phases: 3,
        slots: 15,
        counts,
        fetching: None,
        costs: CostsView::default(),
        committed: None,
        lock: None,
        failure: None,
        laggards: Vec::new(),
        laggards_count: 0,
    }
}
