//! A server in front of another one that does to some answers what networks and servers do to them.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::http::read_message;

/// What becomes of a request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Pass,
    /// Never asked: this status, with what else belongs into the head, and a body.
    Answer(u16, &'static str, &'static str),
    /// Never asked: the connection is closed.
    Close,
    /// Asked, and the answer is lost.
    Lose,
    /// The second half of the body is lost.
    Halve,
    /// The second half of the body never comes.
    Stall,
    /// A kilobyte of the body comes in a second.
    Drip,
    /// One bit of the body is another one.
    Flip,
    /// The body goes on, and its length says so.
    Extend,
    /// The body is of another place.
    Swap,
    /// The range that is said is another one.
    Misplace,
}

/// Decides what becomes of a request, from its first line and how many came before it that this was asked for.
type Decide = dyn Fn(&str) -> Act + Send + Sync;

/// Serves until the test program ends.
pub struct Front {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    decide: Arc<Mutex<Box<Decide>>>,
}

impl Front {
    pub fn of(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let decide: Arc<Mutex<Box<Decide>>> = Arc::new(Mutex::new(Box::new(|_: &str| Act::Pass)));
        let (all, now) = (Arc::clone(&asked), Arc::clone(&decide));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, asked, decide) = (stream.unwrap(), Arc::clone(&all), Arc::clone(&now));
                // What breaks here is a failure that somebody asked for.
                thread::spawn(move || drop(serve(server, &stream, &asked, &decide)));
            }
        });
        Self { address, asked, decide }
    }

    /// What becomes of requests from now on.
    pub fn act(&self, decide: impl Fn(&str) -> Act + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Box::new(decide);
        self.asked.lock().unwrap().clear();
    }

    /// The same act for the first so many requests whose first line has this in it.
    pub fn act_on(&self, with: &'static str, times: usize, act: Act) {
        let left = Mutex::new(times);
        self.act(move |line| {
            let mut left = left.lock().unwrap();
            if !line.contains(with) || *left == 0 {
                return Act::Pass;
            }
            *left -= 1;
            act
        });
    }

    /// Each request since: its first line and its range.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(
    server: SocketAddr,
    mut stream: &TcpStream,
    asked: &Mutex<Vec<String>>,
    decide: &Mutex<Box<Decide>>,
) -> io::Result<()> {
    let Some((head, body)) = read_message(&mut BufReader::new(stream))? else { return Ok(()) };
    let range = head.iter().find(|line| line.starts_with("range: ")).cloned().unwrap_or_default();
    let act = decide.lock().unwrap()(&head[0]);
    asked.lock().unwrap().push(format!("{} {range}", head[0]));
    let close = "Connection: close\r\n";
    match act {
        Act::Close => return Ok(()),
        Act::Answer(status, more, body) => {
            let length = body.len();
            return write!(
                stream,
                "HTTP/1.1 {status} X\r\n{close}{more}Content-Length: {length}\r\n\r\n{body}"
            );
        }
        _ => {}
    }
    let mut upstream = TcpStream::connect(server)?;
    let lines = head.iter().filter(|line| !line.starts_with("connection:"));
    let head: String = lines.map(|line| format!("{line}\r\n")).collect();
    upstream.write_all(&[format!("{head}{close}\r\n").as_bytes(), &body].concat())?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len() - 4) + 4;
    let mut body = answer.split_off(end);
    let mut head = String::from_utf8(answer).unwrap();
    match act {
        Act::Pass | Act::Answer(..) | Act::Close => {}
        Act::Lose => return Ok(()),
        Act::Stall => {
            stream.write_all(&[head.as_bytes(), &body[..body.len() / 2]].concat())?;
            // Until the client has had enough.
            return stream.read(&mut [0]).map(drop);
        }
        Act::Drip => {
            stream.write_all(head.as_bytes())?;
            for part in body.chunks(1000) {
                stream.write_all(part)?;
                // Until the client has had enough. What goes by meanwhile is the fault itself.
                stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                if stream.read(&mut [0]).is_ok() {
                    break;
                }
            }
            return Ok(());
        }
        Act::Halve => body.truncate(body.len() / 2),
        Act::Flip => *body.last_mut().unwrap() ^= 1,
        Act::Extend => {
            let (before, after) =
                (format!("ength: {}\r", body.len()), format!("ength: {}\r", body.len() + 7));
            head = head.replace(&before, &after);
            body.extend(b"surplus");
        }
        Act::Swap => body.reverse(),
        Act::Misplace => head = head.replace("bytes ", "bytes 1"),
    }
    stream.write_all(&[head.as_bytes(), &body].concat())
}
