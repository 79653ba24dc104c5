//! What the last push has found out about each file, so that what was not changed is not read again.
//!
//! ```text
//! 6437b3ac…                                   the hash of everything that follows
//! baton-stat-cache 1 cut 4096 16384 65536     what it is, and how files were cut
//! file 123 1042 1763000000000000000 1763000000000000000 static/app.js
//! chunk 6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85 1042
//! ```
//!
//! Files are in the order of their paths. A file is the same as long as its inode, its length, and the times when its content
//! and its inode were changed are: the last one cannot be set by anybody. Whoever writes twice within one tick of the file
//! system's clock leaves the same time twice, so of a file that was changed just before it was looked at nothing is kept. What
//! is damaged, or was written by another version, is as good as nothing.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_core::release::{Chunk, Chunks};
use baton_core::split::split_once;

use crate::cut::{BYTES_AVERAGE, BYTES_MAX, BYTES_MIN};

/// How old a change must be: the coarsest clock of a file system in use has ticks of 2 s.
const SETTLED_NS: i64 = 2_000_000_000;
/// How long the caches of directories are kept that nobody pushes any more.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the file system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    inode: u64,
    bytes: u64,
    /// When its content was changed, in nanoseconds since 1970.
    modified: i64,
    /// When its content, its name or its mode was changed.
    changed: i64,
}

impl Stat {
    pub(crate) fn of(found: &Metadata) -> Self {
        let nanoseconds =
            |seconds: i64, more: i64| seconds.saturating_mul(1_000_000_000).saturating_add(more);
        Self {
            inode: found.ino(),
            bytes: found.len(),
            modified: nanoseconds(found.mtime(), found.mtime_nsec()),
            changed: nanoseconds(found.ctime(), found.ctime_nsec()),
        }
    }

    /// How long the file is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When its content was changed, in milliseconds since 1970.
    pub(crate) fn modified_ms(&self) -> u64 {
        u64::try_from(self.modified / 1_000_000).unwrap_or(0)
    }

    /// Whether a later change will show, seen from this time.
    fn is_settled(&self, now: i64) -> bool {
        self.modified.max(self.changed).saturating_add(SETTLED_NS) <= now
    }
}

/// The time, in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// What is known of the files of a directory, in the order of their paths.
#[derive(Default)]
pub(crate) struct StatCache<'a>(Vec<Record<'a>>);

/// What is known of a file.
struct Record<'a> {
    path: &'a str,
    stat: Stat,
    chunks: Chunks,
    /// All its lines.
    lines: &'a str,
}

/// Where in this folder the cache of a directory lies. Nothing is known of a directory that is not there.
pub(crate) fn place(caches: &Path, dir: &Path) -> Option<PathBuf> {
    let dir = dir.canonicalize().ok()?;
    let name = blake3::hash(dir.as_os_str().as_bytes()).to_hex();
    Some(caches.join(name.as_str()))
}

/// Forgets all about a directory.
pub(crate) fn forget(caches: &Path, dir: &Path) {
    if let Some(place) = place(caches, dir) {
        // What cannot be removed cannot be written either.
        let _ = fs::remove_file(place);
    }
}

/// What the cache says that lies there, if it is whole and of this version. Its text is read into `text`.
pub(crate) fn read<'a>(place: &Path, text: &'a mut String) -> StatCache<'a> {
    *text = fs::read_to_string(place).unwrap_or_default();
    let whole = |text: &'a str| {
        let (hash, rest) = text.split_once('\n')?;
        let is_whole = blake3::hash(rest.as_bytes()).to_hex().as_str() == hash;
        (is_whole && rest.starts_with(&head())).then_some(rest)
    };
    whole(text).map(StatCache::parse).unwrap_or_default()
}

fn head() -> String {
    format!("baton-stat-cache 1 cut {BYTES_MIN} {BYTES_AVERAGE} {BYTES_MAX}\n")
}

impl<'a> StatCache<'a> {
    /// What this text says; nothing at all when it says something that makes no sense.
    fn parse(text: &'a str) -> Self {
        Self::files(text).unwrap_or_default()
    }

    fn files(text: &'a str) -> Option<Self> {
        let mut files: Vec<Record<'a>> = Vec::new();
        let mut rest = split_once(text, b'\n').map_or("", |(_, rest)| rest);
        while !rest.is_empty() {
            let all = rest;
            let (line, after) = split_once(rest.strip_prefix("file ")?, b'\n')?;
            let (inode, line) = split_once(line, b' ')?;
            let (bytes, line) = split_once(line, b' ')?;
            let (modified, line) = split_once(line, b' ')?;
            let (changed, path) = split_once(line, b' ')?;
            let stat = Stat {
                inode: inode.parse().ok()?,
                bytes: bytes.parse().ok()?,
                modified: modified.parse().ok()?,
                changed: changed.parse().ok()?,
            };
            rest = after;
            let mut chunks = Chunks::new();
            while let Some(words) = rest.strip_prefix("chunk ") {
                let (line, after) = split_once(words, b'\n')?;
                let (id, bytes) = split_once(line, b' ')?;
                chunks.push(Chunk { id: id.parse().ok()?, bytes: bytes.parse().ok()? });
                rest = after;
            }
            let is_whole = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum::<u64>() == stat.bytes;
            if !is_whole || files.last().is_some_and(|last| last.path >= path) {
                return None;
            }
            files.push(Record { path, stat, chunks, lines: &all[..all.len() - rest.len()] });
        }
        Some(Self(files))
    }

    /// Looks files up in the order of their paths.
    pub(crate) fn in_order(&self) -> InOrder<'_, 'a> {
        InOrder(&self.0)
    }

    /// How many files are known.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What is known of the files that have not been passed.
pub(crate) struct InOrder<'c, 'a>(&'c [Record<'a>]);

impl<'a> InOrder<'_, 'a> {
    /// What is known of a file, if it is the same as it was. It comes after all that was asked for.
    fn find(&mut self, path: &str, stat: &Stat) -> Option<&Record<'a>> {
        while let Some((first, rest)) = self.0.split_first() {
            match first.path.cmp(path) {
                Ordering::Less => self.0 = rest,
                Ordering::Equal => return (first.stat == *stat).then_some(first),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The chunks of a file, if it is the same as it was. It comes after all that was asked for.
    pub(crate) fn chunks(&mut self, path: &str, stat: &Stat) -> Option<Chunks> {
        Some(self.find(path, stat)?.chunks.clone())
    }
}

/// The text of a cache of these files, which were looked at not before `at`. They are in the order of their paths; the lines of
/// those that were known `before` are not made anew.
pub(crate) fn text<'a>(
    files: impl Iterator<Item = (&'a str, &'a Stat, &'a [Chunk])>,
    before: &StatCache<'_>,
    at: i64,
) -> String {
    let (mut text, mut before) = (head(), before.in_order());
    for (path, stat, chunks) in files.filter(|(_, stat, _)| stat.is_settled(at)) {
        if let Some(known) = before.find(path, stat) {
            text.push_str(known.lines);
            continue;
        }
        let Stat { inode, bytes, modified, changed } = stat;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "file {inode} {bytes} {modified} {changed} {path}");
        for Chunk { id, bytes } in chunks {
            let _ = writeln!(text, "chunk {id} {bytes}");
        }
    }
    text
}

/// Keeps a text for the next push, and removes what nobody has used for long. It need not survive a power cut: what is
/// not whole says nothing.
pub(crate) fn write(place: &Path, text: &str) -> io::Result<()> {
    let dir = place.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    writeln!(file, "{}", blake3::hash(text.as_bytes()).to_hex())?;
    file.write_all(text.as_bytes())?;
    file.persist(place)?;
    let old = |found: Metadata| found.modified()?.elapsed().map_err(io::Error::other);
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.metadata().and_then(old).is_ok_and(|age| age > UNUSED_MAX) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::ids::ChunkId;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const STAT: Stat = Stat { inode: 1, bytes: 3, modified: 5_000_000_000, changed: 6_000_000_000 };
    const LATER: i64 = 6_000_000_000 + SETTLED_NS;

    fn chunk(bytes: u32) -> Chunk {
        Chunk { id: ChunkId::of(&bytes.to_le_bytes()), bytes }
    }

    #[test]
    fn a_file_is_known_while_nothing_of_it_was_changed() {
        let chunks = [chunk(1), chunk(2)];
        let text = text([("a b", &STAT, &chunks[..])].into_iter(), &StatCache::default(), LATER);
        let cache = StatCache::parse(&text);
        assert_eq!(cache.in_order().chunks("a b", &STAT), Some(chunks.into_iter().collect()));
        assert_eq!(cache.in_order().chunks("a", &STAT), None);
        for other in [
            Stat { inode: 2, ..STAT },
            Stat { bytes: 4, ..STAT },
            Stat { modified: STAT.modified + 1, ..STAT },
            Stat { changed: STAT.changed + 1, ..STAT },
        ] {
            assert_eq!(cache.in_order().chunks("a b", &other), None);
        }
    }

    #[test]
    fn what_was_changed_just_now_is_not_kept() {
        for (at, kept) in [(LATER, 1), (LATER - 1, 0), (0, 0)] {
            let text = text([("a", &STAT, &[chunk(3)][..])].into_iter(), &StatCache::default(), at);
            assert_eq!(StatCache::parse(&text).len(), kept, "{at}");
        }
        let touched_back = Stat { modified: 0, ..STAT };
        assert!(!touched_back.is_settled(LATER - 1), "its inode was changed when its time was set");
    }

    #[test]
    fn what_is_damaged_or_of_another_version_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("cache");
        let known = || read(&place, &mut String::new()).len();
        assert_eq!(known(), 0);
        let right = text([("a", &STAT, &[chunk(3)][..])].into_iter(), &StatCache::default(), LATER);
        write(&place, &right).unwrap();
        assert_eq!(known(), 1);
        let bytes = fs::read(&place).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            fs::write(&place, &altered).unwrap();
            assert_eq!(known(), 0, "{at}");
            fs::write(&place, &bytes[..at]).unwrap();
            assert_eq!(known(), 0, "{at}");
        }
        write(&place, &right.replace("cut 4096", "cut 4097")).unwrap();
        assert_eq!(known(), 0);
    }

    proptest! {
        #[test]
        fn what_was_kept_is_known(files in vec(("[a-z/ ]{1,9}", any::<[u32; 4]>(), vec(1u32..99, 0..3)), 0..9)) {
            let files: std::collections::BTreeMap<String, (Stat, Vec<Chunk>)> = files.into_iter().map(|(path, n, chunks)| {
                let bytes = chunks.iter().map(|bytes| u64::from(*bytes)).sum();
                let stat = Stat { inode: n[0].into(), bytes, modified: n[1].into(), changed: n[2].into() };
                (path, (stat, chunks.into_iter().map(chunk).collect()))
            }).collect();
            let all = files.iter().map(|(path, (stat, chunks))| (path.as_str(), stat, chunks.as_slice()));
            let first = text(all.clone(), &StatCache::default(), i64::MAX);
            let cache = StatCache::parse(&first);
            prop_assert_eq!(cache.len(), files.len());
            let mut known = cache.in_order();
            for (path, (stat, chunks)) in &files {
                prop_assert_eq!(known.chunks(path, stat), Some(chunks.clone().into()));
            }
            prop_assert_eq!(text(all.clone(), &cache, i64::MAX), first.as_str());
            let odd = |(at, _): &(usize, _)| at % 2 == 1;
            let half = text(all.clone().enumerate().filter(odd).map(|(_, file)| file), &cache, i64::MAX);
            prop_assert_eq!(text(all, &StatCache::parse(&half), i64::MAX), first.as_str());
        }

        #[test]
        fn any_text_can_be_read(text in "(file [0-9 ]{0,9}\n|chunk [0-9a-f]{0,3} 1\n|x\n){0,5}") {
            let text = head() + &text;
            prop_assert!(StatCache::parse(&text).len() < 6);
        }
    }
}
