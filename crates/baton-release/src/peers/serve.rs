//! A member's door for its peers: one kind of question, answered by a few threads at a bounded rate.
//!
//! It is no web server: a connection is for one question, and what is longer, slower or anything else than that is refused.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::units::{Bytes, Millis};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::head::Head;
use super::shelf::{Given, Shelf};
use super::{Keyring, lock, path, wait};
use crate::pace::Pace;

/// Answers with content that are made and sent at once: each takes a few MiB, and a member's first work is its program.
const UPLOADS_MAX: usize = 4;
/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 32;
/// Longest head of a question in bytes: several times as long as one is.
const HEAD_BYTES_MAX: usize = 2 << 10;
/// How long a question may take to come.
const QUESTION_MAX: Duration = Duration::from_secs(2);
/// How long an answer may take to go: nobody waits longer for it.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// What is sent at once.
const PART_BYTES: usize = 32 << 10;
/// A thread does little, and there may be many.
const STACK_BYTES: usize = 256 << 10;
/// After so long without a question, what was kept to answer the next one sooner is given back: a fleet asks at once, or not.
const REST: Duration = Duration::from_secs(60);
/// The pause when there is no room for a connection: no descriptor, or no thread.
const PAUSE: Millis = Millis(100);

/// A member's door for its peers.
pub struct PeerServer {
    listener: TcpListener,
    address: SocketAddr,
    shelf: Arc<Shelf>,
    keys: Arc<Keyring>,
    pace: Pace,
    uploads: AtomicUsize,
    connections: Mutex<usize>,
    ended: Condvar,
}

impl PeerServer {
    /// Takes an address, such as `10.0.0.7:7401`; port 0 takes a free one. `rate` is how many bytes a second may go.
    ///
    /// # Errors
    /// When the address is taken, not there, or none that others can reach this member at.
    pub fn bind(address: &str, rate: Bytes, shelf: Arc<Shelf>, keys: Arc<Keyring>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        // A wait for a connection ends then, too.
        set_socket_timeout(&listener, Timeout::Recv, Some(REST))?;
        let address = listener.local_addr()?;
        if address.ip().is_unspecified() {
            let text = "it is every address of this host: name the one at which others reach it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(Self {
            listener,
            address,
            shelf,
            keys,
            pace: Pace::of(rate),
            uploads: AtomicUsize::new(0),
            connections: Mutex::new(0),
            ended: Condvar::new(),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for ever, on threads of its own.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(self) -> io::Result<()> {
        let server = Arc::new(self);
        thread::Builder::new()
            .name("peers".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || server.run())?;
        Ok(())
    }

    fn run(self: &Arc<Self>) {
        loop {
            let room = lock(&self.connections);
            let full = |count: &mut usize| *count >= CONNECTIONS_MAX;
            let mut room = self.ended.wait_while(room, full).unwrap_or_else(PoisonError::into_inner);
            *room += 1;
            drop(room);
            let place = Connection(Arc::clone(self));
            let taken = self.listener.accept().and_then(|(stream, _)| {
                let name = thread::Builder::new().name("peer".to_owned()).stack_size(STACK_BYTES);
                name.spawn(move || {
                    // Whoever asks finds out when its connection fails.
                    let _ = place.0.serve(&stream);
                })
            });
            match taken {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.shelf.rest(),
                Err(_) => wait(PAUSE),
            }
        }
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (status, content) = match self.question(stream) {
            Ok((release, ids)) => self.answer(release, &ids),
            Err(status) => (status, Vec::new()),
        };
        let reason = match status {
            200 => "OK",
            503 => "Ask again",
            _ => "No",
        };
        let _upload = Upload(&self.uploads, status == 200);
        let length = content.len();
        let head =
            format!("HTTP/1.1 {status} {reason}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        let until = Instant::now() + ANSWER_MAX;
        send(stream, head.as_bytes(), until)?;
        for part in content.chunks(PART_BYTES) {
            self.pace.pass(part.len());
            send(stream, part, until)?;
        }
        Ok(())
    }

    /// Reads a question; the status when it is none, or not from a member.
    fn question(&self, stream: &TcpStream) -> Result<(ReleaseId, Vec<ChunkId>), u16> {
        const END: &[u8] = b"\r\n\r\n";
        let until = Instant::now() + QUESTION_MAX;
        let mut read = Vec::new();
        let end = loop {
            if let Some(at) = read.windows(END.len()).position(|bytes| bytes == END) {
                break at + END.len();
            }
            if read.len() >= HEAD_BYTES_MAX {
                return Err(431);
            }
            receive(stream, &mut read, HEAD_BYTES_MAX, until)?;
        };
        let mut body = read.split_off(end);
        let head = Head::parse(&read)?;
        while body.len() < head.length {
            receive(stream, &mut body, head.length, until)?;
        }
        if body.len() > head.length || !self.keys.allows(&path(head.release), &body, &head.mark) {
            return Err(403);
        }
        let text = std::str::from_utf8(&body).map_err(|_| 400_u16)?;
        let ids = text.lines().map(|id| id.parse().map_err(|_| 400_u16)).collect::<Result<_, u16>>()?;
        Ok((head.release, ids))
    }

    /// The status and the content. What has content holds one of the places for uploads, which the caller gives back.
    fn answer(&self, release: ReleaseId, ids: &[ChunkId]) -> (u16, Vec<u8>) {
        let free = |uploads| (uploads < UPLOADS_MAX).then_some(uploads + 1);
        if self.uploads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_err() {
            return (503, Vec::new());
        }
        let place = Upload(&self.uploads, true);
        match self.shelf.give(release, ids) {
            Given::Pack(pack) => {
                place.keep();
                (200, pack)
            }
            Given::Later => (503, Vec::new()),
            Given::Nothing => (404, Vec::new()),
        }
    }
}

/// A place for a connection, given back at the end.
struct Connection(Arc<PeerServer>);

impl Drop for Connection {
    fn drop(&mut self) {
        *lock(&self.0.connections) -= 1;
        self.0.ended.notify_one();
    }
}

/// A place for an upload, given back at the end if it was taken.
struct Upload<'a>(&'a AtomicUsize, bool);

impl Upload<'_> {
    /// Somebody else gives it back.
    fn keep(mut self) {
        self.1 = false;
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Adds what comes next, up to a length; the status when nothing comes in time.
fn receive(mut stream: &TcpStream, read: &mut Vec<u8>, most: usize, until: Instant) -> Result<(), u16> {
    let mut part = [0; 4096];
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(408);
    }
    stream.set_read_timeout(Some(left)).map_err(|_| 408_u16)?;
    let room = part.len().min(most.saturating_sub(read.len()).max(1));
    match stream.read(&mut part[..room]) {
        Ok(0) => Err(400),
        Ok(count) => {
            read.extend_from_slice(&part[..count]);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(_) => Err(408),
    }
}

/// Sends all of it, unless that takes too long.
fn send(mut stream: &TcpStream, content: &[u8], until: Instant) -> io::Result<()> {
    let mut rest = content;
    while !rest.is_empty() {
        // For each write anew: whoever reads a little now and then must not have more time for it.
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => rest = &rest[sent..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
