//! Which versions of secrets are current. Their values are told to nobody here.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use baton_core::run::secrets::{Aws, REFERENCES_MAX, Reference};
use baton_store::secrets::SecretError;
use baton_wire::api::{References, Versions};

use super::extract::Sent;
use super::{Refusal, Shared};
use crate::access::Caller;
use crate::chain::chain;

pub(super) async fn versions(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Sent(asked): Sent<References>,
) -> Result<Json<Versions>, Refusal> {
    if asked.references.len() > REFERENCES_MAX {
        return Err(Refusal::invalid(format!("more than {REFERENCES_MAX} references in one question")));
    }
    let references: Vec<Reference> =
        asked.references.iter().map(|text| parsed(text)).collect::<Result<_, _>>()?;
    must_be_allowed(&shared, &caller, asked.service.as_deref(), &references)?;
    let wanted: Vec<&Aws> = references.iter().map(resolved_here).collect::<Result<_, _>>()?;
    let versions = shared.secrets.versions(&wanted).await;
    let versions = versions.map_err(|(index, error)| {
        let told = format!("the secret {} cannot be had: {}", references[index], chain(&*error));
        match *error {
            SecretError::Refused(_) => Refusal::not_found(told),
            SecretError::Unavailable(_) | SecretError::Away { .. } | SecretError::Client(_) => {
                Refusal::unavailable(told)
            }
        }
    })?;
    Ok(Json(Versions { versions }))
}

/// Refuses what the service may not have that somebody asks for, and services that are not the caller's.
fn must_be_allowed(
    shared: &Shared,
    caller: &Caller,
    service: Option<&str>,
    references: &[Reference],
) -> Result<(), Refusal> {
    match service {
        Some(service) => {
            let service = service.parse()?;
            if !caller.covers(&service) {
                let text = "the token is not for this service";
                return Err(Refusal::new(StatusCode::FORBIDDEN, "not-allowed", text));
            }
            Ok(shared.secrets.check(&service, references)?)
        }
        None if shared.secrets.has_list() => Err(Refusal::invalid(
            "service is missing: this server has a list of which service may have which secret; a `baton` of its version says it",
        )),
        None => Ok(()),
    }
}

fn parsed(text: &str) -> Result<Reference, Refusal> {
    // What stands there may be a value, by mistake: it is not repeated.
    text.parse().map_err(|fault| Refusal::invalid(format!("that is no reference to a secret: {fault}")))
}

fn resolved_here(reference: &Reference) -> Result<&Aws, Refusal> {
    let own = || Refusal::invalid(format!("{reference} is the member's own, and has no versions"));
    reference.aws().ok_or_else(own)
}
