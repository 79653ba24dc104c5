//! The connection below a session, and how it notices that its other end is gone.

use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection on which nothing has come for so long is asked whether it still is one, again after this time, and given up
/// after so many times in vain: within 5 s.
const KEEP_ALIVE: (Duration, Duration, u32) = (Duration::from_secs(2), Duration::from_secs(1), 2);

/// What carries the bytes of a session, encrypted or not.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Carrier for T {}

/// Prepares either end of a connection: what is said is a few bytes, and must not wait for more of them; and an end that is gone is
/// noticed within 5 s, though nothing is sent to it.
pub fn prepare(stream: &TcpStream) {
    let (idle, interval, count) = KEEP_ALIVE;
    // A connection that cannot do that is one all the same.
    drop(stream.set_nodelay(true));
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, idle);
    let _ = sockopt::set_tcp_keepintvl(stream, interval);
    let _ = sockopt::set_tcp_keepcnt(stream, count);
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn f53_an_end_that_is_gone_is_noticed_within_5_s_though_it_is_told_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&stream);
        assert_eq!(sockopt::socket_keepalive(&stream), Ok(true));
        let again = sockopt::tcp_keepintvl(&stream).unwrap() * sockopt::tcp_keepcnt(&stream).unwrap();
        assert!(sockopt::tcp_keepidle(&stream).unwrap() + again <= Duration::from_secs(5));
    }
}
