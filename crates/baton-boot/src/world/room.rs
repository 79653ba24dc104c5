//! How much memory there is for a candidate, and how much releases take.

use baton_core::ids::{GenerationId, ReleaseId};
use baton_core::run::{Needs, Room};
use baton_core::supervisor::{Event, Running, Ticket};
use baton_core::units::Bytes;
use baton_release::releases::ReleasesDir;
use tokio::task::spawn_blocking;

use super::World;
use crate::log;
use crate::watching::Found;

impl World {
    /// Looks how much memory there is, and how much this release will take, as far as that is known: as much as it has used
    /// until it was proven here; and where it is what the image brought, as what serves and is that as well.
    pub(super) fn measure(&self, generation: GenerationId, release: Running) {
        let (memory, releases, events) = (self.memory.clone(), self.place.releases(), self.events.clone());
        let live: Vec<(Running, Found)> = self.live().collect();
        let serving = self.runs.iter().find(|(_, run)| run.serves);
        let serving =
            serving.filter(|(_, run)| (release, run.plan.release) == (Running::Image, Running::Image));
        let serving = serving.and_then(|(id, _)| self.watching.of(id));
        let like = serving.map(|found| Needs::LikeServing(Bytes(found.memory_peak_early)));
        spawn_blocking(move || {
            let peak = |release: ReleaseId| releases.as_deref().and_then(|releases| releases.peak(release));
            let at_first = |release: Running, found: &Found| match release {
                Running::Image => Some(Bytes(found.memory_peak_early)),
                Running::Release(id) => peak(id),
            };
            let grown =
                |(release, found): (Running, Found)| grown(Bytes(found.memory), at_first(release, &found));
            let grown = Bytes(live.into_iter().map(grown).sum());
            let room = memory.held().map(|(used, limit)| Room { used, grown, limit });
            let known = release.id().and_then(peak).map(Needs::Learnt).or(like);
            // The receiver lives as long as the member.
            let _ = events.send(Event::Measured { generation, room, known });
        });
    }

    /// What runs, and what each generation used at the last look.
    fn live(&self) -> impl Iterator<Item = (Running, Found)> {
        self.runs.iter().filter_map(|(id, run)| Some((run.plan.release, self.watching.of(id)?)))
    }

    /// A generation was proven: remembers what it has used until now, and answers it. What the member runs anyway does not
    /// bake, and shows less than it takes.
    pub fn learn(&mut self, id: GenerationId, ticket: Ticket) -> Option<Bytes> {
        let (found, releases) = (self.watching.of(id), self.place.releases());
        let run = self.runs.get_mut(id)?;
        let known = std::mem::replace(&mut run.proven, true);
        let (found, releases, release) = (found?, releases?, run.plan.release.id()?);
        if !known && !matches!(ticket, Ticket::Restore | Ticket::Replace) {
            spawn_blocking(move || remember(&releases, release, Bytes(found.memory_peak)));
        }
        Some(Bytes(found.memory_peak))
    }
}

/// How much more a generation uses than its release did when it was proven, or it itself at first. Where that is not known, nothing was
/// leaked for all that can be told.
fn grown(uses: Bytes, peak: Option<Bytes>) -> u64 {
    peak.map_or(0, |peak| uses.0.saturating_sub(peak.0))
}

fn remember(releases: &ReleasesDir, release: ReleaseId, peak: Bytes) {
    if let Err(error) = releases.remember_peak(release, peak) {
        let release = release.short();
        log::say(format_args!("cannot keep how much memory release {release} takes: {}", log::chain(&error)));
    }
}
