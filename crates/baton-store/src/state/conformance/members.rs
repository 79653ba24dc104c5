//! Members and slots.

use baton_core::deploy::Deploy;
use baton_core::fleet::{GONE_AFTER, Heard, Presence};
use baton_core::ids::{Epoch, InvalidId, MemberId, ServiceName};
use baton_core::report::{Report, Seen, Stamp, Standing};
use baton_core::rollout::Rollout;
use baton_core::units::Millis;

use super::sample::{NOW, deploy, halt, id, release, rollout, service};
use super::{Failure, all_at_once};
use crate::state::{Kind, News, StateError, StateStore};

/// Members of the fleets here: a quarter of them, ten, may try at once.
const MEMBERS: usize = 40;
const SLOTS: usize = 10;

pub(super) fn run<S: StateStore>(make: impl Fn() -> S) -> Result<(), Failure> {
    what_a_member_says_counts_once(&make())?;
    who_is_silent_for_too_long_is_gone(&make())?;
    p12_many_grants_at_once_never_exceed_the_slots(&make())?;
    slots_are_given_to_all_or_to_none(&make())?;
    who_has_proven_the_release_makes_room(&make())?;
    p12_slots_end_with_their_deploy(&make())?;
    Ok(())
}

fn member(number: usize) -> Result<MemberId, InvalidId> {
    format!("m-{number:02}").parse()
}

fn report(member: &MemberId, sequence: u64, standing: Standing) -> Report {
    Report::plain(member.clone(), Stamp { life: 1, sequence }, standing)
}

/// Lets a new member say that it obeys this epoch.
pub(super) fn hear_of_epoch(
    store: &dyn StateStore,
    service: &ServiceName,
    epoch: Epoch,
) -> Result<(), Failure> {
    let seen = Some(Seen { epoch, deploy: id(200) });
    let report = Report { seen, ..report(&member(99)?, 1, Standing::Behind) };
    assert_eq!(store.hear(service, News::Report(report), NOW)?, Heard::News);
    Ok(())
}

/// A fleet that has heard of the first deploy and staged its release.
fn fleet(store: &dyn StateStore) -> Result<(ServiceName, Deploy, Vec<MemberId>), Failure> {
    let web = service("web")?;
    let members = (0..MEMBERS).map(member).collect::<Result<Vec<_>, _>>()?;
    for member in &members {
        let _: Heard = store.hear(&web, News::Report(report(member, 1, Standing::Behind)), NOW)?;
    }
    let deploy = deploy(store, &web, 1)?;
    for member in &members {
        let seen = Some(Seen { epoch: deploy.epoch, deploy: deploy.id });
        let report = Report { seen, ..report(member, 2, Standing::Staged) };
        let _: Heard = store.hear(&web, News::Report(report), NOW)?;
    }
    Ok((web, deploy, members))
}

fn what_a_member_says_counts_once(store: &dyn StateStore) -> Result<(), Failure> {
    let (web, member) = (service("web")?, member(1)?);
    let heartbeat = |sequence| News::Heartbeat { member: member.clone(), stamp: Stamp { life: 1, sequence } };
    let hear = |news| store.hear(&web, news, NOW);
    assert_eq!(hear(heartbeat(1))?, Heard::Stale, "nothing is known of it yet");
    assert_eq!(hear(News::Left(member.clone()))?, Heard::Stale);
    assert_eq!(store.services()?, []);
    let first = News::Report(report(&member, 2, Standing::Behind));
    assert_eq!(hear(first.clone())?, Heard::News);
    assert_eq!(hear(first)?, Heard::Stale);
    assert_eq!(hear(News::Report(report(&member, 1, Standing::Staged)))?, Heard::Stale);
    assert_eq!(hear(heartbeat(3))?, Heard::News);
    assert_eq!(hear(heartbeat(3))?, Heard::Stale);
    let known = store.service(&web, NOW)?;
    let standing = known.fleet().member(&member).and_then(|known| known.report()).map(|last| &last.standing);
    assert_eq!(standing, Some(&Standing::Behind));
    assert_eq!(hear(News::Left(member.clone()))?, Heard::News);
    assert_eq!(hear(News::Left(member))?, Heard::Stale);
    assert_eq!(store.service(&web, NOW)?.fleet().members().count(), 0);
    assert_eq!(known.fleet().members().count(), 1, "a view stays as it was");
    Ok(())
}

fn who_is_silent_for_too_long_is_gone(store: &dyn StateStore) -> Result<(), Failure> {
    let (web, later) = (service("web")?, NOW + GONE_AFTER);
    for number in 0..3 {
        let _: Heard = store.hear(&web, News::Report(report(&member(number)?, 1, Standing::Behind)), NOW)?;
    }
    for number in 0..2 {
        let news = News::Report(report(&member(number)?, 2, Standing::Behind));
        let _: Heard = store.hear(&web, news, later - Millis(1))?;
    }
    let before = store.service(&web, later - Millis(1))?;
    let silent = before.fleet().member(&member(2)?).map(|member| member.presence(later - Millis(1)));
    assert_eq!(silent, Some(Presence::Silent { since: NOW }));
    let after = store.service(&web, later)?;
    assert_eq!(after.fleet().members().count(), 2);
    Ok(())
}

fn p12_many_grants_at_once_never_exceed_the_slots(store: &dyn StateStore) -> Result<(), Failure> {
    let (web, deploy, members) = fleet(store)?;
    // Every caller asks for everybody, in threes and in an order of its own.
    let ask = |caller: usize| {
        let mut granted = Vec::new();
        for start in 0..MEMBERS {
            let chosen: Vec<_> =
                (0..3).map(|next| members[(caller * 5 + start * 3 + next) % MEMBERS].clone()).collect();
            match store.grant(&web, deploy.epoch, &chosen, NOW) {
                Ok(_) => granted.extend(chosen),
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Ok(granted)
    };
    let answers = all_at_once(ask).into_iter().collect::<Result<Vec<_>, StateError>>()?;
    let mut granted: Vec<MemberId> = answers.into_iter().flatten().collect();
    assert_eq!(granted.len(), SLOTS / 3 * 3, "as many threes as fit");
    granted.sort();
    let known = store.service(&web, NOW)?;
    let held: Vec<_> = known.fleet().grants().map(|(member, _)| member.clone()).collect();
    assert_eq!(held, granted, "each has one slot, and the store knows of all of them");

    let mut rest = Vec::new();
    for member in members.iter().filter(|member| !held.contains(*member)) {
        rest.extend(store.grant(&web, deploy.epoch, std::slice::from_ref(member), NOW).ok());
    }
    assert_eq!(held.len() + rest.len(), SLOTS);
    Ok(())
}

fn slots_are_given_to_all_or_to_none(store: &dyn StateStore) -> Result<(), Failure> {
    let web = service("web")?;
    let refused = |service: &ServiceName, epoch, members: &[MemberId]| {
        store.grant(service, epoch, members, NOW).err().map(|error| error.kind())
    };
    assert_eq!(refused(&web, Epoch(1), &[member(0)?]), Some(Kind::Missing), "nothing is in force");
    let (web, deploy, members) = fleet(store)?;
    let twice = [members[0].clone(), members[1].clone(), members[0].clone()];
    let stranger = [members[0].clone(), member(99)?];
    for (why, epoch, chosen) in [
        ("too many", deploy.epoch, &members[..=SLOTS]),
        ("one twice", deploy.epoch, &twice),
        ("a stranger", deploy.epoch, &stranger),
        ("another epoch", deploy.epoch.next(), &members[..1]),
    ] {
        assert_eq!(refused(&web, epoch, chosen), Some(Kind::Conflict), "{why}");
        assert_eq!(store.service(&web, NOW)?.fleet().grants().count(), 0, "{why}");
    }
    let grant = store.grant(&web, deploy.epoch, &members[..SLOTS], NOW)?;
    assert_eq!((grant.phase, grant.bake, grant.proven), (0, deploy.policy.phases[0].bake, false));
    assert_eq!(refused(&web, deploy.epoch, &members[..1]), Some(Kind::Conflict), "it has a slot");
    assert_eq!(refused(&web, deploy.epoch, &members[SLOTS..=SLOTS]), Some(Kind::Conflict), "all are taken");
    Ok(())
}

fn who_has_proven_the_release_makes_room(store: &dyn StateStore) -> Result<(), Failure> {
    let (web, deploy, members) = fleet(store)?;
    store.grant(&web, deploy.epoch, &members[..SLOTS], NOW)?;
    for member in &members[..3] {
        let proven = Report {
            seen: Some(Seen { epoch: deploy.epoch, deploy: deploy.id }),
            running: Some(release(1)),
            committed: Some((release(1), deploy.epoch)),
            ..report(member, 3, Standing::Proven)
        };
        let _: Heard = store.hear(&web, News::Report(proven), NOW)?;
    }
    let known = store.service(&web, NOW)?;
    assert_eq!(known.fleet().grants().filter(|(_, grant)| grant.proven).count(), 3);
    let rollout = Rollout::of(known.fleet(), NOW).ok_or("no deploy is in force")?;
    let next = rollout.next_grants();
    assert_eq!(next.len(), 3);
    store.grant(&web, deploy.epoch, &next, NOW)?;
    assert_eq!(store.service(&web, NOW)?.fleet().grants().count(), SLOTS + 3);
    Ok(())
}

fn p12_slots_end_with_their_deploy(store: &dyn StateStore) -> Result<(), Failure> {
    let (web, first, members) = fleet(store)?;
    store.grant(&web, first.epoch, &members[..SLOTS], NOW)?;
    let halt = store.propose(&web, halt(2, Some(first.id)), NOW)?.deploy;
    assert_eq!(store.service(&web, NOW)?.fleet().grants().count(), 0);
    let refused =
        |epoch, members: &[MemberId]| store.grant(&web, epoch, members, NOW).err().map(|error| error.kind());
    let (granted, free) = (&members[..1], &members[SLOTS..=SLOTS]);
    for epoch in [first.epoch, halt.epoch] {
        assert_eq!(refused(epoch, free), Some(Kind::Conflict), "nothing is given in a halt");
    }
    let next = store.propose(&web, rollout(3, Some(halt.id)), NOW)?.deploy;
    assert_eq!(refused(first.epoch, free), Some(Kind::Conflict), "a late server asks in vain");
    for members in [granted, free] {
        assert_eq!(refused(next.epoch, members), Some(Kind::Conflict), "who had a slot may still be trying");
    }
    for member in &members {
        let seen = Some(Seen { epoch: next.epoch, deploy: next.id });
        let report = Report { seen, ..report(member, 3, Standing::Staged) };
        let _: Heard = store.hear(&web, News::Report(report), NOW)?;
    }
    store.grant(&web, next.epoch, &members[..SLOTS], NOW)?;
    Ok(())
}
