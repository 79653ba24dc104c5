//! Bytes from one socket to another without a copy: `splice(2)` through a pipe. Where there is no pipe to be had, since a
//! slow client on the other side of each may keep it full for long, they are copied.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::sync::OwnedSemaphorePermit;

use crate::capacity::Capacity;
use crate::copying;
use crate::forwarding::until_over;
use crate::stream::Stream;

/// How much is moved at once: what a pipe holds.
const CHUNK: usize = 64 * 1024;
/// How many empty pipes are kept: as many as are busy at one moment on a busy machine. Connections that stand
/// idle hold none.
const SPARE_PIPES: usize = 64;

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

/// Moves bytes both ways until the connection is [over](until_over).
pub async fn both_ways(pipes: &Pipes, client: &Stream, server: &Stream) -> io::Result<()> {
    let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let there = one_way(pipes, client, server, &asked);
    let back = one_way(pipes, server, client, &answered);
    until_over(client, server, &asked, there, back).await
}

/// `moved` grows with what has come through.
async fn one_way(pipes: &Pipes, from: &Stream, to: &Stream, moved: &AtomicU64) -> io::Result<()> {
    loop {
        from.readable().await?;
        let ended = match pipes.take() {
            Some(pipe) => {
                // Should an error interrupt this, the pipe is closed with what is still in it.
                let ended = drain(&pipe, from, to, moved).await?;
                pipes.put(pipe);
                ended
            }
            None => copying::what_is_there(from, to, moved, |bytes| Cow::Borrowed(bytes)).await?,
        };
        if ended {
            return Ok(());
        }
    }
}

/// Moves what there is now; `true` at the end of the stream. The pipe is empty afterwards.
async fn drain(pipe: &Pipe, from: &Stream, to: &Stream, moved: &AtomicU64) -> io::Result<bool> {
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
        let filled = left as u64;
        while left > 0 {
            let emptied =
                to.try_io(Interest::WRITABLE, || Ok(splice(&pipe.read, None, to, None, left, flags)?));
            match emptied {
                Ok(emptied) => left -= emptied,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
        moved.fetch_add(filled, Ordering::Relaxed);
    }
}
