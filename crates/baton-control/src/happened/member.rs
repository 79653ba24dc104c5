//! What happened to single members.

use std::collections::BTreeSet;

use baton_core::event::What;
use baton_core::fleet::{Member, Presence, Tie};
use baton_core::ids::{DeployId, MemberId, ReleaseId};
use baton_core::report::{Report, Standing};

use super::{Look, Story, contradicts};

/// Longest text of an event in bytes: a refusal with the last lines of a program.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// One member before and after, and the release that it was to take.
struct Change<'a> {
    id: &'a MemberId,
    release: ReleaseId,
    before: Option<&'a Report>,
    after: &'a Report,
}

/// Who came, went, and got a slot.
pub(super) fn tell(
    story: &mut Story<'_>,
    changed: &BTreeSet<&MemberId>,
    before: &Look<'_>,
    after: &Look<'_>,
    left: impl Fn(&MemberId) -> bool,
) {
    let (old, new) = (before.service.fleet(), after.service.fleet());
    for (id, member) in changed.iter().filter_map(|&id| Some((id, old.member(id)?))) {
        let gone = new.member(id).is_none_or(|member| member.presence(after.now) == Presence::Gone);
        if gone && member.presence(before.now) != Presence::Gone {
            if left(id) {
                story.tell_of(Some(id), What::Left, format!("{id} has left"));
            } else {
                story.tell_of(
                    Some(id),
                    What::Gone,
                    format!("{id} was silent for too long and counts as gone"),
                );
            }
        }
    }
    let deploy = new.in_force().map(|in_force| &in_force.deploy);
    let same_deploy = deploy.map(|deploy| deploy.id) == old.in_force().map(|in_force| in_force.deploy.id);
    for (id, member) in changed.iter().filter_map(|&id| Some((id, new.member(id)?))) {
        let earlier = old.member(id);
        let present_before = earlier.map(|member| member.presence(before.now));
        presence(story, id, present_before, member.presence(after.now));
        let had_slot = same_deploy && earlier.is_some_and(|member| matches!(member.tie(), Tie::Slot(_)));
        if let (Tie::Slot(grant), false, Some(deploy)) = (member.tie(), had_slot, deploy) {
            let text =
                format!("{id} may try release {}, bake {}", deploy.release.short(), deploy.bake(grant.bake));
            story.tell_of(Some(id), What::Granted, text);
        }
        if contradicts(new, id) && !contradicts(old, id) {
            let seen = member.report().and_then(|report| report.seen);
            let epoch = seen.map(|seen| seen.epoch).unwrap_or_default();
            let text = format!(
                "{id} obeys a deploy of epoch {epoch} that is not in force here: deploy again to go on"
            );
            story.tell_of(Some(id), What::Contradicted, text);
        }
    }
}

/// What members did for the deploys that are asked for.
pub(super) fn steps(
    story: &mut Story<'_>,
    changed: &BTreeSet<&MemberId>,
    before: &Look<'_>,
    after: &Look<'_>,
    is_asked_for: impl Fn(DeployId) -> bool,
) {
    let fleet = after.service.fleet();
    for (id, member) in changed.iter().filter_map(|&id| Some((id, fleet.member(id)?))) {
        let earlier = before.service.fleet().member(id).and_then(Member::report);
        let Some(report) = member.report().filter(|report| Some(*report) != earlier) else { continue };
        let Some(seen) = report.seen.filter(|seen| is_asked_for(seen.deploy)) else { continue };
        let Some(deploy) = after.service.history().find(seen.deploy) else { continue };
        story.deploy = Some(deploy.id);
        Change { id, release: deploy.release, before: earlier, after: report }.tell(story);
    }
}

fn presence(story: &mut Story<'_>, id: &MemberId, before: Option<Presence>, after: Presence) {
    match (before, after) {
        (None | Some(Presence::Gone), Presence::Live) => {
            story.tell_of(Some(id), What::Joined, format!("{id} has joined"));
        }
        (Some(Presence::Live), Presence::Silent { .. }) => {
            story.tell_of(Some(id), What::Silent, format!("{id} is silent"));
        }
        (Some(Presence::Silent { .. }), Presence::Live) => {
            story.tell_of(Some(id), What::Returned, format!("{id} is heard again"));
        }
        (Some(Presence::Live), Presence::Live)
        | (Some(Presence::Silent { .. }), Presence::Silent { .. })
        | (None | Some(Presence::Gone), Presence::Silent { .. })
        | (_, Presence::Gone) => {}
    }
}

impl Change<'_> {
    fn tell(&self, story: &mut Story<'_>) {
        let (id, short) = (self.id, self.release.short());
        let same_deploy = self.before.filter(|before| before.seen == self.after.seen);
        let standing_before = same_deploy.map(|before| before.standing.word());
        if let Some(back) = self.handed_back_to() {
            let text = format!("{id} is back on release {}", back.short());
            story.tell_of(Some(id), What::HandedBack, text);
        }
        if standing_before != Some(self.after.standing.word()) {
            match &self.after.standing {
                Standing::Proving => {
                    story.tell_of(Some(id), What::HandedOver, format!("release {short} serves on {id}"));
                }
                // Who had the release before has nothing to tell.
                Standing::Proven if standing_before.is_some() => {
                    story.tell_of(Some(id), What::Proven, format!("release {short} is proven on {id}"));
                }
                Standing::Refused(refusal) => {
                    let mut text =
                        format!("{id} refuses release {short}: {}: {}", refusal.cause, refusal.detail);
                    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
                    story.tell_of(Some(id), What::Refused, text);
                }
                Standing::Behind
                | Standing::Staged
                | Standing::Granted
                | Standing::Trying
                | Standing::Proven => {}
            }
        }
        if same_deploy.is_some_and(|before| before.relapses < self.after.relapses) {
            let text = format!("release {short} crashed or lost its health on {id}, where it was proven");
            story.tell_of(Some(id), What::Relapsed, text);
        }
    }

    /// The release that stood by and serves again.
    fn handed_back_to(&self) -> Option<ReleaseId> {
        let before = self.before?;
        let (was, serves) = (before.running?, self.after.running?);
        (was != serves && before.standby == Some(serves)).then_some(serves)
    }
}
