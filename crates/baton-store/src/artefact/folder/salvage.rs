//! What becomes of damaged files in a folder, and of what is right of a damaged pack.

use std::path::Path;
use std::{fs, io};

use baton_core::ids::PackId;
use baton_core::release::pack::PACK_BYTES_MAX;
use baton_release::disk::{self, DiskError, failed};

use super::super::held::rescued;
use super::{FolderStore, read};

impl FolderStore {
    /// Moves away what is damaged, so that the next push brings it again. What has gone already is no error.
    pub(super) fn set_aside(&self, path: &Path) -> Result<(), DiskError> {
        match fs::rename(path, self.path.join("corrupt").join(path.file_name().unwrap_or_default())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(failed("set aside", path)),
        }
    }

    /// Sets a damaged pack aside, and keeps those of its frames that are not damaged, in a new one. Until these are durable it
    /// stays where it is.
    pub(super) fn set_pack_aside(&self, id: PackId) -> Result<(), DiskError> {
        let path = self.pack(id);
        let places = self.held().places(id);
        let content = match read(&path, PACK_BYTES_MAX) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Vec::new(),
            done => done?,
        };
        match rescued(places, &content) {
            // No frame was damaged, only what is around them.
            Some(pack) if PackId::of(&pack) == id => {
                return self.write(&path, &pack).and_then(|()| disk::sync_dir(&self.path.join("packs")));
            }
            Some(pack) => self.add_pack(&pack)?,
            None => {}
        }
        self.set_aside(&path)?;
        self.held().forget(id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::ids::ChunkId;
    use baton_core::release::Chunk;
    use baton_core::release::pack::Frame;
    use baton_release::pack::{self, Pack};
    use baton_release::store::{ArtefactStore, Custody, Kind};

    fn frame(content: &[u8]) -> (Frame, Vec<u8>) {
        let chunk = Chunk { id: ChunkId::of(content), bytes: content.len() as u32 };
        pack::pack(vec![chunk], content).unwrap()
    }

    #[test]
    fn f43_a_pack_damaged_at_rest_is_noticed_and_its_other_frames_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let right = pack::join(vec![frame(b"first"), frame(b"second")]);
        let [first, second] = [&b"first"[..], b"second"].map(ChunkId::of);
        let mut flipped = right.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for (damaged, left) in [
            (flipped, &[second][..]),
            (right[..right.len() - 1].to_vec(), &[second]),
            (right[..100].to_vec(), &[first, second]),
            (Vec::new(), &[first, second]),
            (vec![0; PACK_BYTES_MAX * 2], &[first, second]),
        ] {
            let store = FolderStore::open(dir.path()).unwrap();
            store.put(&right).unwrap();
            fs::write(store.pack(PackId::of(&right)), damaged).unwrap();
            assert_eq!(store.get(&[first, second]).unwrap_err().kind, Kind::Corrupt);
            let mut left = left.to_vec();
            left.sort_unstable();
            assert_eq!(store.missing(&[first, second]).unwrap(), left);
            assert_eq!(FolderStore::open(dir.path()).unwrap().missing(&[first, second]).unwrap(), left);
            store.put(&right).unwrap();
            Pack::open(&store.get(&[first, second]).unwrap()).unwrap().verify().unwrap();
            fs::remove_dir_all(dir.path().join("packs")).unwrap();
        }
    }

    #[test]
    fn f43_a_damaged_pack_stays_until_what_is_right_of_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut content = pack::join(vec![frame(b"first"), frame(b"second")]);
        let [first, second] = [&b"first"[..], b"second"].map(ChunkId::of);
        let store = FolderStore::open(dir.path()).unwrap();
        store.put(&content).unwrap();
        let id = PackId::of(&content);
        *content.last_mut().unwrap() ^= 1;
        fs::write(store.pack(id), &content).unwrap();
        // Nothing can be written.
        fs::remove_dir(dir.path().join("tmp")).unwrap();
        store.salvage(id).unwrap_err();
        assert_eq!(store.get(&[second]).unwrap_err().kind, Kind::Corrupt);
        assert_eq!(fs::read(store.pack(id)).unwrap(), content);
        Pack::open(&store.get(&[first]).unwrap()).unwrap().verify().unwrap();
        // Nor read.
        fs::create_dir(dir.path().join("tmp")).unwrap();
        fs::rename(store.pack(id), dir.path().join("elsewhere")).unwrap();
        fs::create_dir(store.pack(id)).unwrap();
        store.salvage(id).unwrap_err();
        assert!(store.pack(id).is_dir());
        fs::remove_dir(store.pack(id)).unwrap();
        fs::rename(dir.path().join("elsewhere"), store.pack(id)).unwrap();
        store.salvage(id).unwrap();
        assert_eq!(store.missing(&[first, second]).unwrap(), [second]);
        store.get(&[first]).unwrap();
        assert!(!store.pack(id).exists());
    }

    #[test]
    fn f43_what_is_damaged_around_the_frames_costs_none_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let right = pack::join(vec![frame(b"first"), frame(b"second")]);
        let store = FolderStore::open(dir.path()).unwrap();
        store.put(&right).unwrap();
        let id = PackId::of(&right);
        fs::write(store.pack(id), [&right[..], b"more"].concat()).unwrap();
        store.salvage(id).unwrap();
        assert_eq!(fs::read(store.pack(id)).unwrap(), right);
    }
}
