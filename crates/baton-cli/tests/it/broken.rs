//! A connection that breaks before the answer has come. The real server cannot be made to do that.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use baton_wire::api::Propose;

use crate::program::run;

/// Reads one request; its body.
fn body(stream: &mut impl Read) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    body
}

#[test]
fn a_proposal_is_sent_once_more_with_the_same_key_when_the_connection_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let before = body(&mut first);
        drop(first);
        let (mut second, _) = listener.accept().unwrap();
        let after = body(&mut second);
        let refused = r#"{"code":"conflict","message":"another deploy came first\u001b[2J"}"#;
        write!(
            second,
            "HTTP/1.1 409 Conflict\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{refused}",
            refused.len()
        )
        .unwrap();
        [before, after].map(|body| serde_json::from_slice::<Propose>(&body).unwrap())
    });
    let ran = run(dir.path(), &url, &["halt", "--service", "web", "-m", "why not"]);
    let [before, after] = server.join().unwrap();
    assert_eq!(before, after);
    assert!(before.idempotency_key.is_some_and(|key| key.len() == 32));
    assert!(before.reason == "why not" && before.actor.starts_with("kim@"), "{}", before.actor);
    // The second answer is a conflict, and a harmless one.
    assert_eq!(ran.code, 5);
    assert_eq!(ran.stderr, "baton: another deploy came first\\x1b[2J\n");
}
