//! Members that will not come back: a person says so, where the server cannot know.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use baton_core::fleet::{Fleet, Member, Presence, Tie};
use baton_core::ids::MemberId;
use baton_core::units::Millis;
use baton_wire::api::{Forget, Forgotten};
use tokio::sync::oneshot;

use super::extract::{Named, Sent};
use super::{Refusal, Shared};
use crate::audit::Note;
use crate::keeper::{Ask, Choose};

/// Most names in one question: more than a fleet of which most are silent.
const NAMED_MAX: usize = 100_000;

/// How many of them a record names: it is a line.
const NOTED_MAX: usize = 20;

/// They count from now on as those that said goodbye. One of them that comes back all the same is a new member.
pub(super) async fn forget(
    State(shared): State<Shared>,
    Named(service): Named,
    Sent(asked): Sent<Forget>,
) -> Result<(Extension<Note>, Json<Forgotten>), Refusal> {
    shared.posted(&service)?;
    let choose: Choose = Box::new(move |fleet, now, is_heard| chosen(&asked, fleet, now, is_heard));
    let (reply, answer) = oneshot::channel();
    let ask = Ask::Forget { service: service.clone(), choose, reply };
    shared.inbox.send(ask).await.map_err(|_| Refusal::stopping())?;
    let members = answer.await.map_err(|_| Refusal::stopping())??;
    let members: Vec<String> = members.iter().map(ToString::to_string).collect();
    let first: Vec<&str> = members.iter().take(NOTED_MAX).map(String::as_str).collect();
    let note = Note(format!("forgot {} members of {service}, the first {}", members.len(), first.join(", ")));
    Ok((Extension(note), Json(Forgotten { members })))
}

/// Those who are meant, if none of them can be heard. `is_heard` says who was heard and is silent only as far as the fleet knows.
fn chosen(
    asked: &Forget,
    fleet: &Fleet,
    now: Millis,
    is_heard: &dyn Fn(&MemberId) -> bool,
) -> Result<Vec<MemberId>, Refusal> {
    if asked.silent != asked.members.is_empty() {
        return Err(Refusal::invalid(
            "name members, or set silent for all that cannot be heard: not both, and not neither",
        ));
    }
    if asked.members.len() > NAMED_MAX {
        return Err(Refusal::invalid(format!("more than {NAMED_MAX} members in one question")));
    }
    // Whoever is gone with a slot keeps it in its deploy: nothing would follow.
    let can_go = |member: &Member| match member.presence(now) {
        Presence::Live => false,
        Presence::Silent { .. } => true,
        Presence::Gone => !matches!(member.tie(), Tie::Slot(_) | Tie::Found),
    };
    if asked.silent {
        let silent = fleet.members().filter(|(_, member)| can_go(member));
        return Ok(silent.map(|(id, _)| id.clone()).filter(|id| !is_heard(id)).collect());
    }
    let one = |name: &String| {
        let id: MemberId = name.parse()?;
        match fleet.member(&id).map(|member| member.presence(now)) {
            None => Err(Refusal::not_found(format!("there is no member {id} here"))),
            Some(presence) if presence == Presence::Live || is_heard(&id) => {
                let text = format!("member {id} is there: stop it first, or it comes back at once");
                Err(Refusal::new(StatusCode::CONFLICT, "conflict", text))
            }
            Some(Presence::Live | Presence::Silent { .. } | Presence::Gone) => Ok(id),
        }
    };
    asked.members.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use baton_core::fleet::{Grant, LEASE};
    use baton_core::ids::Epoch;

    use super::*;

    fn fleet() -> Fleet {
        let id = |name: &str| name.parse::<MemberId>().unwrap();
        let members = ["a", "b", "d"].map(|name| (id(name), Tie::Nothing));
        Fleet::restore(members, None, Epoch(0), Millis::ZERO)
    }

    #[test]
    fn who_is_gone_is_forgotten_with_the_silent_unless_it_keeps_its_slot_all_the_same() {
        let id = |name: &str| name.parse::<MemberId>().unwrap();
        let slot = Tie::Slot(Grant { phase: 0, bake: Millis(0), proven: false });
        let ties = [("slot", slot), ("left", Tie::Leftover), ("live", Tie::Leftover)];
        let members = ties.map(|(name, tie)| (id(name), tie));
        let fleet = Fleet::restore(members, None, Epoch(0), Millis::ZERO).without(["slot", "left"].map(id));
        let asked = Forget { members: Vec::new(), silent: true };
        let chosen = chosen(&asked, &fleet, Millis::ZERO, &|_| false).map_err(|refusal| refusal.status);
        assert_eq!(chosen, Ok(vec![id("left")]));
    }

    #[test]
    fn only_those_who_cannot_be_heard_are_forgotten() {
        let asked = |members: &[&str], silent| Forget {
            members: members.iter().map(|&name| name.to_owned()).collect(),
            silent,
        };
        let at = |asked: &Forget, now| {
            let is_heard = |id: &MemberId| id.as_str() == "d";
            let chosen = chosen(asked, &fleet(), now, &is_heard).map_err(|refusal| refusal.status.as_u16());
            chosen.map(|members| members.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        for (asked, now, expected) in [
            (asked(&["d"], false), LEASE, Err(409)),
            (asked(&["b"], false), LEASE, Ok(vec!["b".to_owned()])),
            (asked(&[], true), LEASE, Ok(vec!["a".to_owned(), "b".to_owned()])),
            (asked(&[], true), Millis::ZERO, Ok(vec![])),
            (asked(&["b"], false), Millis::ZERO, Err(409)),
            (asked(&["c"], false), LEASE, Err(404)),
            (asked(&["a b"], false), LEASE, Err(400)),
            (asked(&[], false), LEASE, Err(400)),
            (asked(&["a"], true), LEASE, Err(400)),
        ] {
            assert_eq!(at(&asked, now), expected, "{asked:?} at {now}");
        }
    }
}
