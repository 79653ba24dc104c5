//! Deploys of protected services that wait for a second person.
//!
//! What is kept is the request as it was made, with the deploy that was in force then: who lets it begin lets exactly that begin,
//! or nothing. Halting, and going back to the fallback, wait for nobody.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use baton_core::access::Right;
use baton_core::history::History;
use baton_core::ids::{PendingId, ServiceName};
use baton_core::trust::{Signature, Signed, Warrant};
use baton_wire::access::{Approving, PendingView, Protection, ProtectionView};
use baton_wire::api::{DeployName, Propose, Wanted};
use tokio::sync::Mutex;

use super::deploys;
use super::extract::{Named, Sent};
use super::{Refusal, Shared, blocking};
use crate::access::{Access, Caller, Pending, Waits};
use crate::audit::{Effect, Note};
use crate::clock::unix_ms;
use crate::proposal::id_of_key;
use crate::view;

/// Held by who lets a deploy begin, or rejects it: either comes first.
pub(super) type Deciding = Arc<Mutex<()>>;

/// How long a deploy waits: a day, so that nobody finds it begun when it is long forgotten.
const WAIT_MS: u64 = 24 * 60 * 60 * 1000;

pub(super) async fn protect(
    State(shared): State<Shared>,
    Named(service): Named,
    Sent(Protection { protected }): Sent<Protection>,
) -> Result<Response, Refusal> {
    let access = shared.access()?;
    let note =
        Note(format!("{service} is {}", if protected { "protected" } else { "not protected any more" }));
    let (known, of) = (Arc::clone(&access), service.clone());
    blocking(move || known.protect(&of, protected)).await??;
    let by = access.protected_by(&service).filter(|by| *by != service).map(|by| by.to_string());
    Ok((Extension(note), Json(ProtectionView { protected, by })).into_response())
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<PendingView>>, Refusal> {
    let mut waiting = waiting(&shared);
    waiting.retain(|(pending, _)| caller.covers(&pending.service));
    Ok(Json(waiting.into_iter().map(|(_, view)| view).collect()))
}

/// All that waits; some of it may have been overtaken.
pub(super) fn waiting(shared: &Shared) -> Vec<(Pending, PendingView)> {
    // Where nobody is asked who they are, nothing waits for a second person.
    let pending = shared.access.as_ref().map(|access| access.pending()).unwrap_or_default();
    let board = shared.board();
    let view = |(id, pending): (PendingId, Pending)| {
        let history = board.services.get(&pending.service).map(|posted| posted.service.history());
        let overtaken_by = history.and_then(|history| overtaken_by(history, id, &pending));
        let view = PendingView { overtaken_by, ..pending.view(id) };
        (pending, view)
    };
    pending.into_iter().map(view).collect()
}

pub(super) async fn approve(
    State(shared): State<Shared>,
    Path((service, id)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let Approving { warrant, as_signed } = approving(&body)?;
    let _alone = shared.deciding.lock().await;
    let found = match found(&shared, &service, &id) {
        // Asked again, since the answer was lost.
        Err(refusal) => {
            let begun = begun_before(&shared, &service, &id)?.ok_or(refusal)?;
            return Ok((Extension(Effect::Nothing), begun).into_response());
        }
        Ok(found) => found,
    };
    let (access, id, pending) = found;
    let Caller::Holder(token) = &caller else { return Err(Refusal::stopping()) };
    if token.holder.as_str() == pending.asked_by {
        let text = format!("{} has asked for it: somebody else has to let it begin", pending.asked_by);
        return Err(Refusal::new(StatusCode::FORBIDDEN, "second-person", text));
    }
    let warrant = signed_by_both(pending.asked.warrant.as_deref(), warrant.as_deref())?;
    if !as_signed {
        let board = shared.known()?;
        let posted = board.services.get(&pending.service);
        let in_force = posted.and_then(|posted| posted.service.history().in_force()?.warrant.as_ref());
        enough_signed(id, in_force, warrant.as_deref())?;
    }
    // First, so that no other server rejects what this one lets begin.
    let (by, asked) = (token.holder.to_string(), Arc::clone(&access));
    let mut pending = blocking(move || asked.approve(id, &by)).await??;
    pending.asked.warrant = warrant;
    let decided = pending.decided;
    let note = Note(format!("pending {id} of {} by {}", pending.service, pending.asked_by));
    let begun = let_begin(&shared, &caller, id, pending).await;
    match Outcome::of(&begun) {
        Outcome::Over => blocking(move || access.settle(id)).await??,
        Outcome::WaitsOn => {
            blocking(move || access.take_back(id, decided)).await??;
            return begun.map_err(|refusal| {
                refusal.and("it waits on: approve it when that has changed, or reject it")
            });
        }
        Outcome::Unknown => {}
    }
    // Where it has not begun, it waits no more, or nobody rejects it any more.
    begun.map_err(|refusal| refusal.after(note))
}

/// What whoever approves has sent along, which may be nothing.
fn approving(body: &[u8]) -> Result<Approving, Refusal> {
    if body.is_empty() {
        return Ok(Approving::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::invalid(format!("the body is not what it should be: {error}")))
}

/// The warrant of what waits, with the signatures that a second person has added. None of those that it had is replaced.
fn signed_by_both(known: Option<&str>, more: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(more) = more else { return Ok(known.map(str::to_owned)) };
    let more = Signed::<Warrant>::parse(more)?;
    let known = known.ok_or_else(|| {
        Refusal::invalid(
            "it was asked for without a signature, and nobody can add one: ask for it again with --key",
        )
    })?;
    let mut all = Signed::<Warrant>::parse(known)?;
    if all.of != more.of {
        let text = "what was signed is not what waits: look at it again with `baton pending`";
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "other-warrant", text));
    }
    let new = |signature: &&Signature| all.signatures().iter().all(|known| known.key != signature.key);
    let new: Vec<Signature> = more.signatures().iter().filter(new).copied().collect();
    new.into_iter().for_each(|signature| all.add(signature));
    // There may be too many by now.
    Ok(Some(Signed::<Warrant>::parse(&all.to_text())?.to_text()))
}

/// Refuses what fewer keys have signed than the deploy in force: members may want as many, and what was let begin waits for no
/// further signature.
fn enough_signed(
    id: PendingId,
    in_force: Option<&Signed<Warrant>>,
    warrant: Option<&str>,
) -> Result<(), Refusal> {
    let Some((in_force, warrant)) = in_force.zip(warrant) else { return Ok(()) };
    let signed = Signed::<Warrant>::parse(warrant)?;
    let (have, before) = (signed.signatures().len(), in_force.signatures().len());
    if have >= before {
        return Ok(());
    }
    let text = format!(
        "{have} of {before} keys have signed it, counted as in the deploy in force: members that want as many would refuse it;          sign it too, with `{}`, or let it begin with --as-signed where that is enough by now",
        approve_signed(id, &signed.of)
    );
    Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "too-few-signatures", text))
}

/// How a second person signs what waits.
fn approve_signed(id: PendingId, warrant: &Warrant) -> String {
    format!("baton pending approve {id} --key KEY --release {}", warrant.release.short())
}

/// What has come into force since it was asked for, so that it cannot begin any more.
fn overtaken_by(history: &History, id: PendingId, pending: &Pending) -> Option<DeployName> {
    let in_force = history.in_force()?;
    let is_next = pending.asked.parent.as_ref() == Some(&in_force.id.to_string());
    let has_begun = || history.find(id_of_key(&pending.service, &key(id))).is_some();
    (!is_next && !has_begun()).then(|| view::name(in_force))
}

/// Puts in force what has waited, once.
async fn let_begin(
    shared: &Shared,
    caller: &Caller,
    id: PendingId,
    pending: Pending,
) -> Result<Response, Refusal> {
    // It had begun, and whoever let it begin has not heard so.
    if let Some(begun) = begun_before(shared, pending.service.as_str(), &id.to_string())? {
        return Ok(begun);
    }
    if pending.asked.parent.is_none() && in_force(shared, &pending.service).is_some() {
        let text = "nothing was in force when this was asked for, and something is now: ask for it again";
        return Err(Refusal::new(StatusCode::CONFLICT, "conflict", text));
    }
    let by = pending.approved_by.as_deref().unwrap_or_default();
    let actor = format!("{}, approved by {by}", pending.asked_by);
    let asked = Propose { actor, ..pending.asked };
    deploys::begin(shared, pending.service, caller, &asked).await
}

/// What has become of a deploy that was let begin.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It has begun, or never will: another one came first.
    Over,
    /// Nothing has begun, for a reason that may pass.
    WaitsOn,
    /// It may have begun.
    Unknown,
}

impl Outcome {
    fn of<T>(begun: &Result<T, Refusal>) -> Self {
        match begun.as_ref().map_err(|refusal| refusal.status) {
            Ok(_) | Err(StatusCode::CONFLICT) => Self::Over,
            Err(status) if status.is_client_error() => Self::WaitsOn,
            Err(_) => Self::Unknown,
        }
    }
}

pub(super) async fn reject(
    State(shared): State<Shared>,
    Path((service, id)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refusal> {
    let _alone = shared.deciding.lock().await;
    let (access, id, pending) = found(&shared, &service, &id)?;
    let has_asked = matches!(&caller, Caller::Holder(token) if token.holder.as_str() == pending.asked_by);
    if !has_asked && !caller.may(Right::Approve) {
        let text = format!(
            "a {} rejects what they have asked for themselves, and {} has asked for this: ask them, or somebody with the role \
             approver",
            caller.role(),
            pending.asked_by
        );
        return Err(Refusal::new(StatusCode::FORBIDDEN, "not-allowed", text));
    }
    let pending = blocking(move || access.reject(id)).await??;
    let note = Note(format!("pending {id} of {} by {}", pending.service, pending.asked_by));
    Ok((Extension(note), Json(pending.view(id))).into_response())
}

/// Whether a deploy waits for a second person.
pub(super) fn waits(shared: &Shared, service: &ServiceName, caller: &Caller, asked: &Propose) -> bool {
    let is_protected = || shared.access.as_ref().is_some_and(|access| access.protected_by(service).is_some());
    matches!(caller, Caller::Holder(_)) && exposes(asked) && is_protected()
}

/// Keeps a deploy of a protected service until a second person lets it begin; none where it needs nobody. It names the deploy
/// after which it was asked for, so that nothing else begins later than what was seen.
pub(super) async fn held_back(
    shared: &Shared,
    service: &ServiceName,
    caller: &Caller,
    mut asked: Propose,
) -> Result<(), Refusal> {
    let (Some(access), Caller::Holder(token)) = (&shared.access, caller) else { return Ok(()) };
    if !waits(shared, service, caller, &asked) {
        return Ok(());
    }
    let now = unix_ms();
    let id = PendingId::of(service, token.id(), asked.idempotency_key.as_deref(), now);
    // Let begin again, it is the same deploy.
    asked.idempotency_key = Some(key(id));
    let asked_by = token.holder.to_string();
    let signed = asked.warrant.as_deref().map(Signed::<Warrant>::parse).transpose()?;
    let (service_name, ends) = (service.clone(), now.saturating_add(WAIT_MS));
    let pending =
        Pending { service: service_name, asked_by, at: now, ends, approved_by: None, decided: 0, asked };
    let access = Arc::clone(access);
    let Waits { id, is_new } = blocking(move || access.hold(id, &pending)).await??;
    let note = Note(format!("pending {id} of {service}"));
    let how = match signed {
        Some(signed) => format!(
            "with `{}`, or without --key and --release where members want no second signature",
            approve_signed(id, &signed.of)
        ),
        None => format!("with `baton pending approve {id}`"),
    };
    let text = format!(
        "service {service} is protected: somebody else with the role approver has to let this begin within a day, {how}"
    );
    let refusal = Refusal::new(StatusCode::FORBIDDEN, "needs-approval", text);
    Err(if is_new { refusal.after(note) } else { refusal })
}

/// Whether a request exposes members to something: stopping that, and the way back, must never wait.
pub(super) fn exposes(asked: &Propose) -> bool {
    match asked.wanted {
        Wanted::Rollout | Wanted::Resume => true,
        Wanted::Rollback => asked.release.is_some(),
        Wanted::Halt | Wanted::Abort => false,
    }
}

/// By which key a deploy that has waited is made once.
fn key(id: PendingId) -> String {
    format!("pending-{id}")
}

fn in_force(shared: &Shared, service: &ServiceName) -> Option<String> {
    let board = shared.board();
    board.services.get(service)?.service.history().in_force().map(|deploy| deploy.id.to_string())
}

/// The deploy that has waited as this, where it has begun.
fn begun_before(shared: &Shared, service: &str, id: &str) -> Result<Option<Response>, Refusal> {
    let (Ok(service), Ok(id)) = (service.parse::<ServiceName>(), id.parse::<PendingId>()) else {
        return Ok(None);
    };
    let deploy = id_of_key(&service, &key(id));
    let board = shared.known()?;
    let mut past =
        board.services.get(&service).into_iter().flat_map(|posted| posted.service.history().past());
    let begun = past.find(|past| past.deploy.id == deploy);
    Ok(begun.map(|past| (StatusCode::CREATED, Json(view::deploy(past))).into_response()))
}

fn found(shared: &Shared, service: &str, id: &str) -> Result<(Arc<Access>, PendingId, Pending), Refusal> {
    let (access, service, id) = (shared.access()?, service.parse::<ServiceName>()?, id.parse::<PendingId>()?);
    let pending =
        access.pending().into_iter().find(|(known, pending)| *known == id && pending.service == service);
    match pending {
        Some((_, pending)) => Ok((access, id, pending)),
        None => Err(Refusal::not_found(format!("nothing waits as {id} for {service}: see `baton pending`"))),
    }
}

#[cfg(test)]
mod tests {
    use baton_core::deploy::Policy;
    use baton_core::history::{Backing, Proposal, Wish};
    use baton_core::ids::{DeployId, Epoch, KeyId, ReleaseId, SignatureBytes};
    use baton_core::trust::Bounds;

    use super::*;

    /// A warrant with a signature of each of these keys.
    fn signed(epoch: u64, keys: &[(u8, u8)]) -> Signed<Warrant> {
        let mut signed = Signed::new(Warrant {
            service: "web".parse().unwrap(),
            epoch: Epoch(epoch),
            release: ReleaseId::from_bytes([1; 32]),
            fallback: None,
            bounds: Bounds::of(&Policy::safe()),
            expires: 7,
        });
        for &(key, bytes) in keys {
            let bytes = SignatureBytes::from_bytes([bytes; 64]);
            signed.add(Signature { key: KeyId::from_bytes([key; 32]), bytes });
        }
        signed
    }

    #[test]
    fn p40_what_fewer_keys_have_signed_than_the_deploy_in_force_does_not_begin() {
        let id = "0123456789ab".parse().unwrap();
        let [one, two] = [signed(5, &[(1, 1)]), signed(5, &[(1, 1), (2, 2)])];
        for (in_force, waits, code) in [
            (None, None, None),
            (None, Some(&one), None),
            // Who gives signatures up has said so.
            (Some(&two), None, None),
            (Some(&one), Some(&one), None),
            (Some(&one), Some(&two), None),
            (Some(&two), Some(&two), None),
            (Some(&two), Some(&one), Some("too-few-signatures")),
        ] {
            let text = waits.map(Signed::to_text);
            let refused = enough_signed(id, in_force, text.as_deref()).err();
            assert_eq!(refused.map(|refusal| refusal.code), code, "{in_force:?} {waits:?}");
        }
    }

    #[test]
    fn what_waits_is_overtaken_by_what_is_in_force_unless_it_follows_that_or_has_begun() {
        let deploy = |number| DeployId::from_bytes([number; 16]);
        let mut history = History::new("web".parse().unwrap(), Vec::new());
        let add = |history: &mut History, id| {
            let parent = history.in_force().map(|deploy| deploy.id);
            let wish = Wish::Rollout {
                release: ReleaseId::from_bytes([1; 32]),
                policy: Policy::safe(),
                again: false,
            };
            let (reason, actor) = (String::new(), "ada".to_owned());
            let proposal = Proposal {
                id,
                parent,
                wish,
                reason,
                actor,
                created: 0,
                backing: Backing::InForce,
                blame: None,
            };
            history.add(history.propose(proposal, Epoch(0)).unwrap());
        };
        let id: PendingId = "0123456789ab".parse().unwrap();
        let waits = |parent: Option<DeployId>| {
            let asked = serde_json::json!({ "wanted": "rollout", "parent": parent.map(|id| id.to_string()) });
            Pending {
                service: "web".parse().unwrap(),
                asked_by: "ada".to_owned(),
                at: 0,
                ends: 1,
                approved_by: None,
                decided: 0,
                asked: serde_json::from_value(asked).unwrap(),
            }
        };
        let by = |history: &History, parent| Some(overtaken_by(history, id, &waits(parent))?.epoch);
        assert_eq!(by(&history, None), None, "nothing is in force");
        add(&mut history, deploy(1));
        assert_eq!((by(&history, None), by(&history, Some(deploy(1)))), (Some(1), None));
        add(&mut history, deploy(2));
        assert_eq!(by(&history, Some(deploy(1))), Some(2));
        add(&mut history, id_of_key(&"web".parse().unwrap(), &key(id)));
        assert_eq!(by(&history, Some(deploy(2))), None, "it has begun itself");
    }

    #[test]
    fn p40_a_second_person_adds_a_signature_to_what_waits_and_to_nothing_else() {
        let warrant = |epoch, keys: &[(u8, u8)]| signed(epoch, keys).to_text();
        let known = warrant(5, &[(1, 1)]);
        let both =
            |known: &str, more: &str| signed_by_both(Some(known), Some(more)).map_err(|refusal| refusal.code);
        assert_eq!(both(&known, &warrant(5, &[(2, 2)])), Ok(Some(warrant(5, &[(1, 1), (2, 2)]))));
        assert_eq!(both(&known, &warrant(5, &[(1, 9), (2, 2)])), Ok(Some(warrant(5, &[(1, 1), (2, 2)]))));
        assert_eq!(both(&known, &warrant(6, &[(2, 2)])), Err("other-warrant"));
        assert_eq!(both(&known, "x"), Err("invalid"));
        let many: Vec<(u8, u8)> = (2..=17).map(|key| (key, 2)).collect();
        assert_eq!(both(&known, &warrant(5, &many)), Err("invalid"), "there may be 16");
        assert_eq!(signed_by_both(Some(&known), None).ok(), Some(Some(known.clone())));
        assert!(signed_by_both(None, Some(&known)).is_err());
        assert!(approving(b"").is_ok() && approving(b"{}").is_ok() && approving(b"[").is_err());
    }

    #[test]
    fn p40_what_was_let_begin_waits_on_only_when_it_surely_has_not_begun() {
        assert_eq!(Outcome::of(&Ok(())), Outcome::Over);
        for (status, outcome) in [
            (409, Outcome::Over),
            (400, Outcome::WaitsOn),
            (403, Outcome::WaitsOn),
            (404, Outcome::WaitsOn),
            (422, Outcome::WaitsOn),
            (423, Outcome::WaitsOn),
            (500, Outcome::Unknown),
            (503, Outcome::Unknown),
        ] {
            let refusal = Refusal::new(StatusCode::from_u16(status).unwrap(), "code", "why");
            assert_eq!(Outcome::of::<()>(&Err(refusal)), outcome, "{status}");
        }
    }
}
