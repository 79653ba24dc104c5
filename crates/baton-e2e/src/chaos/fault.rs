//! What is broken on purpose, for how long, and how often.

use baton_core::units::Millis;

/// What is broken. Servers and members are meant by their number, from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A server of control is killed, and started again at the end.
    ServerKilled(usize),
    /// One is stopped as a whole, and goes on at the end as if nothing had been.
    ServerPaused(usize),
    /// All of them are killed, and started again at the end.
    AllServersKilled,
    /// What a server sends trickles, and what is too much waits or is lost.
    ServerSlow(usize),
    /// The Redis that takes writes is killed, and started again at the end.
    PrimaryKilled,
    /// The same when its replicas have heard nothing of it for a while.
    PrimaryKilledAhead,
    /// It is stopped as a whole, and goes on at the end, believing to be the primary.
    PrimaryPaused,
    /// It is cut off from its replicas, the Sentinel and all servers but this one.
    PrimaryApart(usize),
    /// The artefact store is cut off from everybody.
    StoreGone,
    /// These members are cut off from control and the artefact store. Their clients reach them.
    Apart(Vec<usize>),
    /// These hear nothing from there, and are heard.
    Deaf(Vec<usize>),
    /// These are not heard there, and hear.
    Mute(Vec<usize>),
    /// These are cut off one after the other, and let back in another order.
    OneByOne {
        /// In which order they are cut off.
        cut: Vec<usize>,
        /// In which order they are let back.
        back: Vec<usize>,
    },
    /// A fifth of what these and control say to each other is lost.
    Lossy(Vec<usize>),
    /// A member's bootloader and all that runs under it is killed, and started again at the end.
    MemberKilled(usize),
}

/// The sort of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are those of `Fault`")]
pub enum Kind {
    ServerKilled,
    ServerPaused,
    AllServersKilled,
    ServerSlow,
    PrimaryKilled,
    PrimaryKilledAhead,
    PrimaryPaused,
    PrimaryApart,
    StoreGone,
    Apart,
    Deaf,
    Mute,
    OneByOne,
    Lossy,
    MemberKilled,
}

impl Kind {
    /// Those of control and its stores, one at a time.
    pub const OF_CONTROL: [Self; 9] = [
        Self::ServerKilled,
        Self::ServerPaused,
        Self::AllServersKilled,
        Self::ServerSlow,
        Self::PrimaryKilled,
        Self::PrimaryKilledAhead,
        Self::PrimaryPaused,
        Self::PrimaryApart,
        Self::StoreGone,
    ];
    /// Those of members and the way to them, one at a time, beside those of control.
    pub const OF_MEMBERS: [Self; 6] =
        [Self::Apart, Self::Deaf, Self::Mute, Self::OneByOne, Self::Lossy, Self::MemberKilled];

    /// How long it lasts, at the least and at the most. A lease is 10 s: what takes members or servers away does so for less
    /// and for more.
    pub const fn lasts(self) -> (Millis, Millis) {
        let (least, most) = match self {
            Self::ServerKilled => (1, 6),
            Self::ServerPaused => (4, 20),
            Self::AllServersKilled => (8, 22),
            Self::ServerSlow | Self::Lossy => (8, 18),
            Self::PrimaryKilled | Self::PrimaryKilledAhead => (3, 8),
            Self::PrimaryPaused => (2, 9),
            Self::PrimaryApart => (5, 15),
            Self::StoreGone => (8, 22),
            Self::Apart => (6, 28),
            Self::Deaf | Self::Mute => (5, 18),
            Self::OneByOne => (6, 14),
            Self::MemberKilled => (1, 12),
        };
        (Millis::from_secs(least), Millis::from_secs(most))
    }

    /// What happens, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::ServerKilled => "a server killed, and started again",
            Self::ServerPaused => "a server stopped (STOP), which goes on later",
            Self::AllServersKilled => "all servers killed, and started again",
            Self::ServerSlow => "a server that can send 32 kB/s, 2 s late",
            Self::PrimaryKilled => "the primary of Redis killed; the Sentinel promotes a replica",
            Self::PrimaryKilledAhead => "the same, with replicas that have not heard of it for a while",
            Self::PrimaryPaused => "the primary of Redis stopped (STOP), which goes on later",
            Self::PrimaryApart => "the primary of Redis cut off, together with one server",
            Self::StoreGone => "the artefact store cut off from everybody",
            Self::Apart => "half of the members cut off from control and store",
            Self::Deaf => "half of the members hear nothing from there",
            Self::Mute => "half of the members are not heard there",
            Self::OneByOne => "members cut off one by one, and let back in another order",
            Self::Lossy => "a fifth of the packets between control and half of the members lost",
            Self::MemberKilled => "a member killed, bootloader and all, and started again",
        }
    }

    /// The rows of the table of faults that it shows.
    pub const fn rows(self) -> &'static str {
        match self {
            Self::ServerKilled => "F49",
            Self::ServerPaused => "F51",
            Self::AllServersKilled => "F50",
            Self::ServerSlow | Self::Lossy => "F54",
            Self::PrimaryKilled | Self::PrimaryKilledAhead => "F63",
            Self::PrimaryPaused => "F65",
            Self::PrimaryApart => "F69",
            Self::StoreGone => "F71",
            Self::Apart | Self::Deaf | Self::Mute => "F52",
            Self::OneByOne => "F55",
            Self::MemberKilled => "F115",
        }
    }
}

impl Fault {
    /// Its sort.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::ServerKilled(_) => Kind::ServerKilled,
            Self::ServerPaused(_) => Kind::ServerPaused,
            Self::AllServersKilled => Kind::AllServersKilled,
            Self::ServerSlow(_) => Kind::ServerSlow,
            Self::PrimaryKilled => Kind::PrimaryKilled,
            Self::PrimaryKilledAhead => Kind::PrimaryKilledAhead,
            Self::PrimaryPaused => Kind::PrimaryPaused,
            Self::PrimaryApart(_) => Kind::PrimaryApart,
            Self::StoreGone => Kind::StoreGone,
            Self::Apart(_) => Kind::Apart,
            Self::Deaf(_) => Kind::Deaf,
            Self::Mute(_) => Kind::Mute,
            Self::OneByOne { .. } => Kind::OneByOne,
            Self::Lossy(_) => Kind::Lossy,
            Self::MemberKilled(_) => Kind::MemberKilled,
        }
    }
}
