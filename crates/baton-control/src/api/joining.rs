//! How a process becomes a member, and stays one.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use baton_core::access::Credential;
use baton_core::fleet::Presence;
use baton_core::ids::{MemberId, ServiceName};
use baton_core::run::secrets::Secret;
use baton_store::state::News;
use baton_wire::access::{Join, Joined};

use super::extract::Sent;
use super::tokens::taken_back;
use super::{Refusal, Shared, blocking};
use crate::access::Caller;
use crate::audit::{Effect, Note};
use crate::keeper::Ask;

/// Longest key of a member that joins.
const KEY_CHARS_MAX: usize = 128;

pub(super) async fn join(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Sent(asked): Sent<Join>,
) -> Result<Response, Refusal> {
    let access = shared.access()?;
    let (service, member): (ServiceName, MemberId) = (asked.service.parse()?, asked.member.parse()?);
    if asked.key.is_empty() || asked.key.len() > KEY_CHARS_MAX {
        return Err(Refusal::invalid(format!("key needs 1 to {KEY_CHARS_MAX} characters")));
    }
    let Caller::Holder(token) = caller else { return Err(Refusal::stopping()) };
    if token.member.is_none() && is_live(&shared, &service, &member) {
        let text = format!(
            "member {member} of {service} is live: give this one another BATON_MEMBER, or name {member} in its token"
        );
        return Err(Refusal::new(StatusCode::CONFLICT, "conflict", text));
    }
    let note = Note(format!("member {service}/{member} by token {}", token.id()));
    let (credential, is_new) = blocking(move || access.join(&token, &service, &member, &asked.key)).await??;
    let effect = if is_new { Effect::Changed } else { Effect::Nothing };
    Ok((Extension(note), Extension(effect), Json(joined(&credential))).into_response())
}

pub(super) async fn renew(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Joined>, Refusal> {
    match caller {
        Caller::Member(credential) | Caller::Late(credential) => {
            let access = shared.access()?;
            let renewed = blocking(move || access.renew(&credential)).await??;
            Ok(Json(joined(&renewed)))
        }
        Caller::Anybody | Caller::Holder(_) => Err(Refusal::invalid("only members renew what they have")),
    }
}

pub(super) async fn revoke(
    State(shared): State<Shared>,
    Path((service, member)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let (access, service, member) =
        (shared.access()?, service.parse::<ServiceName>()?, member.parse::<MemberId>()?);
    let note = Note(format!("what member {service}/{member} has"));
    let (of, who) = (service.clone(), member.clone());
    let revoked = blocking(move || access.revoke_member(&of, &who)).await??;
    // It is nobody any more, so that nobody waits for it either.
    if shared.posted(&service).is_ok() {
        let ask = Ask::News { service, news: News::Left(member) };
        shared.inbox.send(ask).await.map_err(|_| Refusal::stopping())?;
    }
    Ok(taken_back(note, revoked.only_here, Json(serde_json::json!({}))))
}

/// Whether somebody speaks for a member now: nobody takes the place of who does with a token for anybody.
fn is_live(shared: &Shared, service: &ServiceName, member: &MemberId) -> bool {
    let Ok(posted) = shared.posted(service) else { return false };
    let known = posted.service.fleet().member(member);
    known.is_some_and(|known| known.presence(shared.clock.now()) == Presence::Live)
}

fn joined(credential: &Secret) -> Joined {
    Joined { credential: credential.reveal().to_owned(), renew_after_ms: Credential::RENEW_AFTER_MS }
}
