//! The state store: a primary, two replicas, and a Sentinel that promotes one of them.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::guest::{Guest, until};
use super::net::Host;

/// How many nodes there are: with two copies asked for, one may be away.
pub const NODES: usize = 3;
/// The port of every node, and that of the Sentinel.
const PORTS: (u16, u16) = (6379, 26379);

/// The nodes and the Sentinel.
#[derive(Debug)]
pub struct Redis {
    nodes: Vec<Guest>,
    sentinel: Guest,
}

impl Redis {
    /// Starts them, and waits until the Sentinel knows all.
    ///
    /// # Errors
    /// If they do not start.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let server = Path::new("redis-server");
        let (port, sentinel_port) = (PORTS.0.to_string(), PORTS.1.to_string());
        let primary = Host::Redis(0).address().to_string();
        let node = |number: usize| {
            let host = Host::Redis(number);
            let mut arguments =
                vec!["--port", &port, "--protected-mode", "no", "--appendonly", "yes", "--save", ""];
            if number > 0 {
                arguments.extend(["--replicaof", &primary, &port]);
            }
            Guest::start(host, server, &arguments, &[], &folder.join(host.to_string()))
        };
        let nodes = (0..NODES).map(node).collect::<anyhow::Result<Vec<_>>>()?;
        for number in 0..NODES {
            until("Redis to answer", || cli(Host::Redis(number), PORTS.0, &["PING"]).contains("PONG"))?;
        }
        let at = folder.join(Host::Sentinel.to_string());
        std::fs::create_dir_all(&at)?;
        let watch = format!(
            "sentinel monitor main {primary} {port} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 5000\n"
        );
        std::fs::write(at.join("sentinel.conf"), watch)?;
        let arguments = ["sentinel.conf", "--sentinel", "--port", &sentinel_port, "--protected-mode", "no"];
        let redis = Self { nodes, sentinel: Guest::start(Host::Sentinel, server, &arguments, &[], &at)? };
        until("the Sentinel to know the replicas", || redis.replicas() == NODES - 1)?;
        redis.settled()?;
        Ok(redis)
    }

    /// What a server of control is told: two nodes must have what was accepted.
    pub fn address() -> String {
        format!("redis+sentinel://{}:{}/main?copies=2", Host::Sentinel.address(), PORTS.1)
    }

    /// Which node takes writes, as the Sentinel has it.
    ///
    /// # Errors
    /// If it does not know.
    pub fn primary(&self) -> anyhow::Result<usize> {
        let told = cli(Host::Sentinel, PORTS.1, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
        let address = told.lines().next().unwrap_or_default().trim();
        (0..NODES)
            .find(|node| Host::Redis(*node).address().to_string() == address)
            .with_context(|| format!("the Sentinel knows no primary: {told:?}"))
    }

    /// How many replicas the Sentinel finds in order.
    fn replicas(&self) -> usize {
        let told = cli(Host::Sentinel, PORTS.1, &["SENTINEL", "MASTER", "main"]);
        let mut lines = told.lines().skip_while(|line| line.trim() != "num-slaves").skip(1);
        lines.next().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Waits until there is a primary, and every other node follows it.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn settled(&self) -> anyhow::Result<()> {
        until("Redis to have a primary that all others follow", || {
            let connected = |node: usize| {
                let told = cli(Host::Redis(node), PORTS.0, &["INFO", "replication"]);
                told.contains(&format!("connected_slaves:{}", NODES - 1))
            };
            self.primary().is_ok_and(connected)
        })
    }

    /// The process of a node.
    pub fn node(&mut self, node: usize) -> &mut Guest {
        &mut self.nodes[node]
    }

    /// All processes.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Guest> {
        self.nodes.iter_mut().chain([&mut self.sentinel])
    }
}

/// What `redis-cli` prints; nothing if nobody answers.
fn cli(host: Host, port: u16, words: &[&str]) -> String {
    // One that was stopped would never answer.
    let mut command = Command::new("timeout");
    command.args(["2", "redis-cli", "-h", &host.address().to_string(), "-p", &port.to_string()]).args(words);
    command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
