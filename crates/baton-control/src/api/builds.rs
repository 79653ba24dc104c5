//! Where the outputs of build steps are: records that are kept under the step's key.
//!
//! The outputs themselves are chunks in the artefact store. A record is no promise: when chunks of it are gone, whoever asked
//! runs the step. As with the artefact store, a refusal is one line of text.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Extension, Path as Part, State};
use baton_core::access::Scope;
use baton_core::ids::BuildKey;
use baton_release::disk::{self, DiskError, failed};
use baton_release::manifest::pack_outline;
use baton_release::record::{RECORD_BYTES_MAX, Record};
use baton_release::store::{self, ArtefactStore, Kind, Seen, StoreError};

use super::artefacts::Line;
use super::{Shared, blocking};
use crate::access::Caller;

/// Most records that are kept: years of one that is made anew every hour. The oldest go first.
const RECORDS_MAX: usize = 20_000;

/// The folder with the records.
#[derive(Clone)]
pub(crate) struct Records(Arc<PathBuf>);

impl Records {
    /// Those in this folder, which is made if it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, DiskError> {
        fs::create_dir_all(dir).map_err(failed("create", dir))?;
        Ok(Self(Arc::new(dir.to_owned())))
    }

    fn get(&self, key: BuildKey) -> Result<String, StoreError> {
        let error = |kind| StoreError::new(kind, format!("read the outputs of build {key}"));
        match fs::read_to_string(self.0.join(key.to_string())) {
            // What a disk has spoiled is not there.
            Ok(text) if Record::parse(&text).is_some() => Ok(text),
            Ok(_) => Err(error(Kind::Missing)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(error(Kind::Missing)),
            Err(cause) => Err(error(Kind::Unavailable).because(cause)),
        }
    }

    /// All that are kept. What a disk has spoiled is not there.
    ///
    /// # Errors
    /// When that is not known: then nobody may count on there being no others.
    pub(super) fn all(&self) -> Result<Vec<Record>, StoreError> {
        let failed = |cause: io::Error| {
            StoreError::new(Kind::Unavailable, "read the outputs of builds").because(cause)
        };
        let mut records = Vec::new();
        for entry in fs::read_dir(&*self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let key = entry.file_name().to_str().and_then(|name| name.parse::<BuildKey>().ok());
            match key.map(|key| self.get(key)) {
                Some(Ok(text)) => records.extend(Record::parse(&text)),
                Some(Err(error)) if error.kind != Kind::Missing => return Err(error),
                Some(Err(_)) | None => {}
            }
        }
        Ok(records)
    }

    /// Keeps a record when all of what it tells of is in the store.
    fn put(&self, key: BuildKey, text: &str, artefacts: &dyn ArtefactStore) -> Result<(), StoreError> {
        let error = |kind| StoreError::new(kind, format!("keep the outputs of build {key}"));
        let record = Record::parse(text).ok_or_else(|| error(Kind::Corrupt))?;
        let outline =
            pack_outline(&record.outline).map_err(|cause| error(Kind::Unavailable).because(cause))?;
        let missing = |ids: &[_]| artefacts.missing(ids);
        // Steps are seldom run, and their outputs are not like a release.
        store::complete(record.id, &outline, &Seen::default(), || 0, missing, &|ids| artefacts.get(ids))?;
        let place = self.0.join(key.to_string());
        disk::replace(&place, text.as_bytes()).map_err(|cause| {
            let full =
                [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::ReadOnlyFilesystem];
            let kind = if full.contains(&cause.source.kind()) { Kind::Storage } else { Kind::Unavailable };
            error(kind).because(cause)
        })?;
        self.make_room();
        Ok(())
    }

    /// Removes the oldest records beyond what is kept. What cannot be removed is tried again with the next one.
    fn make_room(&self) {
        let Ok(entries) = fs::read_dir(&*self.0) else { return };
        let mut all: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        if all.len() > RECORDS_MAX {
            all.sort_unstable();
            all.iter().take(all.len() - RECORDS_MAX).for_each(|(_, path)| drop(fs::remove_file(path)));
        }
    }
}

/// Longest body of a request.
pub(super) const BODY_BYTES_MAX: usize = RECORD_BYTES_MAX;

pub(super) async fn get(
    State(shared): State<Shared>,
    Part(key): Part<String>,
    Extension(caller): Extension<Caller>,
) -> Result<String, Line> {
    let (key, records): (BuildKey, Records) = (key.parse()?, shared.builds.clone());
    let own = own_key(key, &caller);
    // What is kept for everybody comes from who may change every service.
    let get = move || match records.get(own) {
        Err(error) if own != key && error.kind == Kind::Missing => records.get(key),
        found => found,
    };
    Ok(blocking(get).await??)
}

/// Under which key records are for a caller. Who may push for some services only keeps records for itself: others would run what
/// it says their build steps have made.
fn own_key(key: BuildKey, caller: &Caller) -> BuildKey {
    match caller {
        Caller::Holder(token) => match &token.scope {
            Scope::Every => key,
            Scope::Only(services) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(key.as_bytes());
                // No name has a space in it.
                for service in services {
                    hasher.update(b" ").update(service.as_str().as_bytes());
                }
                BuildKey::from_bytes(*hasher.finalize().as_bytes())
            }
        },
        Caller::Anybody | Caller::Member(_) | Caller::Late(_) => key,
    }
}

pub(super) async fn put(
    State(shared): State<Shared>,
    Part(key): Part<String>,
    Extension(caller): Extension<Caller>,
    body: String,
) -> Result<(), Line> {
    let (key, records): (BuildKey, Records) = (key.parse()?, shared.builds.clone());
    let key = own_key(key, &caller);
    let artefacts = Arc::clone(&shared.artefacts);
    let held = Arc::clone(&shared.publishing).read_owned().await;
    let put = move || {
        // Also when nobody waits for the answer any more.
        let _held = held;
        records.put(key, &body, &*artefacts)
    };
    Ok(blocking(put).await??)
}
