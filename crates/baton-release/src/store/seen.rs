//! What a store remembers of the releases that it has made sure of, so that the next one costs what is new in it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::outline::Outline;

use crate::manifest::{Assembled, Known, chunk_ids};

/// How many releases are remembered: of services that are pushed in turns, each finds its last one.
const RELEASES_MAX: usize = 4;
/// No more is remembered of a manifest that is longer, in bytes: of an ordinary one it is some 5 MB, and what is known of its
/// chunks takes as much again.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// The releases that were published last: their manifests, and the chunks that were found to be there.
#[derive(Default)]
pub struct Seen(Mutex<VecDeque<Release>>);

/// What is remembered of one.
pub(super) struct Release {
    /// What it is, once all of it was found to be there.
    whole: Option<(ReleaseId, Outline)>,
    pub(super) known: Known,
    /// Chunks that the store has as long as it has lost nothing.
    there: HashSet<ChunkId>,
    /// How often the store had lost something.
    losses: u64,
}

impl Release {
    /// Nothing is known of a store that has lost something so often.
    pub(super) fn unknown(losses: u64) -> Self {
        Self { whole: None, known: Known::default(), there: HashSet::new(), losses }
    }

    /// The chunks of a release of which it is not known that they are there.
    pub(super) fn doubtful(&self, assembled: &Assembled) -> Vec<ChunkId> {
        let mut ids = chunk_ids(&assembled.manifest);
        ids.retain(|id| !self.there.contains(id));
        ids
    }
}

impl Seen {
    /// Whether this very release was found to be there, and the store has lost nothing since.
    pub(super) fn has(&self, id: ReleaseId, outline: &Outline, losses: u64) -> bool {
        let is_it = |(of, by): &(ReleaseId, Outline)| *of == id && by == outline;
        self.lock()
            .iter()
            .any(|release| release.losses == losses && release.whole.as_ref().is_some_and(is_it))
    }

    /// Takes out the release that is most like the one with this outline, of those since which the store has lost nothing.
    pub(super) fn take(&self, outline: &Outline, losses: u64) -> Release {
        let mut releases = self.lock();
        releases.retain(|release| release.losses == losses);
        let likeness =
            |release: &Release| outline.chunks().iter().filter(|c| release.known.has(c.id)).count();
        let best = (0..releases.len()).max_by_key(|at| likeness(&releases[*at]));
        // One that has nothing in common is of another service, which will want it.
        let best = best.filter(|at| likeness(&releases[*at]) > 0);
        best.and_then(|at| releases.remove(at)).unwrap_or_else(|| Release::unknown(losses))
    }

    /// Remembers a release all of whose chunks are there, and what was known of the one before.
    pub(super) fn keep(&self, before: Release, id: ReleaseId, outline: Outline, assembled: Assembled) {
        let Assembled { text, chunks, manifest } = assembled;
        if text.len() > TEXT_BYTES_MAX {
            return;
        }
        let ids = chunk_ids(&manifest);
        let Release { mut there, losses, .. } = before;
        if there.len() > 2 * ids.len() {
            there.clear();
        }
        there.extend(ids);
        let mut known = Known::default();
        known.add_cut(text, &chunks);
        let mut releases = self.lock();
        releases.push_back(Release { whole: Some((id, outline)), known, there, losses });
        while releases.len() > RELEASES_MAX {
            releases.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Release>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
