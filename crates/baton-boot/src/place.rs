//! Where a generation's files are.

mod mark;
mod scratch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baton_core::ids::GenerationId;
use baton_core::supervisor::Running;
use baton_release::releases::ReleasesDir;
use baton_sys::attributes::User;
use tokio::task::spawn_blocking;

use self::mark::Mark;
pub use self::mark::{CutOff, Note};
use self::scratch::Scratch;

/// Where the state is when nothing else is said.
pub const STATE_DIR_DEFAULT: &str = "/var/lib/baton";
/// How long the end of a run waits for its files to go: programs may have left many, and disks may be slow. The rest goes at the
/// next start.
const REMOVED_WITHIN: Duration = Duration::from_millis(250);

/// A folder that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the folder {path}; set BATON_STATE_DIR to one that can be written", path = path.display())]
pub struct PlaceError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The member's folders.
pub struct Place {
    /// The bootloader's own working directory: what the image brought.
    image: PathBuf,
    /// None, where nothing can be written: a read-only container without a volume.
    scratch: Option<Scratch>,
    /// What runs, for the next start; none, where nobody would look for it.
    mark: Option<Mark>,
    /// The last of those that used the state folder and were cut off.
    cut_off: Option<CutOff>,
    /// The releases on this member's disk, if it has control.
    releases: Option<Arc<ReleasesDir>>,
}

/// The folders of one generation.
#[derive(Debug)]
pub struct GenerationPlace {
    /// Its working directory.
    pub directory: PathBuf,
    /// It may write here; the folder goes with it.
    pub scratch: Option<PathBuf>,
}

impl Place {
    /// Finds a folder that can be written: `state_dir`, else the default, else one among temporary files.
    pub fn open(state_dir: Option<PathBuf>, releases: Option<Arc<ReleasesDir>>) -> Result<Self, PlaceError> {
        let failed = |path: &PathBuf| {
            let path = path.clone();
            |source| PlaceError { path, source }
        };
        let image = std::env::current_dir().map_err(failed(&PathBuf::from(".")))?;
        let make = |base: PathBuf| Scratch::make(&base.join("scratch")).map_err(failed(&base));
        // What is nobody's state folder in particular has many runs, of which none is the one before.
        let is_ours = state_dir.is_some() || releases.is_some();
        let mut scratch = match state_dir {
            Some(state_dir) => Some(make(state_dir)?),
            None if releases.is_some() => Some(make(STATE_DIR_DEFAULT.into())?),
            None => make(STATE_DIR_DEFAULT.into()).or_else(|_| make(std::env::temp_dir().join("baton"))).ok(),
        };
        let left = scratch.as_mut().filter(|_| is_ours).and_then(Scratch::take_cut_off);
        let mark = scratch.as_ref().filter(|_| is_ours).map(|scratch| Mark::new(scratch.path()));
        Ok(Self { image, scratch, mark, cut_off: left, releases })
    }

    /// Makes what a generation needs; `owner` is who its program runs as, if not who we are. `furnish` puts into its folder what
    /// is ours, before the folder is the owner's: from then on any of their processes, such as those of the generation before,
    /// can make a name in it lead elsewhere.
    pub fn prepare<T>(
        &self,
        id: GenerationId,
        release: Running,
        owner: Option<&User>,
        furnish: impl FnOnce(Option<&Path>) -> T,
    ) -> Result<(GenerationPlace, T), PlaceError> {
        let directory = match release {
            Running::Image => self.image.clone(),
            Running::Release(id) => match &self.releases {
                Some(releases) => releases.path(id),
                None => self.image.clone(),
            },
        };
        let Some(scratch) = self.scratch_of(id) else {
            return Ok((GenerationPlace { directory, scratch: None }, furnish(None)));
        };
        let made = std::fs::create_dir_all(&scratch).and_then(|()| {
            let furnished = furnish(Some(&scratch));
            if let Some(owner) = owner {
                std::os::unix::fs::chown(&scratch, Some(owner.uid), Some(owner.gid))?;
            }
            Ok(furnished)
        });
        match made {
            Ok(furnished) => Ok((GenerationPlace { directory, scratch: Some(scratch) }, furnished)),
            Err(source) => Err(PlaceError { path: scratch, source }),
        }
    }

    fn scratch_of(&self, id: GenerationId) -> Option<PathBuf> {
        self.scratch.as_ref().map(|scratch| scratch.path().join(id.to_string()))
    }

    /// The releases on this member's disk, if it has control.
    pub fn releases(&self) -> Option<Arc<ReleasesDir>> {
        self.releases.clone()
    }

    /// The last run that used the state folder and ended without a word.
    pub fn cut_off(&self) -> Option<&CutOff> {
        self.cut_off.as_ref()
    }

    /// Starts to write down what runs, for the next start.
    pub fn keep_note(&self) {
        self.mark.iter().for_each(Mark::keep);
    }

    /// This is what runs now.
    pub fn note(&self, note: impl FnOnce() -> Note) {
        if let Some(mark) = &self.mark {
            mark.note(note());
        }
    }

    /// Removes what a generation left.
    pub fn forget(&self, id: GenerationId) {
        // A folder that stays is removed at the next start of the member.
        let Some(left) = self.scratch_of(id) else { return };
        // It may be large, and the loop must not wait for a disk.
        spawn_blocking(move || drop(std::fs::remove_dir_all(left)));
    }

    /// Removes everything of this run, as far as that goes in a moment.
    pub async fn leave(&mut self) {
        let (mark, scratch) = (self.mark.take(), self.scratch.take());
        within(REMOVED_WITHIN, move || {
            mark.iter().for_each(Mark::end);
            scratch.iter().for_each(Scratch::remove);
        })
        .await;
    }
}

/// Does something that waits for a disk, and goes on without it when it takes too long.
async fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    // Whether it has ended or the time has passed, there is nothing to be done about it.
    let _ = tokio::time::timeout(limit, spawn_blocking(work)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::NotifySocket;
    use std::os::unix::fs::MetadataExt;

    #[tokio::test]
    async fn p20_the_end_of_a_run_does_not_wait_for_files_that_take_long_to_go() {
        let (disk, hangs) = std::sync::mpsc::channel::<()>();
        let removed = within(Duration::from_millis(1), move || {
            let _ = hangs.recv();
        });
        let ended = tokio::time::timeout(Duration::from_secs(60), removed).await;
        drop(disk);
        assert!(ended.is_ok());
    }

    #[tokio::test]
    async fn nothing_of_a_run_is_left_behind_it() {
        let state = tempfile::tempdir().unwrap();
        let mut place = Place::open(Some(state.path().to_owned()), None).unwrap();
        let (made, ()) = place.prepare(GenerationId(1), Running::Image, None, |_| ()).unwrap();
        std::fs::write(made.scratch.unwrap().join("file"), "left").unwrap();
        place.note(|| Note { ran: "generation 1 (image) serving".into(), ..Note::default() });
        place.leave().await;
        assert_eq!(std::fs::read_dir(state.path().join("scratch")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn f35_the_notify_socket_is_in_the_folder_before_anybody_else_can_put_something_in_its_place() {
        if !rustix::process::geteuid().is_root() {
            crate::log::say("not run: only root can give a folder away");
            return;
        }
        let state = tempfile::tempdir().unwrap();
        let place = Place::open(Some(state.path().to_owned()), None).unwrap();
        let program = User { uid: 54_321, gid: 54_321, groups: Vec::new(), known_as: None };
        let owner = |path: &Path| std::fs::symlink_metadata(path).unwrap().uid();
        let (made, (before, socket)) = place
            .prepare(GenerationId(1), Running::Image, Some(&program), |folder| {
                let socket = NotifySocket::open(folder).unwrap();
                (owner(folder.unwrap()), socket)
            })
            .unwrap();
        assert_eq!((before, owner(&made.scratch.unwrap())), (0, program.uid));
        let found = std::fs::symlink_metadata(socket.address()).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o666));
    }
}
