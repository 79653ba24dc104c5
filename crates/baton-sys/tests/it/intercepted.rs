//! Programs whose `bind` is answered by an interceptor: what they get, and what they do not notice.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use baton_core::exit::Exit;
use baton_core::run::SocketOptions;
use baton_sys::attributes::Attributes;
use baton_sys::intercept::{Given, Interceptor, Listener, NotCopied, Refusal, Report, probe};
use baton_sys::socket;
use baton_sys::spawn::{Spawn, SpawnError, Stdin, pipe, spawn, spawn_intercepted};

mod confined;
mod sameness;

use crate::spawned::wait;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What every Python program starts with: `there` is where the service listens.
const PRELUDE: &str = "
import ctypes, errno, fcntl, os, select, signal, socket, sys, threading, time
port = int(os.environ['PORT'])
there = ('127.0.0.1', port)
def attempt(what, *args):
    try: what(*args); return 'ok'
    except OSError as error: return errno.errorcode[error.errno]
def tell(text): print(text, flush=True)
";

/// A program, and the one listener whose socket it may get.
struct Program {
    listener: Listener,
    pid: i32,
    input: TcpStream,
    output: BufReader<File>,
}

/// A program whose calls are answered.
struct Trial {
    program: Program,
    interceptor: Interceptor,
    reports: mpsc::Receiver<Report>,
}

/// A listener on a free port of this address.
fn listener_on(ip: &str) -> Listener {
    let socket = socket::first_of_group((ip, 0).to_socket_addrs().unwrap().next().unwrap(), 128).unwrap();
    Listener {
        address: socket::address(&socket).unwrap(),
        given: Given::Socket(Arc::new(socket)),
        options: SocketOptions::default(),
    }
}

fn python(script: &str) -> Vec<String> {
    ["/usr/bin/python3", "-c", &format!("{PRELUDE}{script}")].map(str::to_owned).into()
}

/// Starts a program that reads what we write to `input` from descriptor 3.
fn start<T>(
    command: &[String],
    port: u16,
    start: impl FnOnce(&Spawn<'_>) -> Result<T, SpawnError>,
) -> Result<(T, TcpStream, BufReader<File>), SpawnError> {
    let _alone = crate::FORKING.lock().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let input = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let theirs = listener.accept().unwrap().0;
    let (read, write) = pipe().unwrap();
    let started = start(&Spawn {
        command,
        directory: Path::new("/"),
        mount: None,
        environment: &[("PATH".into(), "/usr/bin:/bin".into()), ("PORT".into(), port.to_string().into())],
        sockets: &[theirs.as_fd()],
        stdout: write.as_fd(),
        stderr: write.as_fd(),
        stdin: Stdin::Null,
        attributes: &Attributes::default(),
    })?;
    Ok((started, input, BufReader::new(read.into())))
}

impl Program {
    /// Starts it; what it binds waits for an answer.
    fn start(listener: Listener, command: &[String]) -> (Self, OwnedFd) {
        let port = listener.address.port();
        let ((pid, notify), input, output) = start(command, port, spawn_intercepted).unwrap();
        (Self { listener, pid, input, output }, notify)
    }

    fn answered(self, notify: OwnedFd) -> Trial {
        let (told, reports) = mpsc::channel();
        self.answered_with(notify, reports, move |report| drop(told.send(report)))
    }

    fn answered_with(
        self,
        notify: OwnedFd,
        reports: mpsc::Receiver<Report>,
        tell: impl Fn(Report) + Send + 'static,
    ) -> Trial {
        let interceptor = Interceptor::start(notify, vec![self.listener.clone()], tell).unwrap();
        Trial { program: self, interceptor, reports }
    }

    /// The next line that the program writes.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Lets a program go on that waits for a byte on descriptor 3.
    fn go_on(&mut self) {
        self.input.write_all(b"x").unwrap();
    }

    /// Waits for its end, and returns the rest of what it wrote.
    fn end(mut self) -> String {
        drop(self.input);
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        assert_eq!(wait(self.pid), Exit::Code(0), "{text}");
        text
    }
}

impl Trial {
    fn of(listener: Listener, command: &[String]) -> Self {
        let (program, notify) = Program::start(listener, command);
        program.answered(notify)
    }

    fn python(script: &str) -> Self {
        Self::of(listener_on("127.0.0.1"), &python(script))
    }

    fn connect(&self) -> TcpStream {
        let to = SocketAddr::from(([127, 0, 0, 1], self.program.listener.address.port()));
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What the program says to somebody who connects.
    fn greeting(&self) -> String {
        let mut text = String::new();
        self.connect().read_to_string(&mut text).unwrap();
        text
    }

    /// Waits for the end of the program; what it wrote, and all reports, of which `Gone` is the last.
    fn end(self) -> (String, Vec<Report>) {
        let text = self.program.end();
        let mut reports: Vec<Report> = Vec::new();
        while !matches!(reports.last(), Some(Report::Gone)) {
            reports.push(self.reports.recv_timeout(PATIENCE).unwrap());
        }
        assert!(self.interceptor.stop().is_none(), "nothing is left to answer");
        reports.pop();
        (text, reports)
    }
}

fn is_substituted(report: &Report) -> bool {
    matches!(report, Report::Substituted { listener: 0, .. })
}

/// Accepts one connection from `s` and greets it.
const SERVE_ONE: &str = "
s.listen()
c, peer = s.accept()
c.send(b'hello')
c.close()
";

fn binds_and_serves(how: &str) -> String {
    format!("{how}{SERVE_ONE}")
}

#[test]
fn a_program_that_binds_its_port_gets_our_socket() {
    let trial = Trial::python(&binds_and_serves(
        "s = socket.socket(); s.bind(there); tell(os.fstat(s.fileno()).st_ino); tell(s.getsockname() == there)",
    ));
    let Given::Socket(given) = &trial.program.listener.given else { panic!("it is given a socket") };
    let inode = socket::inode(given).unwrap();
    assert_eq!(trial.greeting(), "hello");
    let (text, reports) = trial.end();
    assert_eq!(text, format!("{inode}\nTrue\n"));
    assert!(matches!(reports[..], [Report::Substituted { listener: 0, asked }] if asked.ip().is_loopback()));
}

#[test]
fn a_program_gets_our_socket_for_another_address_of_the_port() {
    for (ours, family, asked) in [
        ("0.0.0.0", "AF_INET", "127.0.0.1"),
        ("127.0.0.1", "AF_INET", "0.0.0.0"),
        ("127.0.0.1", "AF_INET6", "::"),
        ("127.0.0.1", "AF_INET6", "::1"),
        ("0.0.0.0", "AF_INET6", "::ffff:127.0.0.1"),
        ("::", "AF_INET6", "::1"),
        ("::", "AF_INET6", "::"),
    ] {
        let script =
            binds_and_serves(&format!("s = socket.socket(socket.{family}); s.bind(('{asked}', port))"));
        let trial = Trial::of(listener_on(ours), &python(&script));
        assert_eq!(trial.greeting(), "hello", "{ours} {asked}");
        let (_, reports) = trial.end();
        assert!(reports.iter().all(is_substituted) && reports.len() == 1, "{ours} {asked}: {reports:?}");
    }
}

#[test]
fn an_ipv4_program_never_gets_an_ipv6_socket() {
    let trial =
        Trial::of(listener_on("::"), &python("tell(attempt(socket.socket().bind, ('0.0.0.0', port)))"));
    let (text, reports) = trial.end();
    assert_eq!(text, "EADDRINUSE\n");
    assert!(matches!(reports[..], [Report::Refused { listener: 0, why: Refusal::OtherFamily, .. }]));
}

#[test]
fn a_socket_that_epoll_watches_already_is_left_alone() {
    let trial = Trial::python(
        "s = socket.socket(); e = select.epoll(); e.register(s); tell(attempt(s.bind, there)); e.unregister(s)
tell(attempt(s.bind, there))",
    );
    let (text, reports) = trial.end();
    assert_eq!(text, "EADDRINUSE\nok\n");
    let [Report::Refused { listener: 0, why, .. }, last] = &reports[..] else { panic!("{reports:?}") };
    assert!(matches!(why, Refusal::RegisteredBeforeBind) && is_substituted(last));
}

#[test]
fn a_program_that_is_relayed_keeps_its_socket_and_what_it_did_with_it() {
    // Each is watched by epoll before it is bound, and hears of its client.
    for (family, asked) in [("AF_INET", "127.0.0.1"), ("AF_INET", "0.0.0.0"), ("AF_INET6", "::")] {
        let taken = listener_on("127.0.0.1");
        let private = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = Listener { given: Given::Address(private), ..taken.clone() };
        let mut trial = Trial::of(
            listener,
            &python(&format!(
                "s = socket.socket(socket.{family}); e = select.epoll(); e.register(s); s.bind(('{asked}', port)); s.listen()
tell('listens'); e.poll(); s.accept()[0].sendall(b'own'); tell('done')"
            )),
        );
        assert_eq!(trial.program.line(), "listens");
        let mut word = String::new();
        TcpStream::connect(private).unwrap().read_to_string(&mut word).unwrap();
        assert_eq!(word, "own", "{family} {asked}");
        let (text, reports) = trial.end();
        assert_eq!(text, "done\n");
        assert!(matches!(reports[..], [Report::Moved { listener: 0, .. }]), "{reports:?}");
        drop(taken);
    }
}

#[test]
fn mptcp_counts_as_tcp() {
    let script = "
try: s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
except OSError: s = socket.socket()  # A kernel without it.
s.bind(there)";
    let trial = Trial::python(&binds_and_serves(script));
    assert_eq!(trial.greeting(), "hello");
    assert!(trial.end().1.iter().any(is_substituted));
}

#[test]
fn a_bind_that_is_done_again_succeeds() {
    let (text, reports) =
        Trial::python("s = socket.socket()\nfor _ in range(3): tell(attempt(s.bind, there))").end();
    assert_eq!(text, "ok\nok\nok\n");
    let [first, Report::AlreadyOurs { listener: 0 }, Report::AlreadyOurs { listener: 0 }] = &reports[..]
    else {
        panic!("{reports:?}")
    };
    assert!(is_substituted(first));
}

#[test]
fn looking_for_a_free_port_does_not_use_it_up() {
    let trial = Trial::python(&binds_and_serves(
        "
for _ in range(3):
    s = socket.socket(); s.bind(there); s.listen(); s.close()
s = socket.socket(); s.bind(there)",
    ));
    assert_eq!(trial.greeting(), "hello");
    assert_eq!(trial.end().1.iter().filter(|report| is_substituted(report)).count(), 4);
}

#[test]
fn a_socket_keeps_the_flags_that_the_program_gave_it() {
    let (text, _) = Trial::python(
        "
for cloexec in 0, 1:
    for nonblock in 0, 1:
        s = socket.socket(type=socket.SOCK_STREAM | nonblock * socket.SOCK_NONBLOCK)
        s.set_inheritable(not cloexec)
        s.bind(there)
        flags = fcntl.fcntl(s, fcntl.F_GETFL)
        tell((fcntl.fcntl(s, fcntl.F_GETFD) == cloexec, bool(flags & os.O_NONBLOCK) == nonblock))",
    )
    .end();
    assert_eq!(text, "(True, True)\n".repeat(4));
}

#[test]
fn options_set_before_bind_are_kept_also_by_accepted_connections() {
    let mut trial = Trial::python(
        "
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
s.bind(there); s.listen(); tell('bound')
c = s.accept()[0]
tell(c.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
tell(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
tell(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))",
    );
    // A connection that came earlier waits in the queue as our socket was before.
    assert_eq!(trial.program.line(), "bound");
    let _client = trial.connect();
    let (text, reports) = trial.end();
    assert_eq!(text, "1\n1\n77\n");
    assert!(reports.iter().all(is_substituted), "{reports:?}");
}

#[test]
fn signals_do_not_disturb_a_bind() {
    let (text, _) = Trial::python(
        "
signal.signal(signal.SIGALRM, lambda *_: None); signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
answers = []
for _ in range(200):
    s = socket.socket(); answers.append(attempt(s.bind, there)); s.close()
signal.setitimer(signal.ITIMER_REAL, 0, 0)
tell(answers.count('ok'))",
    )
    .end();
    assert_eq!(text, "200\n");
}

#[test]
fn threads_and_children_of_the_program_get_our_socket_too() {
    let (text, reports) = Trial::python(
        "
def bind(): s = socket.socket(); tell(attempt(s.bind, there))
thread = threading.Thread(target=bind); thread.start(); thread.join()
if os.fork() == 0:
    bind(); os._exit(0)
os.wait()",
    )
    .end();
    assert_eq!(text, "ok\nok\n");
    assert!(reports.iter().all(is_substituted) && reports.len() == 2, "{reports:?}");
}

#[test]
fn gone_comes_when_the_last_process_of_the_tree_has_ended() {
    let mut trial = Trial::python("if os.fork(): os._exit(0)\ntell('orphan')\nos.read(3, 1)");
    assert_eq!(trial.program.line(), "orphan");
    assert_eq!(wait(trial.program.pid), Exit::Code(0));
    assert!(trial.reports.try_recv().is_err());
    trial.program.go_on();
    assert!(matches!(trial.reports.recv_timeout(PATIENCE).unwrap(), Report::Gone));
    assert!(trial.interceptor.stop().is_none());
}

#[test]
fn another_interceptor_can_go_on_and_calls_wait_for_it() {
    let script = "for _ in 1, 2: os.read(3, 1); tell(attempt(socket.socket().bind, there))";
    let Trial { mut program, interceptor, reports } = Trial::python(script);
    program.go_on();
    assert_eq!(program.line(), "ok");
    let notify = interceptor.stop().unwrap();
    assert!(reports.iter().all(|report| is_substituted(&report)));
    program.go_on();
    wait_until_in_bind(program.pid);
    let (text, reports) = program.answered(notify).end();
    assert_eq!(text, "ok\n");
    assert!(reports.iter().all(is_substituted) && reports.len() == 1);
}

#[test]
fn a_caller_that_was_killed_disturbs_nobody() {
    let script = "
child = os.fork()
if child == 0:
    socket.socket().bind(there)
tell(child); os.read(3, 1)
os.kill(child, signal.SIGKILL); os.wait()
tell(attempt(socket.socket().bind, there))";
    let (mut program, notify) = Program::start(listener_on("127.0.0.1"), &python(script));
    wait_until_in_bind(program.line().parse().unwrap());
    program.go_on();
    wait_until_in_bind(program.pid);
    let (text, reports) = program.answered(notify).end();
    assert_eq!(text, "ok\n");
    assert!(reports.iter().all(is_substituted) && reports.len() == 1);
}

/// Waits for a process to sleep in the system call `bind`, which nobody answers yet.
fn wait_until_in_bind(pid: i32) {
    let limit = std::time::Instant::now() + PATIENCE;
    let call = format!("{} ", libc::SYS_bind);
    while !std::fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|now| now.starts_with(&call)) {
        assert!(std::time::Instant::now() < limit, "{pid} does not bind");
        std::thread::yield_now();
    }
}

#[test]
fn a_panic_does_not_end_the_interceptor() {
    let script = python("for _ in 1, 2: tell(attempt(socket.socket().bind, there))");
    let (program, notify) = Program::start(listener_on("127.0.0.1"), &script);
    let (told, reports) = mpsc::channel();
    let panics = move |report| {
        assert!(!is_substituted(&report), "this panic is part of the test");
        drop(told.send(report));
    };
    let (text, reports) = program.answered_with(notify, reports, panics).end();
    assert_eq!(text, "ok\nok\n");
    assert!(matches!(reports[..], [Report::Unjudged(_), Report::Unjudged(_)]), "{reports:?}");
}

#[test]
fn a_plain_node_server_serves() {
    let script =
        "require('http').createServer((_, res) => { res.end('hello'); process.exitCode = 0; server.close() })
        .listen(process.env.PORT, '127.0.0.1');"
            .replace("require", "const server = require");
    let trial = Trial::of(listener_on("127.0.0.1"), &["node".to_owned(), "-e".to_owned(), script]);
    let mut client = trial.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    assert!(trial.end().1.iter().any(is_substituted));
}

#[test]
fn a_program_that_cannot_run_is_named_with_the_reason() {
    let error = start(&["/etc/passwd".to_owned()], 1, spawn_intercepted).unwrap_err();
    let SpawnError::Failed { step: "exec", source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(libc::EACCES));
}

#[test]
fn the_probe_proves_the_whole_chain() {
    let _alone = crate::FORKING.lock().unwrap();
    probe().unwrap();
}
