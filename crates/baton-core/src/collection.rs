//! What an artefact store need not keep: what nobody names goes, after a grace period.
//!
//! By reference, never by age alone: a [`named`] release stays however old it is. What stays besides is what was pushed or
//! deployed lately, because whoever pushes names a release only afterwards, and the last few of each service.

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;

use crate::fleet::Fleet;
use crate::history::{History, Tag, TagName};
use crate::ids::{ChunkId, MemberId, PackId, ReleaseId, ServiceName};
use crate::release::pack::Index;
use crate::units::Millis;

/// How many releases of each service stay that nobody names.
pub const KEEP_DEFAULT: usize = 10;
/// How long what was pushed or deployed stays: longer than any push takes, and long enough to be deployed the day after.
pub const GRACE_DEFAULT: Millis = Millis::from_secs(24 * 3600);
/// A pack is repacked when less than this part of it, one in so many bytes, is needed: what is written anew is then at most a third
/// of what becomes free.
const REPACK_PART: u64 = 4;

/// Why a release stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The deploy in force is of it.
    InForce(ServiceName),
    /// Where the service goes back to, or what a new member of it starts.
    WayBack(ServiceName),
    /// The deploy before the one in force is of it.
    Parent(ServiceName),
    /// Somebody has given it this name.
    Tagged(ServiceName, TagName),
    /// It runs or stands by there, or is what that member starts by itself.
    Member(ServiceName, MemberId),
    /// It is one of the last of its service.
    Last,
    /// It was pushed or deployed a moment ago.
    Young,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InForce(service) => write!(f, "in force in {service}"),
            Self::WayBack(service) => write!(f, "where {service} goes back to"),
            Self::Parent(service) => write!(f, "was in force in {service} before"),
            Self::Tagged(service, tag) => write!(f, "tagged {tag} in {service}"),
            Self::Member(service, member) => write!(f, "{member} of {service} has it"),
            Self::Last => f.write_str("one of the last of its service"),
            Self::Young => f.write_str("pushed or deployed within the grace period"),
        }
    }
}

/// What a service names, the most important reason first. A release may be named more than once.
pub fn named(history: &History, fleet: &Fleet) -> Vec<(ReleaseId, Why)> {
    let service = || history.service().clone();
    let mut named = Vec::new();
    if let Some(deploy) = history.in_force() {
        named.push((deploy.release, Why::InForce(service())));
        let parent = deploy.parent.and_then(|parent| history.find(parent));
        for deploy in [Some(deploy), parent].into_iter().flatten() {
            named.extend(deploy.fallback.map(|release| (release, Why::WayBack(service()))));
            let signed = deploy.warrant.as_ref().map(|signed| &signed.of);
            let allowed = signed.into_iter().flat_map(|warrant| [Some(warrant.release), warrant.fallback]);
            named.extend(allowed.flatten().map(|release| (release, Why::WayBack(service()))));
        }
        named.extend(parent.map(|parent| (parent.release, Why::Parent(service()))));
    }
    named.extend(history.release_for_new_member().map(|release| (release, Why::WayBack(service()))));
    let tagged = |(name, tag): (&TagName, &Tag)| (tag.release, Why::Tagged(service(), name.clone()));
    named.extend(history.tags().iter().map(tagged));
    for (id, member) in fleet.members() {
        let Some(report) = member.report() else { continue };
        let committed = report.committed.map(|(release, _)| release);
        let has = [report.running, committed, report.standby].into_iter().flatten();
        named.extend(has.map(|release| (release, Why::Member(service(), id.clone()))));
    }
    named
}

/// A release in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Which.
    pub release: ReleaseId,
    /// Whose; nothing where its manifest cannot be read.
    pub service: Option<ServiceName>,
    /// How long ago it was last pushed or deployed.
    pub idle: Millis,
}

/// How much stays that nobody names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The last so many releases of each service.
    pub keep: usize,
    /// Everything that is younger.
    pub grace: Millis,
}

impl Default for Rules {
    fn default() -> Self {
        Self { keep: KEEP_DEFAULT, grace: GRACE_DEFAULT }
    }
}

/// Why each release stays; nothing for one that may go.
pub fn releases(
    stored: &[Stored],
    named: &[(ReleaseId, Why)],
    rules: Rules,
) -> BTreeMap<ReleaseId, Option<Why>> {
    let mut reasons: BTreeMap<ReleaseId, &Why> = BTreeMap::new();
    for (release, why) in named {
        reasons.entry(*release).or_insert(why);
    }
    let mut by_service: BTreeMap<&ServiceName, Vec<&Stored>> = BTreeMap::new();
    for stored in stored {
        if let Some(service) = &stored.service {
            by_service.entry(service).or_default().push(stored);
        }
    }
    let mut last = BTreeSet::new();
    for all in by_service.values_mut() {
        all.sort_by_key(|stored| (stored.idle, stored.release));
        last.extend(all.iter().take(rules.keep).map(|stored| stored.release));
    }
    let why = |stored: &Stored| match reasons.get(&stored.release) {
        Some(&why) => Some(why.clone()),
        None if stored.idle < rules.grace => Some(Why::Young),
        None => last.contains(&stored.release).then_some(Why::Last),
    };
    stored.iter().map(|stored| (stored.release, why(stored))).collect()
}

/// A pack in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// Which.
    pub id: PackId,
    /// What lies in it.
    pub index: Index,
    /// How long it has been there.
    pub age: Millis,
}

/// What becomes of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Stays,
    /// Nobody needs any of it.
    Goes,
    /// It goes when these of its frames lie elsewhere.
    Repacked(Vec<usize>),
}

/// What becomes of each pack, when these chunks are needed. What is needed and lies in several packs stays in one of them.
///
/// A young pack stays: a push brings packs first, and the release that needs them last.
pub fn packs(packs: &[Pack], is_needed: impl Fn(ChunkId) -> bool, grace: Millis) -> Vec<(&Pack, Fate)> {
    let needed_bytes = |pack: &Pack| {
        let chunks = pack.index.frames().iter().flat_map(|frame| &frame.chunks);
        chunks.filter(|chunk| is_needed(chunk.id)).map(|chunk| u64::from(chunk.bytes)).sum::<u64>()
    };
    let mut order: Vec<&Pack> = packs.iter().collect();
    // What stays anyway first, then what holds most of what is needed and least beside it.
    order.sort_by_cached_key(|pack| {
        (pack.age >= grace, Reverse(needed_bytes(pack)), pack.index.packed(), pack.id)
    });
    let mut elsewhere: BTreeSet<ChunkId> = BTreeSet::new();
    let mut fates = Vec::with_capacity(order.len());
    for pack in order {
        let frames = pack.index.frames();
        let lacking = |at: &usize| {
            frames[*at].chunks.iter().any(|chunk| is_needed(chunk.id) && !elsewhere.contains(&chunk.id))
        };
        let kept: Vec<usize> = (0..frames.len()).filter(lacking).collect();
        let kept_bytes: u64 = kept.iter().map(|at| u64::from(frames[*at].packed)).sum();
        let fate = match (pack.age >= grace, kept.is_empty()) {
            (false, _) => Fate::Stays,
            (true, true) => Fate::Goes,
            (true, false) if kept_bytes * REPACK_PART < pack.index.packed() => Fate::Repacked(kept),
            (true, false) => Fate::Stays,
        };
        let there = match &fate {
            Fate::Stays => (0..frames.len()).collect(),
            Fate::Goes => Vec::new(),
            Fate::Repacked(kept) => kept.clone(),
        };
        elsewhere.extend(there.iter().flat_map(|at| &frames[*at].chunks).map(|chunk| chunk.id));
        fates.push((pack, fate));
    }
    fates
}
