//! Which files of a directory belong into a release.
//!
//! What `push.exclude` names stays out, and what `push.include` names is in, with all that is in it. For the rest, what
//! `.batonignore` files say goes before what `.gitignore` files say, and of each the file that is nearest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use baton_core::release::ExternalLinks;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder, Glob};

use crate::walk::WalkError;

/// Names what does not belong into a release, in the syntax of `.gitignore`; it has the last word over those.
pub(crate) const IGNORE_FILE: &str = ".batonignore";
/// What git ignores is not in a release either, unless somebody says so.
const GIT_IGNORE_FILE: &str = ".gitignore";
/// What git keeps for itself.
const GIT: &str = ".git";
/// Where a build lays its outputs down before they are complete; what a build that was killed has left there is nobody's.
pub const BUILD_FOLDER: &str = ".baton-build";

/// What the settings say about which files belong into a release: patterns as in `.gitignore`, from the directory on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// What is in it whatever ignore files say, with all that is in it.
    pub include: Vec<String>,
    /// What is not in it in any case.
    pub exclude: Vec<String>,
    /// Nothing is in it but what `include` names.
    pub only: bool,
    /// Where links in it may lead outside.
    pub external_links: ExternalLinks,
    /// A place that is never in it, should it lie in the directory: where Baton keeps what it has found out about it.
    pub own: Option<PathBuf>,
}

/// [`Wanted`], ready to be asked.
pub(crate) struct Selection {
    include: Gitignore,
    exclude: Gitignore,
    /// The patterns of `include`, name by name.
    named: Vec<Vec<String>>,
    /// From the directory on.
    own: Option<PathBuf>,
}

/// Why something in a directory is looked at.
#[derive(Clone)]
pub(crate) enum Within {
    /// Nothing has been said about all of it: ignore files decide.
    Rules(Arc<Rules>),
    /// All of it is in.
    Included,
    /// Something beneath is included; the rest was ignored.
    Passing,
}

/// The ignore files of a directory, and of those around it.
pub(crate) struct Rules {
    around: Option<Arc<Rules>>,
    baton: Gitignore,
    git: Gitignore,
}

impl Selection {
    /// For this directory.
    pub(crate) fn new(dir: &Path, wanted: &Wanted) -> Result<Self, WalkError> {
        let names = |pattern: &String| pattern.trim_matches('/').split('/').map(str::to_owned).collect();
        let named = wanted.include.iter().map(names).collect();
        Ok(Self {
            include: patterns(dir, "push.include", &wanted.include)?,
            exclude: patterns(dir, "push.exclude", &wanted.exclude)?,
            named,
            own: wanted.own.as_deref().and_then(|own| beneath(dir, own)),
        })
    }

    /// How something is looked at that lies in a directory that is looked at like this; nothing when it stays out.
    /// `full` is where it is, and `path` the same from the directory of the release on.
    pub(crate) fn select(&self, within: &Within, full: &Path, path: &str, is_dir: bool) -> Option<Within> {
        if full.file_name().is_some_and(|name| name == GIT || name == BUILD_FOLDER)
            || self.own.as_deref() == Some(Path::new(path))
        {
            return None;
        }
        if self.exclude.matched(full, is_dir).is_ignore() {
            return None;
        }
        let passing = || (is_dir && self.is_on_the_way(path)).then_some(Within::Passing);
        match within {
            Within::Included => Some(Within::Included),
            Within::Rules(_) | Within::Passing if self.include.matched(full, is_dir).is_ignore() => {
                Some(Within::Included)
            }
            Within::Passing => passing(),
            Within::Rules(rules) if rules.ignore(full, is_dir) => passing(),
            Within::Rules(rules) => Some(Within::Rules(Arc::clone(rules))),
        }
    }

    /// Whether something beneath a directory may be named. Patterns of one name mean what lies anywhere, and are no reason to
    /// look into everything that is ignored.
    fn is_on_the_way(&self, dir: &str) -> bool {
        self.named.iter().any(|named| leads_to(dir, named))
    }
}

/// Whether a path may be that of a directory around what a pattern names.
fn leads_to(dir: &str, named: &[String]) -> bool {
    let mut names = named.iter();
    for dir in dir.split('/') {
        match names.next() {
            None => return false,
            Some(any) if any == "**" => return true,
            Some(name) if is_glob(name) => {}
            Some(name) if name.replace('\\', "") == dir => {}
            Some(_) => return false,
        }
    }
    names.len() > 0
}

/// Whether a name of a pattern stands for several.
fn is_glob(name: &str) -> bool {
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            // What follows means itself.
            '\\' => drop(chars.next()),
            '*' | '?' | '[' | '{' => return true,
            _ => {}
        }
    }
    false
}

impl Within {
    /// The same for what lies in a directory, which has these ignore files.
    pub(crate) fn enter(self, dir: &Path, ignore_files: &[PathBuf]) -> Result<Self, WalkError> {
        match self {
            Self::Rules(rules) if !ignore_files.is_empty() => {
                Rules::read(Some(rules), dir, ignore_files).map(|rules| Self::Rules(Arc::new(rules)))
            }
            other => Ok(other),
        }
    }

    /// The directory of the release itself, before its ignore files were read.
    pub(crate) fn top(wanted: &Wanted) -> Self {
        if wanted.only {
            return Self::Passing;
        }
        let (baton, git) = (Gitignore::empty(), Gitignore::empty());
        Self::Rules(Arc::new(Rules { around: None, baton, git }))
    }
}

/// Whether a file of this name says what is ignored.
pub(crate) fn is_ignore_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == IGNORE_FILE || name == GIT_IGNORE_FILE)
}

impl Rules {
    fn read(around: Option<Arc<Self>>, dir: &Path, files: &[PathBuf]) -> Result<Self, WalkError> {
        let read = |name: &str| match files.iter().find(|file| file.ends_with(name)) {
            None => Ok(Gitignore::empty()),
            Some(file) => {
                let mut builder = GitignoreBuilder::new(dir);
                match builder.add(file) {
                    Some(error) if error.is_io() => Err(WalkError::Ignore(error)),
                    // As with git, a line that makes no sense says nothing.
                    Some(_) | None => builder.build().map_err(WalkError::Ignore),
                }
            }
        };
        Ok(Self { around, baton: read(IGNORE_FILE)?, git: read(GIT_IGNORE_FILE)? })
    }

    fn ignore(&self, full: &Path, is_dir: bool) -> bool {
        let nearest = |file: fn(&Self) -> &Gitignore| {
            let mut rules = std::iter::successors(Some(self), |rules| rules.around.as_deref());
            rules.find_map(|rules| decided(&file(rules).matched(full, is_dir)))
        };
        nearest(|rules| &rules.baton).or_else(|| nearest(|rules| &rules.git)).unwrap_or(false)
    }
}

/// What a match says: ignored or not; nothing when nothing has matched.
fn decided(found: &Match<&Glob>) -> Option<bool> {
    match found {
        Match::None => None,
        Match::Ignore(_) => Some(true),
        Match::Whitelist(_) => Some(false),
    }
}

fn patterns(dir: &Path, setting: &'static str, patterns: &[String]) -> Result<Gitignore, WalkError> {
    let mut builder = GitignoreBuilder::new(dir);
    builder.allow_unclosed_class(false);
    for pattern in patterns {
        let wrong = |source| WalkError::Pattern { setting, pattern: pattern.clone(), source };
        builder.add_line(None, pattern).map_err(wrong)?;
    }
    builder.build().map_err(WalkError::Ignore)
}

/// A place from a directory on, if it lies in it.
fn beneath(dir: &Path, place: &Path) -> Option<PathBuf> {
    let (dir, place) = (dir.canonicalize().ok()?, place.canonicalize().ok()?);
    place.strip_prefix(&dir).ok().map(Path::to_owned)
}

/// The pattern that names exactly this path.
pub fn literally(path: &str) -> String {
    let mut pattern = "/".to_owned();
    for c in path.chars() {
        if "*?[]{}!#\\ ".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
