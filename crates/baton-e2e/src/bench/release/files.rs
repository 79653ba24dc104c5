//! What knows nothing of a difference: an archive, and a second name for each file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Way;
use super::cost::{Cost, run};
use super::tree::Tree;

/// What the archive is called.
pub const TAR: &str = "`tar` and `zstd -3`";

/// `tar`, compressed with `zstd`, in a file.
pub struct Tar {
    archive: PathBuf,
    member: PathBuf,
}

impl Tar {
    /// In a folder.
    pub fn new(folder: &Path) -> Self {
        Self { archive: folder.join("tree.tar.zst"), member: folder.join("member") }
    }
}

impl Way for Tar {
    fn name(&self) -> &'static str {
        TAR
    }

    fn push(&mut self, tree: &Tree) -> anyhow::Result<Option<Cost>> {
        let mut command = Command::new("tar");
        command.args(["-I", "zstd -3", "-cf"]).arg(&self.archive).arg("-C").arg(tree.dir()).arg(".");
        Cost::of(&[], || run(&mut command).map(drop)).map(Some)
    }

    fn fetch(&mut self) -> anyhow::Result<Cost> {
        let script = format!("zstd -dc {} | tar -x -C {}", self.archive.display(), self.member.display());
        fs::create_dir_all(&self.member)?;
        let cost = Cost::of(&[], || run(Command::new("sh").args(["-c", &script])).map(drop))?;
        Ok(Cost { bytes: fs::metadata(&self.archive)?.len(), ..cost })
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(&self.member)?)
    }
}

/// `cp -al`: nothing is copied, and what one version changes the other one has changed.
pub struct Links {
    first: PathBuf,
    member: PathBuf,
}

impl Links {
    /// In a folder.
    pub fn new(folder: &Path) -> Self {
        Self { first: folder.join("first"), member: folder.join("member") }
    }
}

impl Way for Links {
    fn name(&self) -> &'static str {
        "`cp -al` of a tree that is there"
    }

    fn push(&mut self, tree: &Tree) -> anyhow::Result<Option<Cost>> {
        if !self.first.exists() {
            run(Command::new("cp").arg("-a").arg(tree.dir()).arg(&self.first))?;
        }
        Ok(None)
    }

    fn fetch(&mut self) -> anyhow::Result<Cost> {
        Cost::of(&[], || run(Command::new("cp").arg("-al").arg(&self.first).arg(&self.member)).map(drop))
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(&self.member)?)
    }
}
