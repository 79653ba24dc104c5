//! What Redis does with the same notice: one PUBLISH to as many subscribers, each with a connection of its own.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::select;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::bench::moments;
use crate::bench::release::server::Server;
use crate::ports::free_address;

/// What the process of the subscribers is called with: an address, and how many.
pub const SUBSCRIBE: &str = "subscribe";
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

/// Subscribers, in a process of their own: with as many members, one process would have too many descriptors.
pub struct Subscribers {
    process: Child,
    heard: Lines<BufReader<ChildStdout>>,
    count: usize,
    publisher: TcpStream,
}

impl Subscribers {
    /// So many, each subscribed.
    ///
    /// # Errors
    /// When they cannot connect.
    pub fn start(redis: &Redis, count: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([SUBSCRIBE, &redis.address.to_string(), &count.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot start the subscribers")?;
        let heard = BufReader::new(process.stdout.take().context("no output")?).lines();
        let publisher = TcpStream::connect(redis.address)?;
        publisher.set_nodelay(true)?;
        let mut subscribers = Self { process, heard, count, publisher };
        subscribers.last()?;
        Ok(subscribers)
    }

    /// Milliseconds from one PUBLISH until the last subscriber has heard of it.
    ///
    /// # Errors
    /// When somebody does not hear of it.
    pub fn publish(&mut self) -> anyhow::Result<f64> {
        let notice = "x".repeat(NOTICE_BYTES);
        let command = command(&["PUBLISH", CHANNEL, &notice]);
        let begun = moments::now();
        self.publisher.write_all(command.as_bytes())?;
        let mut answer = [0; 32];
        let read = self.publisher.read(&mut answer)?;
        let answer = std::str::from_utf8(&answer[..read])?;
        let told: usize = answer.trim().strip_prefix(':').context("no number")?.parse()?;
        ensure!(told == self.count, "Redis told {told} of {} subscribers", self.count);
        Ok(moments::ms_between(begun, self.last()?))
    }

    /// Waits until every subscriber was answered, and tells when the last one was.
    fn last(&mut self) -> anyhow::Result<u64> {
        let line = self.heard.next().context("the subscribers have ended")??;
        line.parse().with_context(|| format!("a subscriber says {line:?}"))
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the process of the subscribers does: it writes a line, when the last was answered, each time that all of them were: first
/// when they have subscribed, then for each notice.
///
/// # Errors
/// When one cannot connect, or Redis has ended.
pub fn subscribe(address: SocketAddr, count: usize) -> anyhow::Result<()> {
    Runtime::new()?.block_on(async {
        let (answered, mut answers) = unbounded_channel();
        let mut clients = JoinSet::new();
        for _ in 0..count {
            clients.spawn(listen(address, answered.clone()));
        }
        let (mut all, mut last) = (0, 0);
        loop {
            select! {
                ended = clients.join_next() => return ended.context("there are no subscribers")??,
                Some(moment) = answers.recv() => (all, last) = (all + 1, moment.max(last)),
            }
            if all == count {
                println!("{last}");
                (all, last) = (0, 0);
            }
        }
    })
}

fn command(words: &[&str]) -> String {
    let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{words}", words.matches('$').count())
}

async fn listen(address: SocketAddr, answered: UnboundedSender<u64>) -> anyhow::Result<()> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(command(&["SUBSCRIBE", CHANNEL]).as_bytes()).await?;
    // Answers and notices are short, and what comes is one of them: nothing is said before the last was heard.
    let mut buffer = [0; 512];
    loop {
        ensure!(stream.read(&mut buffer).await? > 0, "Redis has ended");
        answered.send(moments::now())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_as_redis_reads_them() {
        assert_eq!(command(&["SUBSCRIBE", "notice"]), "*2\r\n$9\r\nSUBSCRIBE\r\n$6\r\nnotice\r\n");
    }
}
