//! The network of a chaotic fleet: a namespace for each host, joined by a bridge, and what is broken between them.
//!
//! All of it is in a network namespace that ends with the process ([`crate::sandbox`]), so nothing is to be put back on
//! the machine.

use std::fmt;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

/// The first port of control; each server has one of its own, so that it is known by it on loopback too.
const CONTROL_PORT: u16 = 7400;
/// What a slow server can send: little enough for a release to queue up, and heartbeats late.
const SLOW: [&str; 6] = ["rate", "256kbit", "burst", "4kb", "latency", "2s"];
/// Which part of the packets is lost where some are.
const LOST: &str = "0.2";

/// A host: a network namespace with an address on the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// A server of control.
    Server(usize),
    /// A node of Redis.
    Redis(usize),
    /// The Sentinel that watches them.
    Sentinel,
    /// The artefact store.
    Store,
    /// A member.
    Member(usize),
}

impl Host {
    /// Its address.
    pub fn address(self) -> Ipv4Addr {
        let [net, number] = match self {
            Self::Server(number) => [1, number + 1],
            Self::Redis(number) => [2, number + 1],
            Self::Sentinel => [2, 100],
            Self::Store => [3, 1],
            Self::Member(number) => [4, number + 1],
        };
        Ipv4Addr::new(10, 99, u8::try_from(net).unwrap_or(0), u8::try_from(number).unwrap_or(0))
    }

    /// A command that runs there.
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{self}")).arg(program);
        command
    }

    /// Runs something there to its end.
    fn run(self, words: &[&str]) -> anyhow::Result<()> {
        let (program, words) = words.split_first().context("no command")?;
        run(self.command(Path::new(program)).args(words))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(number) => write!(f, "server-{number}"),
            Self::Redis(number) => write!(f, "redis-{number}"),
            Self::Sentinel => f.write_str("sentinel"),
            Self::Store => f.write_str("store"),
            Self::Member(number) => write!(f, "web-{number}"),
        }
    }
}

/// Where a server of control listens and is asked: on loopback, everywhere.
pub fn control(server: usize) -> String {
    format!("127.0.0.1:{}", port(server))
}

fn port(server: usize) -> u16 {
    CONTROL_PORT + u16::try_from(server).unwrap_or(0)
}

/// Makes the bridge, with this process on it, and all hosts. Each reaches the servers at their loopback addresses: they
/// answer to no other name, as nobody shows them who he is.
///
/// # Errors
/// If anything is missing for it.
pub fn build(hosts: &[Host], servers: usize) -> anyhow::Result<()> {
    let mut batch = "link add bridge type bridge\naddr add 10.99.0.1/16 dev bridge\n\
                     link set bridge up\n"
        .to_owned();
    for host in hosts {
        batch += &format!(
            "netns add {host}\nlink add {host} type veth peer name eth0 netns {host}\n\
             link set {host} master bridge up\n"
        );
    }
    ip(&[], &batch)?;
    for host in hosts {
        let address = host.address();
        let batch = format!("link set lo up\naddr add {address}/16 dev eth0\nlink set eth0 up\n");
        ip(&["-n", &host.to_string()], &batch)?;
        host.run(&["sh", "-c", &reach_control(servers, "eth0")])?;
        if let Host::Server(server) = host {
            host.run(&["sh", "-c", &answer_at_loopback(port(*server))])?;
        }
    }
    run(Command::new("sh").args(["-c", &reach_control(servers, "bridge")]))
}

/// What is sent to the servers' loopback addresses goes to their hosts.
fn reach_control(servers: usize, device: &str) -> String {
    let mut script = "set -e; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet\n".to_owned();
    for server in 0..servers {
        let (port, address) = (port(server), Host::Server(server).address());
        script += &format!(
            "iptables -w -t nat -A OUTPUT -p tcp -d 127.0.0.1 --dport {port} -j DNAT --to-destination {address}:{port}\n"
        );
    }
    script + &format!("iptables -w -t nat -A POSTROUTING -s 127.0.0.0/8 -o {device} -j MASQUERADE\n")
}

/// What comes to a server's port goes to its loopback address.
fn answer_at_loopback(port: u16) -> String {
    format!(
        "iptables -w -t nat -A PREROUTING -p tcp --dport {port} -j DNAT --to-destination 127.0.0.1:{port}"
    )
}

fn ip(arguments: &[&str], batch: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip (Debian: iproute2)")?;
    child.stdin.take().context("no standard input")?.write_all(batch.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip: {}\n{batch}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Runs a command to its end.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// What does not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What a host would hear.
    In,
    /// What it would say.
    Out,
}

/// Something that is broken between hosts, and is whole again when it is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Where the rule stands.
    at: Host,
    rule: Vec<String>,
}

impl Cut {
    /// Nothing passes between a host and these others this way.
    pub fn between(at: Host, others: &[Host], way: Way) -> Self {
        Self::rule(at, others, way, &[])
    }

    /// A part of what passes this way is lost.
    pub fn lossy(at: Host, others: &[Host], way: Way) -> Self {
        Self::rule(at, others, way, &["-m", "statistic", "--mode", "random", "--probability", LOST])
    }

    fn rule(at: Host, others: &[Host], way: Way, which: &[&str]) -> Self {
        let addresses: Vec<String> = others.iter().map(|other| other.address().to_string()).collect();
        let addresses = addresses.join(",");
        let (chain, side) = match way {
            Way::In => ("INPUT", "-s"),
            Way::Out => ("OUTPUT", "-d"),
        };
        let words = [&[chain, side, &addresses][..], which, &["-j", "DROP"]].concat();
        Self { at, rule: words.into_iter().map(str::to_owned).collect() }
    }

    /// Breaks it.
    ///
    /// # Errors
    /// If the kernel does not know how.
    pub fn make(&self) -> anyhow::Result<()> {
        self.iptables("-A")
    }

    /// Mends it.
    ///
    /// # Errors
    /// If it was not broken.
    pub fn mend(&self) -> anyhow::Result<()> {
        self.iptables("-D")
    }

    fn iptables(&self, what: &str) -> anyhow::Result<()> {
        let rule: Vec<&str> = self.rule.iter().map(String::as_str).collect();
        self.at.run(&[&["iptables", "-w", what], &rule[..]].concat())
    }
}

/// From now on a host sends slowly, or as fast as it can again.
///
/// # Errors
/// If the kernel does not know how.
pub fn slow(host: Host, slow: bool) -> anyhow::Result<()> {
    let name = host.to_string();
    let words = ["-n", &name, "qdisc", if slow { "add" } else { "del" }, "dev", "eth0", "root"];
    let mut command = Command::new("tc");
    command.args(words);
    if slow {
        command.arg("tbf").args(SLOW);
    }
    run(&mut command)
}
