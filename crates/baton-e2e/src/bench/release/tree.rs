//! The tree that is brought, and what changes in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};

use super::Places;
use super::cost::run;

/// How often each change is measured, and how often a start from nothing.
const TURNS: usize = 5;
const COLD_TURNS: usize = 3;

/// What changes from one turn to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The member has nothing.
    All,
    /// A line in one file of the application.
    OneFile,
    /// A line in each of twenty.
    TwentyFiles,
    /// One dependency gets another version.
    Dependency,
    /// A binary of more than 100 MB, alone in its tree, gets another version.
    Binary,
    /// Nothing.
    Nothing,
}

/// A tree as people have it: an application and its dependencies, or one binary.
#[derive(Debug)]
pub struct Tree {
    dir: PathBuf,
    /// Files of the application.
    files: Vec<PathBuf>,
    /// What it consists of in turns, and where that is.
    versions: [PathBuf; 2],
    place: PathBuf,
}

/// Changes that are made in one tree, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// How it is asked for.
    pub name: &'static str,
    /// Which.
    pub changes: &'static [Change],
}

impl Group {
    /// Every one.
    pub const ALL: [Self; 4] = [
        Self { name: "all", changes: &[Change::All] },
        Self { name: "files", changes: &[Change::OneFile, Change::TwentyFiles, Change::Nothing] },
        Self { name: "dependency", changes: &[Change::Dependency] },
        Self { name: "binary", changes: &[Change::Binary] },
    ];
}

impl Change {
    /// For people.
    pub fn told(self) -> &'static str {
        match self {
            Self::All => "all of it, to a member that has nothing",
            Self::OneFile => "a line in one file",
            Self::TwentyFiles => "a line in each of twenty files",
            Self::Dependency => "another version of one dependency",
            Self::Binary => "another version of a single binary",
            Self::Nothing => "nothing",
        }
    }

    /// How often it is measured.
    pub fn turns(self) -> usize {
        match self {
            Self::OneFile | Self::TwentyFiles | Self::Nothing => TURNS,
            Self::All | Self::Dependency | Self::Binary => COLD_TURNS,
        }
    }

    /// Whether there is but one such change: who has seen it has all of it for ever, and is no measure any more.
    pub fn is_once(self) -> bool {
        match self {
            Self::Dependency | Self::Binary => true,
            Self::All | Self::OneFile | Self::TwentyFiles | Self::Nothing => false,
        }
    }

    fn files(self) -> usize {
        match self {
            Self::OneFile => 1,
            Self::TwentyFiles => 20,
            Self::All | Self::Dependency | Self::Binary | Self::Nothing => 0,
        }
    }
}

impl Tree {
    /// Makes one in a folder in which these changes can be made.
    ///
    /// # Errors
    /// When what it is made of is not there.
    pub fn make(places: &Places, changes: &[Change], folder: &Path) -> anyhow::Result<Self> {
        let dir = folder.join("tree");
        let (app, modules) = (dir.join("app"), dir.join("node_modules"));
        fs::create_dir_all(&app)?;
        let settings = "service = \"web\"\n[run]\ncommand = [\"sleep\", \"infinity\"]\n";
        fs::write(dir.join("baton.toml"), settings)?;
        let copy = |from: &Path, to: &Path| run(Command::new("cp").arg("-a").arg(from).arg(to)).map(drop);
        let is_binary = changes.contains(&Change::Binary);
        let (versions, place) = if is_binary {
            fs::create_dir(&modules)?;
            (places.binary.clone(), app.join("node"))
        } else {
            copy(&places.dependencies.join("node_modules"), &modules)?;
            // Code as an application has it; that it is also a dependency makes no difference to who changes it.
            copy(&modules.join("express/lib"), &app.join("lib"))?;
            copy(&modules.join("lodash/fp"), &app.join("fp"))?;
            let lodash = |from: &Path| from.join("node_modules/lodash");
            ([lodash(&places.dependencies), lodash(&places.upgraded)], modules.join("lodash"))
        };
        let tree = Self { files: files(&app)?, dir, versions, place };
        if is_binary {
            tree.install(0)?;
        }
        let enough = changes.iter().all(|change| change.files() <= tree.files.len());
        ensure!(enough, "the application has too few files");
        Ok(tree)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Changes it for a turn.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn change(&self, change: Change, turn: usize) -> anyhow::Result<()> {
        match change {
            Change::OneFile | Change::TwentyFiles => {
                let count = change.files();
                for file in self.files.iter().cycle().skip(turn * count).take(count) {
                    let text = fs::read_to_string(file)?;
                    fs::write(file, format!("{text}// turn {turn}\n"))?;
                }
                Ok(())
            }
            Change::Dependency | Change::Binary => self.install(turn),
            Change::All | Change::Nothing => Ok(()),
        }
    }

    fn install(&self, turn: usize) -> anyhow::Result<()> {
        if self.place.is_dir() {
            fs::remove_dir_all(&self.place)?;
        }
        run(Command::new("cp").arg("-a").arg(&self.versions[turn % 2]).arg(&self.place)).map(drop)
    }

    /// How much of it there is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn told(&self) -> anyhow::Result<String> {
        let files = files(&self.dir)?;
        let bytes = files.iter().map(|path| Ok(fs::metadata(path)?.len())).sum::<anyhow::Result<u64>>()?;
        Ok(format!("{} files, {:.1} MB", files.len(), bytes as f64 / 1e6))
    }

    /// How long it takes to walk it, once what it needs is in memory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn walk_ms(&self) -> anyhow::Result<f64> {
        let find = || run(Command::new("find").arg(&self.dir).args(["-newermt", "2100-01-01"]));
        find()?;
        let start = Instant::now();
        find()?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    }

    /// The files that change in a turn, compressed together, in bytes.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn compressed(&self, change: Change) -> anyhow::Result<u64> {
        let changed: Vec<PathBuf> = match change {
            Change::OneFile | Change::TwentyFiles => self.files[..change.files()].to_vec(),
            Change::Dependency | Change::Binary => vec![self.place.clone()],
            Change::All | Change::Nothing => return Ok(0),
        };
        let archive = self.dir.with_extension("zst");
        run(Command::new("tar").args(["-I", "zstd -3", "-cf"]).arg(&archive).args(changed))?;
        let bytes = fs::metadata(&archive)?.len();
        fs::remove_file(archive)?;
        Ok(bytes)
    }
}

/// The files beneath a folder, in the order of their names.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}
