//! What was built in a directory last, so that it is not built again, and to tell why it is.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use baton_core::build::{Recipe, Step};
use baton_core::ids::{ChunkId, ReleaseId};

use crate::caches;

/// The command has run here.
const MADE: &str = "made";
/// The outputs came from the store.
const BROUGHT: &str = "brought";

/// What was built last.
pub struct Last {
    /// The hash of what the outputs were.
    pub outputs: ReleaseId,
    /// Whether the command has run on this machine.
    pub made_here: bool,
    /// What they were made by.
    pub recipe: Recipe,
}

/// Where it is remembered what a step has made in a directory.
pub struct Kept(PathBuf);

impl Kept {
    /// For a step in this directory; nothing where there is no place for it.
    pub fn of(dir: &Path, step: &Step) -> Option<Self> {
        let dir = dir.canonicalize().ok()?;
        let name = ChunkId::of(dir.as_os_str().as_bytes()).to_string();
        Some(Self(caches::folder(&format!("build/{}", step.name))?.join(name)))
    }

    /// What was built last.
    pub fn read(&self) -> Option<Last> {
        let text = fs::read_to_string(&self.0).ok()?;
        let (first, recipe) = text.split_once('\n')?;
        let (origin, outputs) = first.split_once(' ')?;
        let made_here = match origin {
            MADE => true,
            BROUGHT => false,
            _ => return None,
        };
        Some(Last { outputs: outputs.parse().ok()?, made_here, recipe: Recipe::kept(recipe.to_owned()) })
    }

    /// Remembers it. A half written text is another recipe, and without it the step is taken again.
    pub fn write(&self, last: &Last) {
        let Last { outputs, made_here, recipe } = last;
        let origin = if *made_here { MADE } else { BROUGHT };
        let _ = fs::write(&self.0, format!("{origin} {outputs}\n{}", recipe.text()));
    }
}
