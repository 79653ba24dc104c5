//! Guards that somebody has switched off, for people, programs and monitoring.

use axum::Json;
use axum::extract::{Extension, State};
use baton_core::ids::ServiceName;
use baton_wire::access::GuardView;

use super::{Refusal, Shared};
use crate::access::Caller;
use crate::board::Board;
use crate::clock::unix_ms;

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
    if let Some(warning) = shared.secrets.warning(caller.covers_all()) {
        add("secrets", None, warning);
    }
    for (service, posted) in board.services.iter().filter(|(service, _)| caller.covers(service)) {
        if posted.service.history().in_force().is_some_and(|deploy| !deploy.policy.auto_rollback) {
            let text = format!("a release of {service} that fails is halted, and not taken back");
            add("auto-rollback", Some(service), text);
        }
    }
    off
}
