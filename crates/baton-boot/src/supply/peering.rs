//! What members of a service give each other: this member's door, and the way of a release to its disk through those of others.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use baton_core::ids::{MemberId, ReleaseId, ServiceName};
use baton_core::units::Bytes;
use baton_release::fetch::{FetchError, Fetched};
use baton_release::pace::Pace;
use baton_release::peers::{Keyring, PeerServer, Peers, Shelf, Tally};
use baton_release::remote::Remote;

use crate::config::{Control, PeerSettings};
use crate::log;

/// How many bytes a second a member gives others where nothing else is said: half of what a gigabit takes.
const RATE_DEFAULT: Bytes = Bytes(64 << 20);

/// A member that gives others what it has, and asks them.
pub struct Peering {
    shelf: Arc<Shelf>,
    keys: Arc<Keyring>,
    address: SocketAddr,
    service: ServiceName,
    member: MemberId,
    seed: u64,
}

impl Peering {
    /// Takes the address, and answers there once the runtime has begun: the first program is launched before there are threads.
    pub(super) fn open(settings: &PeerSettings, control: &Control, shelf: Arc<Shelf>) -> io::Result<Self> {
        let keys = Arc::new(Keyring::default());
        let rate = settings.limit.unwrap_or(RATE_DEFAULT);
        let server = PeerServer::bind(&settings.address, rate, Arc::clone(&shelf), Arc::clone(&keys))?;
        let address = server.address();
        tokio::spawn(async {
            if let Err(error) = server.start() {
                log::say(format_args!("nothing is given to other members: {error}"));
            }
        });
        let (service, member) = (control.service.clone(), control.member.clone());
        Ok(Self { shelf, keys, address, service, member, seed: fastrand::u64(..) })
    }

    /// Where others may ask.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the keys go that control tells.
    pub fn keys(&self) -> Arc<Keyring> {
        Arc::clone(&self.keys)
    }

    /// Fetches a release, and asks meanwhile which other members may have it, who are asked for it first.
    pub(super) fn fetch(
        &self,
        release: ReleaseId,
        (remote, pace): (&Remote, &Pace),
        fetch: impl FnOnce(Option<&Peers<'_>>) -> Result<Fetched, FetchError>,
    ) -> Result<Fetched, FetchError> {
        let _awaited = self.shelf.awaits(release);
        // Where it is there, nothing will be fetched, as far as it can be seen.
        let Some(key) = self.keys.newest().filter(|_| !self.shelf.has(release)) else { return fetch(None) };
        // Who cannot be told whom to ask, asks the store.
        let ask = || remote.peers(release, &self.service, &self.member).unwrap_or_default();
        let (fetched, Tally { bytes, failed }) =
            Peers::asking(ask, (release, key, self.seed, pace), |peers| (fetch(Some(peers)), peers.tally()));
        for (peer, why) in failed {
            log::say(format_args!(
                "the member at {peer} is not asked for release {}: {why}",
                release.short()
            ));
        }
        if bytes > 0 {
            log::say(format_args!("{bytes} bytes of release {} came from other members", release.short()));
        }
        fetched
    }
}
