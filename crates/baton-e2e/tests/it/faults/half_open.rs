//! Connections whose other end is gone without a word, in a network of their own.

use std::process::{Child, Command, Stdio};

use crate::boot::{Folder, binary};
use crate::wait::wait_for;

/// Where control listens in that network.
const PORT: u16 = 7400;
/// `TCP_ESTABLISHED`, as `/proc/net/tcp` has it.
const ESTABLISHED: &str = "01";

/// A network with nothing but loopback, and what runs in it. All ends with the value.
struct Network {
    /// Holds the network; the others are in it.
    processes: Vec<Child>,
}

impl Network {
    fn new() -> Self {
        let mut hold = Command::new("unshare");
        hold.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let network = Self { processes: vec![hold.spawn().unwrap()] };
        wait_for("a network of its own", || {
            let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            (of(&network.holder()) != of("self")).then_some(())
        });
        network.link("up");
        network
    }

    fn holder(&self) -> String {
        self.processes[0].id().to_string()
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder(), "--net", program]).stdin(Stdio::null());
        command
    }

    fn link(&self, state: &str) {
        assert!(self.inside("ip").args(["link", "set", "lo", state]).status().unwrap().success());
    }

    fn start(&mut self, mut command: Command) {
        self.processes.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// How many ends of connections to control are held for good: of control and of its clients.
    fn held(&self) -> (usize, usize) {
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.holder())).unwrap();
        let at = format!(":{PORT:04X}");
        let held = |place: usize| {
            let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
            rows.filter(|row| row[3] == ESTABLISHED && row[place].ends_with(&at)).count()
        };
        (held(1), held(2))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
fn f53_an_end_that_is_gone_without_a_word_is_noticed_by_both_sides() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not run: only root can make a network");
    }
    let (folder, mut network) = (Folder::empty(), Network::new());
    let (control, address) = (folder.path().join("control"), format!("127.0.0.1:{PORT}"));
    let mut server = network.inside(binary("baton").to_str().unwrap());
    server.args(["server", "--dev", "--listen", &address, "--data"]).arg(control);
    network.start(server);
    let mut boot = network.inside(binary("baton-boot").to_str().unwrap());
    boot.env("BATON_SERVER", format!("http://{address}")).env("BATON_SERVICE", "worker");
    boot.env("BATON_MEMBER", "worker-1").env("BATON_STATE_DIR", folder.path().join("member"));
    network.start(boot);
    wait_for("a session", || (network.held() == (1, 1)).then_some(()));
    // Nothing that either says arrives, and nobody is told so. Without asking, the one end would be held for ever, and the other
    // for the quarter of an hour in which the kernel says again what was not taken.
    network.link("down");
    wait_for("both ends to be given up", || (network.held() == (0, 0)).then_some(()));
    network.link("up");
    wait_for("the next session", || (network.held() == (1, 1)).then_some(()));
}
