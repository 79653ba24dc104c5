//! `baton doctor`, as people run it, on programs that do well and on programs that do not.

mod proposal;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::boot::{Boot, Folder, binary, free_address};
use crate::demo::assert_nothing_left;
use crate::wait::wait_for;

/// `baton` in a folder, with all that it writes for itself beneath it.
pub fn baton(folder: &Folder, path: &str, arguments: &[&str]) -> Command {
    let temporary = folder.path().join("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(binary("baton"));
    command
        .args(arguments)
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", path)
        .env("HOME", folder.path())
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Where everything is that the tests need.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What `baton doctor` found out.
#[derive(Debug)]
pub struct Found {
    code: Option<i32>,
    document: Value,
}

impl Found {
    /// Lets it look at the program of a folder.
    pub fn of(folder: &Folder, path: &str, arguments: &[&str]) -> Self {
        let arguments = [&["doctor", "--output", "json"], arguments].concat();
        let ran = baton(folder, path, &arguments).output().unwrap();
        assert_nothing_left(folder);
        let document = serde_json::from_slice(&ran.stdout);
        assert!(document.is_ok(), "{ran:?}");
        let document = document.unwrap();
        Self { code: ran.status.code(), document }
    }

    fn finding(&self, topic: &str) -> &Value {
        let mut all = self.document["findings"].as_array().unwrap().iter();
        let found = all.find(|finding| finding["topic"] == topic);
        assert!(found.is_some(), "nothing about {topic}: {self:#?}");
        found.unwrap()
    }

    /// What was seen is judged so, and this is among the words for it.
    pub fn says(&self, topic: &str, verdict: &str, words: &str) {
        let finding = self.finding(topic);
        assert_eq!(finding["verdict"], verdict, "{finding:#}");
        assert!(finding.to_string().contains(words), "{words:?} is not in {finding:#}");
    }

    fn is_fine(&self) {
        assert_eq!((self.code, &self.document["verdict"]), (Some(0), &Value::from("fine")), "{self:#?}");
    }

    fn is_bad(&self) {
        assert_eq!((self.code, &self.document["verdict"]), (Some(1), &Value::from("bad")), "{self:#?}");
    }
}

/// An example at an address of its own, with hardly a bake.
fn example(name: &str) -> (Folder, SocketAddr) {
    let (folder, address) = (Folder::with_example(name), free_address());
    let settings = folder.read("baton.toml").replace("127.0.0.1:8080", &address.to_string());
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"100ms\"\n"));
    (folder, address)
}

/// The Python example with another command, a short drain and a short start.
fn python(command: &str) -> (Folder, SocketAddr) {
    let (folder, address) = example("python");
    folder.change("baton.toml", "[\"python3\", \"server.py\"]", command);
    folder.change("baton.toml", "drain   = \"10s\"", "drain = \"1s\"");
    (folder, address)
}

/// A program that does what it should not.
fn misbehaving(behaviour: &str) -> Folder {
    let (folder, _) = python("[\"python3\", \"server.py\"]");
    folder.write("behaviour", behaviour);
    folder
}

#[test]
fn the_examples_are_fine_in_everything() {
    for name in ["python", "node"] {
        let (folder, _) = example(name);
        let found = Found::of(&folder, PATH, &["--slow", "/slow?ms=2000"]);
        found.is_fine();
        for (topic, words) in [
            ("start", "healthy"),
            ("socket", "it took the open socket"),
            ("port", "it listened there"),
            ("reload", "0 of "),
            ("stop-signal", "it handles SIGTERM"),
            ("running-request", "GET /slow?ms=2000: finished, with 200"),
            ("idle-connection", "a last request is answered, with `Connection: close`"),
            ("end", "with 0"),
        ] {
            found.says(topic, "fine", words);
        }
    }
}

#[test]
fn a_worker_is_judged_by_its_start_its_reload_and_its_end() {
    let folder = Folder::with_example("worker");
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"100ms\"\n"));
    let found = Found::of(&folder, PATH, &[]);
    found.is_fine();
    let topics: Vec<&str> = found.document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["topic"].as_str())
        .collect();
    assert_eq!(topics, ["start", "reload", "stop-signal", "end"]);
}

/// It lets its child finish when it is asked to stop, and the child drops its work when it is asked itself: as Celery does.
const CREW: &str = "import os, signal\n\
    import server\n\
    child = os.fork()\n\
    if child == 0:\n    \
        while True: signal.pause()\n\
    def stop(*_):\n    \
        os.kill(child, signal.SIGKILL)\n    \
        os.waitpid(child, 0)\n    \
        os._exit(0)\n\
    signal.signal(signal.SIGTERM, stop)\n\
    server.notify('READY=1')\n\
    while True: signal.pause()\n";

#[test]
fn a_worker_whose_processes_a_stop_would_end_is_told_to_ask_them_last() {
    let folder = Folder::with_example("python");
    folder.write("crew.py", CREW);
    let settings = "service = \"crew\"\n[run]\ncommand = [\"python3\", \"crew.py\"]\nready = \"notify\"\ndrain = \"9s\"\n";
    folder.write("baton.toml", &format!("{settings}[rollout]\nbake = \"100ms\"\n"));
    let found = Found::of(&folder, PATH, &[]);
    assert_eq!(found.code, Some(0), "{found:#?}");
    found.says("processes", "note", "stop_tree_after = \\\"9s\\\" under [run]");
    let settled = settings.replace("drain =", "stop_tree_after = \"9s\"\ndrain =");
    folder.write("baton.toml", &format!("{settled}[rollout]\nbake = \"100ms\"\n"));
    Found::of(&folder, PATH, &[]).is_fine();
    std::fs::remove_file(folder.path().join("baton.toml")).unwrap();
    let ran = baton(&folder, PATH, &["init", "--", "python3", "crew.py"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert!(folder.read("baton.toml").contains("\nstop_tree_after = \"30s\"\n"), "{ran:?}");
}

#[test]
fn a_program_that_ignores_the_stop_signal_is_found_out() {
    let found = Found::of(&misbehaving("ignore-term"), PATH, &[]);
    found.is_bad();
    found.says("stop-signal", "bad", "it ignores SIGTERM");
    found.says("end", "bad", "killed");
}

#[test]
fn a_program_that_cuts_what_is_under_way_is_found_out() {
    let (folder, _) = example("node");
    folder.write(
        "server.js",
        "require('http').createServer((request, response) => {\n\
           setTimeout(() => response.end('done'), request.url === '/slow' ? 5000 : 0);\n\
         }).listen(process.env.PORT, '127.0.0.1');\n",
    );
    let found = Found::of(&folder, PATH, &["--slow", "/slow"]);
    found.is_bad();
    found.says("socket", "fine", "and was given the socket");
    found.says("running-request", "bad", "process.on('SIGTERM'");
    found.says("idle-connection", "note", "closed at once");
    assert_eq!(
        (&found.document["kind"], &found.document["guide"]),
        (&"Node".into(), &"docs/guides/node.md".into())
    );
    // It answers without having read the body: then nobody knows.
    Found::of(&folder, PATH, &[]).says("running-request", "note", "--slow");
}

#[test]
fn a_program_that_waits_for_silent_connections_is_found_out() {
    let (folder, _) = example("node");
    folder.change("baton.toml", "drain   = \"10s\"", "drain = \"20s\"");
    folder.write(
        "server.js",
        "const server = require('http').createServer((request, response) => response.end('done'));\n\
         server.listen(process.env.PORT, '127.0.0.1');\n\
         process.on('SIGTERM', () => server.close());\n",
    );
    let found = Found::of(&folder, PATH, &[]);
    assert_eq!(found.code, Some(0), "{found:#?}");
    found.says("end", "note", "a connection that had sent nothing kept it from ending");
}

#[test]
fn a_program_without_a_handler_is_found_out_by_that_alone() {
    let (folder, _) =
        python("[\"python3\", \"-m\", \"http.server\", \"--bind\", \"127.0.0.1\", \"{port:http}\"]");
    folder.change("baton.toml", "\"/health\"", "\"/\"");
    let found = Found::of(&folder, PATH, &[]);
    found.is_bad();
    found.says("stop-signal", "bad", "it has no handler for SIGTERM");
}

#[test]
fn a_program_that_makes_itself_a_daemon_is_found_out() {
    let (folder, _) = python("[\"sh\", \"-c\", \"setsid python3 server.py & exit 0\"]");
    let found = Found::of(&folder, PATH, &[]);
    found.is_bad();
    found.says("start", "bad", "it makes itself a daemon");
}

#[test]
fn a_shell_that_does_not_pass_the_signal_on_is_found_out() {
    let (folder, _) = python("[\"sh\", \"-c\", \"python3 server.py; true\"]");
    let found = Found::of(&folder, PATH, &[]);
    found.is_bad();
    found.says("stop-signal", "bad", "`exec`");
}

#[test]
fn a_program_that_listens_elsewhere_is_found_out_with_the_line_to_write() {
    let other = free_address();
    let command = format!("[\"sh\", \"-c\", \"LISTEN_PID=0 PORT={} exec python3 server.py\"]", other.port());
    let (folder, _) = python(&command);
    folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"2s\"");
    let found = Found::of(&folder, PATH, &[]);
    found.is_bad();
    found.says("start", "bad", &format!("address = \\\"{other}\\\" of listener"));
}

#[test]
fn a_program_that_never_gets_healthy_is_found_out() {
    let folder = misbehaving("never-healthy");
    folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"1s\"");
    let found = Found::of(&folder, PATH, &[]);
    found.is_bad();
    found.says("start", "bad", "GET /health answered 503");
    // What it wrote last is shown where it ends by itself.
    let folder = misbehaving("dance");
    let found = Found::of(&folder, PATH, &[]);
    found.says("start", "bad", "exit 1");
    assert!(found.document["last_lines"].to_string().contains("unknown behaviour 'dance'"), "{found:#?}");
}

/// Under a bootloader that answers binds already: nobody else can.
#[test]
fn where_a_bind_cannot_be_answered_a_program_is_said_to_be_relayed() {
    let (folder, _) = python("[\"env\", \"-u\", \"LISTEN_FDS\", \"python3\", \"server.py\"]");
    folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"2s\"");
    let baton = binary("baton");
    folder.write(
        "outer.toml",
        &format!(
            "service = \"outer\"\n[run]\non_exit = \"exit\"\nmax_restarts = 0\n\
             command = [\"sh\", \"-c\", \"exec {} doctor --output json > found\"]\n\
             [[run.listen]]\nname = \"unused\"\naddress = \"{}\"\n",
            baton.display(),
            free_address()
        ),
    );
    let _boot = Boot::start(&folder, &["--settings", "outer.toml"], &[]);
    let document = wait_for("the findings", || serde_json::from_str(&folder.read("found")).ok());
    let found = Found { code: None, document };
    found.says("socket", "note", "listens on $PORT");
    found.says("reload", "fine", "0 of ");
}

#[test]
fn a_port_that_the_settings_do_not_name_keeps_a_second_generation_from_starting() {
    let (folder, _) = python("[\"python3\", \"two.py\"]");
    let other = free_address();
    folder.write(
        "two.py",
        &format!(
            "import socket, server\nother = socket.create_server(('127.0.0.1', {}))\nserver.main()\n",
            other.port()
        ),
    );
    let found = Found::of(&folder, PATH, &[]);
    found.is_bad();
    found.says("other-listeners", "note", &other.to_string());
    found.says("reload", "bad", "must not be the same for both");
    // With the line that it says, all is well.
    let settings = folder.read("baton.toml");
    let listener = format!("[[run.listen]]\nname = \"other\"\naddress = \"{other}\"\n[run.health]");
    folder.write("baton.toml", &settings.replace("[run.health]", &listener));
    Found::of(&folder, PATH, &[]).says("reload", "fine", "0 of ");
}

#[test]
fn a_program_that_knows_only_one_port_is_told_so() {
    let (folder, address) = example("python");
    let command =
        format!("[\"sh\", \"-c\", \"PORT={} LISTEN_PID=0 exec python3 server.py\"]", address.port());
    folder.change("baton.toml", "[\"python3\", \"server.py\"]", &command);
    let found = Found::of(&folder, PATH, &[]);
    assert_eq!(found.code, Some(0), "{found:#?}");
    found.says("socket", "fine", "and was given the socket");
    found.says("port", "note", "let it bind $PORT");
}

#[test]
fn what_cannot_be_tried_is_said_with_what_to_do() {
    let (folder, address) = example("python");
    let _somebody = std::net::TcpListener::bind(address).unwrap();
    let ran = baton(&folder, PATH, &["doctor"]).output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(said.contains(&format!("somebody listens on {address} already: stop that first")), "{said}");
}

/// Waits until a program of this folder runs, whoever has started it.
fn wait_for_a_program_in(folder: &Path) {
    wait_for("the program", || {
        let all = baton_sys::process::all().unwrap();
        let name = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let place = |pid: i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at == folder);
        all.iter().any(|one| name(one.pid) == "python3\n" && place(one.pid)).then_some(())
    });
}

fn interrupt(mut child: Child, folder: &Folder) {
    wait_for_a_program_in(&folder.path().canonicalize().unwrap());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = wait_for("its end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    assert_nothing_left(folder);
    let place = |pid: i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at == folder.path());
    assert!(!baton_sys::process::all().unwrap().iter().any(|one| !one.zombie && place(one.pid)));
}

#[test]
fn what_is_interrupted_leaves_nothing_behind() {
    let folder = misbehaving("ignore-term\nslow-start=30");
    interrupt(baton(&folder, PATH, &["doctor"]).spawn().unwrap(), &folder);
    // It would be a worker that takes its time.
    let init = ["init", "--print", "--wait", "60s", "--", "python3", "server.py"];
    interrupt(baton(&folder, PATH, &init).spawn().unwrap(), &folder);
}
