//! Listeners at a path: Unix sockets.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use baton_e2e::load::Plan;
use rustix::process::{Pid, Signal, kill_process};

use crate::boot::{Boot, Folder, free_address};
use crate::handover::assert_nothing_lost;
use crate::load::Load;
use crate::program::Client;
use crate::wait::wait_for;

/// The Python example under a bootloader, at a path in its folder.
struct Served {
    folder: Folder,
    boot: Boot,
    path: PathBuf,
}

impl Served {
    fn start(listen: &str, bake: &str) -> Self {
        let folder = Folder::with_example("python");
        let path = folder.path().join("web.sock");
        let address = format!("address = \"unix:{}\"\n{listen}", path.display());
        folder.change("baton.toml", "address = \"127.0.0.1:8080\"", &address);
        let settings = folder.read("baton.toml");
        folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"{bake}\"\n"));
        let boot = Boot::start(&folder, &[], &[]);
        boot.wait_for(" serves, ", 1);
        Self { folder, boot, path }
    }

    fn load(&self) -> Load {
        Load::start(plan(&format!("unix:{}", self.path.display())))
    }

    fn client(&self) -> Client {
        Client::connect_at(&self.path).unwrap()
    }

    fn generation(&self) -> String {
        self.client().get("/").unwrap().generation().to_owned()
    }

    fn program(&self) -> Pid {
        let pid = self.client().get("/").unwrap().pid();
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    /// Stops it, and looks whether it leaves anything.
    fn stop(self) {
        assert!(self.boot.stop().success());
        assert_eq!(sockets(self.folder.path()), [] as [&str; 0]);
    }
}

/// The names of the sockets in a folder.
fn sockets(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let sockets = files.filter(|file| file.file_type().unwrap().is_socket());
    let mut names: Vec<String> = sockets.map(|file| file.file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn plan(target: &str) -> Plan {
    Plan::mixed(vec![target.parse().unwrap()])
}

#[test]
fn where_the_folder_of_a_path_is_made_anew_the_program_is_replaced_and_found() {
    for handover in ["inherit", "proxy"] {
        let folder = Folder::with_example("python");
        let inner = folder.path().join("run");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("web.sock");
        let address = format!("address = \"unix:{}\"\nhandover = \"{handover}\"", path.display());
        folder.change("baton.toml", "address = \"127.0.0.1:8080\"", &address);
        folder.change("baton.toml", "interval        = \"1s\"", "interval = \"100ms\"");
        let boot = Boot::start(&folder, &[], &[]);
        boot.wait_for(" serves, ", 1);
        fs::remove_dir_all(&inner).unwrap();
        fs::create_dir(&inner).unwrap();
        // Sockets cannot be given a name again; what a program has, only another program can have anew.
        let generation = || Some(Client::connect_at(&path)?.get("/")?.generation().to_owned());
        let found = wait_for("an answer", generation);
        let said = boot.log().lines().filter(|line| line.contains("the last name of the socket")).count();
        assert!(said <= 1, "{}", boot.log());
        boot.signal(Signal::HUP);
        wait_for("its successor", || generation().filter(|generation| *generation != found));
        assert!(boot.stop().success());
    }
}

#[test]
fn p1_p3_p5_fifty_reloads_at_a_path_under_load_lose_nothing() {
    let served = Served::start("handover = \"inherit\"", "50ms");
    let load = served.load();
    let target = format!("unix:{}", served.path.display());
    for reload in 1..=50 {
        served.boot.signal(Signal::HUP);
        served.boot.wait_for(" is proven", reload + 1);
        // From now on only the new one may answer new connections.
        load.say(&format!("committed {target} image"));
        assert_eq!(served.generation(), (reload + 1).to_string());
    }
    let report = load.stop();
    assert_nothing_lost(&report);
    assert!(report.sent > 500, "{report:#?}");
    served.stop();
}

#[test]
fn p1_p4_a_program_at_a_path_that_is_killed_is_launched_again_and_nobody_is_refused() {
    let served = Served::start("", "50ms");
    let (load, target) = (served.load(), format!("unix:{}", served.path.display()));
    for crash in 1..=5 {
        load.say(&format!("window {target} begin"));
        kill_process(served.program(), Signal::KILL).unwrap();
        served.boot.wait_for(" serves, ", crash + 1);
        load.say(&format!("window {target} end"));
    }
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    served.stop();
}

/// The program is stopped, so that connections stay in its queue, and killed.
#[test]
fn p4_connections_that_wait_at_the_path_of_a_killed_program_are_answered() {
    let served = Served::start("", "50ms");
    let program = served.program();
    kill_process(program, Signal::STOP).unwrap();
    let mut waiting: Vec<Client> = (0..50).map(|_| served.client()).collect();
    waiting.iter_mut().for_each(|client| client.send("/"));
    kill_process(program, Signal::KILL).unwrap();
    for client in &mut waiting {
        assert_eq!(client.answer().unwrap().generation(), "2");
    }
    served.stop();
}

/// The old program is stopped, so that it accepts no more, and its successor takes over.
#[test]
fn p4_connections_that_wait_at_the_path_of_a_program_that_was_replaced_are_rescued() {
    let served = Served::start("", "0s");
    kill_process(served.program(), Signal::STOP).unwrap();
    let mut waiting: Vec<Client> = (0..50).map(|_| served.client()).collect();
    waiting.iter_mut().for_each(|client| client.send("/"));
    served.boot.signal(Signal::HUP);
    for client in &mut waiting {
        assert!(client.answer().is_some());
    }
    served.boot.wait_for(" serves, ", 2);
    assert_eq!(served.generation(), "2");
    served.stop();
}

#[test]
fn p9_a_release_at_a_path_that_crashes_within_the_bake_is_handed_back() {
    let served = Served::start("", "30s");
    served.folder.write("behaviour", "crash-after=0.5\n");
    let (load, target) = (served.load(), format!("unix:{}", served.path.display()));
    load.say(&format!("window {target} begin"));
    served.boot.signal(Signal::HUP);
    served.boot.wait_for("handed back from generation 2 to 1", 1);
    load.say(&format!("window {target} end"));
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    assert_eq!(served.generation(), "1");
    served.stop();
}

#[test]
fn p2_a_candidate_at_a_path_that_is_not_healthy_gets_no_connection() {
    let served = Served::start("", "50ms");
    served.folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"1s\"");
    served.folder.write("behaviour", "never-healthy\n");
    served.boot.signal(Signal::HUP);
    let mut asked = 0;
    while !served.boot.log().contains("refused: not healthy within 1 s") {
        assert_eq!(served.generation(), "1");
        asked += 1;
    }
    assert!(asked > 100, "asked only {asked} times");
    served.stop();
}

/// Who is in the way of a listener at a path, and what is left of an earlier process.
#[test]
fn f32_a_path_that_cannot_be_had_is_a_reason_and_the_old_one_stays() {
    let served = Served::start("", "50ms");
    let folder = served.folder.path();
    let taken = UnixListener::bind(folder.join("taken")).unwrap();
    served.folder.write("file", "not a socket");
    fs::create_dir(folder.join("folder")).unwrap();
    let settings = served.folder.read("baton.toml");
    let own = std::process::id();
    let ways = [
        ("taken", &*format!("process {own} (")),
        ("file", "there is something that is no socket"),
        ("folder", "there is something that is no socket"),
        ("missing/web.sock", "missing does not exist"),
        ("file/web.sock", "file is no folder"),
    ];
    for (index, (name, why)) in ways.into_iter().enumerate() {
        let address = folder.join(name);
        let more = format!("[[run.listen]]\nname = \"more\"\naddress = \"unix:{}\"\n", address.display());
        served.folder.write("baton.toml", &format!("{settings}{more}"));
        served.boot.signal(Signal::HUP);
        const REFUSED: &str = " refused: could not start: ";
        served.boot.wait_for(REFUSED, index + 1);
        let log = served.boot.log();
        let refused = log.lines().filter(|line| line.contains(REFUSED)).nth(index).unwrap();
        assert!(refused.contains(why), "{refused}");
        assert_eq!(served.generation(), "1");
    }
    assert_eq!(served.folder.read("file"), "not a socket");
    // Nobody listens there any more: what is left is taken over.
    drop(taken);
    let more = format!("[[run.listen]]\nname = \"more\"\naddress = \"unix:{}/taken\"\n", folder.display());
    served.folder.write("baton.toml", &format!("{settings}{more}"));
    served.boot.signal(Signal::HUP);
    served.boot.wait_for(" is proven", 2);
    assert!(UnixStream::connect(folder.join("taken")).is_ok());
    served.stop();
}

#[test]
fn f32_what_a_killed_bootloader_left_at_a_path_is_replaced() {
    let served = Served::start("", "50ms");
    served.boot.signal(Signal::HUP);
    served.boot.wait_for(" is proven", 2);
    let Served { folder, boot, path } = served;
    boot.signal(Signal::KILL);
    assert!(!boot.exit().success());
    let left = sockets(folder.path());
    assert!(left.len() > 2 && left[0] == "web.sock", "{left:?}");
    // Its program has the socket until it has ended.
    wait_for("the program to end", || UnixStream::connect(&path).is_err().then_some(()));
    let again = Boot::start(&folder, &[], &[]);
    again.wait_for(" serves, ", 1);
    let served = Served { folder, boot: again, path };
    assert_eq!(served.generation(), "1");
    served.stop();
}

#[test]
fn a_public_name_that_somebody_removed_comes_back_with_the_next_generation() {
    let served = Served::start("", "50ms");
    fs::remove_file(&served.path).unwrap();
    served.boot.signal(Signal::HUP);
    served.boot.wait_for(" is proven", 2);
    assert_eq!(served.generation(), "2");
    served.stop();
}

#[test]
fn who_may_connect_at_a_path_is_what_the_settings_say() {
    let served = Served::start("mode = \"0640\"", "50ms");
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&served.path), 0o640);
    served.folder.change("baton.toml", "0640", "0666");
    served.boot.signal(Signal::HUP);
    served.boot.wait_for(" is proven", 2);
    assert_eq!(mode(&served.path), 0o666);
    served.stop();
}

#[test]
fn a_socket_at_a_path_belongs_to_who_the_program_runs_as() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: it needs root");
        return;
    }
    let (folder, place) = (Folder::with_example("python"), tempfile::tempdir().unwrap());
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = place.path().join("web.sock");
    folder.change("baton.toml", "127.0.0.1:8080", &format!("unix:{}", path.display()));
    folder.change("baton.toml", "[run]", "[run]\nuser = \"nobody\"");
    let settings = folder.read("baton.toml");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder.write("baton.toml", &settings);
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let file = fs::symlink_metadata(&path).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o777), (65534, 0o660));
    let served = Served { folder, boot, path };
    assert_eq!(served.generation(), "1");
    served.boot.signal(Signal::HUP);
    served.boot.wait_for(" serves, ", 2);
    assert_eq!(served.generation(), "2");
    served.stop();
}

#[test]
fn p1_p3_a_program_is_forwarded_to_at_a_path_or_a_port_for_any_address() {
    for (public_is_path, backend) in [(true, "path"), (true, "port"), (false, "path")] {
        let folder = Folder::with_example("python");
        let path = folder.path().join("web.sock");
        let public =
            if public_is_path { format!("unix:{}", path.display()) } else { free_address().to_string() };
        folder.change("baton.toml", "[run.health]", "handover = \"proxy\"\n\n[run.health]");
        let variable = if backend == "path" { "SOCKET = \"{path:http}\"" } else { "" };
        let settings = folder.read("baton.toml");
        folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"50ms\"\n[env]\n{variable}\n"));
        let boot = Boot::start(&folder, &[], &[("BATON_LISTEN", &format!("http={public}"))]);
        boot.wait_for(" serves, ", 1);
        let load = Load::start(plan(&public));
        for reload in 1..=10 {
            boot.signal(Signal::HUP);
            boot.wait_for(" is proven", reload + 1);
        }
        let report = load.stop();
        assert_nothing_lost(&report);
        assert!(report.sent > 100, "{report:#?}");
        assert!(boot.stop().success());
        assert_eq!(sockets(folder.path()), [] as [&str; 0]);
    }
}

/// Answers with the first bytes that it gets, in hexadecimal.
const TELLS_HEADER: &str = r#"
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
while True:
    client, _ = listener.accept()
    header = client.recv(16, socket.MSG_WAITALL)
    # A probe says nothing more, and does not wait for an answer.
    if header[12] == 0x21:
        client.sendall((header.hex() + " " + client.recv(5).decode() + "\n").encode())
    client.close()
"#;

#[test]
fn a_client_without_an_address_is_told_to_a_proxied_program_as_one() {
    let folder = Folder::empty();
    folder.write("program.py", TELLS_HEADER);
    let path = folder.path().join("web.sock");
    let settings = format!(
        "service = \"test\"\n[run]\ncommand = [\"python3\", \"program.py\", \"{{path:http}}\"]\n[[run.listen]]\n\
         name = \"http\"\naddress = \"unix:{}\"\nhandover = \"proxy\"\nproxy_protocol = true\n",
        path.display()
    );
    folder.write("baton.toml", &settings);
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"hello").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    // The signature, version 2 and PROXY, no family, no addresses; then what the client has sent.
    assert_eq!(answer, "0d0a0d0a000d0a515549540a21000000 hello\n");
    boot.stop();
}

#[test]
fn a_program_that_listens_at_another_path_is_told_where_and_what_to_do() {
    let program = "import socket, time\ns = socket.socket(socket.AF_UNIX)\ns.bind(\"{other}\")\ns.listen()\ntime.sleep(1000)\n";
    let to_bind = "[env]\nAT = \"{path:http}\"\n";
    for (handover, env, told) in
        [("auto", "", "let it take the socket"), ("proxy", to_bind, "let it bind {path:NAME} (")]
    {
        let folder = Folder::empty();
        let (path, other) = (folder.path().join("web.sock"), folder.path().join("other.sock"));
        folder.write("server.py", &program.replace("{other}", other.to_str().unwrap()));
        let settings = format!(
            "service = \"web\"\n[run]\ncommand = [\"python3\", \"server.py\"]\n[[run.listen]]\nname = \"http\"\naddress = \"unix:{}\"\nhandover = \"{handover}\"\n\
             [run.health]\ntcp = true\nstartup_timeout = \"4s\"\n{env}",
            path.display()
        );
        folder.write("baton.toml", &settings);
        let boot = Boot::start(&folder, &[], &[]);
        let (other, path) = (other.display(), path.display());
        boot.wait_for(
            &format!(
                "not healthy within 4 s: the program listens on unix:{other}, and nobody accepts at its listener \
                 unix:{path}: {told}"
            ),
            1,
        );
        boot.stop();
    }
}
