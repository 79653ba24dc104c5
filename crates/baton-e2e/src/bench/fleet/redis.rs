//! What Redis does with the same notice: one PUBLISH to as many subscribers, each with a connection of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::wait::until;
use crate::bench::moments;
use crate::bench::release::server::Server;
use crate::ports::free_address;

const CHANNEL: &str = "notice";
/// As long as a wish is on the wire.
const NOTICE_BYTES: usize = 120;
/// Of the 20,000 descriptors that a process commonly may have.
const CLIENTS_MAX: &str = "18000";

/// A Redis of its own, that keeps nothing.
pub struct Redis {
    _server: Server,
    address: SocketAddr,
}

impl Redis {
    /// Starts it in this folder.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let address = free_address();
        let mut command = Command::new("redis-server");
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "no", "--maxclients", CLIENTS_MAX, "--dir"]).arg(folder);
        Ok(Self { _server: Server::start(&mut command, address)?, address })
    }

    /// As `baton server --state` wants it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

/// Subscribers that live until this is dropped.
pub struct Subscribers {
    heard: Arc<Heard>,
    count: usize,
    publisher: std::net::TcpStream,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Heard {
    subscribed: AtomicUsize,
    notices: AtomicUsize,
    last: AtomicU64,
}

impl Subscribers {
    /// So many, each subscribed.
    ///
    /// # Errors
    /// When they cannot connect.
    pub fn start(redis: &Redis, count: usize) -> anyhow::Result<Self> {
        let heard = Arc::new(Heard::default());
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (heard, address) = (Arc::clone(&heard), redis.address);
            tasks.spawn(async move {
                // One that is missing is found by those who count.
                let _ = listen(address, &heard).await;
            });
        }
        until("the subscribers are there", || Ok(heard.subscribed.load(Ordering::Relaxed) == count))?;
        let publisher = std::net::TcpStream::connect(redis.address)?;
        publisher.set_nodelay(true)?;
        Ok(Self { heard, count, publisher, _tasks: tasks })
    }

    /// Milliseconds from one PUBLISH until the last subscriber has heard of it.
    ///
    /// # Errors
    /// When somebody does not hear of it.
    pub fn publish(&mut self) -> anyhow::Result<f64> {
        use std::io::{Read, Write};
        self.heard.notices.store(0, Ordering::Relaxed);
        let notice = "x".repeat(NOTICE_BYTES);
        let command = command(&["PUBLISH", CHANNEL, &notice]);
        let begun = moments::now();
        self.publisher.write_all(command.as_bytes())?;
        let mut answer = [0; 32];
        let read = self.publisher.read(&mut answer)?;
        let answer = std::str::from_utf8(&answer[..read])?;
        let told: usize = answer.trim().strip_prefix(':').context("no number")?.parse()?;
        ensure!(told == self.count, "Redis told {told} of {} subscribers", self.count);
        until("all have heard", || Ok(self.heard.notices.load(Ordering::Relaxed) == self.count))?;
        Ok(moments::ms_between(begun, self.heard.last.load(Ordering::Relaxed)))
    }
}

fn command(words: &[&str]) -> String {
    let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{words}", words.matches('$').count())
}

async fn listen(address: SocketAddr, heard: &Heard) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(command(&["SUBSCRIBE", CHANNEL]).as_bytes()).await?;
    // Answers and notices are short, and what comes is one of them: nothing is said before the last was heard.
    let mut buffer = [0; 512];
    ensure!(stream.read(&mut buffer).await? > 0, "not subscribed");
    heard.subscribed.fetch_add(1, Ordering::Relaxed);
    while stream.read(&mut buffer).await? > 0 {
        heard.last.fetch_max(moments::now(), Ordering::Relaxed);
        heard.notices.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_as_redis_reads_them() {
        assert_eq!(command(&["SUBSCRIBE", "notice"]), "*2\r\n$9\r\nSUBSCRIBE\r\n$6\r\nnotice\r\n");
    }
}
