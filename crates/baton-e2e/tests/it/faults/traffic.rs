//! Handovers at bad moments, and clients that are hostile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;

use super::{descriptors, example, generation, is_gone, process, serving};
use crate::boot::{Boot, Folder, binary};
use crate::fleet::Fleet;
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::program::Client;
use crate::wait::wait_for;

/// Ends so many milliseconds after it has answered a probe for the first time.
const DIES: &str = r#"
import os, threading, server
after = int(open("dies-after").read()) / 1000
route = server.route
def dying(connection, request):
    kept = route(connection, request)
    if request.path == "/health":
        threading.Timer(after, os._exit, [9]).start()
    return kept
server.route = dying
server.main()
"#;

#[test]
fn f27_a_release_that_crashes_around_the_switch_is_taken_back_and_nothing_is_lost() {
    let (folder, boot, address) = serving("30s");
    folder.write("dies.py", DIES);
    folder.change("baton.toml", "server.py", "dies.py");
    let load = Load::start(plan(address));
    load.say(&format!("window {address} begin"));
    for (refusals, milliseconds) in (1..).zip([0, 1, 2, 5, 10, 20, 50]) {
        folder.write("dies-after", &milliseconds.to_string());
        boot.signal(Signal::HUP);
        boot.wait_for("(image) refused: exit 9 after ", refusals);
        assert_eq!(generation(address), "1");
    }
    load.say(&format!("window {address} end"));
    let report = load.stop();
    assert_eq!(report.lost, 0, "{report:#?}");
    assert!(boot.stop().success());
}

/// It comes when some members have switched and others have not.
#[test]
fn f80_three_times_more_load_in_the_middle_of_a_rollout_costs_nobody_a_request() {
    let (fleet, folder) = (Fleet::start("web", 3), Folder::with_example("python"));
    let slowly = ["--policy", "fast", "--max-unhealthy", "34%", "--bake", "1s"];
    assert_eq!(fleet.deploy(&folder, &slowly), Some(0));
    let old = fleet.release();
    let on_all = || fleet.addresses.iter().map(|address| Load::start(plan(*address)));
    let mut loads: Vec<Load> = on_all().collect();
    folder.write("new", "what the release before did not have");
    assert_eq!(fleet.deploy(&folder, &[&slowly[..], &["--detach"]].concat()), Some(0));
    let switched = || (0..3).filter(|member| fleet.answers(*member).is_some_and(|now| now != old)).count();
    wait_for("the first member to switch", || (switched() > 0).then_some(()));
    loads.extend((0..3).flat_map(|_| on_all()));
    assert!(switched() < 3, "the rollout was over before");
    wait_for("the rollout to end", || (fleet.status()["state"] == "drained").then_some(()));
    assert_eq!(switched(), 3);
    loads.into_iter().for_each(|load| assert_nothing_lost(&load.stop()));
}

#[test]
fn f29_an_old_program_that_goes_on_accepting_gets_no_connection_after_the_switch() {
    let (folder, address) = example("50ms");
    folder.change("baton.toml", "drain   = \"10s\"", "drain = \"1s\"");
    folder.write("behaviour", "ignore-term\n");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let old = process(address);
    folder.write("behaviour", "");
    boot.signal(Signal::HUP);
    boot.wait_for("generation 2 (image) serves", 1);
    let mut asked = 0;
    while !is_gone(old) {
        assert_eq!(generation(address), "2");
        asked += 1;
    }
    assert!(asked > 20, "asked only {asked} times while the old one lived");
    boot.wait_for("generation 1 is gone", 1);
    assert!(boot.stop().success());
}

/// Many more clients at once than fit into the accept queue. The kernel makes those wait who find no room.
#[test]
fn f30_an_accept_queue_that_overflows_during_a_handover_loses_nobody() {
    let (folder, address) = example("50ms");
    folder.change("baton.toml", "[run.health]", "backlog = 8\n[run.health]");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let burst = || {
        let ask = move || Client::connect(address).and_then(|mut client| client.get("/slow?ms=20"));
        (0..24).map(|_| std::thread::spawn(ask)).collect::<Vec<_>>()
    };
    for reload in 2..=3 {
        let clients = burst();
        boot.signal(Signal::HUP);
        let answered = clients.into_iter().filter_map(|client| client.join().unwrap()).count();
        assert_eq!(answered, 24);
        boot.wait_for(" is proven", reload);
    }
    assert!(boot.stop().success());
}

#[test]
fn f34_two_hundred_wishes_to_reload_at_once_lose_nothing() {
    let (_folder, boot, address) = serving("0s");
    let load = Load::start(plan(address));
    for _ in 0..200 {
        boot.signal(Signal::HUP);
        assert!(Client::connect(address).unwrap().get("/").is_some());
    }
    // The last one is heard after all that came before. Two at the least: one, and one for all that came meanwhile.
    let count = |what: &str| boot.log().lines().filter(|line| line.ends_with(what)).count();
    wait_for("the reloads", || {
        let launched = count("(image) launched");
        (launched >= 3 && launched == count("(image) is proven")).then_some(())
    });
    assert_nothing_lost(&load.stop());
    assert!(boot.stop().success());
}

/// At first each has a slot of its own, until the first ones have been quiet for a while and are used again.
#[test]
fn f34_handovers_leave_no_descriptor_behind() {
    const HANDOVERS_MAX: usize = 1000;
    let (_folder, boot, _) = serving("0s");
    let (mut most, mut since) = (0, 0);
    for reload in 1..=HANDOVERS_MAX {
        boot.signal(Signal::HUP);
        boot.wait_for(&format!("generation {} (image) is proven", reload + 1), 1);
        boot.wait_for(&format!("generation {reload} is gone"), 1);
        since += 1;
        let open = descriptors(boot.pid());
        if open > most {
            (most, since) = (open, 0);
        }
        if since == 40 {
            assert!(boot.stop().success());
            return;
        }
    }
    panic!("{most} descriptors after {HANDOVERS_MAX} handovers, and still more with each");
}

/// The address of a bootloader's admin socket.
fn admin(boot: &Boot) -> UnixAddr {
    use std::os::unix::fs::MetadataExt;
    let namespace = std::fs::metadata("/proc/self/ns/pid").unwrap().ino();
    UnixAddr::from_abstract_name(format!("baton-boot/{namespace}/{}", boot.pid())).unwrap()
}

#[test]
fn f35_the_admin_socket_outlives_garbage_floods_descriptors_and_strangers() {
    let (_folder, boot, _) = serving("50ms");
    let before = descriptors(boot.pid());
    let connect = || UnixStream::connect_addr(&admin(&boot)).unwrap();
    for garbage in [&b"\n"[..], b"\xff\xfe\n", b"status\0\n", b"logs -1\n", &[b'x'; 64]] {
        let mut client = connect();
        client.write_all(garbage).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("{\"error\":\"not understood"), "{answer}");
    }
    // Descriptors that nobody asked for are closed.
    let client = connect();
    let stdin = std::io::stdin();
    let many = [stdin.as_fd(); 50];
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(50))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
    sendmsg(&client, &[std::io::IoSlice::new(b"sta")], &mut control, SendFlags::empty()).unwrap();
    // Many who say nothing, and one who does.
    let silent: Vec<UnixStream> = (0..300).map(|_| connect()).collect();
    let ask = |command: &mut std::process::Command| {
        let answer = command.args(["status", &boot.pid().to_string()]).output().unwrap();
        (answer.status.success(), String::from_utf8(answer.stderr).unwrap())
    };
    assert_eq!(ask(&mut std::process::Command::new(binary("baton-boot"))), (true, String::new()));
    drop((client, silent));
    wait_for("the descriptors", || (descriptors(boot.pid()) <= before).then_some(()));
    assert!(boot.stop().success());
}

#[test]
fn f35_another_user_is_refused_by_the_admin_socket() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can become another user");
        return;
    }
    let (folder, boot, _) = serving("50ms");
    // The folder of the build may be closed to others.
    let reachable = folder.path().join("baton-boot");
    std::fs::copy(binary("baton-boot"), &reachable).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let answer = std::process::Command::new("setpriv")
        .args(["--reuid=54321", "--regid=54321", "--clear-groups", "--"])
        .arg(&reachable)
        .args(["status", &boot.pid().to_string()])
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8(answer.stderr).unwrap();
    assert!(text.contains("only root and the user that baton-boot runs as may ask"), "{text}");
    assert!(boot.stop().success());
}

/// Becomes somebody else, connects so often to what it is given, and says when it has.
const SILENT: &str = r#"
import os, socket, sys
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
clients = [socket.socket(socket.AF_UNIX) for _ in range(1000)]
for client in clients:
    client.connect("\0" + sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
"#;

#[test]
fn f35_a_thousand_silent_strangers_at_the_admin_socket_take_no_descriptors_from_the_program() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can become another user");
        return;
    }
    let (folder, address) = example("50ms");
    let boot = Boot::start_under(&["prlimit", "--nofile=300:300"], &folder, &[]);
    boot.wait_for(" serves, ", 1);
    let before = descriptors(boot.pid());
    let name = admin(&boot).as_abstract_name().map(|name| String::from_utf8(name.to_vec()).unwrap());
    let mut strangers = std::process::Command::new("prlimit")
        .args(["--nofile=2000:2000", "python3", "-c", SILENT, &name.unwrap()])
        .current_dir("/")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 10];
    strangers.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    // It comes after all of them.
    let mut status = std::process::Command::new(binary("baton-boot"));
    assert!(status.args(["status", &boot.pid().to_string()]).output().unwrap().status.success());
    let open = descriptors(boot.pid());
    assert!(open < before + 30, "{before} descriptors before, {open} with the strangers");
    boot.signal(Signal::HUP);
    boot.wait_for("(image) is proven", 2);
    assert!(Client::connect(address).unwrap().get("/").is_some());
    drop(strangers.stdin.take());
    strangers.wait().unwrap();
    assert!(boot.stop().success());
}

#[test]
fn f36_a_download_that_outlasts_the_drain_is_cut_at_its_limit_and_nobody_else() {
    let (folder, address) = example("50ms");
    folder.change("baton.toml", "drain   = \"10s\"", "drain = \"1s\"");
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    let mut download = TcpStream::connect(address).unwrap();
    download.write_all(b"GET /stream?ms=600000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut head = [0; 15];
    download.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let load = Load::start(plan(address));
    boot.signal(Signal::HUP);
    boot.wait_for("generation 1 is gone: killed by SIGKILL after ", 1);
    assert_nothing_lost(&load.stop());
    // It has begun, and has no end.
    let mut rest = Vec::new();
    let _ = download.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    assert_eq!(generation(address), "2");
    assert!(boot.stop().success());
}
