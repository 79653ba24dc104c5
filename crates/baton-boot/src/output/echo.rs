//! A second reference to what is moved from pipe to pipe, until somebody wants to keep it.
//!
//! Bytes that a program writes fast are not copied: their pages go to the output (`splice`), and a reference to
//! them stays here (`tee`). Most of it is thrown away again, unseen, since only the last of it will be kept.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use baton_core::output::time::UnixMicros;
use baton_core::units::Millis;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee};

use super::source::Origin;

/// How much it holds: as much as will be kept. The kernel lets everybody have so large a pipe.
const ECHO_BYTES: usize = 1024 * 1024;
/// After so long it is kept for good, so that whoever looks does not look at the past.
const SETTLE: Millis = Millis(20);

/// References to output that was passed on.
#[derive(Debug)]
pub struct Echo {
    read: OwnedFd,
    write: OwnedFd,
    null: File,
    parts: VecDeque<Part>,
    /// Streams of which something was thrown away.
    torn: Vec<Origin>,
    since: Millis,
}

/// What was passed on at once.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Whose output it is.
    pub origin: Origin,
    /// When it was read.
    pub time: UnixMicros,
    /// How many bytes.
    pub bytes: usize,
}

impl Echo {
    /// An empty one.
    ///
    /// # Errors
    /// Where so large a pipe is not to be had; then bytes are copied.
    pub fn open(now: Millis) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&write, ECHO_BYTES)?;
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        Ok(Self { read, write, null, parts: VecDeque::new(), torn: Vec::new(), since: now })
    }

    /// When it is to be kept.
    pub fn due(&self) -> Millis {
        self.since + SETTLE
    }

    /// Refers to at most `bytes` of what waits in a pipe, in place of what is oldest, and returns how many these
    /// are; the pipe still has them.
    pub fn take(&mut self, from: BorrowedFd<'_>, origin: Origin, time: UnixMicros, bytes: usize) -> usize {
        loop {
            match tee(from, &self.write, bytes, SpliceFlags::NONBLOCK) {
                Ok(0) => return 0,
                Ok(bytes) => {
                    self.parts.push_back(Part { origin, time, bytes });
                    return bytes;
                }
                Err(Errno::INTR) => {}
                Err(_) if self.drop_oldest() => {}
                Err(_) => return 0,
            }
        }
    }

    /// The streams of which something was thrown away, before what is left.
    pub fn torn(&self) -> &[Origin] {
        &self.torn
    }

    /// Gives every part to `keep`, oldest first, with its bytes.
    pub fn settle(self, buffer: &mut [u8], mut keep: impl FnMut(Part, &[u8])) {
        for mut part in self.parts {
            while part.bytes > 0 {
                let wanted = part.bytes.min(buffer.len());
                let Ok(count @ 1..) = rustix::io::read(&self.read, &mut buffer[..wanted]) else { return };
                keep(part, &buffer[..count]);
                part.bytes -= count;
            }
        }
    }

    /// Throws the oldest part away, if there is one.
    fn drop_oldest(&mut self) -> bool {
        let Some(Part { origin, mut bytes, .. }) = self.parts.pop_front() else { return false };
        if !self.torn.contains(&origin) {
            self.torn.push(origin);
        }
        while bytes > 0 {
            match splice(&self.read, None, &self.null, None, bytes, SpliceFlags::NONBLOCK) {
                Ok(count @ 1..) => bytes -= count,
                Err(Errno::INTR) => {}
                // It was all there; that it is not cannot be mended here.
                Ok(0) | Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use baton_core::ids::GenerationId;
    use baton_core::output::Stream;

    use super::*;

    const ORIGIN: Origin = (GenerationId(1), Stream::Stdout);

    #[test]
    fn the_last_of_it_is_kept_and_the_pipe_loses_nothing() {
        let (from, to) = baton_sys::spawn::pipe().unwrap();
        let (mut to, mut reader) = (File::from(to), File::from(from.try_clone().unwrap()));
        let mut echo = Echo::open(Millis(5)).unwrap();
        assert_eq!(echo.due(), Millis(5) + SETTLE);
        let (mut all, mut passed) = (Vec::new(), Vec::new());
        for n in 0..200u32 {
            // Not by whole pages, so that they are not filled.
            let bytes: Vec<u8> = format!("{n} ").into_bytes().repeat(5000);
            to.write_all(&bytes).unwrap();
            all.extend(bytes);
            while passed.len() < all.len() {
                let (start, left) = (passed.len(), all.len() - passed.len());
                let taken = echo.take(from.as_fd(), ORIGIN, UnixMicros(u64::from(n)), left);
                assert!(taken > 0 && taken <= left);
                passed.resize(start + taken, 0);
                reader.read_exact(&mut passed[start..]).unwrap();
            }
        }
        assert!(passed == all);
        assert_eq!(echo.torn(), [ORIGIN]);
        let (mut kept, mut last) = (Vec::new(), 0);
        let keep = |part: Part, bytes: &[u8]| {
            assert!(part.origin == ORIGIN && part.time.0 >= last);
            last = part.time.0;
            kept.extend_from_slice(bytes);
        };
        echo.settle(&mut [0; 10_000], keep);
        assert_eq!(last, 199);
        assert!(kept.len() >= ECHO_BYTES / 2 && all.ends_with(&kept));
    }
}
