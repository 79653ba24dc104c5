//! What every artefact store must do, as tests that each implementation runs.

use std::thread;

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::{self, Chunk, Entry, EntryKind, File, Manifest, Provenance, Tree};
use baton_core::run::RunSettings;

use super::{ArtefactStore, Kind, StoreError};
use crate::chunk;

/// Why a store does not conform, where it is not an assertion that says so.
pub type Failure = Box<dyn std::error::Error>;

/// Checks an implementation; `make` makes a store that is empty.
pub fn run<S: ArtefactStore>(make: impl Fn() -> S) -> Result<(), Failure> {
    an_empty_store_has_nothing(&make())?;
    a_chunk_comes_back_as_it_was_put(&make())?;
    a_chunk_under_a_wrong_name_is_refused(&make())?;
    many_may_put_the_same_at_once(&make())?;
    a_release_is_published_whole_or_not_at_all(&make())?;
    a_manifest_under_a_wrong_name_is_refused(&make())?;
    Ok(())
}

fn an_empty_store_has_nothing(store: &dyn ArtefactStore) -> Result<(), Failure> {
    let (one, two) = (chunk::id_of(b"one"), chunk::id_of(b"two"));
    let mut missing = store.missing(&[one, two, one])?;
    missing.sort_unstable();
    let mut both = [one, two];
    both.sort_unstable();
    assert_eq!(missing, both, "each missing chunk is named once");
    assert_eq!(store.missing(&[])?, []);
    assert_eq!(store.list()?, []);
    assert_eq!(kind(store.get(one)), Some(Kind::Missing));
    assert_eq!(kind(store.manifest(ReleaseId::from_bytes([1; 32]))), Some(Kind::Missing));
    Ok(())
}

fn a_chunk_comes_back_as_it_was_put(store: &dyn ArtefactStore) -> Result<(), Failure> {
    for content in [&b""[..], b"text", &[0; 100_000]] {
        let (id, packed) = packed(content)?;
        store.put(id, &packed)?;
        store.put(id, &packed)?;
        assert_eq!(store.missing(&[id])?, []);
        assert_eq!(chunk::unpack(id, content.len() as u32, &store.get(id)?)?, content);
    }
    Ok(())
}

fn a_chunk_under_a_wrong_name_is_refused(store: &dyn ArtefactStore) -> Result<(), Failure> {
    let (_, right) = packed(b"right")?;
    let (id, mut altered) = packed(b"altered")?;
    altered.pop();
    for wrong in [&right[..], &altered, b"", b"not compressed", &vec![0; chunk::PACKED_BYTES_MAX + 1]] {
        assert_eq!(kind(store.put(id, wrong)), Some(Kind::Corrupt));
        assert_eq!(store.missing(&[id])?, [id], "what was refused leaves nothing behind");
    }
    Ok(())
}

fn many_may_put_the_same_at_once(store: &dyn ArtefactStore) -> Result<(), Failure> {
    const CALLERS: usize = 8;
    let content = b"the same".repeat(1000);
    let (id, packed) = packed(&content)?;
    let (manifest, text) = release_of(&[&content])?;
    let put = || store.put(id, &packed).and_then(|()| store.publish(manifest, &text));
    let results: Vec<Result<(), StoreError>> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(put)).collect();
        callers.into_iter().filter_map(|caller| caller.join().ok()).collect()
    });
    assert_eq!(results.len(), CALLERS, "no caller panics");
    results.into_iter().collect::<Result<(), _>>()?;
    assert_eq!(chunk::unpack(id, content.len() as u32, &store.get(id)?)?, content);
    assert_eq!(store.list()?, [manifest]);
    Ok(())
}

fn a_release_is_published_whole_or_not_at_all(store: &dyn ArtefactStore) -> Result<(), Failure> {
    let contents: [&[u8]; 2] = [b"first", b"second"];
    let (id, text) = release_of(&contents)?;
    for content in contents {
        assert_eq!(kind(store.publish(id, &text)), Some(Kind::Missing), "a chunk is not there yet");
        assert_eq!(kind(store.manifest(id)), Some(Kind::Missing));
        assert_eq!(store.list()?, []);
        let (chunk, packed) = packed(content)?;
        store.put(chunk, &packed)?;
    }
    store.publish(id, &text)?;
    store.publish(id, &text)?;
    assert_eq!(store.manifest(id)?, text);
    assert_eq!(store.list()?, [id]);

    let (empty, text) = release_of(&[])?;
    store.publish(empty, &text)?;
    let mut listed = store.list()?;
    listed.sort_unstable();
    let mut both = [id, empty];
    both.sort_unstable();
    assert_eq!(listed, both);
    Ok(())
}

fn a_manifest_under_a_wrong_name_is_refused(store: &dyn ArtefactStore) -> Result<(), Failure> {
    let (id, text) = release_of(&[])?;
    let other = text.replace("builder", "Builder");
    assert_eq!(kind(store.publish(id, &other)), Some(Kind::Corrupt), "the text of another release");
    assert_eq!(kind(store.publish(release::id_of(&other), &other)), Some(Kind::Corrupt), "not a manifest");
    assert_eq!(store.list()?, []);
    Ok(())
}

fn kind<T>(result: Result<T, StoreError>) -> Option<Kind> {
    result.err().map(|error| error.kind)
}

fn packed(content: &[u8]) -> Result<(ChunkId, Vec<u8>), Failure> {
    Ok((chunk::id_of(content), chunk::pack(content)?))
}

/// The id and the text of a release with a file for each of these contents.
fn release_of(contents: &[&[u8]]) -> Result<(ReleaseId, String), Failure> {
    let entry = |(index, content): (usize, &&[u8])| {
        let chunks = vec![Chunk { id: chunk::id_of(content), bytes: content.len() as u32 }];
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
    Ok((release::id_of(&text), text))
}
