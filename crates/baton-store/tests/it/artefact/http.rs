//! A small server that offers a store as the remote one expects it: a thread for each connection, which is kept.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use baton_core::release::grant::{Grant, GrantedPack};
use baton_release::manifest;
use baton_release::remote::{Remote, status};
use baton_release::store::{Custody, Granted, Kind, StoreError};

/// How long what is granted here may be read.
const TTL: Duration = Duration::from_secs(60);

/// Serves a store at this address until the test program ends.
pub struct Server {
    address: SocketAddr,
}

impl Server {
    pub fn start(store: Arc<dyn Custody>) -> Self {
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

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn remote(&self) -> Remote {
        Remote::new(&format!("http://{}", self.address))
    }
}

fn serve(store: &dyn Custody, mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = read_message(&mut reader)? {
        let range = head.iter().find_map(|line| line.strip_prefix("range: bytes="));
        let (status, body) = match answer(store, &head[0], range, &body) {
            Ok(body) if range.is_some() => (206, body),
            Ok(body) => (200, body),
            Err(error) => (status(error.kind), error.to_string().into_bytes()),
        };
        let said = range.map(|range| format!("Content-Range: bytes {range}/*\r\n")).unwrap_or_default();
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{said}\r\n", body.len())?;
        stream.write_all(&body)?;
        if head.iter().any(|line| line == "connection: close") {
            break;
        }
    }
    Ok(())
}

/// A request, or an answer: its lines, of which all but the first are in small letters, and its body.
pub fn read_message(reader: &mut impl BufRead) -> io::Result<Option<(Vec<String>, Vec<u8>)>> {
    let mut head: Vec<String> = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            first if head.is_empty() => head.push(first.to_owned()),
            line => {
                let (name, value) = line.split_once(':').unwrap();
                head.push(format!("{}: {}", name.to_ascii_lowercase(), value.trim()));
            }
        }
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

fn answer(
    store: &dyn Custody,
    request: &str,
    range: Option<&str>,
    body: &[u8],
) -> Result<Vec<u8>, StoreError> {
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
        ("POST", ["chunks", "grant"]) => {
            let ids: Vec<_> = text.lines().map(|id| id.parse().unwrap()).collect();
            let pack = |Granted { pack, url, frames }| {
                let url = url.unwrap_or_else(|| format!("/v1/packs/{pack}"));
                GrantedPack { id: pack, url, frames }
            };
            let packs = store.grant(&ids, TTL)?.into_iter().map(pack).collect();
            Ok(Grant { packs }.to_text().into_bytes())
        }
        ("GET", ["packs", id]) => {
            let (start, end) = range.unwrap().split_once('-').unwrap();
            store.read(id.parse().unwrap(), start.parse().unwrap()..end.parse::<u64>().unwrap() + 1)
        }
        ("PUT", ["packs", _]) => store.put(body).map(|()| Vec::new()),
        ("PUT", ["releases", id, "outline"]) => store.publish(id.parse().unwrap(), body).map(|()| Vec::new()),
        ("GET", ["releases", id, "outline"]) => store.outline(id.parse().unwrap()),
        ("PUT", ["releases", id, "approvals"]) => store.sign(id.parse().unwrap(), &text).map(|()| Vec::new()),
        ("GET", ["releases", id, "approvals"]) => {
            Ok(store.approvals(id.parse().unwrap())?.concat().into_bytes())
        }
        ("POST", ["releases", id, "outline"]) => {
            let here: Vec<_> = text.lines().map(|id| id.parse().unwrap()).collect();
            let (outline, parts) = manifest::since(id.parse().unwrap(), &here, store)?;
            Ok([format!("{}\n", outline.len()).into_bytes(), outline, parts].concat())
        }
        ("GET", ["manifests"]) => Ok(lines(&store.list()?)),
        _ => Err(StoreError::new(Kind::Missing, format!("answer {request}"))),
    }
}

fn lines(ids: &[impl ToString]) -> Vec<u8> {
    ids.iter().map(|id| id.to_string() + "\n").collect::<String>().into_bytes()
}
