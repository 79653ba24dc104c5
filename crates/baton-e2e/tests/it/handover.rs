//! Every way to hand over, with programs that only bind their port.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use baton_core::units::{Millis, Share};
use baton_e2e::load::{Plan, Report};
use rustix::process::{Pid, Signal, kill_process};

use crate::boot::{Boot, Folder, free_address};
use crate::load::Load;
use crate::program::Client;
use crate::wait::wait_for;

/// New and kept connections with some slow requests.
pub fn plan(address: SocketAddr) -> Plan {
    Plan::mixed(vec![address.to_string().parse().unwrap()])
}

/// An example that is told nothing of any socket: it binds `$PORT`, as any program does.
fn binding(example: &str, listen: &str) -> (Folder, Boot, SocketAddr) {
    let folder = Folder::with_example(example);
    folder.change("baton.toml", "command = [", "command = [\"env\", \"-u\", \"LISTEN_FDS\", ");
    let at = "address = \"127.0.0.1:8080\"\n";
    folder.change("baton.toml", at, &format!("{at}{listen}\n"));
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"50ms\"\n"));
    let address = free_address();
    let boot = Boot::start(&folder, &[], &[("BATON_LISTEN", &format!("http={address}"))]);
    boot.wait_for(" serves, ", 1);
    (folder, boot, address)
}

pub fn assert_nothing_lost(report: &Report) {
    assert_eq!(report.lost, 0, "{report:#?}");
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.answered, report.sent, "{report:#?}");
}

fn reload_under_load(boot: &Boot, address: SocketAddr, times: usize) {
    let load = Load::start(plan(address));
    for reload in 1..=times {
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload + 1);
    }
    let report = load.stop();
    assert_nothing_lost(&report);
    assert!(report.sent > 100, "{report:#?}");
}

#[test]
fn p1_p3_a_program_that_binds_its_port_is_handed_over_without_loss() {
    for example in ["python", "node"] {
        let (_folder, boot, address) = binding(example, "handover = \"auto\"");
        boot.wait_for("and got listener \"http\"", 1);
        reload_under_load(&boot, address, 10);
        assert!(boot.stop().success());
    }
}

#[test]
fn p1_p3_a_proxied_program_is_handed_over_without_loss() {
    for example in ["python", "node"] {
        let (_folder, boot, address) = binding(example, "handover = \"proxy\"");
        reload_under_load(&boot, address, 10);
        assert!(boot.stop().success());
    }
}

#[test]
fn p2_a_proxied_candidate_that_is_not_healthy_gets_no_connection() {
    let (folder, boot, address) = binding("python", "handover = \"proxy\"");
    folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"1s\"");
    folder.write("behaviour", "never-healthy\n");
    boot.signal(Signal::HUP);
    let mut asked = 0;
    while !boot.log().contains("refused: not healthy within 1 s") {
        assert_eq!(Client::connect(address).unwrap().get("/").unwrap().generation(), "1");
        asked += 1;
    }
    assert!(asked > 100, "asked only {asked} times");
    assert!(boot.stop().success());
}

#[test]
fn p1_p4_clients_of_a_proxied_program_that_was_killed_wait_for_the_next_one() {
    let (_folder, boot, address) = binding("python", "handover = \"proxy\"");
    let target = address.to_string();
    let load = Load::start(plan(address));
    for crash in 1..=3 {
        let pid = Client::connect(address).unwrap().get("/").unwrap().pid();
        load.say(&format!("window {target} begin"));
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        boot.wait_for(" serves, ", crash + 1);
        load.say(&format!("window {target} end"));
    }
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    assert!(boot.stop().success());
}

/// Answers with the address that the header tells and nothing else, one connection after the other; while it
/// has one, a second one is an error.
const ONE_AT_A_TIME: &str = r#"
import os, socket, struct, threading, time
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
busy = threading.Semaphore(1)
def serve(client):
    header = client.recv(16, socket.MSG_WAITALL)
    if header[12] == 0x20:
        return client.close()
    alone = busy.acquire(blocking=False)
    header += client.recv(12, socket.MSG_WAITALL)
    time.sleep(0.05)
    source = socket.inet_ntoa(header[16:20]), struct.unpack("!H", header[24:26])[0]
    client.sendall(f"{source[0]}:{source[1]} {alone}\n".encode())
    if alone:
        busy.release()
    client.close()
while True:
    threading.Thread(target=serve, args=listener.accept()[:1]).start()
"#;

#[test]
fn a_proxied_program_learns_its_clients_and_gets_no_more_of_them_than_it_wants() {
    use std::io::Read;
    let folder = Folder::empty();
    folder.write("program.py", ONE_AT_A_TIME);
    let address = free_address();
    let settings = format!(
        "service = \"test\"\n[run]\ncommand = [\"python3\", \"program.py\"]\n[[run.listen]]\nname = \"http\"\n\
         address = \"{address}\"\nhandover = \"proxy\"\nmax_connections = 1\nproxy_protocol = true\n"
    );
    folder.write("baton.toml", &settings);
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let clients: Vec<_> = (0..10).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("{} True\n", client.local_addr().unwrap()));
    }
    boot.stop();
}

#[test]
fn a_reload_may_add_move_and_remove_listeners() {
    use std::net::TcpStream;
    let folder = Folder::with_example("python");
    let (first, second) = (free_address(), free_address());
    folder.change("baton.toml", "127.0.0.1:8080", &first.to_string());
    let settings = folder.read("baton.toml");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let serves = |address| Client::connect(address).unwrap().get("/").unwrap().generation().to_owned();

    // One more, on which the example does not accept, and which goes with a candidate that fails.
    let more = format!("\n[[run.listen]]\nname = \"more\"\naddress = \"{second}\"\n");
    folder.write("baton.toml", &format!("{settings}{more}"));
    folder.write("behaviour", "exit-at-start=7\n");
    boot.signal(Signal::HUP);
    boot.wait_for("refused: exit 7", 1);
    wait_for("the new address to be closed", || TcpStream::connect(second).is_err().then_some(()));
    folder.write("behaviour", "");
    boot.signal(Signal::HUP);
    boot.wait_for(" serves, ", 2);
    assert!(TcpStream::connect(second).is_ok());
    assert_eq!(serves(first), "4");

    // Moved: the old address is closed when the last program that listened there is gone.
    folder.write("baton.toml", &settings.replace(&first.to_string(), &second.to_string()));
    boot.signal(Signal::HUP);
    boot.wait_for("generation 5 (image) serves", 1);
    assert_eq!(serves(second), "5");
    boot.wait_for("generation 4 is gone", 1);
    wait_for("the old address to be closed", || TcpStream::connect(first).is_err().then_some(()));

    // Who accepts on an address cannot change.
    folder.write(
        "baton.toml",
        &folder.read("baton.toml").replace("[run.health]", "handover = \"proxy\"\n[run.health]"),
    );
    boot.signal(Signal::HUP);
    boot.wait_for("start the member anew, or take another address", 1);
    assert_eq!(serves(second), "5");
    assert!(boot.stop().success());
}

/// A bootloader within a bootloader: it cannot answer a bind, since the outer one does already, and has to relay.
struct Relaying {
    folder: Folder,
    boot: Boot,
    address: SocketAddr,
    /// The inner one. HUP is the outer one's own; the inner one is told by its admin socket.
    pid: String,
}

impl Relaying {
    fn start(bake: &str) -> Self {
        Self::start_copies(1, bake)
    }

    fn start_copies(workers: u32, bake: &str) -> Self {
        let folder = Folder::with_example("python");
        folder.change("baton.toml", "drain   =", &format!("workers = {workers}\ndrain   ="));
        folder.change("baton.toml", "command = [", "command = [\"env\", \"-u\", \"LISTEN_FDS\", ");
        let settings = folder.read("baton.toml");
        folder.write("inner.toml", &format!("{settings}\n[rollout]\nbake = \"{bake}\"\n"));
        let (address, outer) = (free_address(), free_address());
        let inner = crate::boot::binary("baton-boot");
        let listen = format!("BATON_LISTEN=http={address}");
        let run = format!(
            "command = [\"env\", {listen:?}, {inner:?}, \"--settings\", \"inner.toml\"]\nready = \"notify\""
        );
        let unused = format!("[[run.listen]]\nname = \"unused\"\naddress = \"{outer}\"");
        folder.write("baton.toml", &format!("service = \"outer\"\n[run]\n{run}\n{unused}\n"));
        let boot = Boot::start(&folder, &[], &[]);
        boot.wait_for("its connections are relayed to $PORT", 1);
        boot.wait_for("generation 2 (image) serves", 1);
        let (_, outer) = ask(&["status", "--json", &boot.pid().to_string()]);
        let outer: serde_json::Value = serde_json::from_str(&outer).unwrap();
        let pid = outer["generations"][0]["pid"].to_string();
        Self { folder, boot, address, pid }
    }

    fn reload(&self) -> (Option<i32>, String) {
        ask(&["reload", &self.pid])
    }

    fn program(&self) -> Pid {
        let pid = Client::connect(self.address).unwrap().get("/").unwrap().pid();
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }
}

fn ask(arguments: &[&str]) -> (Option<i32>, String) {
    let boot = crate::boot::binary("baton-boot");
    let asked = std::process::Command::new(boot).args(arguments).output().unwrap();
    (asked.status.code(), String::from_utf8(asked.stdout).unwrap())
}

#[test]
fn p1_p3_where_a_bind_cannot_be_answered_a_program_that_binds_its_port_is_relayed() {
    let relaying = Relaying::start("50ms");
    let load = Load::start(plan(relaying.address));
    for _ in 0..5 {
        assert_eq!(relaying.reload(), (Some(0), "reload: proven\n".into()));
    }
    assert_nothing_lost(&load.stop());
    relaying.boot.stop();
}

#[test]
fn p1_p3_p4_each_copy_of_a_relayed_program_has_a_port_of_its_own() {
    let relaying = Relaying::start_copies(2, "50ms");
    let load = Load::start(plan(relaying.address));
    let ask = || Client::connect(relaying.address).unwrap().get("/").unwrap().pid();
    let both = || (0..10).map(|_| ask()).collect::<BTreeSet<u64>>();
    for _ in 0..3 {
        let before = wait_for("both copies to answer", || Some(both()).filter(|pids| pids.len() == 2));
        assert_eq!(relaying.reload(), (Some(0), "reload: proven\n".into()));
        assert!(before.is_disjoint(&both()));
    }
    assert_nothing_lost(&load.stop());
    // While one of them does not run, the other one has all clients.
    let pids = wait_for("both copies to answer", || Some(both()).filter(|pids| pids.len() == 2));
    let (killed, left) = (*pids.first().unwrap(), *pids.last().unwrap());
    kill_process(Pid::from_raw(i32::try_from(killed).unwrap()).unwrap(), Signal::KILL).unwrap();
    relaying.boot.wait_for("failed (killed by SIGKILL", 1);
    let after = wait_for("another copy to answer", || {
        let pids = both();
        assert!(!pids.contains(&killed));
        Some(pids).filter(|pids| pids.len() == 2)
    });
    assert!(after.contains(&left));
    relaying.boot.stop();
}

#[test]
fn p4_clients_of_a_relayed_program_that_was_killed_wait_for_the_next_one() {
    let relaying = Relaying::start("50ms");
    for kill in 1..=3 {
        let program = relaying.program();
        kill_process(program, Signal::KILL).unwrap();
        // What waits at the program itself when it is killed dies with it; afterwards nobody does.
        relaying.boot.wait_for("failed (killed by SIGKILL", kill);
        let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(relaying.address).unwrap()).collect();
        clients.iter_mut().for_each(|client| client.send("/"));
        let answered = clients.iter_mut().filter_map(Client::answer).count();
        assert_eq!(answered, 10);
        assert_ne!(relaying.program(), program);
    }
    relaying.boot.stop();
}

#[test]
fn p9_a_relayed_release_that_crashes_within_the_bake_is_handed_back() {
    let relaying = Relaying::start("30s");
    relaying.folder.write("behaviour", "crash-after=0.5\n");
    let (code, told) = relaying.reload();
    assert_eq!(code, Some(1), "{told}");
    for _ in 0..10 {
        assert_eq!(Client::connect(relaying.address).unwrap().get("/").unwrap().generation(), "2");
    }
    relaying.boot.stop();
}

/// The example with a port of its own choice, whose socket epoll watches before it is bound.
const EARLY: &str = r#"
import os, select, socket
import server

class Early:
    def __init__(self):
        self.socket, self.epoll = socket.socket(), select.epoll()
        self.epoll.register(self.socket, select.EPOLLIN)
        self.socket.bind(("127.0.0.1", int(os.environ["OWN"])))
        self.socket.listen(100)
        self.socket.setblocking(False)
        # It is ready when epoll has heard of a connection.
        self.fileno, self.accept, self.close = self.epoll.fileno, self.socket.accept, self.socket.close

server.listening_socket = Early
server.main()
"#;

#[test]
fn p1_p3_a_program_that_watches_its_socket_before_it_binds_a_port_of_its_own_is_relayed() {
    let (folder, address) = (Folder::with_example("python"), free_address());
    folder.write("early.py", EARLY);
    let command = format!("command = [\"env\", \"OWN={}\", \"python3\", \"early.py\"]", address.port());
    folder.change("baton.toml", "command = [\"python3\", \"server.py\"]", &command);
    folder.change("baton.toml", "127.0.0.1:8080", &address.to_string());
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"50ms\"\n"));
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for("it registered its socket with epoll before it bound it", 1);
    boot.wait_for(" is proven", 1);
    reload_under_load(&boot, address, 5);
    assert!(boot.stop().success());
}

/// Takes one connection at a time and a while for each.
const SERIAL: &str = r#"
import os, socket, time
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=100)
while True:
    client = listener.accept()[0]
    if client.recv(100):
        time.sleep(0.4)
        client.sendall(b"done")
    client.close()
"#;

#[test]
fn p1_p4_what_waits_at_a_proxied_program_is_served_before_it_is_asked_to_stop() {
    use std::io::{Read, Write};
    let folder = Folder::empty();
    folder.write("program.py", SERIAL);
    let address = free_address();
    let listen = format!("name = \"http\"\naddress = \"{address}\"\nhandover = \"proxy\"");
    let run = "[run]\ncommand = [\"python3\", \"program.py\"]";
    folder.write("baton.toml", &format!("service = \"test\"\n{run}\n[[run.listen]]\n{listen}\n"));
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let mut clients: Vec<_> = (0..6).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"do it").unwrap());
    boot.signal(Signal::TERM);
    let mut answer = String::new();
    let answered = clients.iter_mut().filter_map(|client| {
        answer.clear();
        client.read_to_string(&mut answer).ok().filter(|_| answer == "done")
    });
    // The program has no handler: whom it serves when it is asked, it drops.
    assert!(answered.count() >= 5);
    assert_eq!(boot.exit().code(), Some(143));
}

/// Greets its clients, and keeps them.
const HOST: &str = r#"
import os, socket
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
guests = []
while True:
    guests.append(listener.accept()[0])
    guests[-1].sendall(b"hello")
"#;

#[test]
fn a_proxied_program_whose_places_are_taken_is_asked_to_stop_when_nobody_waits() {
    use std::io::Read;
    let folder = Folder::empty();
    folder.write("program.py", HOST);
    let address = free_address();
    let listen =
        format!("name = \"http\"\naddress = \"{address}\"\nhandover = \"proxy\"\nmax_connections = 1");
    let run = "[run]\ndrain = \"1h\"\ncommand = [\"python3\", \"program.py\"]";
    folder.write("baton.toml", &format!("service = \"test\"\n{run}\n[[run.listen]]\n{listen}\n"));
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let mut guest = std::net::TcpStream::connect(address).unwrap();
    guest.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(boot.stop().code(), Some(143), "and not after half of the drain");
}

/// Answers its clients one after the other, and closes their connections.
const BRIEF: &str = r#"
import os, socket
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    client = listener.accept()[0]
    if client.recv(100):
        client.sendall(b"done")
    client.close()
"#;

#[test]
fn a_client_that_does_not_close_has_no_place_with_a_proxied_program_that_has_closed() {
    use std::io::{Read, Write};
    let folder = Folder::empty();
    folder.write("program.py", BRIEF);
    let address = free_address();
    let listen =
        format!("name = \"http\"\naddress = \"{address}\"\nhandover = \"proxy\"\nmax_connections = 1");
    let run = "[run]\ncommand = [\"python3\", \"program.py\"]";
    folder.write("baton.toml", &format!("service = \"test\"\n{run}\n[[run.listen]]\n{listen}\n"));
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        // Sooner than a client counts as one that has forgotten to close.
        client.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        client.write_all(b"do it").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "done");
        kept.push(client);
    }
    boot.stop();
}

/// The timer of our side of a connection, as the kernel lists it: 1 sends again, 2 asks whether the other side is there.
fn timer(local: SocketAddr, peer: SocketAddr) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is = |field: &str, port: u16| field.ends_with(&format!(":{port:04X}"));
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = is(fields[1], local.port()) && is(fields[2], peer.port());
        ours.then(|| fields[5].split(':').next().unwrap().to_owned())
    })
}

#[test]
fn a_client_of_a_proxied_program_that_says_nothing_is_asked_whether_it_is_there() {
    use std::io::Read;
    let folder = Folder::empty();
    folder.write("program.py", HOST);
    let address = free_address();
    let listen = format!("name = \"http\"\naddress = \"{address}\"\nhandover = \"proxy\"");
    let run = "[run]\ncommand = [\"python3\", \"program.py\"]";
    folder.write("baton.toml", &format!("service = \"test\"\n{run}\n[[run.listen]]\n{listen}\n"));
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let mut guest = std::net::TcpStream::connect(address).unwrap();
    guest.read_exact(&mut [0; 5]).unwrap();
    let guest_at = guest.local_addr().unwrap();
    wait_for("the timer of keep-alive", || timer(address, guest_at).filter(|timer| timer == "02"));
    boot.stop();
}

/// The example, but for what it does for clients that keep their connections: once it is asked to stop, it closes those
/// that are idle, under requests that may be on their way.
const HASTY: &str = "import server\nserver.LAST_REQUEST_S = 0\nserver.main()\n";

fn hasty(listen: &str) -> (Folder, Boot, SocketAddr) {
    let (folder, address) = (Folder::with_example("python"), free_address());
    folder.write("hasty.py", HASTY);
    folder.change("baton.toml", "server.py", "hasty.py");
    folder.change("baton.toml", "127.0.0.1:8080\"", &format!("{address}\"\nhandover = \"proxy\"\n{listen}"));
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"500ms\"\n"));
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" is proven", 1);
    (folder, boot, address)
}

/// How often a reload closes a kept connection under a request.
fn idle_closes(boot: Boot, address: SocketAddr) -> u64 {
    let clients =
        Plan { new: 0, keep: 8, rate: 0, idle_gap: Millis::ZERO, slow_share: Share::NONE, ..plan(address) };
    let load = Load::start(clients);
    for reload in 2..=10 {
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload);
    }
    let report = load.stop();
    assert_eq!((report.lost, report.answered), (0, report.sent), "{report:#?}");
    assert!(boot.stop().success());
    report.idle_closes
}

#[test]
fn p6_told_to_close_clients_leave_before_the_program_closes_their_connections() {
    let (_folder, boot, address) = hasty("close_hint = true");
    let mut kept = Client::connect(address).unwrap();
    assert!(!kept.get("/").unwrap().close);
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 (image) serves", 1);
    // The program knows nothing of it: its successor serves, and it is not asked to stop before that is proven.
    let last = kept.get("/").unwrap();
    assert_eq!((last.generation(), last.close), ("1", true));
    assert!(boot.stop().success());

    let (_folder, boot, address) = hasty("close_hint = true");
    assert_eq!(idle_closes(boot, address), 0);
    let (_folder, boot, address) = hasty("");
    eprintln!("without close_hint: {} idle closes", idle_closes(boot, address));
}

/// Accepts nobody; what it is asked it writes down.
const DEAF: &str = r#"
import os, signal, socket
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
def asked(*_):
    open("asked-" + os.environ["BATON_GENERATION"], "w").write("to stop")
    os._exit(0)
signal.signal(signal.SIGTERM, asked)
listener.accept()
while True:
    signal.pause()
"#;

/// By itself it would be waited for until half of its drain is over; the platform gives it less.
#[test]
fn p4_a_proxied_program_that_accepts_nobody_is_asked_to_stop_within_the_platforms_limit() {
    let folder = Folder::empty();
    folder.write("program.py", DEAF);
    let address = free_address();
    let listen = format!("name = \"http\"\naddress = \"{address}\"\nhandover = \"proxy\"");
    let run = "[run]\ndrain = \"1h\"\ncommand = [\"python3\", \"program.py\"]";
    let rollout = "[rollout]\nbake = \"500ms\"";
    folder.write("baton.toml", &format!("service = \"test\"\n{run}\n[[run.listen]]\n{listen}\n{rollout}\n"));
    for reloaded in [false, true] {
        let boot = Boot::start(&folder, &[], &[("BATON_STOP_LIMIT", "4s")]);
        boot.wait_for(" serves, ", 1);
        let _waits: Vec<_> = (0..6).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        if reloaded {
            // From then on it is waited for.
            boot.signal(Signal::HUP);
            boot.wait_for(" is proven", 2);
        }
        assert!(boot.stop().code().is_some());
        assert_eq!(folder.read("asked-1"), "to stop", "reloaded: {reloaded}");
        std::fs::remove_file(folder.path().join("asked-1")).unwrap();
    }
}
