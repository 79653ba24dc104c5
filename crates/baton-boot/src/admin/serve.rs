//! The bootloader's side of the admin socket.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::follow::{Followers, follow};
use super::{Request, address};
use crate::output::Outlet;

/// The longest request: two words and a number.
const REQUEST_BYTES_MAX: u64 = 64;
/// How long a client may take to say what it wants, and to take in the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// When no descriptor is free, how long until one may be.
const NO_DESCRIPTORS: Duration = Duration::from_millis(100);

/// A request, and where its answer goes: one JSON document.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// The answer.
    pub answer: oneshot::Sender<serde_json::Value>,
}

/// Takes requests for as long as the member lives.
///
/// # Errors
/// When the socket cannot be had.
pub fn serve(asked: mpsc::UnboundedSender<Asked>, outlet: Outlet) -> io::Result<Followers> {
    let (followers, ended) = Followers::none();
    let listener = StdListener::bind_addr(&address(std::process::id())?)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                // One that goes away early only loses its own answer.
                Ok((client, _)) => {
                    drop(tokio::spawn(answer(client, asked.clone(), outlet.clone(), ended.clone())));
                }
                Err(_) => tokio::time::sleep(NO_DESCRIPTORS).await,
            }
        }
    });
    Ok(followers)
}

async fn answer(
    mut client: UnixStream,
    asked: mpsc::UnboundedSender<Asked>,
    outlet: Outlet,
    ended: watch::Receiver<()>,
) -> io::Result<()> {
    let may_ask = may_ask(&client)?;
    // Read in any case: who is still writing when we close hears nothing of the answer.
    let answer = match request(&mut client).await {
        _ if !may_ask => refused("only root and the user that baton-boot runs as may ask; use sudo"),
        Some(Request::Logs { lines, follow: true }) => {
            return follow(&mut client, &outlet, lines, ended).await;
        }
        Some(request) => {
            // Only those that follow are waited for at the end.
            drop(ended);
            answer_to(request, &asked).await
        }
        None => refused("not understood: send \"status\", \"reload\" or \"logs NUMBER\" and a newline"),
    };
    let text = format!("{answer}\n");
    tokio::time::timeout(PATIENCE, client.write_all(text.as_bytes())).await?
}

/// What is asked, if it can be understood.
async fn request(client: &mut UnixStream) -> Option<Request> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(client.take(REQUEST_BYTES_MAX));
    let read = tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await;
    Request::read(&line).filter(|_| matches!(read, Ok(Ok(_))))
}

async fn answer_to(request: Request, asked: &mpsc::UnboundedSender<Asked>) -> serde_json::Value {
    let (answer, answered) = oneshot::channel();
    // The loop may end before it answers.
    let _ = asked.send(Asked { request, answer });
    answered.await.unwrap_or_else(|_| refused("the bootloader is ending"))
}

fn refused(why: &str) -> serde_json::Value {
    serde_json::json!({ "error": why })
}

fn may_ask(client: &UnixStream) -> io::Result<bool> {
    let uid = client.peer_cred()?.uid();
    Ok(uid == 0 || uid == rustix::process::geteuid().as_raw())
}
