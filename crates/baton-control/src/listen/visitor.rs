//! One connection: how long it may say nothing, and when it counts as lost.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::doorstep::Place;

/// How long somebody may be connected without having shown who it is.
const STRANGER_MAX: Duration = Duration::from_secs(10);
/// A session is given up on which something was sent that the other end does not take for so long: what a member is told is a few
/// hundred bytes. Downloads have no such limit, since whoever writes to a slow disk takes nothing for a while.
const SESSION_UNTAKEN_MAX: Duration = Duration::from_secs(4);

type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// What is known of a connection, for those who look at its requests.
#[derive(Debug)]
pub(crate) struct Visit {
    /// None once somebody has shown who it is.
    place: Mutex<Option<Place>>,
    stranger: AtomicBool,
    session: AtomicBool,
}

impl Visit {
    /// Somebody who may ask something has asked on this connection.
    pub(crate) fn is_known(&self) {
        if self.stranger.swap(false, Ordering::Relaxed) {
            self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// The connection is that of a member's session.
    pub(crate) fn is_session(&self) {
        self.session.store(true, Ordering::Relaxed);
    }
}

/// A connection.
pub(crate) struct Visitor {
    stream: Stream,
    visit: Arc<Visit>,
    /// Until when somebody must have shown who it is; none once it was shown.
    limit: Option<Pin<Box<Sleep>>>,
    /// Whether it is watched as a session is.
    watched: bool,
}

impl Visitor {
    pub(super) fn new(stream: Stream, place: Place) -> Self {
        Self::limited(stream, place, STRANGER_MAX)
    }

    fn limited(stream: Stream, place: Place, limit: Duration) -> Self {
        let (place, stranger, session) =
            (Mutex::new(Some(place)), AtomicBool::new(true), AtomicBool::new(false));
        let visit = Arc::new(Visit { place, stranger, session });
        Self { stream, visit, limit: Some(Box::pin(sleep(limit))), watched: false }
    }

    pub(super) fn visit(&self) -> Arc<Visit> {
        Arc::clone(&self.visit)
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Either::Left(stream) => stream,
            Either::Right(stream) => stream.get_ref().0,
        }
    }

    /// Looks at what has become known, and at the time.
    fn look(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.watched && self.visit.session.load(Ordering::Relaxed) {
            self.watched = true;
            let limit = u32::try_from(SESSION_UNTAKEN_MAX.as_millis()).unwrap_or(u32::MAX);
            // A connection that cannot do that is one all the same.
            let _ = sockopt::set_tcp_user_timeout(self.tcp(), limit);
        }
        if let Some(limit) = &mut self.limit {
            if !self.visit.stranger.load(Ordering::Relaxed) {
                self.limit = None;
            } else if limit.as_mut().poll(context).is_ready() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.look(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.look(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.look(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::doorstep::Doorstep;
    use super::*;

    /// A connection that was just made, and its other end.
    async fn visitor(limit: Duration) -> (Visitor, TcpStream, Arc<Doorstep>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let doorstep = Arc::new(Doorstep::default());
        let place = doorstep.enter(IpAddr::from([10, 0, 0, 1])).unwrap();
        (Visitor::limited(Either::Left(stream), place, limit), other, doorstep)
    }

    #[tokio::test]
    async fn f53_a_member_that_does_not_take_what_it_is_told_is_gone_within_5_s() {
        let (mut visitor, _other, _) = visitor(STRANGER_MAX).await;
        assert_eq!(sockopt::tcp_user_timeout(visitor.tcp()), Ok(0), "a download may stand still");
        visitor.visit().is_session();
        visitor.write_all(b"an order").await.unwrap();
        assert!(matches!(sockopt::tcp_user_timeout(visitor.tcp()), Ok(1..=5000)));
    }

    #[tokio::test]
    async fn f58_who_does_not_show_who_it_is_is_sent_away_and_who_does_stays() {
        let (mut silent, _other, _) = visitor(Duration::ZERO).await;
        assert_eq!(silent.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (mut known, mut other, doorstep) = visitor(Duration::ZERO).await;
        assert!(!doorstep.is_empty());
        known.visit().is_known();
        assert!(doorstep.is_empty(), "there is room for the next one");
        other.write_all(b"x").await.unwrap();
        assert_eq!(known.read_u8().await.unwrap(), b'x');
    }
}
