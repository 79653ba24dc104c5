//! Making a release of a directory, and bringing it to a store.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;

use baton_core::ids::{ReleaseId, ServiceName};
use baton_core::release::outline::Outlined;
use baton_core::release::{
    self, Chunks, Entry, EntryKind, ExternalLinks, MANIFEST_BYTES_MAX, Manifest, ProgramFault, TextError,
    Tree, TreeFault, TreePath, check_external,
};
use baton_core::run::RunSettings;
use baton_core::settings::quoted;

use crate::cut::cut;
use crate::manifest::{Known, pack_outline};
use crate::pack::PackError;
use crate::selection::IGNORE_FILE;
pub use crate::selection::{BUILD_FOLDER, Wanted, literally};
use crate::stat_cache::{self, StatCache};
use crate::store::{ArtefactStore, Kind, StoreError};
use crate::twins::twins;
use crate::upload::{Asked, Sent, Upload};
pub use crate::walk::WalkError;
use crate::walk::{Found, FoundKind, walk};
use crate::{parallel, provenance};

/// How often a push brings what has gone since it asked: each time somebody has pruned the store just then.
const REPEATS: usize = 3;

/// What a release is made of.
#[derive(Debug, Clone)]
pub struct Source {
    /// The directory; `.git` and what `.gitignore` and `.batonignore` files in it exclude stay out.
    pub dir: PathBuf,
    /// The service that the release is for.
    pub service: ServiceName,
    /// How it wants to be run.
    pub run: RunSettings,
    /// Who or what makes it.
    pub builder: String,
}

/// What a push is doing; told as it happens, from several threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is known which files have to be read; the others are as they were.
    Found {
        /// How long they are together.
        bytes: u64,
    },
    /// One of them has been read.
    Cut {
        /// How long it is.
        bytes: u64,
    },
    /// The directory has been read.
    Read {
        /// All files together.
        bytes: u64,
    },
    /// The store has said what it lacks.
    Compared {
        /// What will be uploaded.
        bytes_new: u64,
    },
    /// A pack has been uploaded.
    Uploaded {
        /// How much of the files' content.
        bytes: u64,
    },
}

/// A release that a store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The release.
    pub id: ReleaseId,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// How many files it has.
    pub files: usize,
    /// All files together, in bytes.
    pub bytes_total: u64,
    /// Bytes of content that the store did not have; they travelled compressed.
    pub bytes_new: u64,
    /// How many chunks of files the store did not have.
    pub chunks_new: usize,
    /// What travelled for it, in bytes: the packs.
    pub bytes_sent: u64,
    /// How many packs those were.
    pub packs: u64,
}

/// Why a directory has not become a release.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Something in it cannot be read, or cannot be in a release.
    #[error("the directory cannot become a release")]
    Walk(#[from] WalkError),
    /// Two paths that are one where case or the form of accents does not count.
    #[error(
        "{one} and {other} are the same where case or the form of accents does not count; rename one, or leave push.portable out"
    )]
    Twins {
        /// One of them.
        one: TreePath,
        /// The other.
        other: TreePath,
    },
    /// Links that lead out of the directory, and are not allowed to.
    #[error(
        "{link} is a link to {target}, outside of the release; make it relative, name it in {IGNORE_FILE}, or, if every member has that file, write in baton.toml: [push] external_links = {allow}"
    )]
    External {
        /// The first of them.
        link: TreePath,
        /// Where it leads.
        target: String,
        /// The setting with which all of them would be allowed.
        allow: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tree breaks a rule.
    #[error("the directory cannot become a release")]
    Tree(#[from] TreeFault),
    /// The settings break a rule.
    #[error("no member would accept the release")]
    Manifest(#[from] TextError),
    /// The program is not there.
    #[error("the release would not start")]
    Program(#[from] ProgramFault),
    /// Somebody writes to the directory.
    #[error("{} was changed while it was pushed; push again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A pack cannot be made.
    #[error("the release cannot be packed")]
    Pack(#[from] PackError),
    /// The outline cannot be compressed for want of memory.
    #[error("the outline of the release cannot be packed")]
    Outline(#[source] io::Error),
    /// The store fails.
    #[error("the release cannot be stored")]
    Store(#[from] StoreError),
}

/// Makes a release of a directory: uploads the chunks that the store lacks, and makes it known last. See [`Prepared::send`].
pub fn push(
    source: &Source,
    store: &dyn ArtefactStore,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Pushed, PushError> {
    prepare(source, &Reading::default(), progress)?.send(store, progress)
}

/// How a directory is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// What of it belongs into the release.
    pub wanted: Wanted,
    /// The folder where it is remembered what was found in each directory, so that the next push reads only what was changed
    /// since. It is there, and is no part of the release if it lies in the directory.
    pub stat_caches: Option<PathBuf>,
    /// Whether twins are refused: see [`Prepared::twins`].
    pub portable: bool,
}

/// A release of a directory that no store knows yet.
#[derive(Debug)]
pub struct Prepared {
    dir: PathBuf,
    stat_caches: Option<PathBuf>,
    id: ReleaseId,
    manifest: Arc<Manifest>,
    outlined: Outlined,
}

/// What a store lacks of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// Content of files, in bytes, before it is compressed.
    pub bytes: u64,
    /// The same in chunks.
    pub chunks: usize,
}

/// Reads a directory.
///
/// # Errors
/// It cannot be read, or is nothing that a member would start.
pub fn prepare(
    source: &Source,
    reading: &Reading,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Prepared, PushError> {
    let manifest = Arc::new(read(source, reading, progress)?);
    let text = manifest.to_text();
    check(&manifest, &text)?;
    if reading.portable
        && let Some((one, other)) = twins(&manifest.tree).first()
    {
        return Err(PushError::Twins { one: (*one).clone(), other: (*other).clone() });
    }
    progress(Step::Read { bytes: manifest.tree.bytes() });
    let (dir, stat_caches) = (source.dir.clone(), reading.stat_caches.clone());
    Ok(Prepared { dir, stat_caches, id: release::id_of(&text), manifest, outlined: Outlined::of(&text) })
}

impl Prepared {
    /// A release of what a store has already, with another head.
    ///
    /// # Errors
    /// It is nothing that a member would start.
    pub fn again(manifest: Manifest) -> Result<Self, PushError> {
        let text = manifest.to_text();
        check(&manifest, &text)?;
        // Nothing is read from there: whatever the store lacks is not to be had.
        let dir = PathBuf::new();
        Ok(Self {
            dir,
            stat_caches: None,
            id: release::id_of(&text),
            manifest: Arc::new(manifest),
            outlined: Outlined::of(&text),
        })
    }

    /// Its id.
    pub fn id(&self) -> ReleaseId {
        self.id
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What need not travel to read another manifest that resembles this one.
    pub fn known(&self) -> Known {
        Known::of(&self.outlined)
    }

    /// Paths that are the same where case or the form of accents does not count, as on macOS and Windows.
    pub fn twins(&self) -> Vec<(&TreePath, &TreePath)> {
        twins(&self.manifest.tree)
    }

    /// What a store lacks of it.
    ///
    /// # Errors
    /// The store fails.
    pub fn lacking(&self, store: &dyn ArtefactStore) -> Result<Lacking, PushError> {
        let missing = self.upload(store, &|_| {}).missing(Asked::ByOutline)?;
        Ok(Lacking { bytes: missing.bytes(), chunks: missing.content.len() })
    }

    /// Uploads the chunks that the store lacks, and makes the release known last.
    ///
    /// On return the release is durable and complete in the store. After an error or a crash the store does not know
    /// it; pushing again uploads only the rest.
    ///
    /// # Errors
    /// The store fails, or somebody has written to the directory since it was read.
    pub fn send(
        &self,
        store: &dyn ArtefactStore,
        progress: &(dyn Fn(Step) + Sync),
    ) -> Result<Pushed, PushError> {
        let packed = pack_outline(&self.outlined.top).map_err(PushError::Outline)?;
        let upload = self.upload(store, progress);
        let published = || -> Result<Sent, PushError> {
            let mut sent = upload.run(Asked::ByOutline)?;
            for _ in 0..REPEATS {
                match store.publish(self.id, &packed) {
                    // Somebody has put a part of the manifest without what it names, or something is lost or removed: ask
                    // for every chunk.
                    Err(error) if error.kind == Kind::Missing => sent += upload.run(Asked::All)?,
                    done => return Ok(done.map(|()| sent)?),
                }
            }
            store.publish(self.id, &packed)?;
            Ok(sent)
        };
        let sent = published().inspect_err(|error| {
            if let (PushError::Changed { .. }, Some(caches)) = (error, &self.stat_caches) {
                // Should it be wrong about that file, the next push shall not believe it again.
                stat_cache::forget(caches, &self.dir);
            }
        })?;
        let (files, bytes_total) = (self.manifest.tree.files().count(), self.manifest.tree.bytes());
        let Sent { content: bytes_new, chunks: chunks_new, bytes: bytes_sent, packs } = sent;
        let (id, manifest) = (self.id, Arc::clone(&self.manifest));
        Ok(Pushed { id, manifest, files, bytes_total, bytes_new, chunks_new, bytes_sent, packs })
    }

    fn upload<'a>(&'a self, store: &'a dyn ArtefactStore, progress: &'a (dyn Fn(Step) + Sync)) -> Upload<'a> {
        Upload { dir: &self.dir, tree: &self.manifest.tree, outlined: &self.outlined, store, progress }
    }
}

/// Whether members will accept what is published, whoever made the settings.
fn check(manifest: &Manifest, text: &str) -> Result<(), PushError> {
    // The tree was checked when it was put together, entry by entry; its length is all that is left of it.
    let Manifest { service, provenance, run, tree: _ } = manifest;
    let (service, provenance, run) = (service.clone(), provenance.clone(), run.clone());
    let head = Manifest { service, provenance, run, tree: Tree::of(Vec::new())? }.to_text();
    Manifest::parse(if text.len() > MANIFEST_BYTES_MAX { text } else { &head })?;
    manifest.check_program()?;
    Ok(())
}

/// The manifest of a directory.
fn read(source: &Source, reading: &Reading, progress: &(dyn Fn(Step) + Sync)) -> Result<Manifest, PushError> {
    // Git looks at the directory meanwhile.
    let (commit, tree) = thread::scope(|scope| {
        let commit = scope.spawn(|| provenance::commit(&source.dir));
        let tree = read_tree(&source.dir, &reading.wanted, reading.stat_caches.as_deref(), progress);
        (commit.join().ok().flatten(), tree)
    });
    let (tree, newest) = tree?;
    let provenance = provenance::of(commit, source.builder.clone(), newest);
    Ok(Manifest { service: source.service.clone(), provenance, run: source.run.clone(), tree })
}

/// What is wanted of a directory, and when any of it was changed last, in milliseconds since 1970.
pub(crate) fn read_tree(
    dir: &Path,
    wanted: &Wanted,
    stat_caches: Option<&Path>,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<(Tree, u64), PushError> {
    let began = stat_cache::now();
    let place = stat_caches.and_then(|caches| stat_cache::place(caches, dir));
    let own = wanted.own.clone().or_else(|| stat_caches.map(Path::to_owned));
    let wanted = Wanted { own, ..wanted.clone() };
    let mut text = String::new();
    let (cache, found) = thread::scope(|scope| {
        // What is known is read meanwhile.
        let cache = scope.spawn(|| place.as_deref().map(|place| stat_cache::read(place, &mut text)));
        let found = walk(dir, &wanted);
        (cache.join().ok().flatten().unwrap_or_default(), found)
    });
    let found = found?;
    check_external_links(&found, &wanted.external_links)?;
    let newest = found.iter().map(|found| found.stat.modified_ms()).max().unwrap_or(0);
    let cut = cut_all(dir, &found, &cache, progress)?;
    if let Some(place) = &place {
        let files = || found.iter().zip(&cut.chunks).filter(|(found, _)| found.is_file());
        if cut.anew > 0 || cache.len() != files().count() {
            let files = files().map(|(found, chunks)| (found.path.as_str(), &found.stat, chunks.as_slice()));
            // Without it the next push takes longer, and nothing else.
            let _ = stat_cache::write(place, &stat_cache::text(files, &cache, began));
        }
    }
    let entry = |(Found { path, kind, .. }, chunks)| {
        let kind = match kind {
            FoundKind::Dir => EntryKind::Dir,
            FoundKind::Link { target } => EntryKind::Link { target },
            FoundKind::File { executable } => EntryKind::File(release::File { executable, chunks }),
        };
        Entry { path, kind }
    };
    let entries = found.into_iter().zip(cut.chunks).map(entry).collect();
    Ok((Tree::reaching(wanted.external_links, entries)?, newest))
}

/// Whether all links that lead out of the directory may. What to write is told for all of them at once.
fn check_external_links(found: &[Found], allowed: &ExternalLinks) -> Result<(), PushError> {
    let outside = |found: &Found| match &found.kind {
        FoundKind::Link { target } if check_external(target).is_ok() && !allowed.allow(target) => {
            Some((found.path.clone(), target.clone()))
        }
        FoundKind::Link { .. } | FoundKind::Dir | FoundKind::File { .. } => None,
    };
    let refused: Vec<(TreePath, String)> = found.iter().filter_map(outside).collect();
    let Some((link, target)) = refused.first().cloned() else { return Ok(()) };
    let all: BTreeSet<&str> =
        allowed.iter().chain(refused.iter().map(|(_, target)| target.as_str())).collect();
    let quoted: Vec<String> = all.into_iter().map(quoted).collect();
    Err(PushError::External { link, target, allow: format!("[{}]", quoted.join(", ")) })
}

/// The chunks of everything that was found; none for what is not a file.
struct Cut {
    chunks: Vec<Chunks>,
    /// How many files had to be read.
    anew: usize,
}

fn cut_all(
    dir: &Path,
    found: &[Found],
    cache: &StatCache<'_>,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Cut, PushError> {
    let mut cache = cache.in_order();
    let mut known = |found: &Found| match found.is_file() {
        true => cache.chunks(found.path.as_str(), &found.stat),
        false => Some(Chunks::new()),
    };
    let results: Vec<(&Found, OnceLock<Chunks>)> =
        found.iter().map(|found| (found, known(found).map_or_else(OnceLock::new, OnceLock::from))).collect();
    let unknown: Vec<_> = results.iter().filter(|(_, chunks)| chunks.get().is_none()).collect();
    progress(Step::Found { bytes: unknown.iter().map(|(found, _)| found.stat.bytes()).sum() });
    parallel::for_each(&unknown, |(found, chunks)| {
        let full = dir.join(found.path.as_str());
        let cut = cut(&full).map_err(|source| read_error(&full, source))?;
        chunks.get_or_init(|| cut);
        progress(Step::Cut { bytes: found.stat.bytes() });
        Ok::<(), PushError>(())
    })?;
    let anew = unknown.len();
    let chunks = results.into_iter().map(|(_, chunks)| chunks.into_inner().unwrap_or_default()).collect();
    Ok(Cut { chunks, anew })
}

pub(crate) fn read_error(path: &Path, source: io::Error) -> PushError {
    PushError::Read { path: path.to_owned(), source }
}
