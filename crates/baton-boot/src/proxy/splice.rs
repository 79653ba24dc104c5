//! Bytes from one socket to another without a copy: `splice(2)` through a pipe. Where there is no pipe to be had, since a
//! slow client on the other side of each may keep it full for long, they are copied.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::sync::OwnedSemaphorePermit;

use crate::capacity::Capacity;
use crate::forwarding::Forwarding;
use crate::stream::Stream;

/// How much is moved at once: what a pipe holds.
const CHUNK: usize = 64 * 1024;
/// How many empty pipes are kept: as many as are busy at one moment on a busy machine. Connections that stand
/// idle hold none.
const SPARE_PIPES: usize = 64;
/// How much is copied at once, where there is no pipe: every connection may hold so much memory.
const COPIED: usize = 16 * 1024;

/// Empty pipes, shared by the connections of one thread.
#[derive(Debug, Clone, Default)]
pub struct Pipes(Rc<RefCell<Vec<Pipe>>>);

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    _permit: OwnedSemaphorePermit,
}

impl Pipes {
    fn take(&self) -> Option<Pipe> {
        if let Some(pipe) = self.0.borrow_mut().pop() {
            return Some(pipe);
        }
        let permit = Capacity::of_process().pipe()?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        Some(Pipe { read, write, _permit: permit })
    }

    /// Only an empty one may come back.
    fn put(&self, pipe: Pipe) {
        let mut pipes = self.0.borrow_mut();
        if pipes.len() < SPARE_PIPES {
            pipes.push(pipe);
        }
    }
}

/// Moves bytes both ways until both sides have ended. An end of one side is passed on while the other goes on;
/// a reset of one side resets the other.
pub async fn both_ways(pipes: &Pipes, client: &Stream, server: &Stream) -> io::Result<()> {
    until_both_end([client, server], one_way(pipes, client, server), one_way(pipes, server, client)).await
}

/// Does both until both have ended; `back` are the answers.
pub async fn until_both_end(
    sides: [&Stream; 2],
    there: impl Future<Output = io::Result<()>>,
    back: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let answers = Forwarding::begin();
    let back = async {
        let ended = back.await;
        drop(answers);
        ended
    };
    let moved = tokio::try_join!(there, back).map(|((), ())| ());
    if moved.is_err() {
        for side in sides {
            // Closed with this, a connection ends as its other side did.
            let _ = sockopt::set_socket_linger(side, Some(Duration::ZERO));
        }
    }
    moved
}

async fn one_way(pipes: &Pipes, from: &Stream, to: &Stream) -> io::Result<()> {
    loop {
        from.readable().await?;
        let ended = match pipes.take() {
            Some(pipe) => {
                // Should an error interrupt this, the pipe is closed with what is still in it.
                let ended = drain(&pipe, from, to).await?;
                pipes.put(pipe);
                ended
            }
            None => copy(from, to, |bytes| Cow::Borrowed(bytes)).await?,
        };
        if ended {
            // A side that has gone meanwhile needs not be told.
            let _ = shutdown(to, Shutdown::Write);
            return Ok(());
        }
    }
}

/// Moves what there is now; `true` at the end of the stream. The pipe is empty afterwards.
async fn drain(pipe: &Pipe, from: &Stream, to: &Stream) -> io::Result<bool> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        let filled =
            from.try_io(Interest::READABLE, || Ok(splice(from, None, &pipe.write, None, CHUNK, flags)?));
        let mut left = match filled {
            Ok(0) => return Ok(true),
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        while left > 0 {
            let moved =
                to.try_io(Interest::WRITABLE, || Ok(splice(&pipe.read, None, to, None, left, flags)?));
            match moved {
                Ok(moved) => left -= moved,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }
}

/// The same by copying. `change`: what is passed on instead of what comes.
pub async fn copy(
    from: &Stream,
    to: &Stream,
    mut change: impl FnMut(&[u8]) -> Cow<'_, [u8]>,
) -> io::Result<bool> {
    let mut buffer = vec![0; COPIED];
    loop {
        let filled = match from.try_read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let passed = change(buffer.get(..filled).unwrap_or_default());
        let mut left = &*passed;
        while !left.is_empty() {
            match to.try_write(left) {
                Ok(written) => left = left.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }
}
