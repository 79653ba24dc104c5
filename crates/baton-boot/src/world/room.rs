//! How much memory there is for a candidate, and how much releases take.

use baton_core::ids::{GenerationId, ReleaseId};
use baton_core::run::Room;
use baton_core::supervisor::{Event, Running, Ticket};
use baton_core::units::Bytes;
use baton_release::releases::ReleasesDir;
use tokio::task::spawn_blocking;

use super::World;
use crate::log;

impl World {
    /// Looks how much memory there is, and how much this release has used until it was proven here.
    pub(super) fn measure(&self, generation: GenerationId, release: Running) {
        let (memory, releases, events) = (self.memory.clone(), self.place.releases(), self.events.clone());
        let live: Vec<(ReleaseId, Bytes)> = self.live().collect();
        spawn_blocking(move || {
            let peak = |release: ReleaseId| releases.as_deref().and_then(|releases| releases.peak(release));
            let grown = live.into_iter().map(|(release, uses)| grown(uses, peak(release))).sum();
            let room = memory.held().map(|(used, limit)| Room { used, grown: Bytes(grown), limit });
            // The receiver lives as long as the member.
            let _ = events.send(Event::Measured { generation, room, learnt: release.id().and_then(peak) });
        });
    }

    /// The releases that run, and what each generation used at the last look.
    fn live(&self) -> impl Iterator<Item = (ReleaseId, Bytes)> {
        self.runs.iter().filter_map(|(id, run)| {
            let found = self.watching.of(id)?;
            Some((run.plan.release.id()?, Bytes(found.memory)))
        })
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

/// How much more a generation uses than its release did when it was proven. Where that is not known, nothing was
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
