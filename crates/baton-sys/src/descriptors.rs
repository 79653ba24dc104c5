//! How many descriptors this process may have open: as many as the system allows. The programs that it starts may have
//! as many as it might have had itself at first, for some of them go through all numbers that there may be.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit as it was before it was raised.
static FIRST: OnceLock<Option<u64>> = OnceLock::new();

/// Raises the soft limit to the hard one. To be called once, at the start.
///
/// # Errors
/// If the kernel refuses; then everything stays as it is.
pub fn raise() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
        FIRST.get_or_init(|| limit.current);
    }
    Ok(())
}

/// How many there may be open.
pub fn most() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What a program is given in the place of ours, if we raised that.
pub(crate) fn given() -> Option<libc::rlimit> {
    let first = FIRST.get()?;
    let limit = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    let hard = limit(getrlimit(Resource::Nofile).maximum);
    // It may have been lowered since.
    Some(libc::rlimit { rlim_cur: limit(*first).min(hard), rlim_max: hard })
}
