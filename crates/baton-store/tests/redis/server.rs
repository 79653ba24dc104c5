//! Redis, as it is installed here: nodes of their own, on loopback, in folders of their own. They end with the value.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Far longer than a node takes for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// A node.
pub struct Redis {
    child: Option<Child>,
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
    /// What `redis-cli` is told to get in.
    login: Vec<String>,
}

impl Redis {
    /// A node that keeps nothing on its disk.
    pub fn start() -> Self {
        Self::start_with(&["--port", "PORT"], &[])
    }

    /// One with more settings, in which `PORT`, `DIR` and `BUS`, the port of a cluster's bus, stand for what they are.
    pub fn start_with(settings: &[&str], login: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, settings, login)
    }

    /// The same, in a folder in which something lies already.
    pub fn start_in(folder: TempDir, settings: &[&str], login: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let mut node = Self { child: None, folder, port: 0, settings: owned(settings), login: owned(login) };
        // Somebody else may have taken the port in between.
        while node.child.is_none() {
            node.port = free_port();
            node.start_again();
        }
        node
    }

    /// A Sentinel that watches a primary by the name `main`, and decides alone.
    pub fn sentinel_of(primary: &Self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let watch = format!(
            "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 5000\n",
            primary.port()
        );
        std::fs::write(folder.path().join("sentinel.conf"), watch).unwrap();
        Self::start_in(folder, &["DIR/sentinel.conf", "--sentinel", "--port", "PORT"], &[])
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a server of Baton is told.
    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it where it was, unless its port is taken.
    pub fn start_again(&mut self) {
        let (port, folder) = (self.port.to_string(), self.folder.path().display().to_string());
        let bus = free_port().to_string();
        let setting =
            |word: &String| word.replace("PORT", &port).replace("DIR", &folder).replace("BUS", &bus);
        let child = Command::new("redis-server")
            .args(self.settings.iter().map(setting))
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", &folder, "--logfile", &format!("{folder}/log")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("this test needs redis-server: scripts/setup test");
        self.child = Some(child);
        let start = Instant::now();
        while self.try_cli(&["PING"]).trim() != "PONG" {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.child = None;
                return;
            }
            assert!(start.elapsed() < LIMIT, "redis-server does not answer");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Ends it at once, as a power cut does.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// It answers nobody from now on, and takes what is asked.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), Signal::STOP).unwrap();
    }

    /// It answers again.
    pub fn thaw(&self) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), Signal::CONT).unwrap();
    }

    /// What `redis-cli` prints.
    pub fn cli(&self, command: &[&str]) -> String {
        let answer = self.try_cli(command);
        assert!(!answer.starts_with("ERR") && !answer.starts_with("NOPERM"), "{command:?}: {answer}");
        answer
    }

    fn try_cli(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(
                self.login.iter().map(|word| word.replace("DIR", &self.folder.path().display().to_string())),
            )
            .args(command)
            .stderr(Stdio::null())
            .output()
            .expect("this test needs redis-cli: scripts/setup test");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // One that was stopped does not end otherwise.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A key and a certificate of one's own for 127.0.0.1: `ca.pem`, `cert.pem` and `key.pem` in the folder.
pub fn certify(folder: &Path) {
    let openssl = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).current_dir(folder).stderr(Stdio::null()).status();
        assert!(done.expect("this test needs openssl: scripts/setup").success(), "{arguments:?}");
    };
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(
        &[
            &["req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"][..],
            &new_key,
        ]
        .concat(),
    );
    openssl(
        &[&["req", "-subj", "/CN=redis", "-keyout", "key.pem", "-out", "request.pem"][..], &new_key].concat(),
    );
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "request.pem",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "cert.pem",
    ]);
}
