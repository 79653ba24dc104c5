//! From where releases come to this member's disk: its host's cache, other members, mirrors, the store.

mod coming;
mod confined;
mod peering;

use std::sync::Arc;

use baton_core::ids::ReleaseId;
use baton_core::report::Fetching;
use baton_release::cache::Cache;
use baton_release::control::Control as Server;
use baton_release::fetch::{FetchError, Fetched, fetch_if};
use baton_release::nearest::Nearest;
use baton_release::pace::Pace;
use baton_release::peers::{Peers, Shelf};
use baton_release::releases::ReleasesDir;
use baton_release::remote::Remote;

use self::coming::Coming;
use self::confined::Confinement;
pub use self::peering::Peering;
use crate::config::Control;
use crate::log;

/// Where releases come from.
pub struct Supply {
    remote: Remote,
    pace: Arc<Pace>,
    cache: Option<Cache>,
    peering: Option<Peering>,
    releases: Arc<ReleasesDir>,
    shelf: Arc<Shelf>,
    confinement: Confinement,
}

impl Supply {
    /// As the settings say. What cannot be had is told, and done without.
    pub fn open(control: &Control, server: Arc<Server>, releases: Arc<ReleasesDir>) -> Self {
        let settings = &control.supply;
        let pace = Arc::new(settings.limit.map_or_else(Pace::unlimited, Pace::of));
        let cache = settings.cache.as_ref().and_then(|cache| {
            let opened = Cache::open(&cache.path, cache.limit);
            opened
                .inspect_err(|error| log::say(format_args!("no cache is shared: {}", log::chain(error))))
                .ok()
        });
        let shelf = Arc::new(Shelf::new(Arc::clone(&releases)));
        let peering = settings.peers.as_ref().and_then(|peers| {
            let opened = Peering::open(peers, control, Arc::clone(&shelf));
            let sorry = |error: &_| {
                log::say(format_args!("nothing is given to or taken from other members: {error}"));
            };
            opened.inspect_err(sorry).ok()
        });
        let remote = Remote::of(server).at(Arc::clone(&pace)).behind(settings.mirrors.clone());
        let cache_dir = settings.cache.as_ref().filter(|_| cache.is_some()).map(|cache| cache.path.clone());
        let confinement = Confinement::to(std::iter::once(releases.dir().to_owned()).chain(cache_dir));
        Self { remote, pace, cache, peering, releases, shelf, confinement }
    }

    /// The store itself.
    pub const fn remote(&self) -> &Remote {
        &self.remote
    }

    /// What this member has to give, to others and to control.
    pub fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf)
    }

    /// What this member has to do with others, if anything.
    pub const fn peering(&self) -> Option<&Peering> {
        self.peering.as_ref()
    }

    /// Brings a release to disk, if it is `allowed`, from the nearest that has it. `tell` hears now and then how much of it has come.
    pub fn fetch(
        &self,
        release: ReleaseId,
        allowed: &(dyn Fn() -> bool + Sync),
        tell: impl Fn(Fetching) + Sync + Send,
    ) -> Result<Fetched, FetchError> {
        let fetched = self.confinement.run(|| self.through_peers(release, allowed, &Coming::new(tell)));
        for (mirror, why) in self.remote.take_troubles() {
            log::say(format_args!("the mirror {mirror} is not asked for a minute: {why}"));
        }
        fetched
    }

    fn through_peers<T: Fn(Fetching) + Sync>(
        &self,
        release: ReleaseId,
        allowed: &(dyn Fn() -> bool + Sync),
        coming: &Coming<T>,
    ) -> Result<Fetched, FetchError> {
        let fetch = |peers: Option<&Peers<'_>>| {
            let nearest = Nearest::new(&self.remote, self.cache.as_ref(), peers);
            fetch_if(release, &nearest, &self.releases, allowed, &|step| coming.step(step))
        };
        match &self.peering {
            Some(peering) => peering.fetch(release, (&self.remote, &self.pace), fetch),
            None => fetch(None),
        }
    }
}
