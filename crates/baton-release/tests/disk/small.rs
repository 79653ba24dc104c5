//! A disk that is really full: a test starts itself again on a small file system of its own.

use std::path::PathBuf;
use std::process::Command;

/// Where the small file system is; its presence makes a process the one that has it.
const DISK: &str = "BATON_TEST_SMALL_DISK";

/// The small disk, in the process that [`again`] has started.
pub fn disk() -> Option<PathBuf> {
    std::env::var_os(DISK).map(PathBuf::from)
}

/// Runs a test of this program again, on a tmpfs with these options, which only it sees and which ends with it. Returns what it
/// wrote to standard error.
pub fn again(test: &str, options: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o {options} tmpfs {dir} && exec {exe} --exact {test} --nocapture",
        dir = dir.path().display(),
        exe = std::env::current_exe().unwrap().display(),
    );
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let output = command.args(["--mount", "sh", "-c", &script]).env(DISK, dir.path()).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // A name that is none would be no test, and no failure.
    assert!(output.status.success() && said.contains("1 passed"), "{options}: {said}{errors}");
    errors.into_owned()
}
