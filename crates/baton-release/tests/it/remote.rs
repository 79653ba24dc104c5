//! The HTTP store against servers that misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

use baton_core::ids::{ChunkId, PackId, ReleaseId};
use baton_core::release::grant::{Grant, GrantedPack};
use baton_release::pack;
use baton_release::remote::{Remote, status};
use baton_release::store::{ArtefactStore, Kind, StoreError};

use crate::sample::chain;

/// Answers one request after the other, each on a connection of its own, with these bytes; then returns the first
/// line and the body of what it was asked.
pub fn listen(answers: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<Vec<(String, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                match line.trim_end() {
                    "" => break,
                    line => lines.push(line.to_ascii_lowercase()),
                }
            }
            let length = lines.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            reader.read_exact(&mut body).unwrap();
            asked.push((lines[0].clone(), String::from_utf8_lossy(&body).into_owned()));
            // The client may have heard enough and gone.
            let _ = stream.write_all(&answer);
        }
        asked
    };
    (address, thread::spawn(serve))
}

/// The same as a store.
fn server(answers: Vec<Vec<u8>>) -> (Remote, JoinHandle<Vec<(String, String)>>) {
    let (address, asked) = listen(answers);
    (Remote::new(&format!("http://{address}/")), asked)
}

pub fn answer(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn chunk() -> ChunkId {
    ChunkId::from_bytes([1; 32])
}

fn release() -> ReleaseId {
    ReleaseId::from_bytes([2; 32])
}

fn failure<T: std::fmt::Debug>(
    answers: Vec<Vec<u8>>,
    ask: impl Fn(&Remote) -> Result<T, StoreError>,
) -> StoreError {
    let (remote, server) = server(answers);
    let error = ask(&remote).unwrap_err();
    server.join().unwrap();
    error
}

#[test]
fn requests_are_as_documented() {
    let (one, two) = (chunk(), release());
    let pack = PackId::of(b"bytes");
    let answers = [
        format!("{one}\n"),
        String::new(),
        "packed".into(),
        String::new(),
        "outline".into(),
        String::new(),
        "baton-approval 1\none\nbaton-approval 1\ntwo\n".into(),
        format!("{two}\n"),
    ];
    let (remote, server) = server(answers.iter().map(|body| answer(200, body.as_bytes())).collect());
    assert_eq!(remote.missing(&[one]).unwrap(), [one]);
    remote.put(b"bytes").unwrap();
    assert_eq!(remote.get_checked(&[one, one]).unwrap(), b"packed");
    remote.publish(two, b"outline").unwrap();
    assert_eq!(remote.outline(two).unwrap(), b"outline");
    remote.sign(two, "approval").unwrap();
    assert_eq!(remote.approvals(two).unwrap(), ["baton-approval 1\none\n", "baton-approval 1\ntwo\n"]);
    assert_eq!(remote.list().unwrap(), [two]);
    let asked = server.join().unwrap();
    let expected = [
        ("post /v1/chunks/missing http/1.1".to_owned(), format!("{one}\n")),
        (format!("put /v1/packs/{pack} http/1.1"), "bytes".to_owned()),
        ("post /v1/chunks/pack http/1.1".to_owned(), format!("{one}\n{one}\n")),
        (format!("put /v1/releases/{two}/outline http/1.1"), "outline".to_owned()),
        (format!("get /v1/releases/{two}/outline http/1.1"), String::new()),
        (format!("put /v1/releases/{two}/approvals http/1.1"), "approval".to_owned()),
        (format!("get /v1/releases/{two}/approvals http/1.1"), String::new()),
        ("get /v1/manifests http/1.1".to_owned(), String::new()),
    ];
    assert_eq!(asked, expected);
}

#[test]
fn chunks_are_read_by_range_where_the_grant_says() {
    let content = b"some content";
    let (id, pack) = (ChunkId::of(content), pack::of(content).unwrap());
    let (index, places) = pack::index(&pack, pack.len() as u64).unwrap();
    let url = "/v1/packs/1?until=2&pass=3".to_owned();
    let frames = vec![(index.frames()[0].clone(), places[0].clone())];
    let grant = Grant { packs: vec![GrantedPack { id: PackId::of(&pack), url, frames }] }.to_text();
    let frame = &pack[places[0].start as usize..];
    let range = format!(
        "HTTP/1.1 206 X\r\nContent-Length: {}\r\nContent-Range: bytes {}-{}/*\r\nConnection: close\r\n\r\n",
        frame.len(),
        places[0].start,
        places[0].end - 1
    );
    let ended = answer(403, b"");
    let answers = vec![
        answer(200, grant.as_bytes()),
        ended.clone(),
        answer(200, grant.as_bytes()),
        [range.as_bytes(), frame].concat(),
        answer(200, grant.as_bytes()),
        ended.clone(),
        answer(200, grant.as_bytes()),
        ended,
        answer(200, &pack),
    ];
    let (remote, server) = server(answers);
    assert_eq!(remote.get(&[id]).unwrap(), pack, "with the second grant");
    assert_eq!(remote.get(&[id]).unwrap(), pack, "through the server");
    let asked: Vec<String> = server.join().unwrap().into_iter().map(|(line, _)| line).collect();
    let (grant, read) = ("post /v1/chunks/grant http/1.1", "get /v1/packs/1?until=2&pass=3 http/1.1");
    let through = "post /v1/chunks/pack http/1.1";
    assert_eq!(asked, [grant, read, grant, read, grant, read, grant, read, through]);
}

#[test]
fn an_outline_comes_with_what_the_releases_that_are_here_lack() {
    let (one, two) = (release(), ReleaseId::from_bytes([3; 32]));
    let (remote, server) = server(vec![answer(200, b"7\noutlineparts"), answer(200, b"8\noutline")]);
    let (outline, parts) = remote.outline_since(one, &[two]).unwrap();
    assert_eq!((&outline[..], &parts[..]), (&b"outline"[..], &b"parts"[..]));
    assert_eq!(remote.outline_since(one, &[]).unwrap_err().kind, Kind::Corrupt);
    let asked = server.join().unwrap();
    assert_eq!(asked[0], (format!("post /v1/releases/{one}/outline http/1.1"), format!("{two}\n")));
}

#[test]
fn every_kind_of_failure_travels_with_its_reason() {
    for kind in [Kind::Missing, Kind::Conflict, Kind::Denied, Kind::Corrupt] {
        let error =
            failure(vec![answer(status(kind), b"because\n")], |remote| remote.get_checked(&[chunk()]));
        assert_eq!(error.kind, kind);
        assert!(chain(&error).ends_with(": because"), "{}", chain(&error));
    }
    for (status, kind) in
        [(400, Kind::Denied), (401, Kind::Denied), (302, Kind::Denied), (412, Kind::Conflict)]
    {
        assert_eq!(failure(vec![answer(status, b"")], |remote| remote.get_checked(&[chunk()])).kind, kind);
    }
}

#[test]
fn what_may_pass_is_tried_again() {
    let cut_short = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort".to_vec();
    for first in [answer(503, b"busy"), answer(500, b""), Vec::new(), cut_short, b"garbage\r\n\r\n".to_vec()]
    {
        let shown = String::from_utf8_lossy(&first).into_owned();
        let (remote, server) = server(vec![first, answer(200, b"packed")]);
        assert_eq!(remote.get_checked(&[chunk()]).unwrap(), b"packed", "{shown}");
        assert_eq!(server.join().unwrap().len(), 2);
    }
}

#[test]
fn a_store_without_room_says_so_once_and_is_not_asked_again() {
    let said = format!(
        "cannot put pack {}: the artefact store's disk is full or takes no writes: cannot write x: no space\n",
        PackId::of(b"packed")
    );
    let error = failure(vec![answer(507, said.as_bytes())], |remote| remote.put(b"packed"));
    assert_eq!(error.kind, Kind::Storage);
    let text = chain(&error);
    assert!(text.ends_with("answers 507: cannot write x: no space"), "{text}");
    assert_eq!(text.matches("cannot put pack").count(), 1, "{text}");
}

#[test]
fn p27_an_endless_answer_is_cut_off() {
    const MORE: usize = 8 << 20;
    let endless = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), vec![0; MORE]].concat();
    let error = failure(vec![endless], |remote| remote.get_checked(&[chunk()]));
    assert_eq!(error.kind, Kind::Corrupt, "{}", chain(&error));
    let lie = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n".to_vec();
    let error = failure(vec![[lie, vec![0; MORE]].concat()], |remote| remote.get_checked(&[chunk()]));
    assert_eq!(error.kind, Kind::Corrupt, "{}", chain(&error));
    let error = failure(vec![answer(403, &vec![b'x'; MORE])], |remote| remote.get_checked(&[chunk()]));
    assert_eq!(error.kind, Kind::Denied);
    assert!(chain(&error).len() < 2000);
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    let other = ChunkId::from_bytes([9; 32]);
    for body in [format!("{other}\n"), "rubbish\n".to_owned(), format!("{}\n", chunk()).to_uppercase() + "Z"]
    {
        let error = failure(vec![answer(200, body.as_bytes())], |remote| remote.missing(&[chunk()]));
        assert_eq!(error.kind, Kind::Corrupt, "{}", chain(&error));
    }
}

#[test]
fn an_address_that_is_none_is_not_tried_again() {
    for base in ["", "control:7070", "http://bad host"] {
        let error = Remote::new(base).get_checked(&[chunk()]).unwrap_err();
        assert_eq!(error.kind, Kind::Denied, "{base}: {}", chain(&error));
    }
}
