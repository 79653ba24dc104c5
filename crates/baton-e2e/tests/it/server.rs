//! Servers whose every step is decided by the test.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use baton_e2e::load::Target;

use crate::wait::wait_for;

/// A server in this process. It ends with the value.
pub struct Server {
    pub target: Target,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Gives every connection, numbered from 1, to `serve`, each in a thread of its own.
    pub fn start(serve: impl Fn(usize, Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            for (nth, stream) in listener.incoming().enumerate() {
                if stopped.load(Relaxed) {
                    return;
                }
                let (serve, stream) = (Arc::clone(&serve), stream.unwrap());
                std::thread::spawn(move || serve(nth + 1, Peer { stream, buffer: Vec::new() }));
            }
        });
        Self { target: address.to_string().parse().unwrap(), address, stop, thread: Some(thread) }
    }
}
impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One connection of a client.
pub struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub conn: u64,
    pub seq: u64,
    pub body_bytes: usize,
    /// Whether the client wants no further answer on this connection.
    pub close: bool,
}

impl Peer {
    /// Reads the next request; none when the client has gone.
    pub fn asked(&mut self) -> Option<Asked> {
        let head_bytes = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.receive()?;
        };
        let head = String::from_utf8(self.buffer.drain(..head_bytes).collect()).unwrap();
        let number = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map_or(0, |line| line.trim().parse().unwrap())
        };
        let body_bytes = number("Content-Length:") as usize;
        while self.buffer.len() < body_bytes {
            self.receive()?;
        }
        self.buffer.drain(..body_bytes);
        let close = head.contains("Connection: close");
        Some(Asked { conn: number("X-Conn:"), seq: number("X-Seq:"), body_bytes, close })
    }

    fn receive(&mut self) -> Option<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) | Err(_) => None,
            Ok(bytes) => {
                self.buffer.extend_from_slice(&chunk[..bytes]);
                Some(())
            }
        }
    }

    pub fn send(&mut self, bytes: &str) {
        // A client that has gone is what some tests are about.
        let _ = self.stream.write_all(bytes.as_bytes());
    }

    /// Closes by a reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Closes in order, and lets the client go first so that nothing sent is lost.
    pub fn close(mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        while matches!(self.stream.read(&mut [0; 1024]), Ok(1..)) {}
    }

    /// Waits until the client has taken all that was sent out of its socket.
    pub fn wait_until_read(&self) {
        let hex = |address: SocketAddr| format!(":{:04X}", address.port());
        let (server, client) =
            (hex(self.stream.local_addr().unwrap()), hex(self.stream.peer_addr().unwrap()));
        wait_for("the client to read", || {
            let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let mine =
                sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|words| {
                    // sl local remote state tx_queue:rx_queue
                    words.len() > 4 && words[1].ends_with(&client) && words[2].ends_with(&server)
                });
            mine.is_some_and(|words| words[4].ends_with(":00000000")).then_some(())
        });
    }
}

/// The right answer, from a program with the pid 1.
pub fn answer(release: &str, asked: Asked) -> String {
    let Asked { conn, seq, body_bytes, .. } = asked;
    let body =
        format!(r#"{{"release":"{release}","pid":1,"conn":"{conn}","seq":"{seq}","bytes":{body_bytes}}}"#);
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Answers everything, rightly, for as long as the client wants.
pub fn well_behaved(release: &str, mut peer: Peer) {
    while let Some(asked) = peer.asked() {
        peer.send(&answer(release, asked));
        if asked.close {
            return peer.close();
        }
    }
}
