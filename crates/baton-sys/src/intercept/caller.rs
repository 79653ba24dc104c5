//! The thread that called `bind`, read through `/proc/<tid>` alone: other ways to look into a process are refused
//! in many containers.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::matching::{Family, Socket};
use super::notify::Call;
use super::told::{self, Flags, Status};
use super::user::AsUser;
use crate::socket;

/// The largest address: `sockaddr_storage`.
const ADDRESS_ROOM: usize = 128;

/// A thread that waits in `bind(fd, address, length)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    tid: u32,
    fd: RawFd,
    address: u64,
    length: usize,
}

impl Caller {
    pub(super) fn of(call: Call) -> Self {
        let [fd, address, length, ..] = call.arguments;
        // The kernel too looks only at the low half of the two numbers.
        Self { tid: call.tid, fd: fd as u32 as RawFd, address, length: length as u32 as usize }
    }

    /// The number of the descriptor that the program binds.
    pub(super) fn fd(self) -> RawFd {
        self.fd
    }

    /// The process that the thread belongs to.
    pub(super) fn process(self) -> io::Result<i32> {
        Ok(self.status()?.process)
    }

    /// The inode behind a descriptor of a process of the same program; `None` if it is closed, or cannot be seen.
    pub(super) fn inode_of(self, process: i32, fd: RawFd) -> Option<u64> {
        let found = self.permitted(|| fs::metadata(format!("/proc/{process}/fd/{fd}")));
        found.ok().flatten().map(|file| file.ino())
    }

    /// The address that the program asks for; `None` if it is no IP address, or cannot be read by the program
    /// itself either.
    ///
    /// # Errors
    /// If this process may not read the program's memory, or may open no more files.
    pub(super) fn asked(self) -> io::Result<Option<SocketAddr>> {
        let mut room = [0; ADDRESS_ROOM];
        let Some(bytes) = room.get_mut(..self.length) else { return Ok(None) };
        let memory = self.permitted(|| File::open(self.path("mem")))?;
        match memory.map(|memory| memory.read_exact_at(bytes, self.address)) {
            Some(Ok(())) => Ok(told::address(bytes)),
            // A bad pointer, or the program is gone.
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// The socket that the program binds; `None` if the descriptor is no TCP socket.
    ///
    /// # Errors
    /// If this process may not look at the program's descriptors, or may open no more files.
    pub(super) fn socket(self) -> io::Result<Option<(Socket, Flags)>> {
        let found = self.permitted(|| {
            let path = self.path(&format!("fd/{}", self.fd));
            let file = fs::metadata(&path)?;
            if !file.file_type().is_socket() {
                return Ok(None);
            }
            let (inode, Some(family)) = (file.ino(), tcp_family(&path)?) else { return Ok(None) };
            let info = fs::read_to_string(self.path(&format!("fdinfo/{}", self.fd)))?;
            let flags = Flags::parse(&info).ok_or(io::ErrorKind::InvalidData)?;
            Ok(Some((Socket { family, inode, registered: self.is_registered(inode)? }, flags)))
        });
        Ok(found?.flatten())
    }

    /// Whether one of the program's epoll descriptors watches the socket.
    fn is_registered(self, inode: u64) -> io::Result<bool> {
        for fd in fs::read_dir(self.path("fd"))? {
            let fd = fd?;
            // It may be closed meanwhile.
            let is_epoll =
                fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventpoll]");
            if is_epoll {
                let info = self.path(&format!("fdinfo/{}", fd.file_name().to_string_lossy()));
                if fs::read_to_string(info).is_ok_and(|info| told::watches(&info, inode)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// A descriptor of our own for the program's socket.
    ///
    /// # Errors
    /// `PermissionDenied` in most containers, and for another user's program without `CAP_SYS_PTRACE`.
    pub(super) fn borrow(self, expected: Socket) -> io::Result<OwnedFd> {
        let process = Pid::from_raw(self.status()?.process).ok_or(io::ErrorKind::NotFound)?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let borrowed = pidfd_getfd(process, self.fd, PidfdGetfdFlags::empty())?;
        // A thread may have descriptors of its own, and we asked its process.
        if socket::inode(&borrowed)? == expected.inode {
            Ok(borrowed)
        } else {
            Err(io::Error::other("the thread has descriptors of its own"))
        }
    }

    /// Reads as ourselves, or, where that is refused, as the program's user. `None` if there is no such thing: a
    /// descriptor that is not open, a thread that is gone.
    fn permitted<T>(self, read: impl Fn() -> io::Result<T>) -> io::Result<Option<T>> {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let mut result = read();
        if result.as_ref().is_err_and(denied) {
            let _user = AsUser::become_user(self.status()?.user)?;
            result = read();
        }
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn status(self) -> io::Result<Status> {
        // The name in it may have been cut within a character.
        let text = fs::read(self.path("status"))?;
        Status::parse(&String::from_utf8_lossy(&text)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn path(self, below: &str) -> String {
        format!("/proc/{}/{below}", self.tid)
    }
}

/// The family of a TCP socket; MPTCP sockets accept TCP connections and count as such.
fn tcp_family(path: &str) -> io::Result<Option<Family>> {
    let mut name = [0u8; 32];
    let length = rustix::fs::getxattr(path, "system.sockprotoname", &mut name)?;
    Ok(match name.get(..length).and_then(|name| name.split(|byte| *byte == 0).next()) {
        Some(b"TCP" | b"MPTCP") => Some(Family::V4),
        Some(b"TCPv6" | b"MPTCPv6") => Some(Family::V6),
        _ => None,
    })
}
