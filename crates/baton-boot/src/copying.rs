//! Bytes from one connection to another, read and written.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::stream::Stream;

/// How much is copied at once: every connection may hold so much memory.
const COPIED: usize = 16 * 1024;

/// Copies all that comes until it ends. `change`: what is passed on instead of what comes; `moved` grows
/// with it.
pub async fn all(
    from: &Stream,
    to: &Stream,
    moved: &AtomicU64,
    mut change: impl FnMut(&[u8]) -> Cow<'_, [u8]>,
) -> io::Result<()> {
    loop {
        from.readable().await?;
        if what_is_there(from, to, moved, &mut change).await? {
            return Ok(());
        }
    }
}

/// Copies what there is now; `true` at the end of the stream.
pub async fn what_is_there(
    from: &Stream,
    to: &Stream,
    moved: &AtomicU64,
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
        moved.fetch_add(filled as u64, Ordering::Relaxed);
    }
}
