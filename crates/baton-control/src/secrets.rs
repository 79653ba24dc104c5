//! Secrets that control resolves: which versions are current, for who makes a release, and the values, for members of the
//! service that such a release was deployed to. A value is in memory for a minute, and on its way over a session.

mod allowed;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use baton_core::access::NotAllowed;
use baton_core::ids::{ReleaseId, ServiceName};
use baton_core::run::secrets::{Aws, Lacking, Pinned, Reference, Secret, Secrets};
use baton_release::manifest::{self, Known};
use baton_release::store::Custody;
use baton_store::secrets::{SecretError, SecretSource};
use tokio::sync::{OnceCell, watch};
use tokio::task::spawn_blocking;

use crate::board::Board;
use crate::chain::chain;

pub(crate) use self::allowed::Allowed;
pub use self::allowed::AllowedError;

/// Of how many releases it is remembered which secrets they have: more than are rolled out at a time. All members of a
/// phase ask for the same.
const RELEASES_MAX: usize = 64;

/// Where members and operators ask.
#[derive(Clone)]
pub(crate) struct Desk {
    source: Arc<SecretSource>,
    board: watch::Receiver<Arc<Board>>,
    artefacts: Arc<dyn Custody>,
    /// Which service may have which; none where each may have all.
    allowed: Option<Arc<Allowed>>,
    /// Each is read by one, for all who ask: a manifest may be long. Nobody waits for that of another release.
    known: Arc<Mutex<BTreeMap<ReleaseId, Place>>>,
}

/// Where it is remembered what a release says of its secrets, once that was read.
type Place = Arc<OnceCell<Arc<Wanted>>>;

/// What a release says of its secrets.
struct Wanted {
    service: ServiceName,
    secrets: Secrets,
}

impl Desk {
    pub(crate) fn new(
        source: SecretSource,
        allowed: Option<Allowed>,
        board: watch::Receiver<Arc<Board>>,
        artefacts: Arc<dyn Custody>,
    ) -> Self {
        let allowed = allowed.map(Arc::new);
        Self { source: Arc::new(source), board, artefacts, allowed, known: Arc::default() }
    }

    /// Whether there is a list of which service may have which.
    pub(crate) const fn has_list(&self) -> bool {
        self.allowed.is_some()
    }

    /// What somebody has to do about that list, if anything.
    pub(crate) fn warning(&self, all: bool) -> Option<String> {
        self.allowed.as_ref()?.warning(all)
    }

    /// Whether a service may have all of these.
    ///
    /// # Errors
    /// The first that it may not have, and why.
    pub(crate) fn check<'a>(
        &self,
        service: &ServiceName,
        references: impl IntoIterator<Item = &'a Reference>,
    ) -> Result<(), NotAllowed> {
        self.allowed.as_ref().map_or(Ok(()), |allowed| allowed.check(service, references))
    }

    /// Which versions of these values are current, in their order; or the index of one that is not to be had, and why.
    pub(crate) async fn versions(
        &self,
        wanted: &[&Aws],
    ) -> Result<Vec<Option<String>>, (usize, Arc<SecretError>)> {
        self.source.versions(wanted).await
    }

    /// The values of a release for a member of this service, or why it gets none.
    pub(crate) async fn values(
        &self,
        service: &ServiceName,
        release: ReleaseId,
    ) -> Result<Vec<(Reference, Secret)>, String> {
        // Who may push may not read secrets by that: somebody must have deployed it.
        let board = Arc::clone(&self.board.borrow());
        if board.unread {
            return Err("control waits for its state store".to_owned());
        }
        if !was_deployed(&board, service, release) {
            return Err(format!("release {} was never deployed to {service}", release.short()));
        }
        let wanted = self.wanted(release).await?;
        if wanted.service != *service {
            return Err(format!("release {} was not made for {service}", release.short()));
        }
        let secrets = &wanted.secrets;
        // Also of what was deployed before the list was there, or was changed.
        let references = secrets.pinned().map(|pinned| &pinned.reference);
        self.check(service, references).map_err(|error| error.to_string())?;
        let pinned: Vec<Pinned> = secrets.pinned().cloned().collect();
        self.source.values(&pinned).await.map_err(|(reference, error)| {
            let name = secrets.env.iter().find(|(_, pinned)| pinned.reference == reference);
            Lacking::of(name.map(|(name, _)| name.as_str()), &reference, chain(&*error)).to_string()
        })
    }

    /// What a release says of its secrets: it never changes.
    async fn wanted(&self, release: ReleaseId) -> Result<Arc<Wanted>, String> {
        let known = self.place(release);
        known.get_or_try_init(|| self.read(release)).await.cloned()
    }

    fn place(&self, release: ReleaseId) -> Place {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= RELEASES_MAX && !known.contains_key(&release) {
            known.clear();
        }
        Arc::clone(known.entry(release).or_default())
    }

    async fn read(&self, release: ReleaseId) -> Result<Arc<Wanted>, String> {
        let artefacts = Arc::clone(&self.artefacts);
        let read = spawn_blocking(move || manifest::read(release, &*artefacts, Known::default())).await;
        let manifest = read
            .map_err(|_| "the server is stopping".to_owned())?
            .map_err(|error| format!("control cannot read release {}: {}", release.short(), chain(&error)))?;
        Ok(Arc::new(Wanted { service: manifest.service, secrets: manifest.run.secrets }))
    }
}

fn was_deployed(board: &Board, service: &ServiceName, release: ReleaseId) -> bool {
    let posted = board.services.get(service);
    posted.is_some_and(|posted| {
        posted.service.history().past().iter().any(|past| past.deploy.release == release)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use baton_release::store::interrupted::Interrupted;
    use baton_release::store::memory::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn p30_who_asks_for_the_secrets_of_a_release_does_not_wait_for_another_that_is_read() {
        let held = Arc::new(Barrier::new(2));
        let holds = Arc::clone(&held);
        let hold = move || {
            // It is read now; and until the test is done with it.
            holds.wait();
            holds.wait();
        };
        let artefacts = Arc::new(Interrupted::new(Arc::new(MemoryStore::new()), 1, hold));
        let (_board, board) = watch::channel(Arc::default());
        let desk = Desk::new(SecretSource::new([]).unwrap(), None, board, artefacts.clone());
        let pass = || {
            let held = Arc::clone(&held);
            spawn_blocking(move || held.wait())
        };
        let slow = tokio::spawn({
            let desk = desk.clone();
            async move { desk.wanted(ReleaseId::from_bytes([1; 32])).await.map(drop) }
        });
        pass().await.unwrap();
        let other = desk.wanted(ReleaseId::from_bytes([2; 32]));
        let other = tokio::time::timeout(Duration::from_secs(30), other).await;
        pass().await.unwrap();
        assert!(other.expect("an answer").is_err_and(|why| why.contains("control cannot read release 0202")));
        assert!(slow.await.unwrap().is_err());
        assert_eq!(artefacts.calls(), 2);
    }
}
