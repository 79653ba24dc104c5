//! The bootloader's side of the admin socket.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::follow::{Followers, follow};
use super::{Request, address};
use crate::outlive::{caught, fault, rest};
use crate::output::Outlet;

/// The longest request: two words and a number.
const REQUEST_BYTES_MAX: u64 = 64;
/// How long a client may take to say what it wants, and to take in the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many of those who may ask can be connected and have not asked yet, and how many are answered at a time: each has a
/// descriptor, of which the program's connections need theirs.
const CLIENTS_MAX: usize = 64;
/// The same for everybody else, who only gets to hear why nothing is answered.
const STRANGERS_MAX: usize = 16;
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
    let answers = Answers { asked, outlet, ended, turns: Arc::new(Semaphore::new(CLIENTS_MAX)) };
    tokio::spawn(async move {
        while caught(accept_all(&listener, &answers)).await.is_none() {
            rest().await;
        }
    });
    Ok(followers)
}

async fn accept_all(listener: &UnixListener, answers: &Answers) {
    let (mut clients, mut strangers) = (Silent::default(), Silent::default());
    loop {
        fault("admin");
        match listener.accept().await {
            Ok((client, _)) => match may_ask(&client) {
                // One that goes away early only loses its own answer.
                Ok(true) => {
                    let reading = tokio::spawn(take(client, answers.clone()));
                    clients.add(reading.abort_handle(), CLIENTS_MAX);
                }
                Ok(false) => {
                    strangers.add(tokio::spawn(turn_away(client)).abort_handle(), STRANGERS_MAX);
                }
                Err(_) => {}
            },
            Err(_) => tokio::time::sleep(NO_DESCRIPTORS).await,
        }
    }
}

/// Connections whose request has not come yet.
#[derive(Default)]
struct Silent(VecDeque<AbortHandle>);

impl Silent {
    /// One more; where they are too many, the one that has said nothing for the longest time is closed.
    fn add(&mut self, reading: AbortHandle, most: usize) {
        self.0.retain(|reading| !reading.is_finished());
        if self.0.len() >= most {
            self.0.pop_front().inspect(AbortHandle::abort);
        }
        self.0.push_back(reading);
    }
}

/// What it takes to answer.
#[derive(Clone)]
struct Answers {
    asked: mpsc::UnboundedSender<Asked>,
    outlet: Outlet,
    ended: watch::Receiver<()>,
    turns: Arc<Semaphore>,
}

/// Tells somebody who may not ask that they may not.
async fn turn_away(mut client: UnixStream) {
    // Read in any case: who is still writing when we close hears nothing of the answer.
    request(&mut client).await;
    say(&mut client, &refused("only root and the user that baton-boot runs as may ask; use sudo")).await;
}

/// Takes the request of somebody who may ask; from then on it is not silent any more.
async fn take(mut client: UnixStream, answers: Answers) {
    let request = request(&mut client).await;
    match (request, answers.turns.clone().try_acquire_owned()) {
        (Some(request), Ok(turn)) => drop(tokio::spawn(async move {
            answer(request, client, answers).await;
            drop(turn);
        })),
        (Some(_), Err(_)) => {
            let why = format!("{CLIENTS_MAX} others are being answered; end one, such as baton-boot logs -f");
            say(&mut client, &refused(&why)).await;
        }
        (None, _) => {
            let why = "not understood: send \"status\", \"reload\" or \"logs NUMBER\" and a newline";
            say(&mut client, &refused(why)).await;
        }
    }
}

async fn answer(request: Request, mut client: UnixStream, Answers { asked, outlet, ended, .. }: Answers) {
    if let Request::Logs { lines, follow: true } = request {
        // Who goes away has seen enough.
        let _ = follow(&mut client, &outlet, lines, ended).await;
        return;
    }
    // Only those that follow are waited for at the end.
    drop(ended);
    let answer = answer_to(request, &asked).await;
    say(&mut client, &answer).await;
}

/// Says one document, to whoever is still there.
async fn say(client: &mut UnixStream, answer: &serde_json::Value) {
    let text = format!("{answer}\n");
    let _ = tokio::time::timeout(PATIENCE, client.write_all(text.as_bytes())).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn f35_of_too_many_who_say_nothing_the_oldest_are_closed_and_those_who_have_asked_do_not_count() {
        let mut silent = Silent::default();
        let asked = tokio::spawn(async {});
        let handle = asked.abort_handle();
        asked.await.unwrap();
        silent.add(handle, 3);
        let mut reading = Vec::new();
        for _ in 0..5 {
            let one = tokio::spawn(pending::<()>());
            silent.add(one.abort_handle(), 3);
            reading.push(one);
        }
        let left = reading.split_off(2);
        for closed in reading {
            assert!(closed.await.unwrap_err().is_cancelled());
        }
        assert!(left.iter().all(|one| !one.is_finished()) && left.len() == 3);
    }
}
