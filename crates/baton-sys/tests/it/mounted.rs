//! Programs that find their files elsewhere, started by `spawn`.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use baton_core::exit::Exit;
use baton_sys::attributes::{Attributes, User};
use baton_sys::mount::Mount;
use baton_sys::spawn::{Spawn, SpawnError, Stdin, pipe, spawn};

use crate::spawned::wait;

/// A folder with a program in it, and an empty one to mount that at.
struct Places {
    _home: tempfile::TempDir,
    folder: PathBuf,
    mount: Mount,
}

fn places(script: &str) -> Places {
    let home = tempfile::tempdir().unwrap();
    let (folder, at) = (home.path().join("tree"), home.path().join("app"));
    let writable = folder.join("scratch");
    fs::create_dir_all(&writable).unwrap();
    fs::create_dir(&at).unwrap();
    fs::write(folder.join("run.sh"), script).unwrap();
    for open in [home.path(), &folder, &writable] {
        fs::set_permissions(open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    Places { _home: home, folder, mount: Mount { at, writable: Some(writable) } }
}

/// What the program writes, or why it does not run.
fn run(places: &Places, command: &[&str], attributes: &Attributes) -> Result<String, SpawnError> {
    let _alone = crate::FORKING.lock().unwrap();
    let (read, write) = pipe().unwrap();
    let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let scratch = places.mount.writable.clone().unwrap();
    let pid = spawn(&Spawn {
        command: &command,
        directory: &places.folder,
        mount: Some(&places.mount),
        environment: &[("PATH".into(), "/usr/bin:/bin".into()), ("SCRATCH".into(), scratch.into())],
        sockets: &[],
        stdout: write.as_fd(),
        stderr: write.as_fd(),
        stdin: Stdin::Null,
        attributes,
    })?;
    drop(write);
    let mut text = String::new();
    fs::File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(wait(pid), Exit::Code(0), "{text}");
    Ok(text)
}

const WRITES: &str = "#!/bin/sh\npwd\necho \"$0\"\n(echo x > here) 2>&1 | grep -o 'Read-only file system'\n\
    (echo x > \"$SCRATCH/../there\") 2>&1 | grep -o 'Read-only file system'\n\
    rm -f \"$SCRATCH/mine\" && echo x > \"$SCRATCH/mine\" && echo written\n";

#[test]
fn a_program_finds_its_files_elsewhere_and_cannot_write_to_them() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not run: only root may mount here");
    }
    let places = places(WRITES);
    let (at, file) = (places.mount.at.clone(), places.folder.join("run.sh"));
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = at.join("run.sh");
    let nobody = User { uid: 65_534, gid: 65_534, groups: vec![65_534], known_as: None };
    for user in [None, Some(nobody)] {
        let attributes = Attributes { user, ..Attributes::default() };
        for name in ["./run.sh", program.to_str().unwrap()] {
            let said = run(&places, &[name], &attributes).unwrap();
            let (at, program, refused) = (at.display(), program.display(), "Read-only file system");
            let expected = format!("{at}\n{program}\n{refused}\n{refused}\nwritten\n");
            assert_eq!(said, expected);
        }
    }
    assert!(places.folder.join("scratch/mine").exists());
    // Nobody else sees any of it.
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    fs::write(places.folder.join("here"), "x").unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*at.to_string_lossy()), "{mounts}");
    // Its own place will do as well: an image whose files are there already.
    let mount = Mount { at: places.folder.clone(), ..places.mount.clone() };
    let said = run(&Places { mount, ..places }, &["./run.sh"], &Attributes::default()).unwrap();
    assert!(said.ends_with("Read-only file system\nwritten\n"), "{said}");
}

#[test]
fn where_nothing_can_be_mounted_the_program_is_not_started_and_that_is_said() {
    let mut places = places(WRITES);
    places.mount.at = Path::new("/no/such/folder").to_owned();
    let error = run(&places, &["sh", "run.sh"], &Attributes::default()).unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, SpawnError::CannotMount { .. }), "{told}");
    assert!(told.starts_with("cannot mount the program's files at /no/such/folder: "), "{told}");
}
