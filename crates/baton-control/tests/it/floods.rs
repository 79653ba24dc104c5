//! Clients that take more than their part: connections, streams and frames that nobody needs.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use baton_wire::api::ServiceStatus;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::closed::Asker;
use crate::light::{Fleet, names};
use crate::rollout::settled;
use crate::running::{LIMIT, Running};

/// More than one address may have without having said who it is, and more than may agree on a key at once.
const SILENT: usize = 1100;

/// A connection from this address, one of the many that loopback has.
async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether the server has closed it.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f58_connections_of_one_address_that_say_nothing_keep_nobody_else_out() {
    let server = Running::start_closed(Arc::new(TempDir::new().unwrap()));
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(connect([127, 0, 0, 2], server.address).await);
    }
    let admin = Asker::new(&server, Some(server.first_token()));
    let answer = admin.call("GET", "/v1/services", None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!is_closed(&silent[0]), "nobody had to go for that");
    let too_many = silent.last().unwrap();
    timeout(LIMIT, too_many.readable()).await.expect("those above its part are sent away").unwrap();
    assert!(is_closed(too_many));
    timeout(LIMIT, silent[0].readable()).await.expect("and the others when their time is over").unwrap();
    assert!(is_closed(&silent[0]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p34_f57_a_fleet_that_comes_back_at_once_is_taken_in_and_operators_are_answered_meanwhile() {
    const MEMBERS: usize = 300;
    let (server, mut fleet, _) = settled(3).await;
    fleet.join(names(MEMBERS).skip(3));
    let all = |status: &ServiceStatus| status.counts.proven as usize == MEMBERS;
    server.wait_for("all are here", all).await;
    let address = server.address;
    let dir = server.stop().await;
    let server = Running::start_in(dir, address);
    let (done, mut answers) = (AtomicBool::new(false), 0);
    let asks = async {
        while !done.load(Ordering::Relaxed) {
            let status: ServiceStatus = server.get("/v1/services/web").await;
            assert_eq!(status.counts.live as usize, MEMBERS, "nobody counts as lost meanwhile");
            answers += 1;
        }
    };
    let back = async {
        server.wait_for("all have reported", all).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(asks, back);
    assert!(answers > 0);
    server.stop().await;
}

/// The kinds of frames that are sent and looked for here (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;
/// `REFUSED_STREAM`, section 7.
const REFUSED: [u8; 4] = [0, 0, 0, 7];
/// `POST http /`, as HPACK has it: three entries of the static table.
const REQUEST: [u8; 3] = [0x83, 0x86, 0x84];

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

fn begin() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The numbers of a client's streams.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// What the server says until it closes the connection, which it has to.
async fn answer_to(server: SocketAddr, flood: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = TcpStream::connect(server).await.unwrap().into_split();
    let mut said = Vec::new();
    // It need not take all of it.
    let send = async { drop(write.write_all(flood).await) };
    let hear = async {
        // A connection that is reset with something unread is closed as well.
        let _ = timeout(LIMIT, read.read_to_end(&mut said)).await.expect("it is closed");
    };
    tokio::join!(send, hear);
    said
}

/// The kinds of frames with their content.
fn frames(mut said: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = said {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((content, rest)) = rest.split_at_checked(length) else { break };
        frames.push((*kind, content.to_vec()));
        said = rest;
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn f59_floods_of_frames_end_their_own_connection_and_nothing_else() {
    let server = Running::start();
    let repeated = |flood: &mut dyn FnMut(u32) -> Vec<u8>| {
        let frames = streams().take(20_000).flat_map(flood);
        [begin(), frames.collect()].concat()
    };
    let headers = |flags, stream| frame(HEADERS, flags, stream, &REQUEST);
    let rapid_reset = repeated(&mut |stream| {
        [headers(END_HEADERS, stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    let first = headers(0, 1);
    // A field that no table has: `x: ` and a thousand times the same.
    let field = [&[0, 1, b'x', 0x7f, 0xe9, 0x06], "x".repeat(1000).as_bytes()].concat();
    let endless_headers = [begin(), first, frame(CONTINUATION, 0, 1, &field).repeat(2000)].concat();
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(20_000);
    let empty_continuations = [begin(), headers(0, 1), empty].concat();
    for (name, flood) in [
        ("streams that are begun and reset", rapid_reset),
        ("headers without an end", endless_headers),
        ("headers without an end that are empty", empty_continuations),
    ] {
        let said = frames(&answer_to(server.address, &flood).await);
        let ended = said.iter().any(|(kind, _)| *kind == GOAWAY);
        assert!(ended || said.is_empty() || said.len() < 20_000, "{name}: {} frames", said.len());
        let answer = server.call("GET", "/v1/services", None).await;
        assert_eq!(answer.status, 200, "after {name}: {}", answer.text());
    }
    // In words of HTTP/1.1: a head that is too large is refused.
    let large = format!("GET /v1/services HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let said = answer_to(server.address, large.as_bytes()).await;
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&said));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f58_streams_that_say_nothing_are_few_on_a_connection_and_hold_nobody_up() {
    const STREAMS: usize = 1000;
    let server = Running::start();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let open = streams().take(STREAMS).flat_map(|stream| frame(HEADERS, END_HEADERS, stream, &REQUEST));
    stream.write_all(&[begin(), open.collect()].concat()).await.unwrap();
    // Each is answered or refused, however long it is left open.
    let mut said = Vec::new();
    let settled = async {
        loop {
            let frames = frames(&said);
            let refused = frames.iter().filter(|(kind, why)| *kind == RST_STREAM && **why == REFUSED).count();
            let answered = frames.iter().filter(|(kind, _)| *kind == HEADERS).count();
            let ended = frames.iter().any(|(kind, _)| *kind == GOAWAY);
            if ended || refused + answered >= STREAMS {
                return (refused, answered, ended);
            }
            if stream.read_buf(&mut said).await.unwrap() == 0 {
                return (refused, answered, true);
            }
        }
    };
    let (refused, answered, ended) = timeout(LIMIT, settled).await.expect("it is said what becomes of them");
    assert!(ended || refused + answered >= STREAMS, "{refused} refused, {answered} answered");
    let data = frame(DATA, END_STREAM, 1, &[]);
    drop(stream.write_all(&data).await);
    let answer = server.call("GET", "/v1/services", None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // A fleet is taken in meanwhile.
    let _fleet = Fleet::start(server.address, names(3));
    server.wait_for("all are here", |status| status.counts.live == 3).await;
    server.stop().await;
}
