//! The sockets of one listener at a path: one a slot, each under a private name beside the public one.
//!
//! Unix sockets have no reuseport groups. Clients find the listener by its public name, which is a second name of
//! the serving slot's socket: the switch replaces it, and whoever connects reaches the old socket or the new one.
//! Probes use the private names.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baton_core::run::{Address, Listen, SocketPath};
use baton_core::supervisor::Slot;
use baton_sys::attributes::User;
use baton_sys::socket;
use baton_sys::unix::{self, Found, Node};

use crate::group::GroupError;

/// Who may connect to a socket that clients shall not find yet: probes alone.
const PRIVATE: u16 = 0o600;

/// How many private names are tried for one socket: more programs are never left of a bootloader that was killed.
const NAMES_TRIED: u32 = 32;

/// Who the file of a socket belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

impl From<&User> for Owner {
    fn from(user: &User) -> Self {
        Self { uid: user.uid, gid: user.gid }
    }
}

/// How clients find a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Whose it is; the bootloader's, when not set.
    pub owner: Option<Owner>,
    /// Who may connect, as the permissions of a file.
    pub mode: u16,
}

/// A listener at a path.
#[derive(Debug)]
pub struct Unix {
    listen: Listen,
    path: SocketPath,
    /// By slot. The bootloader's own copies: what waits in a queue outlives the program.
    sockets: Vec<Socket>,
    /// How those are shown that nobody has prepared.
    shown: Shown,
    serving: Slot,
}

#[derive(Debug)]
struct Socket {
    socket: Arc<OwnedFd>,
    node: Node,
    name: SocketPath,
    shown: Shown,
}

impl Unix {
    /// A listener without sockets so far: [`Unix::select`] makes them.
    ///
    /// # Errors
    /// When somebody listens at the path, or when it leads to something else than a socket.
    pub fn open(listen: Listen, path: SocketPath, owner: Option<Owner>) -> Result<Self, GroupError> {
        if let Err(source) = is_vacant(Path::new(path.as_str())) {
            return Err(GroupError::new("opening", &listen, source));
        }
        remove_stale(Path::new(path.as_str()));
        let shown = Shown { owner, mode: listen.mode };
        Ok(Self { listen, path, sockets: Vec::new(), shown, serving: Slot(0) })
    }

    /// What the settings say of the listener.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// The socket of a slot.
    pub fn socket(&self, slot: Slot) -> Option<Arc<OwnedFd>> {
        self.sockets.get(slot.0 as usize).map(|socket| socket.socket.clone())
    }

    /// Where a slot alone is reached.
    pub fn private_address(&self, slot: Slot) -> Option<Address> {
        self.sockets.get(slot.0 as usize).map(|socket| Address::Unix(socket.name.clone()))
    }

    /// Gives new connections to one slot from this moment on, and makes sure that there is another one.
    pub fn select(&mut self, serving: Slot, private: Slot) -> Result<(), GroupError> {
        while self.sockets.len() <= serving.max(private).0 as usize {
            let socket = self.make(Slot(self.sockets.len() as u32))?;
            self.sockets.push(socket);
        }
        self.serving = serving;
        // One that has lost its name keeps nobody from being launched, who gets a new one.
        if self.is_lost(serving) { Ok(()) } else { self.keep_name() }
    }

    /// Whether the socket of a slot has no name any more, as its folder was removed: nobody can reach it again.
    pub fn is_lost(&self, slot: Slot) -> bool {
        self.sockets.get(slot.0 as usize).is_some_and(|socket| !socket.node.has_name())
    }

    /// A new socket for a slot whose own is lost, for whoever can take another one.
    pub fn renew(&mut self, slot: Slot) -> Result<Arc<OwnedFd>, GroupError> {
        let fresh = Socket { shown: self.sockets[slot.0 as usize].shown, ..self.make(slot)? };
        let socket = fresh.socket.clone();
        self.sockets[slot.0 as usize] = fresh;
        Ok(socket)
    }

    /// Makes sure that the public name leads to the serving slot: a program may have removed or taken it.
    pub fn keep_name(&self) -> Result<(), GroupError> {
        let Some(serving) = self.sockets.get(self.serving.0 as usize) else { return Ok(()) };
        let path = Path::new(self.path.as_str());
        let show = || {
            if !serving.node.has_name() {
                return Err(lost());
            }
            serving.show()?;
            if serving.node.is_at(path) {
                return Ok(());
            }
            if std::fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
                return Err(no_socket());
            }
            serving.node.take_name(path, Path::new(self.path.beside("new").as_str()))
        };
        show().map_err(|source| self.failed("naming the socket of", source))
    }

    /// Makes a slot fit for its next owner. Nobody else may hold its socket. The serving one keeps the clients that
    /// wait there.
    pub fn prepare(&mut self, slot: Slot, listen: &Listen, owner: Option<Owner>) -> Result<(), GroupError> {
        self.listen = listen.clone();
        let index = slot.0 as usize;
        let Some(known) = self.sockets.get(index) else {
            return Err(self.failed("finding a socket of", io::ErrorKind::NotFound.into()));
        };
        if !known.is_usable(slot == self.serving) {
            let fresh = self.make(slot)?;
            self.sockets[index] = fresh;
        }
        self.show_as(slot, Shown { owner, mode: listen.mode })?;
        let socket = &self.sockets[index];
        let reset = socket::set_blocking(socket.socket.as_fd(), true)
            .and_then(|()| socket::listen(socket.socket.as_fd(), listen.backlog))
            .and_then(|()| if slot == self.serving { Ok(()) } else { socket.node.permit(PRIVATE) });
        reset.map_err(|source| self.failed("resetting a socket of", source))
    }

    /// How a slot is shown to clients from now on, once it serves.
    pub fn show_as(&mut self, slot: Slot, shown: Shown) -> Result<(), GroupError> {
        if let Some(socket) = self.sockets.get_mut(slot.0 as usize) {
            socket.shown = shown;
        }
        if slot == self.serving { self.keep_name() } else { Ok(()) }
    }

    fn make(&self, slot: Slot) -> Result<Socket, GroupError> {
        let made = self.private_name(slot).and_then(|name| {
            let path = Path::new(name.as_str());
            unix::remove(path)?;
            let (socket, node) =
                unix::listen_at(path, self.listen.backlog).map_err(|source| explained(source, path))?;
            Ok(Socket { socket: Arc::new(socket), node, name, shown: self.shown })
        });
        made.map_err(|source| self.failed("opening", source))
    }

    /// A name for the socket of a slot. A program of a bootloader that was killed may have some until it has ended.
    fn private_name(&self, slot: Slot) -> io::Result<SocketPath> {
        let mut taken = io::ErrorKind::AddrInUse.into();
        for number in slot.0..slot.0 + NAMES_TRIED {
            let name = self.path.beside(&number.to_string());
            let ours = |(other, socket): (usize, &Socket)| other != slot.0 as usize && socket.name == name;
            if self.sockets.iter().enumerate().any(ours) {
                continue;
            }
            match is_vacant(Path::new(name.as_str())) {
                Ok(()) => return Ok(name),
                Err(error) => taken = error,
            }
        }
        Err(taken)
    }

    fn failed(&self, what: &'static str, source: io::Error) -> GroupError {
        GroupError::new(what, &self.listen, source)
    }
}

impl Socket {
    fn show(&self) -> io::Result<()> {
        if let Some(Owner { uid, gid }) = self.shown.owner {
            self.node.give_to(uid, gid)?;
        }
        self.node.permit(self.shown.mode)
    }

    /// Whether it can be connected to: a program may have called `shutdown` on it, or have removed its name, by
    /// which one that does not serve is reached.
    fn is_usable(&self, serving: bool) -> bool {
        let listening = unix::standing(self.socket.as_fd()).is_ok_and(|standing| standing.listening);
        let named =
            if serving { self.node.has_name() } else { self.node.is_at(Path::new(self.name.as_str())) };
        listening && named
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        for socket in &self.sockets {
            socket.node.drop_name(Path::new(self.path.as_str()));
            socket.node.drop_name(Path::new(socket.name.as_str()));
        }
    }
}

/// Whether a listener can be opened at a path. What an earlier process has left there is no obstacle.
fn is_vacant(path: &Path) -> io::Result<()> {
    let who = match unix::look(path).map_err(|source| explained(source, path))? {
        Found::Nothing | Found::Stale => return Ok(()),
        Found::Other => return Err(no_socket()),
        Found::Listens(0) => "somebody".to_owned(),
        Found::Listens(pid) => match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({})", name.trim_end().escape_debug()),
            Err(_) => format!("process {pid}"),
        },
    };
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{who} listens there")))
}

fn lost() -> io::Error {
    io::Error::other(
        "its folder was removed, and with it the last name of the socket: only a new generation gets one",
    )
}

fn no_socket() -> io::Error {
    io::Error::other("there is something that is no socket; remove it, or write another path")
}

/// Removes the private names that a bootloader has left which was killed. What cannot be removed is in the way
/// only if its name is needed, and is told then.
fn remove_stale(path: &Path) {
    let (Some(folder), Some(file)) = (path.parent(), path.file_name().and_then(|file| file.to_str())) else {
        return;
    };
    let private = |name: &PathBuf| {
        let name = name.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix(file)).is_some_and(|end| end.starts_with(SocketPath::PRIVATE))
    };
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for name in names.filter(private) {
        if matches!(unix::look(&name), Ok(Found::Stale)) {
            let _ = unix::remove(&name);
        }
    }
}

/// What kept a socket from getting its name, for people.
fn explained(error: io::Error, path: &Path) -> io::Error {
    let folder = path.parent().unwrap_or(path).display();
    let text = match error.kind() {
        io::ErrorKind::NotFound => format!("the folder {folder} does not exist"),
        io::ErrorKind::NotADirectory => format!("{folder} is no folder"),
        io::ErrorKind::PermissionDenied => {
            format!("no permission to use what is there, or the folder {folder}")
        }
        io::ErrorKind::ReadOnlyFilesystem => format!("the folder {folder} is read-only"),
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::run::{Handover, MODE_DEFAULT, SocketOptions};
    use std::os::unix::net::UnixStream;

    fn listener(folder: &Path) -> Result<Unix, GroupError> {
        let path: SocketPath = folder.join("public").to_str().unwrap().parse().unwrap();
        let address = Address::Unix(path.clone());
        let listen = Listen {
            name: "http".into(),
            address,
            mode: MODE_DEFAULT,
            handover: Handover::Auto,
            backlog: 8,
            options: SocketOptions::default(),
            per_worker: false,
        };
        Unix::open(listen, path, None)
    }

    /// The slots at which a connection to the public name arrives.
    fn reached(unix: &Unix) -> Vec<u32> {
        let _client = UnixStream::connect(unix.path.as_str()).unwrap();
        let slots = 0..unix.sockets.len() as u32;
        let waits = |slot: &u32| {
            let socket = unix.socket(Slot(*slot)).unwrap();
            let waits = unix::standing(socket.as_fd()).unwrap().waiting;
            waits.then(|| drop(socket::accept(socket.as_fd()).unwrap())).is_some()
        };
        slots.filter(waits).collect()
    }

    fn prepare(unix: &mut Unix, slot: u32) {
        let listen = unix.listen().clone();
        unix.prepare(Slot(slot), &listen, None).unwrap();
    }

    #[test]
    fn clients_find_who_is_selected_whatever_programs_do_to_their_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let mut unix = listener(folder.path()).unwrap();
        unix.select(Slot(0), Slot(1)).unwrap();
        prepare(&mut unix, 1);
        assert_eq!(reached(&unix), [0]);
        unix.select(Slot(1), Slot(1)).unwrap();
        assert_eq!(reached(&unix), [1]);
        unix.select(Slot(0), Slot(0)).unwrap();
        assert_eq!(reached(&unix), [0]);
        // The one that serves shuts its socket down and ends; the next one in its slot gets another.
        rustix::net::shutdown(unix.socket(Slot(0)).unwrap(), rustix::net::Shutdown::Both).unwrap();
        assert!(UnixStream::connect(unix.path.as_str()).is_err());
        prepare(&mut unix, 0);
        assert_eq!(reached(&unix), [0]);
        // The private name of one that does not serve is removed.
        std::fs::remove_file(unix.path.beside("1").as_str()).unwrap();
        prepare(&mut unix, 1);
        assert!(unix.sockets[1].is_usable(false));
        // The public one is removed.
        std::fs::remove_file(unix.path.as_str()).unwrap();
        unix.keep_name().unwrap();
        assert_eq!(reached(&unix), [0]);
        // Something else is put in its place.
        std::fs::remove_file(unix.path.as_str()).unwrap();
        std::fs::write(unix.path.as_str(), "precious").unwrap();
        assert!(unix.select(Slot(1), Slot(1)).is_err());
        assert!(unix.keep_name().is_err());
        drop(unix);
        assert_eq!(std::fs::read_to_string(folder.path().join("public")).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn where_the_folder_was_made_anew_the_next_generation_is_found() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("run");
        std::fs::create_dir(&folder).unwrap();
        let mut unix = listener(&folder).unwrap();
        unix.select(Slot(0), Slot(1)).unwrap();
        prepare(&mut unix, 1);
        std::fs::remove_dir_all(&folder).unwrap();
        let listen = unix.listen().clone();
        assert!(unix.prepare(Slot(1), &listen, None).is_err(), "there is no folder");
        std::fs::create_dir(&folder).unwrap();
        assert!(crate::log::chain(&unix.keep_name().unwrap_err()).contains("only a new generation"));
        unix.select(Slot(0), Slot(1)).unwrap();
        prepare(&mut unix, 1);
        unix.select(Slot(1), Slot(1)).unwrap();
        assert_eq!(reached(&unix), [1]);
        // Launched again in its place.
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        prepare(&mut unix, 1);
        assert_eq!(reached(&unix), [1]);
    }

    #[test]
    fn a_private_name_that_somebody_still_has_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let left = unix::listen_at(&folder.path().join("public.baton-1"), 8).unwrap();
        let mut unix = listener(folder.path()).unwrap();
        unix.select(Slot(0), Slot(1)).unwrap();
        assert!(left.1.is_at(&folder.path().join("public.baton-1")));
        prepare(&mut unix, 1);
        unix.select(Slot(1), Slot(1)).unwrap();
        assert_eq!(reached(&unix), [1]);
    }

    #[test]
    fn nobody_is_pushed_from_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = listener(folder.path()).unwrap();
        first.select(Slot(0), Slot(0)).unwrap();
        let taken = crate::log::chain(&listener(folder.path()).unwrap_err());
        assert!(taken.contains(&format!("process {} (", std::process::id())), "{taken}");
        drop(first);
        assert!(listener(folder.path()).is_ok());
    }
}
