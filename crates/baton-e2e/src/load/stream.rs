//! A connection over TCP or over a Unix socket.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use super::plan::Target;

/// How often a Unix socket is tried whose queue is full: a client that may block would wait in the kernel.
const FULL: Duration = Duration::from_millis(1);

/// One connection.
pub type Stream = Either<TcpStream, UnixStream>;

/// Connects.
pub async fn connect(target: &Target) -> io::Result<Stream> {
    let Some(path) = target.path() else {
        let stream = TcpStream::connect(target.as_str()).await?;
        // Only a wish: without it, requests in two parts are slower.
        let _ = stream.set_nodelay(true);
        return Ok(Stream::Left(stream));
    };
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(FULL).await,
            connected => return connected.map(Stream::Right),
        }
    }
}

/// Reads what is there.
pub fn try_read(stream: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream {
        Stream::Left(tcp) => tcp.try_read(buffer),
        Stream::Right(unix) => unix.try_read(buffer),
    }
}

/// Waits until there is something to read.
pub async fn readable(stream: &Stream) -> io::Result<()> {
    match stream {
        Stream::Left(tcp) => tcp.readable().await,
        Stream::Right(unix) => unix.readable().await,
    }
}
