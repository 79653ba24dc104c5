//! What was built in a directory last, so that it is not built again, and to tell why it is.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use baton_core::build::{Recipe, Step};
use baton_core::ids::{ChunkId, ReleaseId};

use crate::caches;

/// Where it is remembered what a step has made in a directory.
pub struct Kept(PathBuf);

impl Kept {
    /// For a step in this directory; nothing where there is no place for it.
    pub fn of(dir: &Path, step: &Step) -> Option<Self> {
        let dir = dir.canonicalize().ok()?;
        let name = ChunkId::of(dir.as_os_str().as_bytes()).to_string();
        Some(Self(caches::folder(&format!("build/{}", step.name))?.join(name)))
    }

    /// What its outputs were, and what they were made by.
    pub fn read(&self) -> Option<(ReleaseId, Recipe)> {
        let text = fs::read_to_string(&self.0).ok()?;
        let (id, recipe) = text.split_once('\n')?;
        Some((id.parse().ok()?, Recipe::kept(recipe.to_owned())))
    }

    /// Remembers both. A half written text is another recipe, and without it the step is taken again.
    pub fn write(&self, id: ReleaseId, recipe: &Recipe) {
        let _ = fs::write(&self.0, format!("{id}\n{}", recipe.text()));
    }
}
