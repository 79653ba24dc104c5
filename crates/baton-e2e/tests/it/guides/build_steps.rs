//! Build steps of real projects: npm and pip run on the first machine, and on no other one.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::path;
use crate::boot::{Folder, binary, free_address};
use crate::wait::wait_for;

/// A server of its own.
struct Control {
    child: Child,
    url: String,
    folder: Folder,
}

impl Control {
    fn start() -> Self {
        let (folder, address) = (Folder::empty(), free_address());
        let child = Command::new(binary("baton"))
            .args(["server", "--dev", "--listen", &address.to_string(), "--data"])
            .arg(folder.path().join("data"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("control to listen", || TcpStream::connect(address).ok());
        Self { child, url: format!("http://{address}"), folder }
    }

    /// A working copy on a machine that has nothing yet.
    fn machine(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.folder.path().join(name).join("project");
        fs::create_dir_all(&dir).unwrap();
        files.iter().for_each(|(file, text)| fs::write(dir.join(file), text).unwrap());
        dir
    }

    /// Runs `baton build` in a working copy, where these programs are found.
    fn build(&self, dir: &Path, path: &str) -> Output {
        let mut command = Command::new(binary("baton"));
        command.args(["build", "--output", "json"]).current_dir(dir);
        command.env("XDG_CACHE_HOME", dir.with_file_name("caches")).env("PATH", path);
        command.env("BATON_SERVER", &self.url).output().unwrap()
    }

    /// Builds on two machines; the second one has no programs at all.
    fn build_twice(&self, files: &[(&str, &str)]) -> PathBuf {
        let how = |built: &Output| {
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            let built: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
            built[0]["how"].as_str().unwrap().to_owned()
        };
        let (first, second) = (self.machine("first", files), self.machine("second", files));
        assert_eq!(how(&self.build(&first, &path())), "ran");
        assert_eq!(how(&self.build(&second, "")), "restored");
        let same = Command::new("diff").args(["-r", "--no-dereference"]).args([&first, &second]).output();
        let same = same.unwrap();
        assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
        second
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_second_machine_gets_what_npm_installs_without_npm() {
    let control = Control::start();
    let settings = "service = \"web\"\nrun.command = [\"node\", \"server.js\"]\n[[build]]\nname = \"deps\"\n\
        inputs = [\"package.json\", \"package-lock.json\"]\nrun = [\"npm\", \"ci\", \"--no-audit\", \"--no-fund\"]\n\
        outputs = [\"node_modules\"]\n";
    let package = r#"{"name": "shop", "version": "1.0.0", "dependencies": {"express": "4.19.2"}}"#;
    let locking = control.machine("locking", &[("package.json", package)]);
    let lock = ["install", "--package-lock-only", "--no-audit", "--no-fund"];
    let locked = Command::new("npm").args(lock).current_dir(&locking).stdout(Stdio::null()).status().unwrap();
    assert!(locked.success());
    let lock = fs::read_to_string(locking.join("package-lock.json")).unwrap();
    let files = [("baton.toml", settings), ("package.json", package), ("package-lock.json", &lock)];
    let second = control.build_twice(&files);
    let loaded = Command::new("node").args(["-e", "require('express')"]).current_dir(&second).status();
    assert!(loaded.unwrap().success());
}

#[test]
fn a_second_machine_gets_what_pip_installs_without_pip() {
    let control = Control::start();
    let settings = "service = \"api\"\nrun.command = [\"python3\", \"app.py\"]\n[[build]]\nname = \"deps\"\n\
        inputs = [\"requirements.txt\"]\nrun = [\"python3\", \"-m\", \"pip\", \"install\", \"--quiet\", \
        \"--no-compile\", \"--target\", \"vendor\", \"-r\", \"requirements.txt\"]\noutputs = [\"vendor\"]\n";
    let second = control.build_twice(&[("baton.toml", settings), ("requirements.txt", "flask==3.0.3\n")]);
    let mut load = Command::new("python3");
    load.args(["-B", "-c", "import flask"]).env("PYTHONPATH", second.join("vendor"));
    assert!(load.status().unwrap().success());
}
