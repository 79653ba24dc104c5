//! Connections that the bootloader forwards: when each of them is over, and, as long as a program's answers are on their way,
//! that it must not end.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown, sockopt};
use tokio::time::Instant;

use crate::stream::Stream;

/// How often to look whether the last one has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often to look whether a program that has said all has closed its connection too: at first, since most clients close
/// theirs by then, and later.
const LOOK_WHETHER_CLOSED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How long a client may say nothing to a program that has said all, until it counts as one that has only forgotten to close.
const CLIENT_END: Duration = Duration::from_secs(60);

/// Those of all threads.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// One of them, until the value goes.
#[derive(Debug)]
struct Forwarding(());

impl Forwarding {
    fn begin() -> Self {
        UNDER_WAY.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until no answer is on its way any more.
pub async fn over(limit: Duration) {
    let end = Instant::now() + limit;
    while UNDER_WAY.load(Ordering::SeqCst) > 0 && Instant::now() < end {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Moves what comes from a client `there`, whose amount is `asked`, and the answers `back`, until the connection is over.
///
/// An end of one side is passed on while the other goes on, so that who says no more can still hear all. A program that has
/// said all is waited for while it still listens, and its client while that still says something; a program that waits for
/// nobody decides itself when its connection ends. A reset of one side resets the other.
pub async fn until_over(
    client: &Stream,
    server: &Stream,
    asked: &AtomicU64,
    there: impl Future<Output = io::Result<()>>,
    back: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    // Without it a client is served as well.
    let _ = client.keep_alive();
    let answers = Forwarding::begin();
    let mut there = pin!(async {
        there.await?;
        pass_on_the_end(server)
    });
    let mut back = pin!(async {
        back.await?;
        pass_on_the_end(client)
    });
    let both = async {
        tokio::select! {
            ended = &mut there => {
                ended?;
                tokio::select! {
                    ended = &mut back => ended,
                    lost = client.lost() => lost,
                }
            }
            ended = &mut back => {
                ended?;
                drop(answers);
                tokio::select! {
                    ended = &mut there => ended,
                    () = nobody_listens(server, asked) => Ok(()),
                }
            }
        }
    };
    let moved = both.await;
    if moved.is_err() {
        for side in [client, server] {
            // Closed with this, a connection ends as its other side did.
            let _ = sockopt::set_socket_linger(side, Some(Duration::ZERO));
        }
    }
    moved
}

/// Tells a side that the other one says no more. One that has gone meanwhile needs not be told.
fn pass_on_the_end(to: &Stream) -> io::Result<()> {
    let _ = shutdown(to, Shutdown::Write);
    Ok(())
}

/// Waits until a program that has said all has closed its connection, or its client has said nothing for too long.
async fn nobody_listens(server: &Stream, asked: &AtomicU64) {
    let mut pause = LOOK_WHETHER_CLOSED.0;
    let mut silence = Silence { said: asked.load(Ordering::Relaxed), since: Instant::now() };
    loop {
        tokio::time::sleep(pause).await;
        let silent_for = silence.after(asked.load(Ordering::Relaxed), Instant::now());
        if silent_for >= CLIENT_END || server.is_closed_by_other() {
            return;
        }
        pause = (pause * 2).min(LOOK_WHETHER_CLOSED.1);
    }
}

/// Since when nothing more was said.
struct Silence {
    said: u64,
    since: Instant,
}

impl Silence {
    /// How long nothing was said, when so much has been by now.
    fn after(&mut self, said: u64, now: Instant) -> Duration {
        if said != self.said {
            *self = Self { said, since: now };
        }
        now.duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::io::{Read, Write};
    use std::net::{self, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;
    use crate::copying;

    /// Another's end of a connection.
    trait End: Read + Write + Send + 'static {
        /// Both ends, ours last.
        fn pair() -> (Self, Stream)
        where
            Self: Sized;

        fn says_no_more(&self);

        fn hears_all(&mut self) -> usize {
            let mut heard = Vec::new();
            self.read_to_end(&mut heard).unwrap()
        }
    }

    impl End for TcpStream {
        fn pair() -> (Self, Stream) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let theirs = Self::connect(listener.local_addr().unwrap()).unwrap();
            (theirs, Stream::accepted(listener.accept().unwrap().0.into()).unwrap())
        }

        fn says_no_more(&self) {
            self.shutdown(net::Shutdown::Write).unwrap();
        }
    }

    impl End for UnixStream {
        fn pair() -> (Self, Stream) {
            let (theirs, ours) = Self::pair().unwrap();
            (theirs, Stream::accepted(ours.into()).unwrap())
        }

        fn says_no_more(&self) {
            self.shutdown(net::Shutdown::Write).unwrap();
        }
    }

    /// Forwards between two others, whose parts `play` has, and tells how that ended. What does not end fails.
    fn forwarded<E: End>(play: impl FnOnce(E, E) -> Option<E> + Send + 'static) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ((theirs, client), (program, server)) = (E::pair(), E::pair());
            let played = thread::spawn(move || play(theirs, program));
            let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
            let there = copying::all(&client, &server, &asked, |bytes| Cow::Borrowed(bytes));
            let back = copying::all(&server, &client, &answered, |bytes| Cow::Borrowed(bytes));
            let moved = until_over(&client, &server, &asked, there, back);
            let ended = tokio::time::timeout(CLIENT_END / 2, moved).await.expect("the connection to be over");
            drop((client, server, played.join().unwrap()));
            ended
        })
    }

    const MUCH: usize = 3_000_000;

    fn each_way_to_end<E: End>() {
        // A client that says no more still hears all.
        let half = forwarded(|mut client: E, mut program: E| {
            client.write_all(b"all of it").unwrap();
            client.says_no_more();
            let answering = thread::spawn(move || {
                assert_eq!(program.hears_all(), 9);
                program.write_all(&vec![7; MUCH]).unwrap();
            });
            assert_eq!(client.hears_all(), MUCH);
            answering.join().unwrap();
            None
        });
        half.unwrap();
        // A program that says no more still hears all.
        let half = forwarded(|mut client: E, mut program: E| {
            program.write_all(b"go on").unwrap();
            program.says_no_more();
            assert_eq!(client.hears_all(), 5);
            let asking = thread::spawn(move || client.write_all(&vec![7; MUCH]).unwrap());
            assert_eq!(program.hears_all(), MUCH);
            asking.join().unwrap();
            None
        });
        half.unwrap();
        // A program that has closed hears nothing, whatever its client does.
        let closed = forwarded(|mut client: E, mut program: E| {
            program.write_all(b"bye").unwrap();
            drop(program);
            assert_eq!(client.hears_all(), 3);
            Some(client)
        });
        closed.unwrap();
    }

    #[test]
    fn each_side_hears_all_and_who_has_closed_is_not_waited_for() {
        each_way_to_end::<TcpStream>();
        each_way_to_end::<UnixStream>();
    }

    #[test]
    fn a_client_that_is_lost_after_it_said_all_ends_the_connection_of_a_program_that_says_nothing() {
        let lost = forwarded(|client: TcpStream, mut program: TcpStream| {
            client.says_no_more();
            assert_eq!(program.hears_all(), 0);
            // What it would hear is refused, as by a machine that has started anew.
            sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
            drop(client);
            Some(program)
        });
        assert!(lost.is_err());
    }

    #[test]
    fn silence_begins_with_the_last_that_was_said() {
        let start = Instant::now();
        let mut silence = Silence { said: 7, since: start };
        for (at, said, expected) in
            [(0, 7, 0), (59, 7, 59), (60, 8, 0), (100, 8, 40), (101, 9, 0), (161, 9, 60)]
        {
            let silent = silence.after(said, start + Duration::from_secs(at));
            assert_eq!(silent, Duration::from_secs(expected), "at {at}");
        }
    }
}
