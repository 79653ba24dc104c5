//! What a release must go through after the switch to count as proven.

use core::fmt;

use crate::units::Millis;

/// How much longer than its time a bake lasts at the most, where connections are missing: a service that nobody uses for now is
/// not to be kept from its releases.
pub const TRAFFIC_PATIENCE: Millis = Millis::from_secs(5 * 60);

/// How a generation bakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bake {
    /// How long it must stay healthy.
    pub time: Millis,
    /// How many connections it must have accepted, unless there are none to be had for [`TRAFFIC_PATIENCE`] more.
    pub connections: u32,
}

impl Bake {
    /// None at all.
    pub const NONE: Self = Self { time: Millis::ZERO, connections: 0 };
}

impl From<Millis> for Bake {
    /// So long, whoever connects.
    fn from(time: Millis) -> Self {
        Self { time, connections: 0 }
    }
}

impl fmt::Display for Bake {
    /// `5 s`, or `5 s and 20 connections`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.connections {
            0 => self.time.fmt(f),
            1 => write!(f, "{} and a connection", self.time),
            connections => write!(f, "{} and {connections} connections", self.time),
        }
    }
}
