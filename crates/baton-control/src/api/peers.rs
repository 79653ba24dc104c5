//! Which members one may ask for a release before it asks the store.

use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use baton_core::fleet::{Fleet, Member, Presence};
use baton_core::ids::{MemberId, ReleaseId, ServiceName};
use baton_core::peers::{Peer, named};
use baton_core::report::Standing;
use serde::Deserialize;

use super::artefacts::Line;
use super::{Refusal, Shared};
use crate::access::Caller;

/// Who asks.
#[derive(Debug, Deserialize)]
pub(super) struct Asker {
    service: String,
    member: String,
}

/// Addresses, one on a line, best first; none where the member is to ask the store.
pub(super) async fn of_release(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(Asker { service, member }): Query<Asker>,
    Extension(caller): Extension<Caller>,
) -> Result<String, Line> {
    let release: ReleaseId = id.parse()?;
    let (service, asker): (ServiceName, MemberId) = (service.parse()?, member.parse()?);
    if !caller.is(&service, &asker) {
        let text = "only a member is told of others, and only of those of its service";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "not-allowed", text).into());
    }
    let (posted, now) = (shared.posted(&service)?, shared.clock.now());
    let fleet = posted.service.fleet();
    let (peers, addresses): (Vec<Peer<'_>>, Vec<_>) = fleet
        .members()
        .filter(|(_, member)| member.presence(now) == Presence::Live)
        .filter_map(|(id, member)| {
            let address = posted.hellos.get(id)?.peer?;
            Some((Peer { member: id, holds: holds(fleet, member, release) }, address))
        })
        .unzip();
    let named = named(release, &asker, &peers);
    Ok(named.into_iter().map(|index| format!("{}\n", addresses[index])).collect())
}

/// Whether a member has said that it has a release.
pub(super) fn holds(fleet: &Fleet, member: &Member, release: ReleaseId) -> bool {
    let Some(report) = member.report() else { return false };
    let committed = report.committed.map(|(release, _)| release);
    if [committed, report.running, report.standby].contains(&Some(release)) {
        return true;
    }
    let deploy = fleet.in_force().map(|in_force| &in_force.deploy);
    let heard = deploy.is_some_and(|deploy| {
        deploy.release == release && report.seen.is_some_and(|seen| seen.deploy == deploy.id)
    });
    heard
        && match &report.standing {
            Standing::Behind | Standing::Refused(_) => false,
            Standing::Staged
            | Standing::Granted
            | Standing::Trying
            | Standing::Proving
            | Standing::Proven => true,
        }
}
