//! The one place that every request passes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use baton_core::access::{Record, Right};
use baton_core::ids::ServiceName;

use super::doors::{Door, Doors, Leaves, Needs};
use super::limits::Limits;
use super::{Access, Caller};
use crate::api::{Line, Refusal};
use crate::audit::{Audit, Code, Effect, Note, Purpose};
use crate::clock::{Clock, unix_ms};
use crate::listen::CallerAddress;

/// Who looks at everybody.
#[derive(Clone)]
pub(crate) struct Doorman {
    doors: Arc<Doors>,
    /// None on a server that asks nobody who they are.
    access: Option<Arc<Access>>,
    audit: Audit,
    limits: Arc<Limits>,
    clock: Clock,
}

impl Doorman {
    pub(crate) fn new(doors: Doors, access: Option<Arc<Access>>, audit: Audit, clock: Clock) -> Self {
        Self { doors: Arc::new(doors), access, audit, limits: Arc::default(), clock }
    }

    /// Who asks, if it may ask this; else who that was, if that is known, and why not.
    fn judge(
        &self,
        door: Option<&Door>,
        request: &Request,
        from: IpAddr,
    ) -> Result<Caller, (Option<String>, Refusal)> {
        let Some(access) = &self.access else { return Ok(Caller::Anybody) };
        let now = self.clock.now();
        let caller = match access.identify(request.headers()) {
            Ok(caller) => caller,
            // Also who asks only whether the server lives: that may take the disk some work.
            Err(_) if !self.limits.admit_stranger(from, now) => return Err((None, too_often())),
            Err(_) if door.is_some_and(|door| door.needs == Needs::Nothing) => return Ok(Caller::Anybody),
            Err(refusal) => return Err((None, refusal)),
        };
        if !self.limits.admit(&caller, now) {
            return Err((Some(caller.to_string()), too_often()));
        }
        match door.map_or(Ok(()), |door| allowed(&caller, door, request)) {
            Ok(()) => Ok(caller),
            Err(refusal) => Err((Some(caller.to_string()), refusal)),
        }
    }
}

/// Lets through who may pass, and writes down what changes something, passed or not.
pub(crate) async fn check(State(doorman): State<Doorman>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let door = matched.and_then(|path| doorman.doors.find(request.method(), path.as_str())).cloned();
    if !door.as_ref().is_some_and(|door| door.leaves.changes()) {
        return pass(doorman, door, request, next).await;
    }
    // Who hangs up does not take along the record of what was changed.
    let passed = tokio::spawn(pass(doorman, door, request, next)).await;
    passed.unwrap_or_else(|_| Refusal::stopping().into_response())
}

async fn pass(doorman: Doorman, door: Option<Door>, mut request: Request, next: Next) -> Response {
    let from = request.extensions().get::<ConnectInfo<CallerAddress>>().map(|ConnectInfo(from)| from.clone());
    let visit = from.as_ref().map(|from| Arc::clone(&from.visit));
    let from = from.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |from| from.address.ip());
    let what = format!("{} {}", request.method(), request.uri().path());
    let leaves = door.as_ref().map_or(Leaves::Nothing, |door| door.leaves);
    let judged = doorman.judge(door.as_ref(), &request, from);
    if let (Ok(caller), Some(visit)) = (&judged, &visit)
        && (doorman.access.is_none() || !matches!(caller, Caller::Anybody))
    {
        visit.is_known();
    }
    let judged = match judged {
        Ok(caller) if leaves.changes() => match doorman.audit.ready(purpose(leaves)).await {
            Ok(()) => Ok(caller),
            Err(refusal) => Err((Some(caller.to_string()), refusal)),
        },
        judged => judged,
    };
    let (who, response) = match judged {
        Ok(caller) => {
            let who = caller.to_string();
            request.extensions_mut().insert(caller);
            (Some(who), next.run(request).await)
        }
        Err((caller, refusal)) => (caller, refused(door.as_ref(), refusal)),
    };
    // Who is refused for asking too often would fill the disk by it, and so would who is refused without being known.
    let too_often = response.status() == StatusCode::TOO_MANY_REQUESTS;
    let asked = leaves != Leaves::Nothing && !too_often;
    if asked && (who.is_some() || doorman.limits.writes_stranger(doorman.clock.now())) {
        let waits = leaves.changes() && who.is_some();
        let record = record(who.unwrap_or_else(|| "nobody".to_owned()), from, what, &response);
        let refused = is_refusal(&response);
        let effect = if leaves.changes() { effect(&response) } else { Effect::Nothing };
        // What was refused has not been done, written down or not.
        if let Err(refusal) = doorman.audit.add(record, effect, waits).await
            && !refused
        {
            return refusal.into_response();
        }
    }
    response
}

/// What for something is changed at a door, before it is known what is asked there.
const fn purpose(leaves: Leaves) -> Purpose {
    match leaves {
        Leaves::Remedy => Purpose::StopsHarm,
        Leaves::Nothing | Leaves::Bytes | Leaves::Change => Purpose::Other,
    }
}

fn is_refusal(response: &Response) -> bool {
    response.status().is_client_error() || response.status().is_server_error()
}

/// What a call that may change something has come to.
pub(crate) fn effect(response: &Response) -> Effect {
    let by_status = if is_refusal(response) { Effect::Nothing } else { Effect::Changed };
    response.extensions().get().copied().unwrap_or(by_status)
}

/// A refusal in the words that whoever asks there understands.
fn refused(door: Option<&Door>, refusal: Refusal) -> Response {
    match door.is_some_and(|door| door.in_lines) {
        true => Line::from(refusal).into_response(),
        false => refusal.into_response(),
    }
}

fn record(who: String, from: IpAddr, what: String, response: &Response) -> Record {
    let code = response.extensions().get::<Code>().map(|Code(code)| format!(" {code}"));
    let note = response.extensions().get::<Note>().map(|Note(note)| note.clone());
    Record {
        at: unix_ms(),
        who,
        from: from.to_string(),
        what,
        outcome: format!("{}{}", response.status().as_u16(), code.unwrap_or_default()),
        detail: note.unwrap_or_default(),
    }
}

fn allowed(caller: &Caller, door: &Door, request: &Request) -> Result<(), Refusal> {
    let must = |right: Right| match caller.may(right) {
        true => Ok(()),
        false => Err(without(caller, right)),
    };
    match door.needs {
        Needs::Nothing => Ok(()),
        Needs::Limited(right) | Needs::OfAny(right) => must(right),
        Needs::OfAll(right) => {
            must(right)?;
            match caller.covers_all() {
                true => Ok(()),
                false => Err(not_allowed("this needs a token for all services".to_owned())),
            }
        }
        Needs::OfService(right) => {
            must(right)?;
            let service = service_in(&door.path, request.uri().path());
            match service.filter(|service| caller.covers(service)) {
                Some(_) => Ok(()),
                None => Err(not_allowed("the token is not for this service".to_owned())),
            }
        }
    }
}

/// The service that a path names. One that is written in another way than as it is, is none: handlers would read it anew.
fn service_in(door: &str, path: &str) -> Option<ServiceName> {
    let place = door.split('/').position(|part| part == "{service}")?;
    path.split('/').nth(place)?.parse().ok()
}

/// Who has another role. A member that was given the wrong token is told which one it needs.
fn without(caller: &Caller, right: Right) -> Refusal {
    let instead = match right {
        Right::Join => ": a member starts with a token from `baton token join`",
        _ => "",
    };
    not_allowed(format!("the role {} has no right to {right}{instead}", caller.role()))
}

fn not_allowed(text: String) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "not-allowed", text)
}

fn too_often() -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too-often", "too many requests: ask again in a second")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_read_where_the_path_has_it_and_only_as_it_is() {
        let door = "/v1/services/{service}/deploys";
        let found = |path| service_in(door, path).map(|service| service.to_string());
        assert_eq!(found("/v1/services/web/deploys").as_deref(), Some("web"));
        for path in ["/v1/services/w%65b/deploys", "/v1/services//deploys", "/v1", ""] {
            assert_eq!(found(path), None, "{path}");
        }
        assert_eq!(service_in("/v1/releases", "/v1/web"), None);
    }
}
