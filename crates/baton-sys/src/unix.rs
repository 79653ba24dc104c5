//! Listening Unix sockets and their names in the file system.
//!
//! A name leads to the socket that is bound to its inode for as long as that one listens, and an inode may have
//! several names: replacing a name is one `rename`, and whoever connects finds the old socket or the new one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::socket::listen;

/// The inode of a socket, whatever its names are.
#[derive(Debug)]
pub struct Node(OwnedFd);

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A socket at which nobody listens any more.
    Stale,
    /// A socket at which this process listens: 0, where it is in another pid namespace.
    Listens(i32),
    /// Something that is no socket.
    Other,
}

/// A new listening socket with this name, which must not exist. For now only its owner, who is who we are, may
/// connect to it.
pub fn listen_at(path: &Path, backlog: u16) -> io::Result<(OwnedFd, Node)> {
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The inode gets the permissions of the socket (`net/unix/af_unix.c`, `unix_bind_bsd`).
    fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let node = fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let node = Node(node);
    // Whoever may write to the folder may have put something else there.
    if node.kind()? != FileType::Socket {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    listen(socket.as_fd(), backlog)?;
    Ok((socket, node))
}

/// What a path leads to. Nobody notices, but that a connection was made and closed where somebody listens.
pub fn look(path: &Path) -> io::Result<Found> {
    match fs::lstat(path) {
        Err(rustix::io::Errno::NOENT) => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => return Ok(Found::Other),
        Ok(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Found::Listens(peer(socket.as_fd())?)),
        // Its queue is full, or it is no stream.
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PROTOTYPE) => Ok(Found::Listens(0)),
        Err(rustix::io::Errno::CONNREFUSED) => Ok(Found::Stale),
        Err(rustix::io::Errno::NOENT) => Ok(Found::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// The process that had called `listen`, for the client's end of a connection (`SO_PEERCRED`, `man 7 unix`).
fn peer(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the buffer has the size we state, and any bytes are a valid `ucred`.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    if failed == 0 { Ok(peer.pid) } else { Err(io::Error::last_os_error()) }
}

impl Node {
    fn kind(&self) -> io::Result<FileType> {
        Ok(FileType::from_raw_mode(fs::fstat(&self.0)?.st_mode))
    }

    /// Whether this path is one of its names.
    pub fn is_at(&self, path: &Path) -> bool {
        let own = fs::fstat(&self.0);
        let there = fs::lstat(path);
        matches!((own, there), (Ok(own), Ok(there)) if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino))
    }

    /// Whether it has a name anywhere. Without one it cannot be given any: Linux makes no name for what has none.
    pub fn has_name(&self) -> bool {
        fs::fstat(&self.0).is_ok_and(|own| own.st_nlink > 0)
    }

    /// Who may connect, as the permissions of a file.
    pub fn permit(&self, mode: u16) -> io::Result<()> {
        Ok(fs::chmod(self.by_descriptor(), Mode::from_raw_mode(mode.into()))?)
    }

    /// Gives it to a user and a group.
    pub fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(fs::chownat(&self.0, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
    }

    /// Makes `path` a name of it at once, whatever it led to before; `beside` is a free name in the same folder.
    pub fn take_name(&self, path: &Path, beside: &Path) -> io::Result<()> {
        // What an interrupted attempt has left.
        remove(beside)?;
        fs::linkat(CWD, self.by_descriptor(), CWD, beside, AtFlags::SYMLINK_FOLLOW)?;
        let renamed = fs::rename(beside, path);
        // Where both were names of it before, the rename has changed nothing.
        remove(beside)?;
        Ok(renamed?)
    }

    /// Removes one of its names, if this is one.
    pub fn drop_name(&self, path: &Path) {
        if self.is_at(path) {
            // What cannot be removed is found to be stale later.
            let _ = remove(path);
        }
    }

    /// The inode and not what a name leads to by now: nobody else can put another one in its place.
    fn by_descriptor(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// Removes the name of a socket, if it exists.
///
/// # Errors
/// `AlreadyExists` where there is something else, which is left alone.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::lstat(path) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(_) => {}
    }
    match fs::unlink(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How a listening Unix socket stands. The kernel does not tell the length of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Nobody has called `shutdown` on it: it can be connected to. One that was shut down never listens again.
    pub listening: bool,
    /// At least one connection waits to be accepted.
    pub waiting: bool,
}

/// How a listening Unix socket stands.
pub fn standing(socket: BorrowedFd<'_>) -> io::Result<Standing> {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::IN | PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    let found = polled[0].revents();
    let listening = !found.intersects(PollFlags::RDHUP | PollFlags::HUP);
    Ok(Standing { listening, waiting: listening && found.contains(PollFlags::IN) })
}

/// How many connections wait to be accepted at a socket that was bound to this path, by whomever.
pub fn waiting_at(path: &Path) -> io::Result<usize> {
    let table = std::fs::read("/proc/net/unix")?;
    Ok(table.split(|byte| *byte == b'\n').filter(|line| waits_at(line, path)).count())
}

/// `St` of a connection that nobody has accepted: it is established, and has no file (`SS_CONNECTING`).
const UNACCEPTED: &[u8] = b"02";

/// Whether a line is of such a connection: `Num RefCount Protocol Flags Type St Inode Path` (`man 5 proc`), where
/// the path is that of the socket at which it waits.
fn waits_at(line: &[u8], path: &Path) -> bool {
    let state = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).nth(5);
    // It may have spaces in it, and nothing before it has a slash.
    let there = line.iter().position(|byte| *byte == b'/').map(|start| &line[start..]);
    state == Some(UNACCEPTED) && there == Some(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::accept;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    fn here() -> i32 {
        std::process::id().try_into().unwrap()
    }

    #[test]
    fn a_name_is_replaced_at_once_and_both_sockets_keep_their_queues() {
        let folder = tempfile::tempdir().unwrap();
        let [public, old_name, new_name, beside] =
            ["public", "old", "new", "beside"].map(|name| folder.path().join(name));
        let (old, old_node) = listen_at(&old_name, 8).unwrap();
        let (new, new_node) = listen_at(&new_name, 8).unwrap();
        old_node.take_name(&public, &beside).unwrap();
        let _first = UnixStream::connect(&public).unwrap();
        new_node.take_name(&public, &beside).unwrap();
        // Once more: it is there already.
        new_node.take_name(&public, &beside).unwrap();
        assert!(new_node.is_at(&public) && !old_node.is_at(&public) && !beside.exists());
        let _second = UnixStream::connect(&public).unwrap();
        let _third = UnixStream::connect(&old_name).unwrap();
        assert_eq!((waiting_at(&old_name).unwrap(), waiting_at(&new_name).unwrap()), (2, 1));
        let waits = |socket: &OwnedFd| standing(socket.as_fd()).unwrap();
        assert!(waits(&old).waiting && waits(&new).waiting);
        drop(accept(new.as_fd()).unwrap());
        assert_eq!(waits(&new), Standing { listening: true, waiting: false });
        assert_eq!(waiting_at(&new_name).unwrap(), 0);
        old_node.take_name(&public, &beside).unwrap();
        assert!(old_node.is_at(&public));
        new_node.drop_name(&public);
        old_node.drop_name(&old_name);
        assert!(public.exists() && !old_name.exists());
        old_node.drop_name(&public);
        assert!(!old_node.has_name() && new_node.has_name());
        assert_eq!(old_node.take_name(&public, &beside).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn who_may_connect_is_settled_when_it_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (_socket, node) = listen_at(&path, 8).unwrap();
        let mode = || std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        node.permit(0o666).unwrap();
        assert_eq!(mode(), 0o666);
        let taken = listen_at(&path, 8).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn it_is_told_apart_whether_anybody_listens_at_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert_eq!(look(&path).unwrap(), Found::Nothing);
        let (socket, _node) = listen_at(&path, 0).unwrap();
        assert_eq!(look(&path).unwrap(), Found::Listens(here()));
        assert_eq!(look(&path).unwrap(), Found::Listens(0), "the first look fills its queue");
        net::shutdown(&socket, net::Shutdown::Both).unwrap();
        assert!(!standing(socket.as_fd()).unwrap().listening);
        drop(socket);
        assert_eq!(look(&path).unwrap(), Found::Stale);
        remove(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        assert_eq!(look(&path).unwrap(), Found::Other);
        assert_eq!(remove(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
