//! What a process is doing right now, as `/proc` tells: its threads and what they wait for, and whom it talks to.

mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _};
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

/// The TCP sockets of processes, of each in order of their descriptors and at most `most`, or why they cannot be seen.
///
/// What the kernel tells of all sockets of a network namespace is read once for all of them: on a machine with tens of
/// thousands of connections that takes far longer than the rest.
pub fn connections(pids: &[i32], most: usize) -> BTreeMap<i32, io::Result<Vec<Connection>>> {
    let sockets: BTreeMap<i32, _> = pids.iter().map(|pid| (*pid, sockets(*pid))).collect();
    let wanted: BTreeSet<u64> = sockets.values().flatten().flatten().map(|(_, inode)| *inode).collect();
    let mut namespaces = BTreeSet::new();
    let mut known = BTreeMap::new();
    for pid in sockets.keys() {
        // Who may not know the namespaces reads more often.
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        if namespace.is_none_or(|namespace| namespaces.insert(namespace)) {
            known.extend(["tcp", "tcp6"].into_iter().flat_map(|table| listed(*pid, table, &wanted)));
        }
    }
    let connection = |(fd, inode): (i32, u64)| {
        let (local, peer, state) = *known.get(&inode)?;
        Some(Connection { fd, local, peer, state })
    };
    let of_process = |found: Vec<_>| found.into_iter().filter_map(connection).take(most).collect();
    sockets.into_iter().map(|(pid, found)| (pid, found.map(of_process))).collect()
}

/// The descriptors of a process that are sockets, in their order, with their inodes.
fn sockets(pid: i32) -> io::Result<Vec<(i32, u64)>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            let fd = entry.file_name().to_str()?.parse().ok()?;
            Some((fd, told::socket_inode(target.to_str()?)?))
        })
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Those of these sockets that are in a table of the network namespace of a process, by their inodes.
fn listed(pid: i32, table: &str, wanted: &BTreeSet<u64>) -> Vec<(u64, told::Socket)> {
    let Ok(table) = std::fs::File::open(format!("/proc/{pid}/net/{table}")) else { return Vec::new() };
    // Line by line: the whole may be many times as large as this process.
    let lines = io::BufReader::new(table).lines().skip(1).map_while(Result::ok);
    let sockets = lines.filter_map(|line| told::socket(&line));
    sockets.filter(|(inode, _)| wanted.contains(inode)).collect()
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

    /// The kernel may leave a socket out of a table while others beside it come and go.
    const TABLE_READS: usize = 1000;

    #[test]
    fn a_process_is_seen_with_its_words_unix_sockets_and_handlers() {
        let me = i32::try_from(std::process::id()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let name = path.to_str().unwrap().to_owned();
        assert!((0..TABLE_READS).any(|_| unix_listeners(me).unwrap().contains(&name)));
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
        let listens = |found: Vec<Connection>| {
            found.iter().any(|socket| socket.local == local && socket.state == "LISTEN")
        };
        let seen = || connections(&[me], 1000).remove(&me).unwrap().unwrap();
        assert!((0..TABLE_READS).any(|_| listens(seen())), "{:?}", seen());
    }

    #[test]
    fn processes_are_each_told_their_own_connections() {
        let me = i32::try_from(std::process::id()).unwrap();
        let (mut child, gone) = (std::process::Command::new("sleep").arg("600").spawn().unwrap(), i32::MAX);
        let other = i32::try_from(child.id()).unwrap();
        let _listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let seen = || connections(&[me, other, gone], 1000);
        assert!((0..TABLE_READS).any(|_| !seen()[&me].as_ref().unwrap().is_empty()));
        let found = seen();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found[&other].as_ref().unwrap(), &[], "it has none");
        assert_eq!(found[&gone].as_ref().unwrap_err().kind(), io::ErrorKind::NotFound);
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
