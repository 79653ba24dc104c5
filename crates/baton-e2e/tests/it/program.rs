//! The example programs as real processes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::wait::{LIMIT, wait_for};

/// A web server among the examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Web {
    Python,
    Node,
}

impl Web {
    pub const ALL: [Self; 2] = [Self::Python, Self::Node];

    /// Its folder under `examples/`, its interpreter and its file.
    const fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Python => ("python", "python3", "server.py"),
            Self::Node => ("node", "node", "server.js"),
        }
    }

    /// A launch of this program under the name of a release.
    pub fn release(self, release: &str) -> Launch {
        let (folder, interpreter, file) = self.parts();
        Launch::new(folder, interpreter, file, release)
    }
}

/// How a program is to be launched: with an environment of its own, in a copy of its example.
pub struct Launch {
    command: Vec<String>,
    directory: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Launch {
    pub fn new(folder: &str, interpreter: &str, file: &str, release: &str) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(folder);
        let directory = tempfile::tempdir().unwrap();
        fs::copy(example.join(file), directory.path().join(file)).unwrap();
        let mut env = vec![("BATON_RELEASE".into(), release.into())];
        // What finding and running an interpreter takes.
        for name in ["PATH", "HOME"] {
            env.extend(std::env::var(name).map(|value| (name.into(), value)));
        }
        Self { command: vec![interpreter.into(), file.into()], directory, env }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Makes it misbehave, by the file that a bad release would carry.
    pub fn behaviour(self, words: &str) -> Self {
        fs::write(self.directory.path().join("behaviour"), words.replace(' ', "\n")).unwrap();
        self
    }

    /// Starts it with this socket, as systemd would.
    pub fn on(self, listener: &TcpListener) -> Program {
        let socket = OwnedFd::from(listener.try_clone().unwrap());
        self.start("exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"", socket.into())
    }

    /// Starts it without a socket.
    pub fn alone(self) -> Program {
        self.start("exec \"$@\"", Stdio::null())
    }

    fn start(self, script: &str, stdin: Stdio) -> Program {
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(&self.command)
            .current_dir(self.directory.path())
            .env_clear()
            .envs(self.env)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Program { child, _directory: self.directory }
    }
}

/// A running program. It is killed with the value.
pub struct Program {
    pub child: Child,
    _directory: tempfile::TempDir,
}

impl Program {
    pub fn pid(&self) -> u64 {
        self.child.id().into()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end and returns its exit code; none when a signal ended it.
    pub fn exit(mut self) -> Option<i32> {
        wait_for("the program to exit", || self.child.try_wait().unwrap()).code()
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.exit()
    }

    /// Waits until it answers on a socket that others may serve too.
    pub fn wait_until_it_answers(&self, address: SocketAddr) {
        wait_for("the program to answer", || {
            (Client::connect(address)?.get("/")?.pid() == self.pid()).then_some(())
        });
    }
}
impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to a program.
pub struct Client {
    stream: Box<dyn Stream + Send>,
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// An answer to a [`Client`].
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub close: bool,
    pub body: Value,
}

impl Answer {
    pub fn pid(&self) -> u64 {
        self.body["pid"].as_u64().unwrap()
    }

    pub fn generation(&self) -> &str {
        self.body["generation"].as_str().unwrap()
    }
}

impl Client {
    /// A connection; none when nobody listens.
    pub fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Some(Self { stream: Box::new(stream) })
    }

    /// The same at the path of a Unix socket.
    pub fn connect_at(path: &Path) -> Option<Self> {
        let stream = UnixStream::connect(path).ok()?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Some(Self { stream: Box::new(stream) })
    }

    pub fn send(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nX-Conn: 3\r\nX-Seq: 4\r\n\r\n");
        self.stream.write_all(request.as_bytes()).unwrap();
    }

    /// The next answer; none when the connection ends before one.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut text = String::new();
        loop {
            let mut chunk = [0; 4096];
            let bytes = self.stream.read(&mut chunk).ok().filter(|bytes| *bytes > 0)?;
            text.push_str(std::str::from_utf8(&chunk[..bytes]).unwrap());
            // Every answer but a stream's is one line of JSON.
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && body.ends_with('\n')
            {
                return Some(Answer {
                    status: head.split(' ').nth(1).unwrap().parse().unwrap(),
                    close: head.to_ascii_lowercase().contains("connection: close"),
                    body: serde_json::from_str(body).unwrap(),
                });
            }
        }
    }

    pub fn get(&mut self, path: &str) -> Option<Answer> {
        self.send(path);
        self.answer()
    }
}
