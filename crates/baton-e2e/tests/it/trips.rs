//! A server in front of control that tells which questions of a member depend on each other's answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Far longer than members take to ask for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// Serves until the test program ends.
pub struct Trips {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

/// What was asked for.
struct Seen {
    /// What is answered not before all of it was asked for: parts of paths.
    together: Vec<&'static str>,
    questions: Mutex<Questions>,
    more: Condvar,
}

#[derive(Default)]
struct Questions {
    /// The path of each, and how many answers, one after the other, came before it.
    asked: Vec<(String, usize)>,
    /// The longest row of answers that were given.
    answered: usize,
}

impl Trips {
    /// In front of this server.
    pub fn before(server: SocketAddr, together: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen =
            Arc::new(Seen { together: together.to_vec(), questions: Mutex::default(), more: Condvar::new() });
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&shared);
                // Whoever has gone is not waited for.
                thread::spawn(move || drop(pass(&stream, server, &seen)));
            }
        });
        Self { address, seen }
    }

    /// The questions about releases and their content: the path of each, and how many answers it depends on at the most.
    pub fn asked(&self) -> Vec<(String, usize)> {
        self.seen.questions.lock().unwrap().asked.clone()
    }
}

impl Seen {
    /// Takes note of a question, and returns its place in a row of them.
    fn asked(&self, path: &str) -> usize {
        let mut questions = self.questions.lock().unwrap();
        let depends_on = questions.answered;
        questions.asked.push((path.to_owned(), depends_on));
        self.more.notify_all();
        if self.together.iter().any(|part| path.contains(part)) {
            let lacking = |questions: &mut Questions| {
                let is_asked = |part: &&str| questions.asked.iter().any(|(path, _)| path.contains(part));
                !self.together.iter().all(is_asked)
            };
            drop(self.more.wait_timeout_while(questions, LIMIT, lacking).unwrap());
        }
        depends_on + 1
    }
}

fn pass(client: &TcpStream, server: SocketAddr, seen: &Seen) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Ok(());
        }
    }
    // Control answers to its own address only.
    let head = String::from_utf8_lossy(&head).replace(&client.local_addr()?.to_string(), &server.to_string());
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut upstream, mut answers) = (TcpStream::connect(server)?, client.try_clone()?);
    if head.to_lowercase().contains("upgrade: websocket") {
        upstream.write_all(head.as_bytes())?;
        let mut told = upstream.try_clone()?;
        thread::spawn(move || std::io::copy(&mut told, &mut answers));
        return std::io::copy(&mut reader, &mut upstream).map(drop);
    }
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let counts = ["/v1/releases/", "/v1/chunks/", "/v1/packs/"].iter().any(|start| path.starts_with(start));
    let depth = if counts { seen.asked(&path) } else { 0 };
    // One question for each connection, so that each is seen.
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    upstream.write_all(&[head.as_bytes(), &body].concat())?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    {
        let mut questions = seen.questions.lock().unwrap();
        questions.answered = questions.answered.max(depth);
    }
    answers.write_all(&answer)
}
