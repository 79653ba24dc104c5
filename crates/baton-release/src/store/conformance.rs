//! What every artefact store must do, as tests that each implementation runs.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use baton_core::ids::{BuildKey, ChunkId, PackId, ReleaseId};
use baton_core::release::outline::Outlined;
use baton_core::release::pack::{Frame, PACK_BYTES_MAX};
use baton_core::release::{self, Chunk, Entry, EntryKind, File, Manifest, Provenance, Tree};
use baton_core::run::RunSettings;
use baton_core::trust::{Approval, Signed, Statement};

use super::{ArtefactStore, Custody, Granted, Kind, StoreError};
use crate::manifest;
use crate::pack::{self, Pack};
use crate::read::{self, ReadError, Source};

/// Why a store does not conform, where it is not an assertion that says so.
pub type Failure = Box<dyn std::error::Error>;

/// How long what is granted here may be read.
const TTL: Duration = Duration::from_secs(60);

/// Checks what the keeper of a store can do; `make` makes a store that is empty.
pub fn run_custody<S: Custody>(make: impl Fn() -> S) -> Result<(), Failure> {
    a_grant_leads_to_the_frames(&make())?;
    a_removed_release_is_unknown_and_can_be_published_again(&make())?;
    a_removed_pack_is_missing_where_no_other_has_its_chunks(&make())?;
    a_pack_that_is_set_aside_is_replaced_by_what_is_right_of_it(&make())?;
    the_record_of_a_build_step_is_the_last_that_was_kept(&make())?;
    make().ready()?;
    run(make)
}

/// Checks an implementation; `make` makes a store that is empty.
pub fn run<S: ArtefactStore>(make: impl Fn() -> S) -> Result<(), Failure> {
    an_empty_store_has_nothing(&make())?;
    a_chunk_comes_back_as_it_was_put(&make())?;
    chunks_of_many_packs_come_back_in_few(&make())?;
    a_chunk_under_a_wrong_name_is_refused(&make())?;
    many_may_put_the_same_at_once(&make())?;
    a_release_is_published_whole_or_not_at_all(&make())?;
    a_manifest_under_a_wrong_name_is_refused(&make())?;
    signatures_of_a_release_are_kept_each_once(&make())?;
    Ok(())
}

fn an_empty_store_has_nothing(store: &dyn ArtefactStore) -> Result<(), Failure> {
    let (one, two) = (ChunkId::of(b"one"), ChunkId::of(b"two"));
    let mut missing = store.missing(&[one, two, one])?;
    missing.sort_unstable();
    let mut both = [one, two];
    both.sort_unstable();
    assert_eq!(missing, both, "each missing chunk is named once");
    assert_eq!(store.missing(&[])?, []);
    assert_eq!(store.list()?, []);
    assert_eq!(kind(store.get(&[one])), Some(Kind::Missing));
    assert_eq!(kind(store.outline(ReleaseId::from_bytes([1; 32]))), Some(Kind::Missing));
    Ok(())
}

fn a_chunk_comes_back_as_it_was_put(store: &dyn ArtefactStore) -> Result<(), Failure> {
    for content in [&b"a"[..], b"text", &[0; 100_000]] {
        let id = ChunkId::of(content);
        store.put(&pack::of(content)?)?;
        store.put(&pack::of(content)?)?;
        assert_eq!(store.missing(&[id])?, []);
        assert_eq!(contents(store, &[content])?, [content]);
        let absent = ChunkId::of(b"absent");
        assert_eq!(kind(store.get(&[id, absent])), Some(Kind::Missing));
    }
    Ok(())
}

fn chunks_of_many_packs_come_back_in_few(store: &dyn ArtefactStore) -> Result<(), Failure> {
    const PACKS: u8 = 12;
    const CHUNKS: u8 = 20;
    let content = |pack: u8, chunk: u8| [[pack, chunk]; 400].concat();
    for n in 0..PACKS {
        let all: Vec<Vec<u8>> = (0..CHUNKS).map(|chunk| content(n, chunk)).collect();
        let halves = all
            .chunks(10)
            .map(|half| pack::pack(half.iter().map(|one| chunk(one)).collect(), &half.concat()));
        store.put(&pack::join(halves.collect::<Result<_, _>>()?))?;
    }
    let wanted: Vec<Vec<u8>> = (0..PACKS).map(|n| content(n, n)).collect();
    let ids: Vec<ChunkId> = wanted.iter().map(|content| ChunkId::of(content)).collect();
    let answer = store.get(&ids)?;
    let pack = Pack::open(&answer)?;
    assert_eq!(pack.frames().count(), usize::from(PACKS), "the frames that hold them, and no other");
    pack.verify()?;
    let wanted: Vec<&[u8]> = wanted.iter().map(Vec::as_slice).collect();
    assert_eq!(contents(store, &wanted)?, wanted);
    Ok(())
}

fn a_chunk_under_a_wrong_name_is_refused(store: &dyn ArtefactStore) -> Result<(), Failure> {
    let (id, right) = (ChunkId::of(b"right"), pack::of(b"right")?);
    let (_, frame) = pack::pack(vec![chunk(b"other")], b"other")?;
    let swapped =
        pack::join(vec![(Frame { packed: frame.len() as u32, chunks: vec![chunk(b"right")] }, frame)]);
    let (short, long) = (&right[..right.len() - 1], [&right[..], b"x"].concat());
    for wrong in [&swapped[..], short, &long, b"", b"not a pack", &vec![0; PACK_BYTES_MAX + 1]] {
        assert_eq!(kind(store.put(wrong)), Some(Kind::Corrupt));
        assert_eq!(store.missing(&[id])?, [id], "what was refused leaves nothing behind");
    }
    Ok(())
}

fn many_may_put_the_same_at_once(store: &dyn ArtefactStore) -> Result<(), Failure> {
    const CALLERS: usize = 8;
    let content = b"the same".repeat(1000);
    let packed = pack::of(&content)?;
    let (manifest, outline, text) = release_of(&[&content])?;
    store.put(&pack::of(text.as_bytes())?)?;
    let put = || store.put(&packed).and_then(|()| store.publish(manifest, &outline));
    let results: Vec<Result<(), StoreError>> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(put)).collect();
        callers.into_iter().filter_map(|caller| caller.join().ok()).collect()
    });
    assert_eq!(results.len(), CALLERS, "no caller panics");
    results.into_iter().collect::<Result<(), _>>()?;
    assert_eq!(contents(store, &[&content])?, [content]);
    assert_eq!(store.list()?, [manifest]);
    Ok(())
}

fn a_release_is_published_whole_or_not_at_all(store: &dyn ArtefactStore) -> Result<(), Failure> {
    let files: [&[u8]; 2] = [b"first", b"second"];
    let (id, outline, text) = release_of(&files)?;
    for content in [text.as_bytes(), files[0], files[1]] {
        assert_eq!(kind(store.publish(id, &outline)), Some(Kind::Missing), "a chunk is not there yet");
        assert_eq!(kind(store.outline(id)), Some(Kind::Missing));
        assert_eq!(store.list()?, []);
        store.put(&pack::of(content)?)?;
    }
    store.publish(id, &outline)?;
    store.publish(id, &outline)?;
    assert_eq!(store.outline(id)?, outline);
    assert_eq!(manifest::read(id, store, manifest::Known::default())?.to_text(), text);
    assert_eq!(store.list()?, [id]);

    let (empty, outline, text) = release_of(&[])?;
    store.put(&pack::of(text.as_bytes())?)?;
    store.publish(empty, &outline)?;
    let mut listed = store.list()?;
    listed.sort_unstable();
    let mut both = [id, empty];
    both.sort_unstable();
    assert_eq!(listed, both);
    Ok(())
}

/// Approvals that were made once, by two keys; the second line of each is that of the first byte of its key.
const APPROVALS: [&str; 2] =
    [include_str!("conformance/approval-1.txt"), include_str!("conformance/approval-2.txt")];

fn signatures_of_a_release_are_kept_each_once(store: &dyn ArtefactStore) -> Result<(), Failure> {
    let id = Signed::<Approval>::parse(APPROVALS[0])?.of.release;
    let other = ReleaseId::from_bytes([2; 32]);
    let all = || {
        store.approvals(id).map(|mut all| {
            all.sort_unstable();
            all
        })
    };
    assert_eq!(all()?, [""; 0]);
    let wrong = APPROVALS[0].replace("limits 1", "limits 2");
    let unsigned = Signed::<Approval>::parse(APPROVALS[0])?.of.to_text();
    let both = [APPROVALS[0], APPROVALS[1].lines().last().unwrap_or_default(), "\n"].concat();
    for bad in [wrong.as_str(), &unsigned, &both, "", "junk", &"x".repeat(100_000)] {
        assert_eq!(kind(store.sign(id, bad)), Some(Kind::Corrupt), "{bad}");
    }
    assert_eq!(kind(store.sign(other, APPROVALS[0])), Some(Kind::Corrupt), "it is for another release");
    store.sign(id, APPROVALS[0])?;
    assert_eq!(all()?, [APPROVALS[0]]);
    for approval in [APPROVALS[1], APPROVALS[0], APPROVALS[1]] {
        store.sign(id, approval)?;
    }
    let mut both = APPROVALS;
    both.sort_unstable();
    assert_eq!(all()?, both);
    assert_eq!(store.approvals(other)?, [""; 0]);
    assert_eq!(store.list()?, [], "a signature makes no release");
    Ok(())
}

fn a_manifest_under_a_wrong_name_is_refused(store: &dyn ArtefactStore) -> Result<(), Failure> {
    let (id, outline, text) = release_of(&[])?;
    let other = text.replace("builder", "Builder");
    let (_, other_outline) = (store.put(&pack::of(text.as_bytes())?)?, outline_of(&other)?);
    store.put(&pack::of(other.as_bytes())?)?;
    assert_eq!(kind(store.publish(id, &other_outline)), Some(Kind::Corrupt), "the text of another release");
    assert_eq!(
        kind(store.publish(release::id_of(&other), &other_outline)),
        Some(Kind::Corrupt),
        "not a manifest"
    );
    for wrong in
        [&outline[..outline.len() - 1], b"", b"not an outline", &vec![0; manifest::OUTLINE_PACKED_MAX]]
    {
        assert_eq!(kind(store.publish(id, wrong)), Some(Kind::Corrupt));
    }
    assert_eq!(store.list()?, []);
    Ok(())
}

fn a_grant_leads_to_the_frames(store: &dyn Custody) -> Result<(), Failure> {
    let contents: Vec<Vec<u8>> = (0..3_u8).map(|n| vec![n; 2000]).collect();
    let frames = contents.iter().map(|content| pack::pack(vec![chunk(content)], content));
    let bytes = pack::join(frames.collect::<Result<_, _>>()?);
    let id = PackId::of(&bytes);
    store.put(&bytes)?;
    store.put(&pack::of(b"other")?)?;
    let ids: Vec<ChunkId> = contents.iter().map(|content| ChunkId::of(content)).collect();
    let granted = store.grant(&[ids[2], ids[0]], TTL)?;
    let mut found = Vec::new();
    for Granted { pack, frames, .. } in granted {
        assert_eq!(pack, id);
        for (frame, place) in frames {
            let packed = store.read(pack, place)?;
            found.extend(pack::unpack(&frame, &packed)?.chunks().map(|(chunk, _)| chunk.id));
        }
    }
    found.sort_unstable();
    let mut expected = [ids[0], ids[2]];
    expected.sort_unstable();
    assert_eq!(found, expected);

    let end = bytes.len() as u64;
    assert_eq!(store.read(id, 0..u64::MAX)?, bytes, "what lies behind the end is not there");
    assert_eq!(store.read(id, end - 1..end + 1)?, &bytes[bytes.len() - 1..]);
    assert_eq!(store.read(id, end..end + 1)?, b"");
    assert_eq!(kind(store.grant(&[ids[0], ChunkId::of(b"absent")], TTL)), Some(Kind::Missing));
    assert_eq!(kind(store.read(PackId::of(b"absent"), 0..1)), Some(Kind::Missing));
    Ok(())
}

fn a_removed_release_is_unknown_and_can_be_published_again(store: &dyn Custody) -> Result<(), Failure> {
    let (id, outline, text) = release_of(&[b"content"])?;
    store.put(&pack::of(b"content")?)?;
    store.put(&pack::of(text.as_bytes())?)?;
    store.publish(id, &outline)?;
    store.remove_release(id)?;
    store.remove_release(id)?;
    assert_eq!(store.list()?, []);
    assert_eq!(kind(store.outline(id)), Some(Kind::Missing));
    assert_eq!(store.missing(&[ChunkId::of(b"content")])?, [], "its packs stay");
    store.publish(id, &outline)?;
    assert_eq!(store.list()?, [id]);

    // By a clock that may be another one, and count in seconds; published again it is never older than before.
    let since =
        || Ok::<_, StoreError>(store.releases()?.iter().map(|release| release.since).collect::<Vec<_>>());
    let first = since()?;
    assert_eq!(store.releases()?.iter().map(|release| release.id).collect::<Vec<_>>(), [id]);
    store.publish(id, &outline)?;
    assert!(since()? >= first);
    Ok(())
}

fn a_removed_pack_is_missing_where_no_other_has_its_chunks(store: &dyn Custody) -> Result<(), Failure> {
    let [alone, shared] = [&b"alone"[..], b"shared"];
    let frame = |content| pack::pack(vec![chunk(content)], content);
    let (both, other) = (pack::join(vec![frame(alone)?, frame(shared)?]), pack::join(vec![frame(shared)?]));
    store.put(&both)?;
    store.put(&other)?;
    let mut packs = store.packs()?;
    packs.sort_unstable_by_key(|pack| pack.index.frames().len());
    assert_eq!(packs.iter().map(|pack| pack.id).collect::<Vec<_>>(), [PackId::of(&other), PackId::of(&both)]);
    assert_eq!(&packs[1].index, &pack::index(&both, both.len() as u64)?.0);

    store.remove_pack(PackId::of(&both))?;
    store.remove_pack(PackId::of(&both))?;
    assert_eq!(store.missing(&[ChunkId::of(alone), ChunkId::of(shared)])?, [ChunkId::of(alone)]);
    assert_eq!(contents(store, &[shared])?, [shared]);
    assert_eq!(kind(store.read(PackId::of(&both), 0..1)), Some(Kind::Missing));
    assert_eq!(kind(store.get(&[ChunkId::of(alone)])), Some(Kind::Missing));
    store.put(&both)?;
    assert_eq!(contents(store, &[alone, shared])?, [alone, shared]);
    store.remove_pack(PackId::of(&both))?;
    store.remove_pack(PackId::of(&other))?;
    assert_eq!(store.packs()?, []);
    Ok(())
}

fn the_record_of_a_build_step_is_the_last_that_was_kept(store: &dyn Custody) -> Result<(), Failure> {
    let [one, other] = [1, 2].map(|seed| BuildKey::from_bytes([seed; 32]));
    let keys = || Ok::<_, StoreError>(store.records()?.iter().map(|record| record.key).collect::<Vec<_>>());
    assert_eq!((keys()?, kind(store.record(one))), (Vec::new(), Some(Kind::Missing)));
    store.keep_record(one, "first\n")?;
    let first = store.records()?;
    store.keep_record(one, "of another length\n")?;
    store.keep_record(one, "third\n")?;
    assert_eq!(store.record(one)?, "third\n");
    let now = store.records()?;
    assert!(now.len() == 1 && now[0] >= first[0], "it is as young as what was kept last: {first:?}, {now:?}");
    store.keep_record(other, "other\n")?;
    assert_eq!(keys()?.len(), 2);
    store.remove_record(one)?;
    store.remove_record(one)?;
    assert_eq!((keys()?, kind(store.record(one))), (vec![other], Some(Kind::Missing)));
    assert_eq!(store.list()?, [], "it is no release");
    Ok(())
}

fn a_pack_that_is_set_aside_is_replaced_by_what_is_right_of_it(store: &dyn Custody) -> Result<(), Failure> {
    let pack = pack::join(vec![pack::pack(vec![chunk(b"right")], b"right")?]);
    store.put(&pack)?;
    store.salvage(PackId::of(b"absent"))?;
    store.salvage(PackId::of(&pack))?;
    // Nothing of it was damaged, after all.
    let there = store.missing(&[ChunkId::of(b"right")])?.is_empty();
    if !there {
        store.put(&pack)?;
    }
    assert_eq!(contents(store, &[b"right"])?, [b"right"]);
    Ok(())
}

fn kind<T>(result: Result<T, StoreError>) -> Option<Kind> {
    result.err().map(|error| error.kind)
}

fn chunk(content: &[u8]) -> Chunk {
    Chunk { id: ChunkId::of(content), bytes: content.len() as u32 }
}

/// What comes back for chunks of these contents.
fn contents(store: &dyn ArtefactStore, wanted: &[&[u8]]) -> Result<Vec<Vec<u8>>, Failure> {
    let chunks: Vec<Chunk> = wanted.iter().map(|content| chunk(content)).collect();
    let found = Mutex::new(Vec::new());
    read::each(Source::Store(store), &chunks, |chunk, content| {
        found.lock().unwrap_or_else(|held| held.into_inner()).push((chunk, content.to_vec()));
        Ok::<(), ReadError>(())
    })?;
    let found = found.into_inner().unwrap_or_else(|held| held.into_inner());
    let of = |chunk: &Chunk| {
        found.iter().filter(|(other, _)| other == chunk).map(|(_, content)| content.clone()).next()
    };
    Ok(chunks.iter().filter_map(of).collect())
}

fn outline_of(text: &str) -> Result<Vec<u8>, Failure> {
    Ok(manifest::pack_outline(&Outlined::of(text).top)?)
}

/// The id, the packed outline and the text of a release with a file for each of these contents.
fn release_of(contents: &[&[u8]]) -> Result<(ReleaseId, Vec<u8>, String), Failure> {
    let entry = |(index, content): (usize, &&[u8])| {
        let chunks = [chunk(content)].into();
        let kind = EntryKind::File(File { executable: false, chunks });
        Ok(Entry { path: format!("file-{index}").parse()?, kind })
    };
    let entries: Result<Vec<Entry>, Failure> = contents.iter().enumerate().map(entry).collect();
    let tree = Tree::of(entries?)?;
    let text = Manifest {
        service: "web".parse()?,
        provenance: Provenance { created: 0, builder: "conformance".to_owned(), commit: None },
        run: RunSettings::for_command(vec!["true".to_owned()]),
        tree,
    }
    .to_text();
    Ok((release::id_of(&text), outline_of(&text)?, text))
}
