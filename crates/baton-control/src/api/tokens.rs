//! Who may do what: tokens made, listed and revoked.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use baton_core::access::{Role, Scope, Token};
use baton_core::ids::TokenId;
use baton_wire::access::{MadeToken, MakeToken, TokenView, role, scope};

use super::extract::Sent;
use super::{Refusal, Shared, blocking};
use crate::access::{Access, Held, Revoked, TakenBack};
use crate::audit::{Effect, Note};
use crate::clock::unix_ms;

/// How long a token may be good for: ten years, so that a mistake in the unit is one.
const TTL_MAX_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

impl Shared {
    /// Who may do what, on a server that asks.
    pub(super) fn access(&self) -> Result<Arc<Access>, Refusal> {
        let open = "this server asks nobody who they are: start it without --dev for tokens";
        self.access.clone().ok_or_else(|| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "no-tokens", open))
    }
}

pub(super) async fn list(State(shared): State<Shared>) -> Result<Json<Vec<TokenView>>, Refusal> {
    let mut tokens: Vec<TokenView> = shared.access()?.tokens().iter().map(view).collect();
    tokens.sort_by(|a, b| (&a.holder, a.created_ms, &a.id).cmp(&(&b.holder, b.created_ms, &b.id)));
    Ok(Json(tokens))
}

pub(super) async fn make(
    State(shared): State<Shared>,
    Sent(asked): Sent<MakeToken>,
) -> Result<Response, Refusal> {
    let (access, token) = (shared.access()?, token(&asked, unix_ms())?);
    let fingerprint = access.fingerprint().map(|fingerprint| fingerprint.to_string());
    let made = blocking(move || access.make(&token)).await??;
    let note =
        Note(format!("token {} of {} with role {} {}", made.id(), made.holder, made.role, of(&made.scope)));
    let answer = MadeToken { token: TokenView::of(&made, None), fingerprint };
    Ok((StatusCode::CREATED, Extension(note), Json(answer)).into_response())
}

pub(super) async fn revoke(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let (access, id) = (shared.access()?, id.parse::<TokenId>()?);
    let TakenBack { what: Revoked { held, is_new }, only_here } =
        blocking(move || access.revoke(id)).await??;
    let note = Note(format!("token {id} of {} with role {}", held.token.holder, held.token.role));
    // Asked again, since the answer was lost.
    let effect = if is_new { Effect::Changed } else { Effect::Nothing };
    Ok(taken_back(note, only_here, (Extension(effect), Json(view(&held)))))
}

/// The answer to who has taken something back. Where that counts on this server only it is a refusal, so that nobody takes it for
/// done; the note says all the same what was changed.
pub(super) fn taken_back(note: Note, only_here: Option<Refusal>, done: impl IntoResponse) -> Response {
    match only_here {
        None => (Extension(note), done).into_response(),
        Some(refusal) => refusal.after(note).into_response(),
    }
}

fn token(asked: &MakeToken, now: u64) -> Result<Token, Refusal> {
    let role = role(&asked.role).map_err(|error| Refusal::invalid(error.to_string()))?;
    let scope = scope(asked.services.as_deref())?;
    if matches!(&scope, Scope::Only(services) if services.is_empty()) {
        return Err(Refusal::invalid("services is empty: name one, or leave it out for all"));
    }
    if role == Role::Join && scope == Scope::Every {
        return Err(Refusal::invalid("a token that makes a member needs the service of the member"));
    }
    if role == Role::Admin && scope != Scope::Every {
        return Err(Refusal::invalid("an admin is one for all services: leave out services"));
    }
    if role != Role::Join && (asked.member.is_some() || asked.reusable) {
        return Err(Refusal::invalid("only a token with role join names a member, or makes several"));
    }
    if asked.member.is_some() && asked.reusable {
        return Err(Refusal::invalid(
            "a token that names its member makes that one only: leave out reusable",
        ));
    }
    if asked.ttl_ms.is_some_and(|ttl| ttl == 0 || ttl > TTL_MAX_MS) {
        return Err(Refusal::invalid("ttl_ms is more than 0 and at most ten years"));
    }
    Ok(Token {
        hash: asked.hash.parse()?,
        holder: asked.holder.parse()?,
        role,
        scope,
        created: now,
        expires: asked.ttl_ms.map(|ttl| now.saturating_add(ttl)),
        member: asked.member.as_deref().map(str::parse).transpose()?,
        reusable: asked.reusable,
    })
}

fn view(held: &Held) -> TokenView {
    let joined = held.joined.as_ref().map(|joined| format!("{}/{}", joined.service, joined.member));
    TokenView::of(&held.token, joined)
}

fn of(scope: &Scope) -> String {
    match scope {
        Scope::Every => "for all services".to_owned(),
        Scope::Only(services) => {
            format!("for {}", services.iter().map(|service| service.as_str()).collect::<Vec<_>>().join(", "))
        }
    }
}
