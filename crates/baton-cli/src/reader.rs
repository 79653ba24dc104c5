//! Whoever reads the output: once nobody does, a command that would go on for ever has nothing left to do.

use std::io;
use std::os::fd::BorrowedFd;
use std::process;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::exit::Exit;
use crate::failure::Failure;

/// From now on the program ends with [`Exit::Done`] when nobody reads its standard output any more. A write finds
/// that out only when there is something to write.
///
/// # Errors
/// The thread that waits for it cannot be started.
pub fn end_without() -> Result<(), Failure> {
    // The thread lives as long as the process, which it ends.
    let thread = std::thread::Builder::new().name("reader".to_owned()).spawn(|| {
        if wait_until_gone(rustix::stdio::stdout()).is_ok() {
            process::exit(Exit::Done as i32);
        }
    });
    thread.map(drop).map_err(|source| Failure::System { what: "watch who reads the output", source })
}

/// Returns when the other end of this pipe, socket or terminal is closed; for a file that is never.
fn wait_until_gone(output: BorrowedFd<'_>) -> io::Result<()> {
    // The kernel tells of errors and of hang-ups unasked, see poll(2).
    let mut watched = [PollFd::from_borrowed_fd(output, PollFlags::empty())];
    loop {
        match poll(&mut watched, None) {
            Err(Errno::INTR) | Ok(0) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::thread;

    use super::*;

    #[test]
    fn a_reader_that_leaves_is_noticed_without_a_write() {
        let (reader, writer) = io::pipe().unwrap();
        let waiting = thread::spawn(move || wait_until_gone(writer.as_fd()));
        drop(reader);
        waiting.join().unwrap().unwrap();
    }
}
