//! One of the bootloader's own descriptors, written to without waiting for whoever reads it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::SendFlags;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, splice};

use super::source::PIPE_BYTES;

/// So much fits into a pipe that has any room at all (`PIPE_BUF`).
const PIECE_BYTES: usize = 4096;

/// A way out. How not to wait depends on what is behind it: the flag for it belongs to the open file, which others
/// have as well and may rely on.
#[derive(Debug)]
pub enum Door {
    /// A pipe that was opened anew, so that the flag is ours.
    Pipe(OwnedFd),
    /// A terminal or another device that was opened anew.
    Device(OwnedFd),
    /// A socket, which can be asked each time.
    Socket(OwnedFd),
    /// A file, which takes everything.
    File(OwnedFd),
    /// Anything else: asked whether it has room, and given no more than that.
    Asked(OwnedFd),
}

/// What became of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// So many were taken, at least one.
    Some(usize),
    /// There is no room now.
    Full,
    /// They cannot be kept: a full disk. The next ones may be.
    Refused,
    /// Nobody will ever read again.
    Gone,
}

impl Door {
    /// The way out through this descriptor.
    pub fn open(to: BorrowedFd<'_>) -> io::Result<Self> {
        let anew = || {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open(format!("/proc/self/fd/{}", to.as_raw_fd()), flags, Mode::empty())
        };
        let own = to.try_clone_to_owned()?;
        Ok(match FileType::from_raw_mode(fstat(to)?.st_mode) {
            FileType::Fifo => anew().map_or(Self::Asked(own), Self::Pipe),
            FileType::CharacterDevice => anew().map_or(Self::Asked(own), Self::Device),
            FileType::Socket => Self::Socket(own),
            FileType::RegularFile => Self::File(own),
            FileType::Directory | FileType::Symlink | FileType::BlockDevice | FileType::Unknown => {
                Self::Asked(own)
            }
        })
    }

    /// Writes as much of it as there is room for. `bytes` is not empty.
    pub fn put(&self, bytes: &[u8]) -> Taken {
        loop {
            let put = match self {
                Self::Pipe(to) | Self::Device(to) | Self::File(to) => rustix::io::write(to, bytes),
                Self::Socket(to) => rustix::net::send(to, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
                Self::Asked(to) if self.has_room() => {
                    rustix::io::write(to, &bytes[..bytes.len().min(PIECE_BYTES)])
                }
                Self::Asked(_) => Err(Errno::AGAIN),
            };
            return match put {
                Ok(0) | Err(Errno::AGAIN) => Taken::Full,
                Ok(count) => Taken::Some(count),
                Err(Errno::INTR) => continue,
                Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Taken::Refused,
                Err(_) => Taken::Gone,
            };
        }
    }

    /// Moves the next `bytes` of another pipe, which has at least so many, without copying them. Only for a
    /// [pipe](Self::is_pipe).
    pub fn refer(&self, from: BorrowedFd<'_>, bytes: usize) -> Taken {
        let to = self.descriptor();
        loop {
            return match splice(from, None, to, None, bytes, SpliceFlags::NONBLOCK) {
                // The program may read its own output: then there is nothing to wait for.
                Ok(0) | Err(Errno::AGAIN) if ioctl_fionread(from).is_ok_and(|left| left == 0) => {
                    Taken::Some(bytes)
                }
                Ok(0) | Err(Errno::AGAIN) => Taken::Full,
                Ok(count) => Taken::Some(count),
                Err(Errno::INTR) => continue,
                Err(_) => Taken::Gone,
            };
        }
    }

    /// Whether bytes can be moved here without being copied.
    pub fn is_pipe(&self) -> bool {
        matches!(self, Self::Pipe(_))
    }

    /// Makes more room, where that is possible: whoever reads is woken less often.
    pub fn enlarge(&self) {
        if let Self::Pipe(to) = self {
            // What the kernel refuses works as it is.
            let _ = fcntl_setpipe_size(to, PIPE_BYTES);
        }
    }

    /// Whether there is room for anything, or nobody who could make some.
    pub fn has_room(&self) -> bool {
        let mut asked = [PollFd::from_borrowed_fd(self.descriptor(), PollFlags::OUT)];
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// The descriptor, to wait until there is room.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Pipe(to) | Self::Device(to) | Self::Socket(to) | Self::File(to) | Self::Asked(to) => {
                to.as_fd()
            }
        }
    }

    /// Whether both lead to the same place, where what is written to one may come between what is written to the
    /// other. In a file it does not, since a file takes everything at once.
    pub fn leads_where(&self, other: &Self) -> bool {
        let place = |door: &Self| fstat(door.descriptor()).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        !matches!(self, Self::File(_)) && place(self).is_some_and(|this| place(other) == Some(this))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use rustix::fs::fcntl_getfl;

    use super::*;

    /// Fills it, and returns how many bytes that took.
    fn fill(door: &Door) -> usize {
        let (mut sum, bytes) = (0, [b'x'; 10_000]);
        while let Taken::Some(count) = door.put(&bytes) {
            sum += count;
        }
        assert_eq!(door.put(&bytes), Taken::Full);
        sum
    }

    #[test]
    fn p22_nothing_behind_a_door_can_hold_it_up() {
        let (read, write) = baton_sys::spawn::pipe().unwrap();
        let (left, right) = UnixStream::pair().unwrap();
        let (other, asked) = baton_sys::spawn::pipe().unwrap();
        let pipe = Door::open(write.as_fd()).unwrap();
        let socket = Door::open(right.as_fd()).unwrap();
        assert!(matches!((&pipe, &socket), (Door::Pipe(_), Door::Socket(_))));
        // What others see of the same open file is as it was.
        assert!(!fcntl_getfl(&write).unwrap().contains(OFlags::NONBLOCK));
        let readers: [Box<dyn Read>; 3] =
            [Box::new(std::fs::File::from(read)), Box::new(left), Box::new(std::fs::File::from(other))];
        for (door, mut reader) in [pipe, socket, Door::Asked(asked)].into_iter().zip(readers) {
            let filled = fill(&door);
            reader.read_exact(&mut vec![0; filled]).unwrap();
            assert!(fill(&door) > 0);
            drop(reader);
            assert_eq!(door.put(b"x"), Taken::Gone);
        }
    }

    #[test]
    fn bytes_are_moved_from_pipe_to_pipe_while_there_is_room() {
        let ((from, into), (out, to)) =
            (baton_sys::spawn::pipe().unwrap(), baton_sys::spawn::pipe().unwrap());
        let door = Door::open(to.as_fd()).unwrap();
        rustix::io::write(&into, b"abcdef").unwrap();
        assert_eq!(door.refer(from.as_fd(), 4), Taken::Some(4));
        fill(&door);
        assert_eq!(door.refer(from.as_fd(), 2), Taken::Full);
        // What the program has taken back itself is not waited for.
        rustix::io::read(&from, &mut [0; 2]).unwrap();
        assert_eq!(door.refer(from.as_fd(), 2), Taken::Some(2));
        let mut moved = [0; 4];
        rustix::io::read(&out, &mut moved).unwrap();
        assert_eq!(&moved, b"abcd");
        drop(out);
        rustix::io::write(&into, b"x").unwrap();
        assert_eq!(door.refer(from.as_fd(), 1), Taken::Gone);
    }

    #[test]
    fn a_file_takes_everything_and_a_full_disk_is_not_the_end() {
        let file = Door::open(std::fs::File::create("/dev/null").unwrap().as_fd()).unwrap();
        assert_eq!(file.put(b"abc"), Taken::Some(3));
        let full = Door::open(std::fs::File::create("/dev/full").unwrap().as_fd()).unwrap();
        assert_eq!(full.put(b"abc"), Taken::Refused);
    }

    #[test]
    fn two_descriptors_of_one_pipe_are_known_for_what_they_are() {
        let (_read, one) = baton_sys::spawn::pipe().unwrap();
        let (_other, two) = baton_sys::spawn::pipe().unwrap();
        let door = |fd: &OwnedFd| Door::open(fd.as_fd()).unwrap();
        assert!(door(&one).leads_where(&door(&one)));
        assert!(!door(&one).leads_where(&door(&two)));
    }
}
