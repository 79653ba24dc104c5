//! What a build step makes, kept in a store and brought back from there.
//!
//! Outputs are a tree, cut and packed like a release, with a manifest of their own that no store publishes. Where that is, a
//! [`Record`] tells, which control keeps under the step's [key](baton_core::ids::BuildKey). Whoever brings outputs back believes
//! nothing but hashes: that of the manifest in the record, and those of the chunks in the manifest.

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use baton_core::build::Step;
use baton_core::ids::ServiceName;
use baton_core::release::outline::Outlined;
use baton_core::release::{Chunk, Entry, EntryKind, ExternalLinks, Manifest, Provenance, Tree, TreePath};
use baton_core::run::RunSettings;

use crate::beneath::{Beneath, EXEC_MODE, FILE_MODE};
use crate::disk::{DiskError, failed};
use crate::manifest::{self, Known, ManifestError};
use crate::push::{PushError, Wanted, literally, read_tree};
use crate::read::{self, ReadError, Source};
use crate::record::Record;
use crate::store::ArtefactStore;
use crate::upload::{Asked, Upload};

/// Why outputs are not here.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store fails, or sends what is not allowed.
    #[error("the outputs cannot be read")]
    Read(#[from] ReadError),
    /// The manifest is not the one that the record names, or breaks a rule.
    #[error("the outputs are refused")]
    Manifest(#[from] ManifestError),
    /// A link of theirs leads outside, and the settings do not allow it to.
    #[error("a link in them may lead to {0}, which push.external_links does not name")]
    External(String),
    /// The disk fails, or is full.
    #[error("the outputs cannot be laid out")]
    Disk(#[from] DiskError),
}

/// What a step makes, as it lies in a directory now.
pub struct Outputs {
    dir: PathBuf,
    manifest: Manifest,
    outlined: Outlined,
}

impl Outputs {
    /// Reads them. Without times and names of people, so that the same outputs are the same everywhere.
    ///
    /// # Errors
    /// They cannot be read, or cannot be in a release.
    pub fn read(
        dir: &Path,
        service: &ServiceName,
        step: &Step,
        external_links: &ExternalLinks,
        stat_caches: Option<&Path>,
    ) -> Result<Self, PushError> {
        let include = step.outputs.iter().map(|output| literally(output.as_str())).collect();
        let external_links = external_links.clone();
        let wanted = Wanted { include, external_links, only: true, ..Wanted::default() };
        let (tree, _) = read_tree(dir, &wanted, stat_caches, &|_| {})?;
        let manifest = Manifest {
            service: service.clone(),
            provenance: Provenance { created: 0, builder: String::new(), commit: None },
            run: RunSettings::for_command(step.run.clone()),
            tree,
        };
        let outlined = Outlined::of(&manifest.to_text());
        Ok(Self { dir: dir.to_owned(), manifest, outlined })
    }

    /// Where they will be in the store.
    pub fn record(&self) -> Record {
        Record { id: self.manifest.id(), outline: self.outlined.top.clone() }
    }

    /// Their files.
    pub fn tree(&self) -> &Tree {
        &self.manifest.tree
    }

    /// Uploads what a store lacks of them. `all` asks for every chunk, where the parts of the manifest tell too little.
    ///
    /// # Errors
    /// The store fails, or somebody writes to them.
    pub fn send(&self, store: &dyn ArtefactStore, all: bool) -> Result<(), PushError> {
        let (dir, tree, outlined) = (&self.dir, &self.manifest.tree, &self.outlined);
        let upload = Upload { dir, tree, outlined, store, progress: &|_| {} };
        upload.run(if all { Asked::All } else { Asked::ByOutline }).map(drop)
    }
}

/// The files that a step is made of.
///
/// # Errors
/// They cannot be read.
pub fn inputs(
    dir: &Path,
    step: &Step,
    external_links: &ExternalLinks,
    stat_caches: Option<&Path>,
) -> Result<Tree, PushError> {
    let anchored = |pattern: &String| format!("/{}", pattern.trim_start_matches('/'));
    let (include, external_links) = (step.inputs.iter().map(anchored).collect(), external_links.clone());
    let wanted = Wanted { include, external_links, only: true, ..Wanted::default() };
    Ok(read_tree(dir, &wanted, stat_caches, &|_| {})?.0)
}

/// Brings the outputs of a record into an empty directory; tells what they are. Links in them lead to what is `allowed`, and
/// otherwise not outside: whoever can push may have made them.
///
/// # Errors
/// The store lacks some of them or sends what is not allowed, or the disk fails. What has been written then is not to be used.
pub fn restore(
    record: &Record,
    store: &dyn ArtefactStore,
    allowed: &ExternalLinks,
    into: &Path,
) -> Result<Tree, RestoreError> {
    let known = &mut Known::default();
    let manifest = manifest::assemble(record.id, &record.outline, known, Source::Store(store))?.manifest;
    if let Some(outside) = manifest.tree.external().iter().find(|target| !allowed.allow(target)) {
        return Err(RestoreError::External(outside.to_owned()));
    }
    let place = Beneath::open(into).map_err(failed("open", into))?;
    let full = |path: &TreePath| into.join(path.as_str());
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut places: HashMap<Chunk, Vec<(&TreePath, u64)>> = HashMap::new();
    let mut cursor = place.cursor();
    for Entry { path, kind } in manifest.tree.entries() {
        let created = match kind {
            EntryKind::Dir => cursor.create_dir(path),
            EntryKind::Link { target } => cursor.create_link(path, target),
            EntryKind::File(file) => {
                let mut offset = 0;
                for chunk in &file.chunks {
                    let known = places.entry(*chunk).or_default();
                    if known.is_empty() {
                        chunks.push(*chunk);
                    }
                    known.push((path, offset));
                    offset += u64::from(chunk.bytes);
                }
                place.create_file(path).map(drop)
            }
        };
        created.map_err(failed("create", full(path)))?;
    }
    read::each(Source::Store(store), &chunks, |chunk, content| {
        for (path, offset) in places.get(&chunk).into_iter().flatten() {
            let written = place.write(path).and_then(|file| file.write_all_at(content, *offset));
            written.map_err(failed("write", full(path)))?;
        }
        Ok::<(), RestoreError>(())
    })?;
    for (path, file) in manifest.tree.files() {
        let mode = if file.executable { EXEC_MODE } else { FILE_MODE };
        let set = place.read(path).and_then(|file| file.set_permissions(Permissions::from_mode(mode)));
        set.map_err(failed("set the mode of", full(path)))?;
    }
    Ok(manifest.tree)
}
