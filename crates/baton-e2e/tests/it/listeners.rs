//! Programs with several listeners, and with one for both families of addresses, across handovers.

use baton_e2e::load::Plan;
use rustix::process::Signal;

use crate::boot::{Boot, Folder, free_address};
use crate::handover::assert_nothing_lost;
use crate::load::Load;

/// The Python example at several listeners: it takes those that `TAKES` names, and binds the addresses in `BINDS`.
const MANY: &str = r#"
import os, signal, socket
import server

def taken():
    names = os.environ["LISTEN_FDNAMES"].split(":")
    for fd, name in enumerate(names, server.LISTEN_FDS_START):
        if name in os.environ["TAKES"].split(","):
            yield socket.socket(fileno=fd)
        else:
            os.close(fd)

def bound():
    for address in filter(None, os.environ["BINDS"].split(",")):
        host, _, port = address.rpartition(":")
        both = host == "[::]"
        family = socket.AF_INET6 if both else socket.AF_INET
        yield socket.create_server((host.strip("[]"), int(port)), family=family, backlog=100, dualstack_ipv6=both)

signals, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.set_wakeup_fd(wake)
signal.signal(signal.SIGTERM, lambda *_: None)
listeners = {listener.fileno(): listener for listener in [*taken(), *bound()]}
for listener in listeners.values():
    listener.setblocking(False)
while signals not in (ready := server.readable([signals, *listeners])):
    for fd in ready:
        server.accept_all(listeners[fd], server.LAST_ACCEPTS_MAX)
for listener in listeners.values():
    server.accept_all(listener, server.LAST_ACCEPTS_MAX)
    listener.close()
server.STOP.request()
"#;

/// Reloads it under load on each of the targets, and accounts for every request. `listen` is what the settings say: a name, an
/// address and a way to hand over.
fn reload_under_load(listen: &[(&str, &str, &str)], takes: &str, binds: &str, targets: &[&str]) {
    let folder = Folder::with_example("python");
    folder.write("many.py", MANY);
    let [takes, binds] = [format!("TAKES={takes}"), format!("BINDS={binds}")];
    let command =
        format!("command = [\"env\", {takes:?}, {binds:?}, \"python3\", \"many.py\"]\ndrain = \"10s\"");
    let listen: Vec<String> = listen
        .iter()
        .map(|(name, address, handover)| {
            format!("[[run.listen]]\nname = {name:?}\naddress = {address:?}\nhandover = {handover:?}\n")
        })
        .collect();
    let rest = "[run.health]\nhttp = \"/health\"\nstartup_timeout = \"10s\"\n[rollout]\nbake = \"50ms\"\n";
    folder.write("baton.toml", &format!("service = \"web\"\n[run]\n{command}\n{}{rest}", listen.concat()));
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" is proven", 1);
    let loads: Vec<(&str, Load)> = targets
        .iter()
        .map(|target| (*target, Load::start(Plan::mixed(vec![target.parse().unwrap()]))))
        .collect();
    for reload in 2..=6 {
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload);
    }
    for (target, load) in loads {
        let report = load.stop();
        assert_nothing_lost(&report);
        assert!(report.sent > 50, "{target}: {report:#?}");
    }
    assert!(boot.stop().success());
}

#[test]
fn p1_p3_a_program_with_two_ports_is_handed_over_at_both_without_loss() {
    let [first, second] = [free_address(), free_address()].map(|address| address.to_string());
    for (handover, takes, binds) in
        [("auto", "", format!("{first},{second}")), ("inherit", "http,admin", String::new())]
    {
        let listen = [("http", &*first, handover), ("admin", &*second, handover)];
        reload_under_load(&listen, takes, &binds, &[&first, &second]);
    }
    // Each in its own way.
    let listen = [("http", &*first, "inherit"), ("admin", &*second, "auto")];
    reload_under_load(&listen, "http", &second, &[&first, &second]);
}

#[test]
fn p1_p3_clients_of_both_families_of_one_listener_are_handed_over_without_loss() {
    let port = free_address().port();
    let address = format!("[::]:{port}");
    let targets = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    for (handover, takes, binds) in [("auto", "", &*address), ("inherit", "http", "")] {
        reload_under_load(
            &[("http", &address, handover)],
            takes,
            binds,
            &targets.each_ref().map(String::as_str),
        );
    }
}

#[test]
fn p1_p3_a_program_with_a_port_and_a_path_is_handed_over_at_both_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (port, path) = (free_address().to_string(), format!("unix:{}/web.sock", folder.path().display()));
    for (handover, takes, binds) in [("auto", "local", &*port), ("inherit", "http,local", "")] {
        let listen = [("http", &*port, handover), ("local", &*path, handover)];
        reload_under_load(&listen, takes, binds, &[&port, &path]);
    }
}
