//! A small load while a program is reloaded: as many requests as tell whether something is lost, and no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use baton_core::doctor::Traffic;

use super::http::{Answer, Broken, Connection};

/// Clients that keep their connection, and as many that open one for each request.
const CLIENTS: usize = 2;
/// What each rests after an answer: nobody's laptop shall get hot.
const REST: Duration = Duration::from_millis(10);
/// How long an answer may take: a start beside it may take all of the machine.
const LIMIT: Duration = Duration::from_secs(30);
/// From this status on a program says itself that it could not.
const UNABLE: u16 = 500;

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Traffic>>,
}

impl Load {
    /// Starts asking for this path, if it is answered at all as it should be.
    pub fn start(address: SocketAddr, path: &str) -> Option<Self> {
        let usual = first_answer(address, path)?;
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..2 * CLIENTS).map(|number| {
            let (stop, path, keeps) = (stop.clone(), path.to_owned(), number < CLIENTS);
            std::thread::spawn(move || Client { address, path, keeps, usual, kept: None }.run(&stop))
        });
        Some(Self { clients: clients.collect(), stop })
    }

    /// Stops asking, and tells what became of all that was asked.
    pub fn finish(self) -> Traffic {
        self.stop.store(true, Ordering::Relaxed);
        let counted = self.clients.into_iter().filter_map(|client| client.join().ok());
        counted.fold(Traffic::default(), |all, one| Traffic {
            answered: all.answered + one.answered,
            lost: all.lost + one.lost,
            idle_closes: all.idle_closes + one.idle_closes,
            first_lost: all.first_lost.or(one.first_lost),
        })
    }
}

/// The status that a path has while nothing happens; none where it is no answer of HTTP, or a failure already.
fn first_answer(address: SocketAddr, path: &str) -> Option<u16> {
    let mut connection = Connection::open(address, LIMIT).ok()?;
    connection.get(path).ok()?;
    let answer = connection.answer(LIMIT).ok()?;
    (answer.status < UNABLE).then_some(answer.status)
}

struct Client {
    address: SocketAddr,
    path: String,
    keeps: bool,
    usual: u16,
    kept: Option<Connection>,
}

impl Client {
    fn run(mut self, stop: &AtomicBool) -> Traffic {
        let mut traffic = Traffic::default();
        while !stop.load(Ordering::Relaxed) {
            let reused = self.kept.is_some();
            match self.ask() {
                Ok(answer) if answer.status == self.usual || answer.status < UNABLE => traffic.answered += 1,
                // The client cannot know whether it was worked on; it asks again on a new connection.
                Err(Lost::Broken(Broken::Before)) if reused => traffic.idle_closes += 1,
                Ok(answer) => lose(&mut traffic, format!("answered with {}", answer.status)),
                Err(lost) => lose(&mut traffic, lost.to_string()),
            }
            std::thread::park_timeout(REST);
        }
        traffic
    }

    fn ask(&mut self) -> Result<Answer, Lost> {
        let mut connection = match self.kept.take() {
            Some(connection) => connection,
            None => {
                Connection::open(self.address, LIMIT).map_err(|error| Lost::Refused(error.to_string()))?
            }
        };
        // Sent into a connection that has ended: the answer will tell.
        let _ = connection.get(&self.path);
        let answer = connection.answer(LIMIT)?;
        if self.keeps && !answer.closes {
            self.kept = Some(connection);
        }
        Ok(answer)
    }
}

fn lose(traffic: &mut Traffic, how: String) {
    traffic.lost += 1;
    traffic.first_lost.get_or_insert(how);
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("not connected: {0}")]
    Refused(String),
    #[error(transparent)]
    Broken(#[from] Broken),
}
