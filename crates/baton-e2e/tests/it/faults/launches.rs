//! Programs that cannot be started, and what is in their way.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use baton_sys::listening;
use rustix::process::{Signal, kill_process};

use super::{example, generation, process, serving};
use crate::boot::{Boot, Folder, free_address};
use crate::cgroup::Group;
use crate::fleet::Fleet;
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::program::Client;
use crate::wait::wait_for;

/// The beginning of a program for another machine (`man 5 elf`): 64 bits, AArch64.
const FOREIGN: [u8; 64] = {
    let mut header = [0; 64];
    let magic = [0x7f, b'E', b'L', b'F', 2, 1, 1];
    let mut at = 0;
    while at < magic.len() {
        header[at] = magic[at];
        at += 1;
    }
    // Type: executable; machine.
    (header[16], header[18]) = (2, 183);
    header
};

#[test]
fn f14_whatever_keeps_a_program_from_starting_is_named_and_the_old_one_stays() {
    let (folder, boot, address) = serving("50ms");
    let put = |name: &str, content: &[u8], mode| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    put("not-executable", b"#!/bin/sh\n", 0o644);
    put("no-program", b"only text\n", 0o755);
    put("foreign", &FOREIGN, 0o755);
    put("no-interpreter", b"#!/no/such/interpreter\n", 0o755);
    let settings = folder.read("baton.toml");
    let too_much = format!("{settings}\n[env]\nTOO_MUCH = \"{}\"\n", "x".repeat(200_000));
    let instead =
        |program: &str| settings.replace("[\"python3\", \"server.py\"]", &format!("[\"{program}\"]"));
    let cases = [
        (instead("no-such-program"), "there is no program \"no-such-program\" in PATH"),
        (instead("./missing"), "there is no program \"./missing\" in "),
        (instead("./not-executable"), "Permission denied (os error 13)"),
        (instead("./no-program"), "Exec format error (os error 8)"),
        (instead("./foreign"), "Exec format error (os error 8)"),
        (instead("./no-interpreter"), "No such file or directory (os error 2)"),
        (too_much, "Argument list too long (os error 7)"),
    ];
    for (refusals, (settings, why)) in (1..).zip(cases) {
        folder.write("baton.toml", &settings);
        boot.signal(Signal::HUP);
        boot.wait_for(" refused: could not start: ", refusals);
        let log = boot.log();
        let told = log.lines().rfind(|line| line.contains(" refused: could not start: ")).unwrap();
        assert!(told.contains(why), "{told}\nand not {why:?}");
        assert_eq!(generation(address), "1");
    }
    assert!(boot.stop().success());
}

#[test]
fn f15_without_room_for_a_process_the_old_one_serves_and_a_reload_works_when_there_is() {
    let pids = Group::of_processes();
    let (folder, address) = example("50ms");
    // The example needs a thread for each connection, and would end without.
    folder.change("baton.toml", "interval        = \"1s\"", "interval = \"1h\"");
    let joined = pids.joined();
    let boot = Boot::start_under(&joined.each_ref().map(String::as_str), &folder, &[]);
    boot.wait_for(" is proven", 1);
    // Whoever ended its threads meanwhile has no room for new ones either.
    pids.limit_processes(Some(1));
    for reload in 1..=3 {
        boot.signal(Signal::HUP);
        boot.wait_for(" refused: could not start: ", reload);
        boot.wait_for("Resource temporarily unavailable (os error 11)", reload);
    }
    assert!(pids.had_too_many_processes(), "the limit was not met");
    pids.limit_processes(None);
    assert_eq!(generation(address), "1");
    boot.signal(Signal::HUP);
    boot.wait_for(" is proven", 2);
    assert!(boot.stop().success());
}

#[test]
fn f16_without_a_free_descriptor_the_old_one_serves_and_a_reload_works_when_there_are_some() {
    let (_folder, boot, address) = serving("50ms");
    boot.wait_for(" is proven", 1);
    limit(boot.pid(), lowest_free(boot.pid()));
    boot.signal(Signal::HUP);
    boot.wait_for("Too many open files (os error 24)", 1);
    assert_eq!(generation(address), "1");
    limit(boot.pid(), 1024);
    boot.signal(Signal::HUP);
    boot.wait_for(" is proven", 2);
    assert!(boot.stop().success());
}

/// Counting takes a descriptor each time.
#[test]
fn f16_connections_of_a_bake_are_counted_again_when_there_are_descriptors() {
    let (fleet, folder) = (Fleet::start("web", 1), Folder::with_example("python"));
    // Probes lack one as well, and its health is no matter here.
    folder.change("baton.toml", "interval        = \"1s\"", "interval = \"1s\"\nfailures = 100");
    let settings = folder.read("baton.toml") + "\n[rollout]\nbake = \"1s\"\nbake_connections = 5\n";
    folder.write("baton.toml", &settings);
    assert_eq!(fleet.deploy(&folder, &[]), Some(0));
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &["--detach"]), Some(0));
    let said = |text: &str| fleet.log("web-0").contains(text).then_some(());
    wait_for("it to have baked", || said("waits for connections"));
    let member = i32::try_from(fleet.members[0].pid()).unwrap();
    wait_for("a count that fails", || {
        limit(member, lowest_free(member));
        said("cannot count the connections that it accepts")
    });
    limit(member, 1024);
    (0..10).for_each(|_| assert!(fleet.answers(0).is_some()));
    wait_for("the proof", || (fleet.status()["state"] == "drained").then_some(()));
    assert!(said("is taken for good with").is_none());
}

/// How many descriptors it may have from now on.
fn limit(pid: i32, most: usize) {
    let changed = std::process::Command::new("prlimit")
        .args([&format!("--pid={pid}"), &format!("--nofile={most}:")])
        .status();
    assert!(changed.unwrap().success());
}

/// The lowest number that is free is the first that is not allowed.
fn lowest_free(pid: i32) -> usize {
    let is_open = |number: &usize| std::fs::read_link(format!("/proc/{pid}/fd/{number}")).is_ok();
    (0..).find(|number| !is_open(number)).unwrap()
}

/// With so many there may be 20 connections.
const DESCRIPTORS: &str = "--nofile=120:120";
const ACCEPTED: usize = 20;
const CLIENTS: usize = 60;

#[test]
fn f16_what_the_proxy_has_no_descriptor_for_waits_to_be_accepted_and_nothing_is_lost() {
    let (folder, address) = example("50ms");
    folder.change("baton.toml", "[[run.listen]]", "[[run.listen]]\nhandover = \"proxy\"");
    let boot = Boot::start_under(&["prlimit", DESCRIPTORS], &folder, &[]);
    boot.wait_for(" is proven", 1);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(address).unwrap()).collect();
    let answered = |client: &mut Client| client.get("/").is_some();
    // Those that were accepted stay; the others wait behind them, also for a successor.
    let rest = clients.split_off(ACCEPTED);
    assert!(clients.iter_mut().all(answered));
    let waiting = listening::waiting_at(address.port()).unwrap();
    assert_eq!(usize::try_from(waiting).unwrap(), CLIENTS - ACCEPTED);
    boot.signal(Signal::HUP);
    boot.wait_for(" is proven", 2);
    let asking: Vec<_> =
        rest.into_iter().map(|mut client| std::thread::spawn(move || answered(&mut client))).collect();
    // Each that has its answer makes room for the next.
    drop(clients);
    assert!(asking.into_iter().all(|asking| asking.join().unwrap()), "one of them was not answered");
    assert!(!boot.log().contains("os error 24"), "{}", boot.log());
    assert!(boot.stop().success());
}

/// What stood by is killed while more clients wait in its queue than may be forwarded at a time.
#[test]
fn p4_f16_f28_what_is_rescued_waits_until_there_are_descriptors_and_nothing_is_lost() {
    let (folder, address) = example("5m");
    let boot = Boot::start_under(&["prlimit", DESCRIPTORS], &folder, &[]);
    boot.wait_for(" serves, ", 1);
    let program = process(address);
    kill_process(program, Signal::STOP).unwrap();
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(address).unwrap()).collect();
    clients.iter_mut().for_each(|client| client.send("/"));
    boot.signal(Signal::HUP);
    boot.wait_for(" serves, ", 2);
    kill_process(program, Signal::KILL).unwrap();
    // Each that has its answer makes room for the next.
    let answered_by = |mut client: Client| client.answer().map(|answer| answer.generation().to_owned());
    let asking: Vec<_> =
        clients.into_iter().map(|client| std::thread::spawn(move || answered_by(client))).collect();
    let answers: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.as_deref() == Some("2")), "{answers:?}");
    assert!(!boot.log().contains("os error 24"), "{}", boot.log());
    assert!(boot.stop().success());
}

#[test]
fn f16_the_bootloader_may_have_as_many_descriptors_as_there_may_be_and_its_program_what_it_was_given() {
    let folder = Folder::empty();
    let boot = Boot::start_under(
        &["prlimit", "--nofile=100:200"],
        &folder,
        &["--", "sh", "-c", "ulimit -Sn; ulimit -Hn; grep '^Max open files' /proc/$PPID/limits"],
    );
    assert!(boot.exit().success());
    let said: Vec<String> = folder.read("output").split_whitespace().map(str::to_owned).collect();
    assert_eq!(said, ["100", "200", "Max", "open", "files", "200", "200", "files"]);
}

#[test]
fn p36_settings_from_a_pipe_launch_the_program_and_a_reload_waits_for_no_more_of_them() {
    let (folder, _) = example("50ms");
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let settings = folder.read("baton.toml");
    let writer = std::thread::spawn(move || std::fs::write(pipe, settings).unwrap());
    let boot = Boot::start(&folder, &["--settings", "pipe"], &[]);
    writer.join().unwrap();
    boot.wait_for(" serves, ", 1);
    boot.signal(Signal::HUP);
    boot.wait_for("nothing is changed: pipe is no file, and can be read at the start only", 1);
    assert!(boot.stop().success());
}

#[test]
fn f22_a_second_bootloader_on_the_same_state_is_told_who_has_it() {
    let folder = Folder::empty();
    // Nobody answers there, and nobody has to.
    let control = format!("http://{}", free_address());
    let variables = [("BATON_SERVER", control.as_str()), ("BATON_SERVICE", "web"), ("BATON_MEMBER", "m-1")];
    let first = Boot::start(&folder, &[], &variables);
    wait_for("the lock", || (folder.read("state/lock") == format!("{}\n", first.pid())).then_some(()));
    let second = Boot::start(&folder, &[], &variables);
    second.wait_for(&format!("is held by process {}: stop it, or use another directory", first.pid()), 1);
    assert_eq!(second.exit().code(), Some(2));
    assert_eq!(first.stop().code(), Some(0));
}

#[test]
fn f32_an_address_that_somebody_has_is_a_reason_and_the_old_one_stays() {
    let (folder, boot, address) = serving("50ms");
    let taken = TcpListener::bind(free_address()).unwrap();
    let settings = folder.read("baton.toml");
    let listen = format!("[[run.listen]]\nname = \"more\"\naddress = \"{}\"\n", taken.local_addr().unwrap());
    folder.write("baton.toml", &format!("{settings}{listen}"));
    boot.signal(Signal::HUP);
    boot.wait_for(" refused: could not start: ", 1);
    boot.wait_for("in use", 1);
    assert_eq!(generation(address), "1");
    // It is free again, and so is the way.
    drop(taken);
    boot.signal(Signal::HUP);
    boot.wait_for(" is proven", 2);
    assert!(boot.stop().success());
}

#[test]
fn f32_a_program_may_be_reached_by_ipv6_alone() {
    let (folder, address) = example("50ms");
    let six = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port());
    folder.change("baton.toml", &address.to_string(), &six.to_string());
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    boot.signal(Signal::HUP);
    boot.wait_for(" is proven", 2);
    assert_eq!(generation(six), "2");
    assert!(Client::connect(address).is_none());
    assert!(!super::is_gone(process(six)));
    assert!(boot.stop().success());
}

/// Says where it is and whether it can write there, and becomes the server.
const LOOKS: &str =
    "pwd > $BATON_SCRATCH/found; (echo x > here) 2>> $BATON_SCRATCH/found; exec python3 \"$1\"";

/// The example, to find its files at an empty folder.
fn mounted() -> (Folder, SocketAddr, Folder) {
    let ((folder, address), at) = (example("50ms"), Folder::empty());
    let place = at.path().display();
    folder.change("baton.toml", "[run]", &format!("[run]\nmount = \"{place}\""));
    folder.write("looks.sh", LOOKS);
    let command = format!("[\"sh\", \"looks.sh\", \"{place}/server.py\"]");
    folder.change("baton.toml", "[\"python3\", \"server.py\"]", &command);
    (folder, address, at)
}

#[test]
fn a_program_finds_its_files_write_protected_at_the_path_that_the_settings_say() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not run: only root may mount here");
    }
    let (folder, address, at) = mounted();
    folder.change("baton.toml", "http            = \"/health\"", "exec = [\"test\", \"-f\", \"server.py\"]");
    let boot = Boot::start(&folder, &[], &[("PWD", folder.path().to_str().unwrap())]);
    boot.wait_for(" is proven", 1);
    let load = Load::start(plan(address));
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 (image) is proven", 1);
    assert_nothing_lost(&load.stop());
    // It may write to its scratch folder only, though that is beneath its files here.
    let found = folder.read(&format!("state/scratch/{}/2/found", boot.pid()));
    let (place, rest) = found.split_once('\n').unwrap();
    assert_eq!((place, generation(address).as_str()), (at.path().to_str().unwrap(), "2"));
    assert!(rest.contains("Read-only file system"), "{found}");
    assert!(!folder.path().join("here").exists());
    assert_eq!(std::fs::read_dir(at.path()).unwrap().count(), 0, "nobody else sees it there");
    assert!(boot.stop().success());
}

#[test]
fn where_nothing_may_be_mounted_the_old_one_serves_on_and_it_is_said_what_is_missing() {
    let (folder, address, at) = mounted();
    let settings = folder.read("baton.toml");
    let place = at.path().to_str().unwrap();
    folder.change("baton.toml", &format!("mount = \"{place}\""), "");
    folder.change("baton.toml", place, ".");
    let root = rustix::process::geteuid().is_root();
    let before: &[&str] = if root { &["setpriv", "--bounding-set=-sys_admin"] } else { &["env"] };
    let boot = Boot::start_under(before, &folder, &[]);
    boot.wait_for(" is proven", 1);
    folder.write("baton.toml", &settings);
    boot.signal(Signal::HUP);
    boot.wait_for("(image) refused: ", 1);
    boot.wait_for("unshare(CLONE_NEWNS) failed. It takes the capability CAP_SYS_ADMIN", 1);
    assert_eq!(generation(address), "1");
    assert!(boot.stop().success());
}
