//! A folder in the project where a build has its things, so that a rename brings them to their place: old or new, never half.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use baton_core::build::Step;
use baton_core::release::TreePath;
use baton_release::disk::remove;
use baton_release::push::BUILD_FOLDER;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::ui::Ui;

/// The right to build in a directory, and the folder for it. Both end with it.
pub struct Bench {
    dir: PathBuf,
    path: PathBuf,
    /// The directory itself, locked.
    _lock: File,
}

impl Bench {
    /// Waits until nobody else builds here, and clears up what a build that was killed has left.
    pub fn take(dir: &Path, steps: &[Step], ui: &Ui) -> io::Result<Self> {
        let lock = File::open(dir)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                ui.remark("waiting for another build in this directory");
                rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
            }
            done => done?,
        }
        let bench = Self { dir: dir.to_owned(), path: dir.join(BUILD_FOLDER), _lock: lock };
        for output in steps.iter().flat_map(|step| &step.outputs) {
            if fs::symlink_metadata(bench.before(output)).is_ok() {
                bench.give_back(output)?;
            }
        }
        remove(&bench.path)?;
        Ok(bench)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An empty folder for something new.
    pub fn new_folder(&self) -> io::Result<PathBuf> {
        let new = self.path.join("new");
        remove(&new)?;
        fs::create_dir_all(&new)?;
        Ok(new)
    }

    fn before(&self, output: &TreePath) -> PathBuf {
        self.path.join("before").join(output.as_str())
    }

    /// Puts an output back that was moved away.
    fn give_back(&self, output: &TreePath) -> io::Result<()> {
        let place = self.dir.join(output.as_str());
        remove(&place)?;
        move_to(&self.before(output), &place)
    }
}

impl Drop for Bench {
    /// What cannot be removed is removed by the next build, and is in no release.
    fn drop(&mut self) {
        let _ = remove(&self.path);
    }
}

/// The outputs of a step, moved away. They are put back when it is dropped, unless what takes their place is complete.
pub struct Aside {
    bench: Bench,
    outputs: Vec<TreePath>,
    is_settled: bool,
}

impl Aside {
    /// Moves away what is there.
    pub fn take(bench: &Bench, step: &Step) -> io::Result<Self> {
        let _lock = bench._lock.try_clone()?;
        let bench = Bench { dir: bench.dir.clone(), path: bench.path.clone(), _lock };
        let mut aside = Self { bench, outputs: Vec::new(), is_settled: false };
        for output in &step.outputs {
            let place = aside.bench.dir.join(output.as_str());
            if fs::symlink_metadata(&place).is_ok() {
                move_to(&place, &aside.bench.before(output))?;
            }
            // Not before: what could not be moved away is not to be removed.
            aside.outputs.push(output.clone());
        }
        Ok(aside)
    }

    /// Moves outputs from a folder to their places.
    pub fn put(&self, from: &Path) -> io::Result<()> {
        let put =
            |output: &TreePath| move_to(&from.join(output.as_str()), &self.bench.dir.join(output.as_str()));
        self.outputs.iter().try_for_each(put)
    }

    /// What is in their place now stays there.
    pub fn settle(mut self) {
        self.is_settled = true;
        // At once, so that who is killed while removing it leaves nothing that would be put back.
        let _ = fs::rename(self.bench.path.join("before"), self.bench.path.join("replaced"));
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        for output in &self.outputs {
            // What cannot be put back now is by the next build.
            let _ = match fs::symlink_metadata(self.bench.before(output)) {
                Ok(_) => self.bench.give_back(output),
                Err(_) => remove(&self.bench.dir.join(output.as_str())).map_err(io::Error::from),
            };
        }
    }
}

fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
    fs::rename(from, to)
}
