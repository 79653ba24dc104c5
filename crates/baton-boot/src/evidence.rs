//! What a program was doing when it hung: looked at before it is ended, for whoever has to find out why.

use std::time::Duration;

use baton_core::words::Words;
use baton_sys::process::inspect::{self, Connection, Thread};
use tokio::task::spawn_blocking;

/// How long looking may take. Reading `/proc` of a process in trouble can take longer than of others, and what
/// follows must not wait for it.
const LIMIT: Duration = Duration::from_millis(400);
/// How many threads are told of: a pool of workers waits in one place.
const THREADS_MAX: usize = 24;
/// How many connections are told of.
const CONNECTIONS_MAX: usize = 24;

/// Looks at a process, off the loop, and tells what was seen, a line each.
pub async fn gather(pid: i32) -> Vec<String> {
    match tokio::time::timeout(LIMIT, spawn_blocking(move || look(pid))).await {
        Ok(Ok(lines)) => lines,
        Ok(Err(_)) | Err(_) => vec![format!("process {pid} could not be looked at within {LIMIT:?}")],
    }
}

fn look(pid: i32) -> Vec<String> {
    let threads = match inspect::threads(pid, THREADS_MAX) {
        Ok(threads) => threads.iter().map(thread_line).collect(),
        Err(error) => vec![format!("the threads of process {pid} cannot be read: {error}")],
    };
    let connections = match inspect::connections(pid, CONNECTIONS_MAX) {
        Ok(connections) => connections.iter().map(connection_line).collect(),
        Err(error) => vec![format!("the sockets of process {pid} cannot be read: {error}")],
    };
    [threads, connections].concat()
}

fn thread_line(thread: &Thread) -> String {
    let Thread { id, name, state, waits_in, call, stack } = thread;
    let state = match state {
        'R' => "runs".to_owned(),
        'S' | 'I' => "sleeps".to_owned(),
        'D' => "waits for the kernel".to_owned(),
        'T' | 't' => "is stopped".to_owned(),
        'Z' | 'X' => "has ended".to_owned(),
        other => format!("is in state {other}"),
    };
    let part = |before: &str, text: Option<String>| text.map(|text| format!("{before}{text}"));
    let stack = (!stack.is_empty()).then(|| stack.join(" < "));
    let parts = [part(" in ", waits_in.clone()), part(", ", call.clone()), part("; stack: ", stack)];
    let rest: String = parts.into_iter().flatten().collect();
    format!("thread {id} {:?} {state}{rest}", Words::new(name).as_str())
}

fn connection_line(connection: &Connection) -> String {
    let Connection { fd, local, peer, state } = connection;
    match peer.port() {
        0 => format!("fd {fd}: {local} {state}"),
        _ => format!("fd {fd}: {local} to {peer} {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_and_a_connection_are_told_in_one_line_each() {
        let thread = Thread {
            id: 7,
            name: "py\nthon".to_owned(),
            state: 'S',
            waits_in: Some("wait_woken".to_owned()),
            call: Some("recvfrom(fd 5)".to_owned()),
            stack: ["wait_woken", "sk_wait_data"].map(str::to_owned).to_vec(),
        };
        let full =
            "thread 7 \"py thon\" sleeps in wait_woken, recvfrom(fd 5); stack: wait_woken < sk_wait_data";
        assert_eq!(thread_line(&thread), full);
        let bare = Thread { state: 'R', waits_in: None, call: None, stack: Vec::new(), ..thread };
        assert_eq!(thread_line(&bare), "thread 7 \"py thon\" runs");
        let (local, peer) = (([127, 0, 0, 1], 4000).into(), ([10, 0, 0, 2], 5432).into());
        let connection = Connection { fd: 5, local, peer, state: "ESTABLISHED" };
        assert_eq!(connection_line(&connection), "fd 5: 127.0.0.1:4000 to 10.0.0.2:5432 ESTABLISHED");
    }
}
