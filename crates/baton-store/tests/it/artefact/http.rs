//! A small server that offers a store as the remote one expects it: a thread for each connection, which is kept.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use baton_release::remote::{Remote, status};
use baton_release::store::{ArtefactStore, Kind, StoreError};

/// Serves a store at this address until the test program ends.
pub struct Server {
    address: SocketAddr,
}

impl Server {
    pub fn start(store: Arc<dyn ArtefactStore>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (store, stream) = (Arc::clone(&store), stream.unwrap());
                // A connection ends when the client has had enough.
                thread::spawn(move || serve(&*store, &stream));
            }
        });
        Self { address }
    }

    pub fn remote(&self) -> Remote {
        Remote::new(&format!("http://{}", self.address))
    }
}

fn serve(store: &dyn ArtefactStore, mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let length = head
            .iter()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let (status, body) = match answer(store, &head[0], &body) {
            Ok(body) => (200, body),
            Err(error) => (status(error.kind), error.to_string().into_bytes()),
        };
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(&body)?;
    }
}

fn answer(store: &dyn ArtefactStore, request: &str, body: &[u8]) -> Result<Vec<u8>, StoreError> {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> = request.split(' ').collect();
    let parts: Vec<&str> = words[1].split('/').skip(2).collect();
    match (words[0], parts.as_slice()) {
        ("POST", ["chunks", "missing"]) => {
            let ids: Vec<_> = text.lines().map(|id| id.parse().unwrap()).collect();
            Ok(lines(&store.missing(&ids)?))
        }
        ("POST", ["chunks", "pack"]) => {
            let ids: Vec<_> = text.lines().map(|id| id.parse().unwrap()).collect();
            store.get(&ids)
        }
        ("PUT", ["packs", _]) => store.put(body).map(|()| Vec::new()),
        ("PUT", ["releases", id, "outline"]) => store.publish(id.parse().unwrap(), body).map(|()| Vec::new()),
        ("GET", ["releases", id, "outline"]) => store.outline(id.parse().unwrap()),
        ("PUT", ["releases", id, "approvals"]) => store.sign(id.parse().unwrap(), &text).map(|()| Vec::new()),
        ("GET", ["releases", id, "approvals"]) => {
            Ok(store.approvals(id.parse().unwrap())?.concat().into_bytes())
        }
        ("GET", ["manifests"]) => Ok(lines(&store.list()?)),
        _ => Err(StoreError::new(Kind::Missing, format!("answer {request}"))),
    }
}

fn lines(ids: &[impl ToString]) -> Vec<u8> {
    ids.iter().map(|id| id.to_string() + "\n").collect::<String>().into_bytes()
}
