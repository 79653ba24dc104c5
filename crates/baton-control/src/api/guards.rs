//! Guards that somebody has switched off, for people, programs and monitoring.

use axum::Json;
use axum::extract::{Extension, State};
use baton_core::deploy::Kind;
use baton_core::history::History;
use baton_core::ids::ServiceName;
use baton_core::units::Share;
use baton_wire::access::GuardView;

use super::{Refusal, Shared};
use crate::access::Caller;
use crate::board::Board;
use crate::clock::unix_ms;
use crate::skew;

pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<GuardView>>, Refusal> {
    let board = shared.known()?;
    Ok(Json(off(&shared, &board, &caller)))
}

/// Those that are off, as far as they concern somebody.
pub(super) fn off(shared: &Shared, board: &Board, caller: &Caller) -> Vec<GuardView> {
    let mut off = Vec::new();
    let mut add = |guard: &str, service: Option<&ServiceName>, text: String| {
        let service = service.map(ServiceName::to_string);
        off.push(GuardView { guard: guard.to_owned(), service, text });
    };
    match &shared.access {
        None => {
            add("credentials", None, "anybody on the server's machine may do everything (--dev)".to_owned());
        }
        Some(access) => {
            for held in access.tokens() {
                let token = held.token;
                if token.reusable && caller.covers_all() {
                    let text = format!("token {} makes members as often as it is shown", token.id());
                    add("single-use", None, text);
                }
            }
        }
    }
    if !shared.has_tls {
        add("tls", None, "control itself speaks no TLS (--dev or --plain)".to_owned());
    }
    if let Some(warning) = shared.given.as_ref().and_then(|given| given.warning(unix_ms())) {
        add("certificate", None, warning);
    }
    if let Some(warning) = shared.space.warning() {
        add("space", None, warning);
    }
    if let Some(warning) = skew::warning(shared.states.clock_ahead_ms()) {
        add("clock", None, warning);
    }
    if let Some(warning) = shared.secrets.warning(caller.covers_all()) {
        add("secrets", None, warning);
    }
    for (service, posted) in board.services.iter().filter(|(service, _)| caller.covers(service)) {
        for (guard, text) in off_of_service(posted.service.history()) {
            add(guard, Some(service), text);
        }
    }
    off
}

/// Those that the deploy in force goes without.
fn off_of_service(history: &History) -> Vec<(&'static str, String)> {
    let mut off = Vec::new();
    let Some(deploy) = history.in_force() else { return off };
    let (service, policy) = (&deploy.service, &deploy.policy);
    if !policy.auto_rollback {
        off.push((
            "auto-rollback",
            format!("a release of {service} that fails is halted, and not taken back"),
        ));
    }
    if policy.failure_limit == Share::ALL {
        let text =
            format!("a release of {service} may fail on every member that tries it, one after the other");
        off.push(("failure-limit", text));
    }
    if policy.all_at_once && deploy.kind == Kind::Rollout {
        off.push(("phases", format!("a release of {service} goes everywhere at once")));
    }
    let was_signed = history.past().iter().any(|past| past.deploy.warrant.is_some());
    if was_signed && deploy.warrant.is_none() {
        let text =
            format!("nobody has signed the deploy of {service} in force, and earlier ones were signed");
        off.push(("signature", text));
    }
    off
}

#[cfg(test)]
mod tests {
    use baton_core::deploy::Policy;
    use baton_core::history::{Backing, Proposal, Wish};
    use baton_core::ids::{DeployId, Epoch, ReleaseId};

    use super::*;

    #[test]
    fn p47_each_guard_that_a_policy_goes_without_is_told() {
        let off = |policy: Policy| {
            let wish = Wish::Rollout { release: ReleaseId::from_bytes([2; 32]), policy, again: false };
            let proposal = Proposal {
                id: DeployId::from_bytes([1; 16]),
                parent: None,
                wish,
                reason: String::new(),
                actor: "ada".to_owned(),
                created: 0,
                backing: Backing::InForce,
                blame: None,
            };
            let mut history = History::new("web".parse().unwrap(), Vec::new());
            history.add(history.propose(proposal, Epoch(0)).unwrap());
            off_of_service(&history).into_iter().map(|(guard, _)| guard).collect::<Vec<_>>()
        };
        let nothing: [&str; 0] = [];
        for whole in [Policy::safe(), Policy::fast(), Policy::careful()] {
            assert_eq!(off(whole), nothing);
        }
        assert_eq!(off(Policy { auto_rollback: false, ..Policy::safe() }), ["auto-rollback"]);
        assert_eq!(off(Policy { failure_limit: Share::ALL, ..Policy::safe() }), ["failure-limit"]);
        assert_eq!(off(Policy::safe().at_once()), ["phases"]);
    }
}
