//! Removing from a store what nobody needs any more.
//!
//! What that is, [`collection`](baton_core::collection) decides. Here it is found out what is needed, and done what was decided,
//! in an order in which a crash at any moment leaves a store with all that is needed: what is repacked is written first, then
//! releases become unknown, and last their packs go. Writing can be done before, while others push: it only adds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use baton_core::collection::{Fate, Pack};
use baton_core::ids::{ChunkId, PackId, ReleaseId};
use baton_core::release::pack::{Frame, PACK_CHUNKS_MAX};
use baton_core::release::packing::PACK_CONTENT_BYTES;
use baton_core::units::Millis;

use crate::manifest::{self, ManifestError, unpack_outline};
use crate::pack;
use crate::parallel;
use crate::read::ReadError;
use crate::record::Record;
use crate::store::{ArtefactStore, Custody, Kind, StoreError, StoredPack, StoredRecord};

/// Chunks that are needed. What was counted once is not read again.
#[derive(Debug, Default)]
pub struct Needed {
    chunks: HashSet<ChunkId>,
    counted: BTreeSet<ReleaseId>,
    records: BTreeSet<StoredRecord>,
}

impl Needed {
    /// Counts all that a release leads to.
    ///
    /// # Errors
    /// When that cannot be read: then nobody knows what it needs, and nothing may be removed.
    pub fn count_release(&mut self, id: ReleaseId, store: &dyn ArtefactStore) -> Result<(), ManifestError> {
        if !self.counted.contains(&id) {
            let outline = unpack_outline(id, &store.outline(id).map_err(ReadError::from)?)?;
            self.chunks.extend(manifest::leads_to(id, &outline, store)?);
            self.counted.insert(id);
        }
        Ok(())
    }

    /// Counts all that the records of build steps lead to, whoever has kept them.
    ///
    /// # Errors
    /// When that cannot be read: then nobody knows what they need, and nothing may be removed.
    pub fn count_records(&mut self, store: &dyn Custody) -> Result<(), StoreError> {
        let mut new = store.records()?;
        new.retain(|stored| !self.records.contains(stored));
        let found = Mutex::new(Vec::with_capacity(new.len()));
        parallel::for_each(&new, |stored| {
            let text = match store.record(stored.key) {
                Err(error) if error.kind == Kind::Missing => return Ok(()),
                text => text?,
            };
            // What a disk has spoiled is not there.
            let record = Record::parse(&text).map(|record| (*stored, record));
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(record);
            Ok(())
        })?;
        for (stored, record) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.count_record(&record, store)?;
            self.records.insert(stored);
        }
        Ok(())
    }

    /// The same for one of them. One that leads to what is not there any more is worth nothing.
    fn count_record(&mut self, record: &Record, store: &dyn ArtefactStore) -> Result<(), StoreError> {
        if self.counted.contains(&record.id) {
            return Ok(());
        }
        match manifest::leads_to(record.id, &record.outline, store) {
            Ok(chunks) => {
                self.chunks.extend(chunks);
                self.counted.insert(record.id);
                Ok(())
            }
            Err(ManifestError::Read(ReadError::Store(error)))
                if !matches!(error.kind, Kind::Missing | Kind::Corrupt) =>
            {
                Err(error)
            }
            Err(ManifestError::Read(_) | ManifestError::Refused(_)) => Ok(()),
        }
    }

    /// Whether a chunk is needed.
    pub fn has(&self, id: ChunkId) -> bool {
        self.chunks.contains(&id)
    }
}

/// The packs of a store, each with its age.
pub fn packs(store: &dyn Custody) -> Result<Vec<Pack>, StoreError> {
    let now = SystemTime::now();
    let pack = |pack: StoredPack| Pack { id: pack.id, age: age(now, pack.since), index: pack.index };
    Ok(store.packs()?.into_iter().map(pack).collect())
}

/// How long something has been there. What comes from the future is new.
pub fn age(now: SystemTime, since: SystemTime) -> Millis {
    let age = now.duration_since(since).unwrap_or_default();
    Millis(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// Removes these releases, and of these packs what is decided. Nothing may be published meanwhile: `may` is asked before each
/// removal whether that still holds.
///
/// # Errors
/// When it does not, or the store fails, or a frame that is needed is damaged. What was done until then is done, and nothing is lost: the same may
/// be tried again.
pub fn remove(
    store: &dyn Custody,
    releases: &[ReleaseId],
    packs: &[(&Pack, Fate)],
    may: &(dyn Fn() -> Result<(), StoreError> + Sync),
) -> Result<(), StoreError> {
    let written = repack(store, packs)?;
    parallel::for_each(releases, |id| may().and_then(|()| store.remove_release(*id)))?;
    let goes = packs.iter().filter(|(_, fate)| *fate != Fate::Stays).map(|(pack, _)| pack.id);
    // What was written may have had the same content before.
    let goes: Vec<PackId> = goes.filter(|id| !written.contains_key(id)).collect();
    parallel::for_each(&goes, |id| may().and_then(|()| store.remove_pack(*id)))
}

/// Makes sure that what is needed of packs that go, and stays in others, is right there: two copies of a chunk are one too few
/// when the damaged one is kept.
///
/// # Errors
/// When a frame that stays is damaged, or the store fails. Nothing was changed.
pub fn check_copies(store: &dyn Custody, packs: &[(&Pack, Fate)], needed: &Needed) -> Result<(), StoreError> {
    let mut copies: HashSet<ChunkId> = HashSet::new();
    for (pack, fate) in packs {
        let kept: &[usize] = match fate {
            Fate::Stays => continue,
            Fate::Goes => &[],
            Fate::Repacked(kept) => kept,
        };
        let gone = pack.index.frames().iter().enumerate().filter(|(at, _)| !kept.contains(at));
        copies.extend(gone.flat_map(|(_, frame)| &frame.chunks).map(|chunk| chunk.id));
    }
    copies.retain(|id| needed.has(*id));
    for (pack, _) in packs.iter().filter(|(_, fate)| *fate == Fate::Stays) {
        let places = pack.index.places(pack.index.to_text().len());
        for (frame, place) in pack.index.frames().iter().zip(places) {
            if frame.chunks.iter().any(|chunk| copies.contains(&chunk.id)) {
                let packed = store.read(pack.id, place)?;
                let damaged =
                    || StoreError::new(Kind::Corrupt, format!("keep pack {} rather than another", pack.id));
                pack::unpack(frame, &packed).map_err(|damage| damaged().because(damage))?;
            }
        }
    }
    Ok(())
}

/// Writes the frames that shall stay of packs that go, and returns the packs that they are in now, with their lengths in bytes.
pub fn repack(store: &dyn Custody, packs: &[(&Pack, Fate)]) -> Result<BTreeMap<PackId, u64>, StoreError> {
    let mut written = BTreeMap::new();
    let mut frames: Vec<(Frame, Vec<u8>)> = Vec::new();
    let (mut bytes, mut chunks) = (0, 0);
    let mut write = |frames: &mut Vec<(Frame, Vec<u8>)>| {
        if frames.is_empty() {
            return Ok(());
        }
        let pack = pack::join(std::mem::take(frames));
        written.insert(PackId::of(&pack), pack.len() as u64);
        store.put(&pack)
    };
    for (pack, fate) in packs {
        let Fate::Repacked(kept) = fate else { continue };
        let places = pack.index.places(pack.index.to_text().len());
        for at in kept {
            let (frame, place) = (&pack.index.frames()[*at], places[*at].clone());
            if bytes + u64::from(frame.bytes()) > PACK_CONTENT_BYTES
                || chunks + frame.chunks.len() > PACK_CHUNKS_MAX
            {
                write(&mut frames)?;
                (bytes, chunks) = (0, 0);
            }
            let packed = store.read(pack.id, place)?;
            pack::unpack(frame, &packed).map_err(|damage| {
                StoreError::new(Kind::Corrupt, format!("repack {}", pack.id)).because(damage)
            })?;
            (bytes, chunks) = (bytes + u64::from(frame.bytes()), chunks + frame.chunks.len());
            frames.push((frame.clone(), packed));
        }
    }
    write(&mut frames)?;
    Ok(written)
}
