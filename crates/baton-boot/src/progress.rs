//! The file by which a program shows that it gets on with its work.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_core::ids::GenerationId;
use baton_core::supervisor::Event;
use baton_core::units::Millis;
use rustix::fs::OFlags;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

use crate::outlive::{caught, fault, rest};

/// How often it is looked at within the time that the file may stay as it is.
const LOOKS: u32 = 5;
/// How often it is looked at, at the least.
const EVERY_MAX: Duration = Duration::from_secs(1);
/// How much of the file is compared: a counter, which a program may keep in a mapped file, whose time of modification
/// follows late.
const BYTES_COMPARED: u64 = 64;

/// What is compared of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
    beginning: Vec<u8>,
}

impl Mark {
    fn of(path: &Path) -> io::Result<Self> {
        // A pipe in its place must not hold us up.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let about = file.metadata()?;
        let mut beginning = Vec::new();
        if about.is_file() {
            file.take(BYTES_COMPARED).read_to_end(&mut beginning)?;
        }
        let modified = (about.mtime(), about.mtime_nsec());
        Ok(Self { inode: about.ino(), modified, bytes: about.len(), beginning })
    }
}

/// Tells each time that the file was found changed, until there is nobody to tell.
///
/// A disk that hangs is looked at by a thread of its own; as long as it does, nothing is told.
pub async fn watch(id: GenerationId, path: PathBuf, within: Millis, events: mpsc::UnboundedSender<Event>) {
    while caught(look_again_and_again(id, &path, within, &events)).await.is_none() {
        rest().await;
    }
}

async fn look_again_and_again(
    id: GenerationId,
    path: &Path,
    within: Millis,
    events: &mpsc::UnboundedSender<Event>,
) {
    fault("progress");
    let mut looks = tokio::time::interval((Duration::from_millis(within.0) / LOOKS).min(EVERY_MAX));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        looks.tick().await;
        let file = path.to_owned();
        // One that is not there yet, or cannot be read, shows nothing.
        let Ok(Ok(found)) = spawn_blocking(move || Mark::of(&file)).await else { continue };
        if last.as_ref() != Some(&found) {
            last = Some(found);
            if events.send(Event::Moved(id)).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_change_is_seen() {
        let folder = std::env::temp_dir().join(format!("baton-progress-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("beat");
        assert!(Mark::of(&path).is_err());
        std::fs::write(&path, "1").unwrap();
        let first = Mark::of(&path).unwrap();
        assert_eq!(Mark::of(&path).unwrap(), first);
        // A counter in a mapped file: the time stays.
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, "2").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let second = Mark::of(&path).unwrap();
        assert_ne!(second, first);
        File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let touched = Mark::of(&path).unwrap();
        assert_ne!(touched, second);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
