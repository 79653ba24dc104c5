//! Asking a generation how it is.

mod exec;
mod grpc;
mod http;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use baton_core::run::{Address, Probe};
use baton_core::units::Millis;
use baton_core::words::Words;
use baton_sys::socket;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

pub use self::exec::{Check, Surroundings};
use crate::listener::Way;
use crate::log;
use crate::stream::Stream;

/// How much of an answer is read. A health page is short.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How often a queue is looked at while a connection waits in it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What was wrong, in words for people.
type Finding = Result<(), String>;

/// One question to one generation.
#[derive(Debug)]
pub enum Question {
    /// Something that is asked over a connection.
    Connect {
        /// What is asked.
        probe: Probe,
        /// How it is reached.
        way: Way,
    },
    /// A command that was started, and is waited for.
    Run(Check),
}

/// Asks, and tells what was wrong with the answer, or with there being none in time.
pub async fn ask(question: Question, timeout: Millis) -> Result<(), Words> {
    let limit = Duration::from_millis(timeout.0);
    let silent = match &question {
        Question::Connect { probe: Probe::Http(http), .. } => format!("GET {}: no answer within", http.path),
        Question::Connect { .. } => "no answer within".to_owned(),
        Question::Run(check) => format!("{} did not end within", check.program()),
    };
    let found = match tokio::time::timeout(limit, answer(question)).await {
        Ok(found) => found,
        Err(_) => Err(format!("{silent} {timeout}")),
    };
    found.map_err(|why| Words::new(&why))
}

async fn answer(question: Question) -> Finding {
    let (probe, way) = match question {
        Question::Connect { probe, way } => (probe, way),
        Question::Run(check) => return check.ended().await,
    };
    let mut stream = connect(&way).await.map_err(|error| told(&error))?;
    stream.write_all(&way.greeting).await.map_err(|error| told(&error))?;
    match &probe {
        Probe::Http(probe) => http::ask(stream, &authority(&way.to), probe).await,
        Probe::Grpc { service } => grpc::ask(stream, &authority(&way.to), service).await,
        Probe::Tcp => {
            // Where it has its own socket, a connection is all that can be seen.
            for socket in &way.sockets {
                accepted(socket).await?;
            }
            Ok(())
        }
        Probe::Exec { .. } => Err("a command has no listener".to_owned()),
    }
}

async fn connect(way: &Way) -> io::Result<Stream> {
    let Some(to) = way.to.tcp().filter(|_| !way.from.is_empty()) else {
        return Stream::connect(&way.to).await;
    };
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for from in &way.from {
        match connect_from(*from, to).await {
            // Another probe's connection still has this port: for a moment after a fork, the child has it too.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse) =>
            {
                last = error;
            }
            other => return other,
        }
    }
    Err(last)
}

async fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<Stream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseport(true)?;
    // Reset at the end: closed normally, its port could not be used again for a minute.
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    socket.bind(from)?;
    socket.connect(to).await.map(Stream::Tcp)
}

/// How a request names the server that is asked.
fn authority(to: &Address) -> String {
    match to {
        Address::Tcp(address) => address.to_string(),
        // What clients of a Unix socket say, for want of anything else.
        Address::Unix(_) => "localhost".to_owned(),
    }
}

/// A connection to a listening socket always succeeds: only when it has left the queue has a program taken it.
async fn accepted(socket: &OwnedFd) -> Finding {
    while socket::queue(socket.as_fd()).map_err(|error| told(&error))?.waiting > 0 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// An error as people say it: `connection refused`, without numbers.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = log::chain(error);
    let plain = chain.split(" (os error").next().unwrap_or_default();
    let mut letters = plain.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_without_numbers() {
        let refused = io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
        assert_eq!(told(&refused), "connection refused");
    }
}
