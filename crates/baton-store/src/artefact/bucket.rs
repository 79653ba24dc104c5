//! An artefact store in a bucket: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.
//!
//! The objects have the names of a folder's files: `packs/2d3a…`, `manifests/2d3a…`, `signatures/2d3a…/9f…`, `builds/2d3a…`,
//! `corrupt/…`, each behind the prefix of the store. Each is written once, under the condition that nothing has its name, in one
//! request: none is long enough to gain from several. The packs of a push are its parts: several go up at once, each is tried again by
//! itself, and a condition, which an upload in parts has only at its end, if at all, is on each. Only the outline of a release that is pushed again is written over by
//! itself, so that its age says so, and the record of a build step by a later one. Several servers can use one bucket: which packs there are is looked at again when a chunk is not among
//! those that are known, and before a release is published. What is in them is read from their beginnings, and held in memory.
//!
//! Members read straight from the bucket, by addresses that are signed for a while; so this holds no more than what is read
//! through the server: manifests mostly, which is why what was read lately is kept.

mod address;
mod background;
mod recent;
mod salvage;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use baton_core::ids::{BuildKey, ChunkId, KeyId, PackId, ReleaseId};
use baton_core::release::grant::PACKS_MAX;
use baton_core::release::pack::{Frame, Index, PACK_BYTES_MAX};
use baton_core::release::{Fault, TextError, reading};
use baton_core::trust::SIGNED_BYTES_MAX;
use baton_release::manifest::{ManifestRefused, OUTLINE_PACKED_MAX, unpack_outline};
use baton_release::pack::{self, Pack, PackError};
use baton_release::record::RECORD_BYTES_MAX;
use baton_release::signing::{self, APPROVALS_MAX};
use baton_release::store::{
    ArtefactStore, Custody, Granted, Kind, Seen, StoreError, StoredPack, StoredRecord, StoredRelease,
    complete,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::held::{Held, Place};
pub use address::BucketError;
use background::Background;
use recent::{Key, Recent};

/// Longest object that is written, in one request: longer ones would gain from several.
const OBJECT_BYTES_MAX: usize = 8 << 20;
const _: () = assert!(PACK_BYTES_MAX <= OBJECT_BYTES_MAX && SIGNED_BYTES_MAX <= OBJECT_BYTES_MAX);
/// How much of a pack is read for its index at first: enough for a push of an ordinary change, and little for a listing of
/// thousands.
const INDEX_BYTES: u64 = 16 << 10;
/// Requests at once for one thing that is asked for: the beginnings of packs after a start, or the frames of an answer.
const REQUESTS: usize = 16;
/// How many bytes that nobody needs are read rather than making another request, which takes as long as they do.
const GAP_BYTES: u64 = 256 << 10;
/// How often an object is put whose name is taken and then is not: by somebody else's request that fails.
const PUTS: usize = 3;

/// An artefact store in a bucket.
pub struct BucketStore {
    bucket: Bucket,
    background: Background,
    known: Mutex<Known>,
    /// When the last look at the bucket began; who holds it looks.
    looked: Mutex<Option<Instant>>,
    recent: Mutex<Recent>,
    seen: Seen,
}

/// What is known of the packs.
#[derive(Default)]
struct Known {
    held: Held,
    since: BTreeMap<PackId, SystemTime>,
}

/// A bucket, and where in it the store is.
#[derive(Clone)]
struct Bucket {
    objects: Arc<dyn ObjectStore>,
    signer: Arc<dyn Signer>,
    prefix: Path,
}

/// Whether an object was there before it was added.
enum Before {
    There,
    Absent,
}

/// What a bucket has been found to hold.
struct Listed {
    id: PackId,
    bytes: u64,
    since: SystemTime,
}

impl BucketStore {
    /// The store at this address: `s3://BUCKET/PREFIX`, `gs://…`, `az://…`; `variables` are those of the environment, of which
    /// those that begin with `AWS_`, `GOOGLE_` or `AZURE_` say with which credentials and where. Nothing is asked of the bucket
    /// yet: a server starts without it.
    pub fn open(
        url: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, BucketError> {
        Ok(Self {
            bucket: address::open(url, variables)?,
            background: Background::start()?,
            known: Mutex::default(),
            looked: Mutex::default(),
            recent: Mutex::default(),
            seen: Seen::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks which packs there are now. Who comes while another one looks waits, and is content when that look began later.
    fn look(&self, attempted: &str) -> Result<(), StoreError> {
        let asked = Instant::now();
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|began| began > asked) {
            return Ok(());
        }
        let began = Instant::now();
        let bucket = self.bucket.clone();
        let listed = self.background.wait(attempted, async move { bucket.list_packs().await })?;
        let new: Vec<Listed> = {
            let mut known = self.known();
            known.held.keep(&listed.iter().map(|pack| pack.id).collect());
            known.since = listed.iter().map(|pack| (pack.id, pack.since)).collect();
            listed.into_iter().filter(|pack| !known.held.has(pack.id)).collect()
        };
        let bucket = self.bucket.clone();
        let indexes = self.background.wait(attempted, async move { bucket.indexes(new).await })?;
        for (id, index) in indexes {
            match index {
                Ok((index, places)) => self.known().held.add(id, &index, places),
                Err(PackError::Index(TextError { what: Fault::Version(_), .. })) => {
                    // Of a newer server that uses the bucket too: not damaged.
                }
                // Where it cannot be moved, it is found damaged again.
                Err(_) => drop(self.set_aside(self.bucket.pack(id))),
            }
        }
        *looked = Some(began);
        Ok(())
    }

    /// The frames that answer a question, by their pack; when one is not known, after another look.
    fn answer(
        &self,
        attempted: &str,
        ids: &[ChunkId],
        packs: usize,
    ) -> Result<Vec<(PackId, Vec<Place>)>, StoreError> {
        if ids.iter().any(|id| self.known().held.place(*id).is_none()) {
            self.look(attempted)?;
        }
        let missing = |id| StoreError::new(Kind::Missing, format!("get chunk {id}"));
        self.known().held.answer(ids, packs).map_err(missing)
    }

    /// These frames, each of which is what the index says: those that were not read lately from the bucket.
    fn frames(&self, id: PackId, places: &[Place]) -> Result<Vec<(Frame, Vec<u8>)>, NotRead> {
        let here: Vec<Option<Arc<[u8]>>> = {
            let recent = self.recent();
            places.iter().map(|(_, place)| recent.get(&Key::Frame(id, place.start))).collect()
        };
        let lacking: Vec<Range<u64>> = places
            .iter()
            .zip(&here)
            .filter(|(_, here)| here.is_none())
            .map(|((_, place), _)| place.clone())
            .collect();
        let mut read =
            if lacking.is_empty() { Vec::new() } else { self.read_places(id, lacking)? }.into_iter();
        let frame = |((frame, place), here): (&Place, Option<Arc<[u8]>>)| {
            let packed = match here {
                Some(packed) => packed,
                None => {
                    let packed: Arc<[u8]> = read.next().unwrap_or_default().into();
                    pack::unpack(frame, &packed)?;
                    self.recent().keep(Key::Frame(id, place.start), Arc::clone(&packed));
                    packed
                }
            };
            Ok((frame.clone(), packed.to_vec()))
        };
        places.iter().zip(here).map(frame).collect()
    }

    /// The frames that hold these chunks, as a pack.
    fn read_frames(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        let mut frames = Vec::new();
        for (id, places) in self.answer("get chunks", ids, usize::MAX)? {
            match self.frames(id, &places) {
                Ok(found) => frames.extend(found),
                Err(NotRead::Store(error)) => return Err(error),
                Err(NotRead::Damaged(error)) => {
                    // Where that fails, it stays and is found damaged again.
                    let _ = self.set_pack_aside(id);
                    return Err(StoreError::new(Kind::Corrupt, format!("read pack {id}")).because(error));
                }
            }
        }
        Ok(pack::join(frames))
    }

    /// These places of a pack, as they lie there.
    fn read_places(&self, id: PackId, places: Vec<Range<u64>>) -> Result<Vec<Vec<u8>>, StoreError> {
        let bucket = self.bucket.clone();
        let read = async move { bucket.read_places(id, &places).await };
        self.background.wait(&format!("read pack {id}"), read).inspect_err(|error| {
            if error.kind == Kind::Missing {
                // Somebody has removed it. Whoever asks again shall be told of another place.
                self.known().held.forget(id);
            }
        })
    }

    /// Gives this content its name. On return it is durable.
    fn add(&self, attempted: &str, path: Path, content: Vec<u8>) -> Result<(), StoreError> {
        let bucket = self.bucket.clone();
        self.background.wait(attempted, async move { bucket.add(&path, content).await.map(drop) })
    }

    /// The keys of which there is a signature of a release.
    fn signers(&self, attempted: &str, id: ReleaseId) -> Result<BTreeSet<KeyId>, StoreError> {
        let bucket = self.bucket.clone();
        self.background.wait(attempted, async move {
            let found = bucket.objects.list(Some(&bucket.path("signatures", &id.to_string())));
            let keys = found.try_filter_map(async |object| {
                Ok(object.location.filename().and_then(|name| name.parse::<KeyId>().ok()))
            });
            keys.try_collect().await
        })
    }

    fn remove(&self, attempted: &str, path: Path) -> Result<(), StoreError> {
        let bucket = self.bucket.clone();
        self.background.wait(attempted, async move {
            match bucket.objects.delete(&path).await {
                Err(Error::NotFound { .. }) => Ok(()),
                done => done,
            }
        })
    }
}

/// Refuses what is too long for one request: an outline that is an outline's, as every long one is, has a fifth of that.
fn must_fit(attempted: &str, length: usize) -> Result<(), StoreError> {
    match length {
        0..=OBJECT_BYTES_MAX => Ok(()),
        length => {
            let why = format!("it has {length} bytes, and at most {OBJECT_BYTES_MAX} are kept");
            Err(StoreError::new(Kind::Corrupt, attempted).because(why))
        }
    }
}

/// Why a frame is not here.
enum NotRead {
    Store(StoreError),
    Damaged(PackError),
}

impl From<StoreError> for NotRead {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<PackError> for NotRead {
    fn from(error: PackError) -> Self {
        Self::Damaged(error)
    }
}

/// A pack and what its index says, or why it has none.
type Indexed = (PackId, Result<(Index, Vec<Range<u64>>), PackError>);

impl Bucket {
    fn path(&self, folder: &str, name: &str) -> Path {
        self.prefix.clone().join(folder).join(name)
    }

    fn pack(&self, id: PackId) -> Path {
        self.path("packs", &id.to_string())
    }

    fn release(&self, id: ReleaseId) -> Path {
        self.path("manifests", &id.to_string())
    }

    fn signature(&self, id: ReleaseId, key: KeyId) -> Path {
        self.path("signatures", &id.to_string()).join(key.to_string())
    }

    fn build(&self, key: BuildKey) -> Path {
        self.path("builds", &key.to_string())
    }

    async fn list_packs(&self) -> Result<Vec<Listed>, Error> {
        let found = self.objects.list(Some(&self.prefix.clone().join("packs")));
        let listed = found.try_filter_map(async |object| {
            let id = object.location.filename().and_then(|name| name.parse().ok());
            Ok(id.map(|id| Listed { id, bytes: object.size, since: object.last_modified.into() }))
        });
        listed.try_collect().await
    }

    /// What is in these packs. One that is removed meanwhile is left out.
    async fn indexes(&self, packs: Vec<Listed>) -> Result<Vec<Indexed>, Error> {
        let indexes = stream::iter(packs).map(async |pack| match self.index(&pack).await {
            Ok(index) => Ok(Some((pack.id, index))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        });
        indexes.buffer_unordered(REQUESTS).try_filter_map(async |found| Ok(found)).try_collect().await
    }

    async fn index(
        &self,
        Listed { id, bytes, .. }: &Listed,
    ) -> Result<Result<(Index, Vec<Range<u64>>), PackError>, Error> {
        let mut most = INDEX_BYTES;
        loop {
            let start = self.read_start(&self.pack(*id), most).await?;
            match pack::index(&start, *bytes) {
                Err(_) if most < (*bytes).min(pack::START_BYTES as u64) => most *= 8,
                done => return Ok(done),
            }
        }
    }

    /// At most so many bytes of an object.
    async fn read_start(&self, path: &Path, most: u64) -> Result<Vec<u8>, Error> {
        let range = Some(GetRange::Bounded(0..most));
        match self.objects.get_opts(path, GetOptions { range, ..GetOptions::default() }).await {
            Ok(found) => Ok(found.bytes().await?.to_vec()),
            // No range fits into an object of no bytes.
            Err(error) => match self.objects.head(path).await {
                Ok(found) if found.size == 0 => Ok(Vec::new()),
                Ok(_) | Err(_) => Err(error),
            },
        }
    }

    /// These places of a pack, in as few requests as makes sense. Of a pack that is too short there is less.
    async fn read_places(&self, id: PackId, places: &[Range<u64>]) -> Result<Vec<Vec<u8>>, Error> {
        let path = &self.pack(id);
        let ranges = stream::iter(reading::ranges(places, GAP_BYTES)).map(async |range| {
            let content = self.objects.get_range(path, range.clone()).await?;
            Ok::<_, Error>((range, content))
        });
        let read: Vec<_> = ranges.buffered(REQUESTS).try_collect().await?;
        let part = |place: &Range<u64>| {
            let found = read.iter().find(|(range, _)| place.start >= range.start && place.end <= range.end);
            let inside = found.and_then(|(range, content)| {
                content.get((place.start - range.start) as usize..(place.end - range.start) as usize)
            });
            inside.unwrap_or_default().to_vec()
        };
        Ok(places.iter().map(part).collect())
    }

    /// Gives this content its name, and says whether it was there before. That somebody has done it already is as good, whoever
    /// says so: what has the name must have the length.
    async fn add(&self, path: &Path, content: Vec<u8>) -> Result<Before, Error> {
        let length = content.len() as u64;
        let payload = PutPayload::from(content);
        let put = |mode: PutMode| self.objects.put_opts(path, payload.clone(), mode.into());
        for _ in 0..PUTS {
            match put(PutMode::Create).await {
                Err(Error::AlreadyExists { .. }) => {}
                // Content under the name of its hash may be written over by itself.
                Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                    return put(PutMode::Overwrite).await.map(|_| Before::Absent);
                }
                done => return done.map(|_| Before::Absent),
            }
            match self.objects.head(path).await {
                Ok(found) if found.size == length => return Ok(Before::There),
                // Damaged: nobody has ever read it.
                Ok(_) => return put(PutMode::Overwrite).await.map(|_| Before::Absent),
                // Somebody's request was under way, and has failed.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        put(PutMode::Overwrite).await.map(|_| Before::Absent)
    }

    /// The same for what shall be as young as if it had not been there.
    async fn add_anew(&self, path: &Path, content: Vec<u8>) -> Result<(), Error> {
        match self.add(path, content.clone()).await? {
            Before::Absent => Ok(()),
            Before::There => self.objects.put(path, PutPayload::from(content)).await.map(drop),
        }
    }
}

impl ArtefactStore for BucketStore {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, StoreError> {
        let missing = || {
            let known = self.known();
            let missing = ids.iter().filter(|id| known.held.place(**id).is_none());
            missing.copied().collect::<BTreeSet<ChunkId>>()
        };
        if !missing().is_empty() {
            self.look("ask for chunks")?;
        }
        Ok(missing().into_iter().collect())
    }

    fn put(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let id = PackId::of(bytes);
        let attempted = format!("put pack {id}");
        let corrupt = |error: PackError| StoreError::new(Kind::Corrupt, attempted.as_str()).because(error);
        let pack = Pack::open(bytes).map_err(corrupt)?;
        pack.verify().map_err(corrupt)?;
        let (index, places) = pack::index(bytes, bytes.len() as u64).map_err(corrupt)?;
        self.add(&attempted, self.bucket.pack(id), bytes.to_vec())?;
        self.known().held.add(id, &index, places);
        Ok(())
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        let before = self.known().held.losses();
        match self.read_frames(ids) {
            // A pack went while it was read: what is needed of it lies in another one by then.
            Err(error) if error.kind == Kind::Missing && self.known().held.losses() != before => {
                self.read_frames(ids)
            }
            done => done,
        }
    }

    fn publish(&self, id: ReleaseId, outline: &[u8]) -> Result<(), StoreError> {
        let attempted = format!("publish release {id}");
        must_fit(&attempted, outline.len())?;
        // What is said to be there must not have been removed meanwhile.
        self.look(&attempted)?;
        let losses = || self.known().held.losses();
        complete(id, outline, &self.seen, losses, |ids| self.missing(ids), &|ids| self.get(ids))?;
        let (bucket, content) = (self.bucket.clone(), outline.to_vec());
        let publish = async move { bucket.add_anew(&bucket.release(id), content).await };
        self.background.wait(&attempted, publish)
    }

    fn outline(&self, id: ReleaseId) -> Result<Vec<u8>, StoreError> {
        if let Some(outline) = self.recent().get(&Key::Outline(id)) {
            return Ok(outline.to_vec());
        }
        let attempted = format!("read the outline of release {id}");
        let (bucket, path) = (self.bucket.clone(), self.bucket.release(id));
        let most = OUTLINE_PACKED_MAX as u64 + 1;
        let packed = self.background.wait(&attempted, async move { bucket.read_start(&path, most).await })?;
        match unpack_outline(id, &packed) {
            Ok(_) => {
                self.recent().keep(Key::Outline(id), packed.as_slice().into());
                Ok(packed)
            }
            Err(error) => {
                let newer = matches!(
                    &error,
                    ManifestRefused::Rules { source: TextError { what: Fault::Version(_), .. }, .. }
                );
                if !newer {
                    let _ = self.set_aside(self.bucket.release(id));
                }
                Err(StoreError::new(Kind::Corrupt, attempted).because(error))
            }
        }
    }

    fn sign(&self, id: ReleaseId, approval: &str) -> Result<(), StoreError> {
        let attempted = format!("sign release {id}");
        let key = signing::check(id, approval)?;
        let signers = self.signers(&attempted, id)?;
        if signers.contains(&key) {
            return Ok(());
        }
        if signers.len() >= APPROVALS_MAX {
            return Err(signing::too_many(id));
        }
        self.add(&attempted, self.bucket.signature(id, key), approval.as_bytes().to_vec())
    }

    fn approvals(&self, id: ReleaseId) -> Result<Vec<String>, StoreError> {
        let attempted = format!("read the approvals of release {id}");
        let keys: Vec<KeyId> = self.signers(&attempted, id)?.into_iter().take(APPROVALS_MAX).collect();
        let bucket = self.bucket.clone();
        let read = async move {
            let texts = stream::iter(keys).map(async |key| {
                let text = bucket.read_start(&bucket.signature(id, key), SIGNED_BYTES_MAX as u64 + 1).await?;
                Ok::<_, Error>((key, String::from_utf8_lossy(&text).into_owned()))
            });
            texts.buffered(REQUESTS).try_collect::<Vec<_>>().await
        };
        let mut approvals = Vec::new();
        for (key, text) in self.background.wait(&attempted, read)? {
            match signing::check(id, &text) {
                Ok(found) if found == key => approvals.push(text),
                // As if it were not there, so that it can be added again.
                Ok(_) | Err(_) => drop(self.set_aside(self.bucket.signature(id, key))),
            }
        }
        Ok(approvals)
    }

    fn list(&self) -> Result<Vec<ReleaseId>, StoreError> {
        Ok(self.releases()?.into_iter().map(|release| release.id).collect())
    }
}

impl Custody for BucketStore {
    fn grant(&self, ids: &[ChunkId], ttl: Duration) -> Result<Vec<Granted>, StoreError> {
        let packs = self.answer("grant the reading of chunks", ids, PACKS_MAX)?;
        let (bucket, ids) = (self.bucket.clone(), packs.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        let urls: Vec<Option<String>> = self.background.wait("sign addresses", async move {
            let mut urls = Vec::with_capacity(ids.len());
            for id in ids {
                let signed = bucket.signer.signed_url(http::Method::GET, &bucket.pack(id), ttl).await;
                // Not every kind of credentials can sign. Then members read through the server.
                urls.push(signed.ok().map(String::from));
            }
            Ok(urls)
        })?;
        let granted = |((pack, frames), url)| Granted { pack, url, frames };
        Ok(packs.into_iter().zip(urls).map(granted).collect())
    }

    fn read(&self, pack: PackId, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let length = || self.known().held.length(pack);
        if length().is_none() {
            self.look(&format!("read pack {pack}"))?;
        }
        let length = length().ok_or_else(|| StoreError::new(Kind::Missing, format!("read pack {pack}")))?;
        let range = range.start.min(length)..range.end.min(length);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.read_places(pack, vec![range])?.pop().unwrap_or_default())
    }

    fn releases(&self) -> Result<Vec<StoredRelease>, StoreError> {
        let bucket = self.bucket.clone();
        self.background.wait("list releases", async move {
            let found = bucket.objects.list(Some(&bucket.prefix.clone().join("manifests")));
            let releases = found.try_filter_map(async |object| {
                let id = object.location.filename().and_then(|name| name.parse().ok());
                Ok(id.map(|id| StoredRelease { id, since: object.last_modified.into() }))
            });
            releases.try_collect().await
        })
    }

    fn packs(&self) -> Result<Vec<StoredPack>, StoreError> {
        self.look("list packs")?;
        let Known { held, since } = &*self.known();
        // Those that were put since are too young for whoever asks.
        let stored = |(id, index)| Some(StoredPack { id, index, since: *since.get(&id)? });
        Ok(held.packs().filter_map(stored).collect())
    }

    fn remove_release(&self, id: ReleaseId) -> Result<(), StoreError> {
        self.recent().forget(&Key::Outline(id));
        self.remove(&format!("remove release {id}"), self.bucket.release(id))
    }

    fn remove_pack(&self, id: PackId) -> Result<(), StoreError> {
        self.known().held.forget(id);
        self.remove(&format!("remove pack {id}"), self.bucket.pack(id))
    }

    fn salvage(&self, id: PackId) -> Result<(), StoreError> {
        self.set_pack_aside(id)
    }

    fn keep_record(&self, key: BuildKey, record: &str) -> Result<(), StoreError> {
        let attempted = format!("keep the outputs of build {key}");
        must_fit(&attempted, record.len())?;
        let (bucket, content) = (self.bucket.clone(), PutPayload::from(record.to_owned()));
        self.background
            .wait(&attempted, async move { bucket.objects.put(&bucket.build(key), content).await.map(drop) })
    }

    fn record(&self, key: BuildKey) -> Result<String, StoreError> {
        let bucket = self.bucket.clone();
        let read = async move { bucket.read_start(&bucket.build(key), RECORD_BYTES_MAX as u64 + 1).await };
        let found = self.background.wait(&format!("read the outputs of build {key}"), read)?;
        Ok(String::from_utf8_lossy(&found).into_owned())
    }

    fn records(&self) -> Result<Vec<StoredRecord>, StoreError> {
        let bucket = self.bucket.clone();
        self.background.wait("list the outputs of builds", async move {
            let found = bucket.objects.list(Some(&bucket.prefix.clone().join("builds")));
            let records = found.try_filter_map(async |object| {
                let key = object.location.filename().and_then(|name| name.parse().ok());
                Ok(key.map(|key| StoredRecord { key, since: object.last_modified.into() }))
            });
            records.try_collect().await
        })
    }

    fn remove_record(&self, key: BuildKey) -> Result<(), StoreError> {
        self.remove(&format!("forget the outputs of build {key}"), self.bucket.build(key))
    }

    fn ready(&self) -> Result<(), StoreError> {
        let (bucket, path) = (self.bucket.clone(), self.bucket.path("tmp", "ready"));
        self.background.wait("keep a pack", async move {
            bucket.objects.put(&path, PutPayload::default()).await.map(drop)
        })
    }
}
