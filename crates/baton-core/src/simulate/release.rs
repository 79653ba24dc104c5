//! Releases of a simulation, and what is wrong with them.

use core::fmt;
use core::str::FromStr;

use crate::bake::{Bake, TRAFFIC_PATIENCE};
use crate::ids::ReleaseId;
use crate::units::{Millis, Share};

/// How many releases there can be, and one more: they are numbered from 1 by one digit.
pub(super) const RELEASES: usize = 10;

/// A release: `r1` runs everywhere at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(u8);

impl Release {
    /// What runs everywhere at the start.
    pub const OLD: Self = Self(1);
    /// What is deployed, where nothing else is named.
    pub const NEW: Self = Self(2);
    /// Something else.
    pub const OTHER: Self = Self(3);

    pub(super) const fn id(self) -> ReleaseId {
        ReleaseId::from_bytes([self.0; 32])
    }

    pub(super) const fn of(id: ReleaseId) -> Self {
        Self(id.as_bytes()[0])
    }

    /// Its place in a list of [`RELEASES`].
    pub(super) fn index(self) -> usize {
        usize::from(self.0).min(RELEASES - 1)
    }

    /// Its bit in a set of releases.
    pub(super) fn bit(self) -> u16 {
        1 << self.index()
    }
}

impl FromStr for Release {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.as_bytes() {
            [b'r', digit @ b'1'..=b'9'] => Ok(Self(digit - b'0')),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// How a program behaves, whatever release it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// How long a member fetches a release, at the least and at the most.
    pub fetch: (Millis, Millis),
    /// How long a start takes.
    pub start: (Millis, Millis),
    /// How long it takes to launch again what ran before.
    pub relaunch: (Millis, Millis),
    /// How many connections a member accepts in a second; none where there are always enough.
    pub traffic: Option<u32>,
}

impl Program {
    /// One that is quick and uneven.
    pub const QUICK: Self = Self {
        fetch: (Millis(50), Millis::from_secs(3)),
        start: (Millis(300), Millis::from_secs(3)),
        relaunch: (Millis(300), Millis::from_secs(2)),
        traffic: None,
    };

    /// One whose starts take about so long, a fifth more or less, and fetches at most so long.
    pub fn starting_in(start: Millis, fetch: Millis) -> Self {
        let about = (Millis(start.0 - start.0 / 5), Millis(start.0.saturating_add(start.0 / 5)));
        Self { fetch: (Millis::ZERO, fetch), start: about, relaunch: about, traffic: None }
    }

    /// How long a member bakes.
    pub(super) fn bakes_for(&self, bake: Bake) -> Millis {
        let Some(traffic) = self.traffic.filter(|_| bake.connections > 0) else { return bake.time };
        let most = bake.time + TRAFFIC_PATIENCE;
        let connected = (u64::from(bake.connections) * 1000).checked_div(u64::from(traffic));
        connected.map_or(most, |connected| bake.time.max(Millis(connected).min(most)))
    }
}

/// What is wrong with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flaws {
    /// How many of its starts crash.
    pub crashes: Share,
    /// How long after the switch it crashes, if it does.
    pub crashes_after: Option<Millis>,
    /// How much longer than others it takes to start, in percent.
    pub slower: u32,
    /// How much more memory it uses, in percent.
    pub larger: u32,
}

impl Flaws {
    /// Nothing.
    pub const NONE: Self = Self { crashes: Share::NONE, crashes_after: None, slower: 0, larger: 0 };
}
