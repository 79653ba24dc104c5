//! The virtual environments of Python in a directory: their programs are links to what is outside.

use std::fs;
use std::path::Path;

use baton_core::doctor::Environment;
use baton_core::release::check_external;

/// What each of them has at its top.
const MARK: &str = "pyvenv.cfg";

/// Those that lie in a directory itself, sorted. What cannot be read is none.
pub fn environments(dir: &Path) -> Vec<Environment> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let found = entries.flatten().filter_map(|entry| {
        let folder = entry.file_name().into_string().ok()?;
        let is_one = entry.path().join(MARK).is_file();
        is_one.then(|| Environment { interpreters: outside(&entry.path().join("bin")), folder })
    });
    let mut all: Vec<Environment> = found.collect();
    all.sort_by(|a, b| a.folder.cmp(&b.folder));
    all
}

/// Where links in a folder lead to outside.
fn outside(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok();
    entries.flatten().filter_map(target).filter(|target| check_external(target).is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_environment_is_known_by_its_mark_and_told_with_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        for folder in [".venv/bin", "other/bin"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            symlink("/usr/bin/python3", dir.path().join(folder).join("python3")).unwrap();
            symlink("python3", dir.path().join(folder).join("python")).unwrap();
        }
        fs::write(dir.path().join(".venv").join(MARK), "").unwrap();
        let expected =
            Environment { folder: ".venv".to_owned(), interpreters: vec!["/usr/bin/python3".to_owned()] };
        assert_eq!(environments(dir.path()), [expected]);
    }
}
