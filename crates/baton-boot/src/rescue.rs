//! Connections that still land on a slot after everybody was sent to another one.
//!
//! Handshakes that were under way end where they began, and a program that has ended accepts nothing any more.
//! What waits there is accepted here and forwarded to the serving generation.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use baton_core::run::Address;
use baton_sys::{process, socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::capacity::Capacity;
use crate::copying;
use crate::forwarding::until_over;
use crate::outlive::{fault, outlive};
use crate::stream::Stream;
use crate::traffic::Traffic;
use crate::tree::{self, Root};

/// How long nothing must have landed on a slot before it may be used again: no handshake takes longer.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(3);
/// A queue that has not moved for this long has nobody who reads it, whoever holds it.
const STUCK: Duration = Duration::from_secs(1);
/// How often a queue that its program may still read is looked at.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How often the queue of a copy that does not run is looked at: what lands there began before it ended.
const BYPASSED: Duration = Duration::from_millis(50);
/// How long to wait for something to land before looking at the clock again.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// How long a queue is waited for that is full, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(60);
const FULL: Duration = Duration::from_millis(10);

/// A connection that was found, and where to send it.
#[derive(Debug)]
pub struct Stray {
    /// The client.
    client: OwnedFd,
    /// The address that it had dialled.
    to: Address,
    /// It has the descriptors that it takes.
    _place: OwnedSemaphorePermit,
}

/// What becomes of connections that are found.
#[derive(Clone)]
pub struct Onward {
    /// They are sent to whoever serves by whoever receives this.
    pub strays: mpsc::UnboundedSender<Stray>,
    /// They are counted where they end.
    pub traffic: Traffic,
}

/// One socket of the slot, and where its clients had dialled.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The bootloader's own copy of the listening socket.
    pub socket: Arc<OwnedFd>,
    /// Where to forward what is found.
    pub to: Address,
}

/// Watches a slot in a thread of its own until it is quiet, then calls `quiet`.
///
/// A thread, because the sockets must stay as blocking as their program wants them: should both accept at the
/// same moment, only this thread waits.
pub fn watch(
    sockets: &[Watched],
    owner: Option<&Root>,
    onward: &Onward,
    quiet: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let mut queues: Vec<Queue> = sockets.iter().cloned().map(Queue::new).collect();
    let (owner, onward) = (owner.cloned(), onward.clone());
    let mut watch = move || {
        let mut last = Instant::now();
        while last.elapsed() < HANDSHAKE_GRACE {
            fault("rescue");
            let fds: Vec<BorrowedFd<'_>> = queues.iter().map(|queue| queue.watched.socket.as_fd()).collect();
            let mut fds: Vec<PollFd<'_>> =
                fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
            // An error here is a signal at worst; the queues say what is true.
            let _ = poll(&mut fds, Some(&WAIT));
            drop(fds);
            let found = queues.iter_mut().map(|queue| queue.empty(owner.as_ref(), &onward)).max();
            if found.is_some_and(|found| found != Found::Nothing) {
                last = Instant::now();
            }
            if found == Some(Found::LeftAlone) {
                let _ = poll(&mut [], Some(&LOOK_EVERY));
            }
        }
    };
    let run = move || {
        outlive(&mut watch);
        quiet();
    };
    std::thread::Builder::new().name("rescue".to_owned()).stack_size(256 * 1024).spawn(run)?;
    Ok(())
}

/// Forwards what waits in the queues of a copy that has ended while others run.
///
/// No thread: nothing may wait here, and the copy that is launched again must find nobody else at its queue.
pub struct Bypass {
    queues: Vec<Queue>,
    owner: Option<Root>,
    onward: Onward,
}

impl Bypass {
    /// For these queues of a generation that is known by `owner`.
    pub fn new(sockets: Vec<Watched>, owner: Option<Root>, onward: Onward) -> Self {
        Self { queues: sockets.into_iter().map(Queue::new).collect(), owner, onward }
    }

    /// Forwards what waits now, unless a process still holds the socket.
    pub fn look(&mut self) {
        for queue in &mut self.queues {
            queue.empty_at_once(self.owner.as_ref(), &self.onward);
        }
    }

    /// Forwards what follows, until nobody polls it any more.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(BYPASSED).await;
            self.look();
        }
    }
}

/// What a look at a queue has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Nothing,
    Strays,
    /// Something waits that the program may still accept itself, or that there is no descriptor for.
    LeftAlone,
}

struct Queue {
    watched: Watched,
    inode: Option<u64>,
    /// The length when it last changed, and when that was.
    seen: (u32, Instant),
}

impl Queue {
    fn new(watched: Watched) -> Self {
        let inode = socket::inode(&watched.socket).ok();
        Self { watched, inode, seen: (0, Instant::now()) }
    }

    /// Forwards what waits, if nobody else reads this queue.
    fn empty(&mut self, owner: Option<&Root>, onward: &Onward) -> Found {
        let waiting = socket::queue(self.watched.socket.as_fd()).map_or(0, |queue| queue.waiting);
        if waiting != self.seen.0 {
            self.seen = (waiting, Instant::now());
        }
        if waiting == 0 {
            return Found::Nothing;
        }
        let alone = !self.is_held(owner);
        if !alone && self.seen.1.elapsed() < STUCK {
            return Found::LeftAlone;
        }
        if alone {
            // Now the flag is ours to change, and an accept that finds nothing does not block.
            let _ = socket::set_blocking(self.watched.socket.as_fd(), false);
        }
        // Beside a program that may still accept, one at a time: should it take this one, the next look finds none.
        loop {
            // Without one, a client that was accepted could not be sent on: the queue keeps it.
            let Some(place) = Capacity::of_process().connection_now() else { return Found::LeftAlone };
            let client = match self.accept(&onward.traffic) {
                Ok(Some(client)) => client,
                Ok(None) => return Found::Strays,
                // No descriptor, or no memory.
                Err(_) => return Found::LeftAlone,
            };
            let _ = onward.strays.send(Stray { client, to: self.watched.to.clone(), _place: place });
            if !alone {
                return Found::Strays;
            }
        }
    }

    /// Accepts one. That is taken note of before, so that at no time it is counted twice.
    fn accept(&self, traffic: &Traffic) -> io::Result<Option<OwnedFd>> {
        let noted = traffic.note_rescued(&self.watched.to);
        let accepted = self.try_accept();
        if !matches!(accepted, Ok(Some(_))) {
            noted.withdraw();
        }
        accepted
    }

    /// The program may have accepted what was seen before, and where the socket blocks, to wait for the next one could take
    /// for ever.
    fn try_accept(&self) -> io::Result<Option<OwnedFd>> {
        if socket::queue(self.watched.socket.as_fd())?.waiting == 0 {
            return Ok(None);
        }
        match socket::accept(self.watched.socket.as_fd()) {
            Ok(client) => Ok(Some(client)),
            // None waits any more.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The same, for somebody who must not wait: beside a process that holds the socket, nothing is touched.
    fn empty_at_once(&mut self, owner: Option<&Root>, onward: &Onward) {
        let waiting = socket::queue(self.watched.socket.as_fd()).map_or(0, |queue| queue.waiting);
        if waiting > 0 && !self.is_held(owner) {
            self.empty(owner, onward);
        }
    }

    /// Whether a process of the generation has the socket open; where that cannot be known, it may.
    fn is_held(&self, owner: Option<&Root>) -> bool {
        let Some(owner) = owner else { return false };
        let held = || {
            let pids: Vec<i32> = tree::of(owner).ok()?.iter().map(|process| process.pid).collect();
            process::holds_socket(&pids, self.inode?)
        };
        held().unwrap_or(true)
    }
}

/// Connects a stray to whoever serves its address now, and copies both ways until the connection is [over](until_over).
pub async fn forward(stray: Stray) -> io::Result<()> {
    let Stray { client, to, _place } = stray;
    let client = Stream::accepted(client)?;
    let end = Instant::now() + PATIENCE;
    let server = loop {
        match Stream::connect(&to).await {
            Err(error) if passes(&error) && Instant::now() < end => {
                tokio::time::sleep(FULL).await;
            }
            connected => break connected?,
        }
    };
    let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let there = copying::all(&client, &server, &asked, |bytes| Cow::Borrowed(bytes));
    let back = copying::all(&server, &client, &answered, |bytes| Cow::Borrowed(bytes));
    until_over(&client, &server, &asked, there, back).await
}

/// Whether a connection may be made a little later: the queue of a Unix socket is full, where a client would wait as well,
/// or something is used up.
fn passes(error: &io::Error) -> bool {
    let used_up = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.kind() == ErrorKind::WouldBlock
        || Errno::from_io_error(error).is_some_and(|no| used_up.contains(&no))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_may_be_there_again_and_a_refusal_is_one() {
        for (error, expected) in [
            (Errno::AGAIN, true),
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOBUFS, true),
            (Errno::NOMEM, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::CONNREFUSED, false),
            (Errno::NOENT, false),
        ] {
            assert_eq!(passes(&error.into()), expected, "{error}");
        }
        assert!(!passes(&ErrorKind::UnexpectedEof.into()));
    }

    #[test]
    fn what_the_program_has_accepted_itself_meanwhile_is_not_waited_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Arc::new(OwnedFd::from(listener.try_clone().unwrap()));
        let queue = Queue::new(Watched { socket, to: address.into() });
        let _client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(socket::queue(listener.as_fd()).unwrap().waiting, 1);
        let _accepted = listener.accept().unwrap();
        assert!(queue.accept(&Traffic::default()).unwrap().is_none());
        let _next = std::net::TcpStream::connect(address).unwrap();
        assert!(queue.accept(&Traffic::default()).unwrap().is_some());
    }
}
