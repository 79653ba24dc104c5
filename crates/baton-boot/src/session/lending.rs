//! What this member lends control of the releases on its disk: one answer at a time, in parts between which everything else is said.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use baton_release::peers::Shelf;
use baton_wire::session::{ContentLent, ContentWanted};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

/// What is said at once: little enough that a sign of life behind it is not late, and within what control takes as one message.
const PART_BYTES: usize = 32 << 10;
/// After so long without a question, what was kept to answer the next one sooner is given back.
const REST: Duration = Duration::from_secs(60);

/// A member's end of it.
pub(super) struct Lending {
    shelf: Arc<Shelf>,
    /// Which question is being answered, and by whom: files are read for it.
    looking: Option<(u64, JoinHandle<Vec<u8>>)>,
    /// What is still to be said, and to which question.
    saying: Option<(u64, Vec<u8>)>,
    /// When something was asked for last, unless what was kept for the next question was given back since.
    asked: Option<Instant>,
}

impl Lending {
    pub(super) fn of(shelf: Arc<Shelf>) -> Self {
        Self { shelf, looking: None, saying: None, asked: None }
    }

    /// Begins to answer. Whoever asks again does not wait for the answer before: what is left of that is not said.
    pub(super) fn ask(&mut self, ContentWanted { question, release, chunks }: ContentWanted) {
        let shelf = Arc::clone(&self.shelf);
        self.saying = None;
        self.looking = Some((question, spawn_blocking(move || shelf.lend(release, &chunks))));
        self.asked = Some(Instant::now());
    }

    /// Nobody waits for an answer any more.
    pub(super) fn forget(&mut self) {
        (self.looking, self.saying) = (None, None);
    }

    /// What is to be said next; never, where nothing is. Nothing is lost where this is given up before it returns.
    pub(super) async fn next(&mut self) -> ContentLent {
        if let Some((question, look)) = &mut self.looking {
            // Where it ends early, this member has nothing to lend.
            let found = look.await.unwrap_or_default();
            self.saying = Some((*question, found));
            self.looking = None;
        }
        match self.saying.take() {
            None => pending().await,
            Some((question, mut part)) => {
                let rest = part.split_off(part.len().min(PART_BYTES));
                let is_last = rest.is_empty();
                self.saying = (!is_last).then_some((question, rest));
                ContentLent { question, part, is_last }
            }
        }
    }

    /// Gives memory back where nothing was asked for a while.
    pub(super) fn rest(&mut self) {
        if self.asked.is_some_and(|asked| asked.elapsed() >= REST) {
            self.asked = None;
            self.shelf.rest();
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_core::ids::{ChunkId, ReleaseId};
    use baton_release::releases::ReleasesDir;

    use super::*;

    fn wanted(question: u64) -> ContentWanted {
        let chunks = vec![ChunkId::of(b"nowhere")];
        ContentWanted { question, release: ReleaseId::from_bytes([7; 32]), chunks }
    }

    #[tokio::test]
    async fn an_answer_is_said_in_parts_and_what_is_asked_next_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Arc::new(Shelf::new(Arc::new(ReleasesDir::open(dir.path()).unwrap())));
        let mut lending = Lending::of(shelf);
        let content: Vec<u8> = (0..PART_BYTES * 2 + 1).map(|n| n as u8).collect();
        lending.saying = Some((1, content.clone()));
        let mut heard = Vec::new();
        for last in [false, false, true] {
            let ContentLent { question, part, is_last } = lending.next().await;
            assert_eq!((question, is_last), (1, last));
            heard.extend(part);
        }
        assert_eq!(heard, content);
        lending.saying = Some((1, content));
        lending.next().await;
        lending.ask(wanted(2));
        // It has nothing, and says so.
        assert_eq!(lending.next().await, ContentLent { question: 2, part: Vec::new(), is_last: true });
        lending.ask(wanted(3));
        lending.forget();
        assert!(lending.looking.is_none() && lending.saying.is_none());
    }
}
