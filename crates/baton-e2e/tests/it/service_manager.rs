//! The bootloader as a service of systemd, by what it tells its manager; and the limits of other platforms.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::boot::{Boot, Folder};
use crate::wait::wait_for;

/// A service manager's notify socket, and everything that was said there.
struct Manager {
    socket: UnixDatagram,
    path: String,
    heard: Vec<String>,
}

impl Manager {
    fn start(folder: &Folder) -> Self {
        let path = folder.path().join("notify").display().to_string();
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path, heard: Vec::new() }
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let message = std::str::from_utf8(&buffer[..length]).unwrap();
            self.heard.extend(message.lines().map(str::to_owned));
        }
    }

    /// Waits until a line that begins so was heard since the last time, and returns what was heard up to it.
    fn wait_for(&mut self, line: &str) -> Vec<String> {
        wait_for(&format!("{line:?} to be told"), || {
            self.listen();
            let at = self.heard.iter().position(|heard| heard.starts_with(line))?;
            Some(self.heard.drain(..=at).collect())
        })
    }
}

fn settings(startup_timeout: &str) -> String {
    format!(
        "service = \"web\"\nrun.command = [\"sh\", \"-c\", \"exec sleep 1000\"]\nrollout.bake = \"0s\"\n\
         [run.health]\nexec = [\"test\", \"-e\", \"healthy\"]\nstartup_timeout = \"{startup_timeout}\"\n"
    )
}

#[test]
fn a_service_manager_is_told_of_start_reload_and_stop() {
    let folder = Folder::empty();
    folder.write("baton.toml", &settings("300s"));
    let mut manager = Manager::start(&folder);
    let variables = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "200000")];
    let boot = Boot::start(&folder, &[], &variables);
    // It may take five minutes to get healthy, and the manager waits for that.
    let extended = manager.wait_for("EXTEND_TIMEOUT_USEC=").pop().unwrap();
    let micros: u64 = extended.strip_prefix("EXTEND_TIMEOUT_USEC=").unwrap().parse().unwrap();
    assert!(micros > 300_000_000, "{extended}");
    manager.wait_for("WATCHDOG=1");
    let before = manager.wait_for("WATCHDOG=1");
    assert!(!before.contains(&"READY=1".to_owned()), "{before:?}");
    folder.write("healthy", "");
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=generation 1 (image) serves, healthy");

    boot.signal(Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("MONOTONIC_USEC=");
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=generation 2 (image) serves, healthy");

    // The manager waits for a reload that there is none of as well.
    folder.write("baton.toml", "service = 1\n");
    boot.signal(Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    let status = manager.wait_for("STATUS=").pop().unwrap();
    assert!(status.contains("service is the number 1"), "{status}");

    let pid = boot.pid();
    let exit = boot.stop();
    assert_eq!(exit.code(), Some(143), "{pid}");
    manager.wait_for("STOPPING=1");
    manager.wait_for("EXTEND_TIMEOUT_USEC=");
}

#[test]
fn a_platforms_limit_cuts_a_drain_that_is_longer() {
    let folder = Folder::empty();
    folder.write(
        "baton.toml",
        "service = \"web\"\nrun.drain = \"24h\"\n\
         run.command = [\"sh\", \"-c\", \"trap '' TERM; echo > deaf; while :; do sleep 0.1; done\"]\n",
    );
    let boot = Boot::start(&folder, &[], &[("BATON_STOP_LIMIT", "4s")]);
    wait_for("the program", || folder.path().join("deaf").exists().then_some(()));
    boot.wait_for("at a stop there are 2 s; raise the platform's limit, or lower run.drain", 1);
    assert_eq!(boot.stop().code(), Some(137));
}
