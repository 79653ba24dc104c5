//! What a process is doing right now, as `/proc` tells: its threads and what they wait for, and whom it talks to.

mod told;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use baton_core::signal::Signal;

/// One thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub id: i32,
    /// What it is called.
    pub name: String,
    /// Its state: `R` runs, `S` sleeps, `D` waits without being interruptible, `T` is stopped.
    pub state: char,
    /// The kernel function that it sleeps in, where that may be read.
    pub waits_in: Option<String>,
    /// The system call that it is in, with the descriptor that it is about, where that may be read.
    pub call: Option<String>,
    /// The innermost functions of the kernel that it is in, where that may be read.
    pub stack: Vec<String>,
}

/// A TCP connection of a process, or a socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The descriptor.
    pub fd: i32,
    /// Its own address.
    pub local: SocketAddr,
    /// The other side's; port 0 when there is none.
    pub peer: SocketAddr,
    /// As the kernel's manual calls it: `ESTABLISHED`.
    pub state: &'static str,
}

/// The threads of a process, in order of their ids; at most `most`.
pub fn threads(pid: i32, most: usize) -> io::Result<Vec<Thread>> {
    let mut ids: Vec<i32> = std::fs::read_dir(format!("/proc/{pid}/task"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    ids.sort_unstable();
    Ok(ids.into_iter().take(most).filter_map(|id| thread(pid, id)).collect())
}

fn thread(pid: i32, id: i32) -> Option<Thread> {
    // What may not be read, or has ended meanwhile, is left out. A name that was cut within a character is no UTF-8.
    let read = |file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/task/{id}/{file}")).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (name, state) = told::stat(&read("stat")?)?;
    Some(Thread {
        id,
        name,
        state,
        waits_in: read("wchan").filter(|function| !function.is_empty() && function != "0"),
        call: read("syscall").as_deref().and_then(told::call),
        stack: read("stack").as_deref().map(told::stack).unwrap_or_default(),
    })
}

/// The TCP sockets of a process, in order of their descriptors; at most `most`.
pub fn connections(pid: i32, most: usize) -> io::Result<Vec<Connection>> {
    let mut sockets = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let target = std::fs::read_link(entry.path()).ok();
        let inode = target.as_deref().and_then(|target| told::socket_inode(target.to_str()?));
        let fd = entry.file_name().to_str().and_then(|fd| fd.parse::<i32>().ok());
        if let Some((fd, inode)) = fd.zip(inode) {
            sockets.insert(fd, inode);
        }
    }
    let mut known = BTreeMap::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        known.extend(text.lines().skip(1).filter_map(told::socket));
    }
    let found = sockets.into_iter().filter_map(|(fd, inode)| {
        let (local, peer, state) = *known.get(&inode)?;
        Some(Connection { fd, local, peer, state })
    });
    Ok(found.take(most).collect())
}

/// The Unix sockets on which a process listens: paths, and names of the abstract namespace with an `@`.
pub fn unix_listeners(pid: i32) -> io::Result<Vec<String>> {
    let text = std::fs::read(format!("/proc/{pid}/net/unix"))?;
    let table = String::from_utf8_lossy(&text);
    let listening: BTreeMap<u64, &str> = table.lines().skip(1).filter_map(told::unix_listener).collect();
    let own = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        listening.get(&told::socket_inode(target.to_str()?)?).copied()
    });
    Ok(own.map(str::to_owned).collect())
}

/// What a process is called, and its command line.
pub fn command_line(pid: i32) -> io::Result<(String, Vec<String>)> {
    let name = std::fs::read(format!("/proc/{pid}/comm"))?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(name.trim_ascii_end()), words.map(text).collect()))
}

/// What a process does at a signal, other than by default. One that blocks it may take it in another way
/// (`signalfd(2)`, `sigwait(3)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It has a handler.
    Caught,
    /// It ignores it.
    Ignored,
    /// It is blocked.
    Blocked,
}

/// What a process does at a signal; nothing where that is left to the kernel.
pub fn disposition(pid: i32, signal: Signal) -> io::Result<Option<Disposition>> {
    let status = std::fs::read(format!("/proc/{pid}/status"))?;
    let status = String::from_utf8_lossy(&status);
    let has = |mask| told::has_signal(&status, mask, signal.number());
    let all =
        [("SigCgt", Disposition::Caught), ("SigBlk", Disposition::Blocked), ("SigIgn", Disposition::Ignored)];
    Ok(all.into_iter().find(|(mask, _)| has(mask)).map(|(_, found)| found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_with_its_words_unix_sockets_and_handlers() {
        let me = i32::try_from(std::process::id()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(unix_listeners(me).unwrap().contains(&path.to_str().unwrap().to_owned()));
        let (_, words) = command_line(me).unwrap();
        assert_eq!(words, std::env::args().collect::<Vec<_>>());
        // Rust ignores it before anything else runs.
        assert_eq!(disposition(me, "PIPE".parse().unwrap()).unwrap(), Some(Disposition::Ignored));
        assert_eq!(disposition(me, "USR2".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn this_process_has_threads_and_sockets() {
        let me = i32::try_from(std::process::id()).unwrap();
        let all = threads(me, 100).unwrap();
        assert!(all.iter().any(|thread| thread.id == me), "{all:?}");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let found = connections(me, 1000).unwrap();
        assert!(found.iter().any(|socket| socket.local == local && socket.state == "LISTEN"), "{found:?}");
    }

    #[test]
    fn a_thread_is_seen_whose_name_was_cut_within_a_character() {
        // The kernel keeps 15 bytes.
        let named = std::thread::Builder::new().name("ä".repeat(8));
        let (up, started) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = named.spawn(move || up.send(()).is_ok() && ended.recv().is_err()).unwrap();
        // It names itself before it does anything else.
        started.recv().unwrap();
        let all = threads(i32::try_from(std::process::id()).unwrap(), 1000).unwrap();
        assert!(all.iter().any(|thread| thread.name == "äääääää\u{fffd}"), "{all:?}");
        drop(end);
        assert!(thread.join().unwrap());
    }
}
