//! Servers that have a copy of a store's packs and are nearer than it: asked first, and never needed.
//!
//! A mirror answers `GET BASE/packs/ID` with ranges, as any web server does over a copy of a store's folder, or a cache in front
//! of its bucket. Nothing that it sends is believed, and one that fails is left alone for a while.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use baton_core::release::grant::{Grant, GrantedPack};
use baton_core::release::pack::Frame;
use ureq::Agent;

use super::DETOUR;
use super::ranges::Reader;
use crate::chain::chain;
use crate::pace::Pace;
use crate::pack::{self, PackError};
use crate::store::{Kind, StoreError};

/// Mirrors, nearest first.
#[derive(Default)]
pub(super) struct Mirrors(Vec<Mirror>);

struct Mirror {
    base: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Until when it is not asked.
    away: Option<Instant>,
    /// Why, until somebody has heard it.
    why: Option<String>,
}

/// Why a mirror is not asked for a while.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("what it sends is refused")]
    Pack(#[from] PackError),
}

impl Mirrors {
    /// With these addresses, nearest first.
    pub(super) fn new(bases: Vec<String>) -> Self {
        let mirror = |base| Mirror { base, state: Mutex::default() };
        Self(bases.into_iter().map(mirror).collect())
    }

    /// There is none that would be asked now.
    pub(super) fn are_away(&self) -> bool {
        self.0.iter().all(Mirror::is_away)
    }

    /// The frames of a grant from the first mirror that has all of them as they should be.
    pub(super) fn frames(&self, agent: &Agent, pace: &Pace, grant: &Grant) -> Option<Vec<(Frame, Vec<u8>)>> {
        self.0.iter().filter(|mirror| !mirror.is_away()).find_map(|mirror| {
            match mirror.frames(agent, pace, grant) {
                Ok(frames) => Some(frames),
                // It has not got it yet.
                Err(Failed::Store(error)) if error.kind == Kind::Missing => None,
                Err(error) => {
                    let mut state = mirror.lock();
                    (state.away, state.why) = (Some(Instant::now() + DETOUR), Some(chain(&error)));
                    None
                }
            }
        })
    }

    /// Who is not asked for a while since this was asked last, and why.
    pub(super) fn take_troubles(&self) -> Vec<(String, String)> {
        let why = |mirror: &Mirror| Some((mirror.base.clone(), mirror.lock().why.take()?));
        self.0.iter().filter_map(why).collect()
    }
}

impl Mirror {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_away(&self) -> bool {
        self.lock().away.is_some_and(|until| Instant::now() < until)
    }

    fn frames(&self, agent: &Agent, pace: &Pace, grant: &Grant) -> Result<Vec<(Frame, Vec<u8>)>, Failed> {
        let here = |pack: &GrantedPack| GrantedPack {
            url: format!("{}/packs/{}", self.base, pack.id),
            ..pack.clone()
        };
        let grant = Grant { packs: grant.packs.iter().map(here).collect() };
        // The store is there: nothing is tried twice here.
        let frames = Reader { agent, here: None, base: &self.base, pace, pauses: &[] }.frames(&grant)?;
        frames.iter().try_for_each(|(frame, packed)| pack::unpack(frame, packed).map(drop))?;
        Ok(frames)
    }
}
