//! Servers that speak S3: moto, as everybody tests with, which believes every signature; and one that checks them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;

use baton_store::artefact::BucketStore;
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Numbers the stores of this test program: each has a prefix of its own.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Moto, which is started once and ends with this program.
struct Moto {
    address: SocketAddr,
    /// Where it is called, and answers.
    calls: Mutex<(Child, BufReader<ChildStdout>)>,
}

/// Its address.
pub fn moto() -> SocketAddr {
    running().address
}

/// Calls boto3 against it.
pub fn call(service: &str, method: &str, arguments: &Value) -> Value {
    let mut calls = running().calls.lock().unwrap();
    let (child, answers) = &mut *calls;
    writeln!(child.stdin.as_mut().unwrap(), "{}", json!([service, method, arguments])).unwrap();
    let mut answer = String::new();
    answers.read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{service} {method} {arguments}: {answer}"))
}

fn running() -> &'static Moto {
    static MOTO: OnceLock<Moto> = OnceLock::new();
    MOTO.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(here.join("../../target/moto/python/bin/python"))
            .arg(here.join("tests/moto/serve.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs moto: scripts/setup test");
        let mut port = String::new();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        answers.read_line(&mut port).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap()));
        Moto { address, calls: Mutex::new((child, answers)) }
    })
}

/// A server that checks every signature, over a folder; it serves until the test program ends.
pub struct Checking {
    pub address: SocketAddr,
    /// The bucket.
    pub dir: TempDir,
}

impl Checking {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bucket")).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).unwrap());
        service.set_auth(SimpleAuth::from_single("key", "secret"));
        let service = service.build();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let connection =
                        server.serve_connection(TokioIo::new(stream), service.clone()).into_owned();
                    tokio::spawn(async move { drop(connection.await) });
                }
            });
        });
        Self { address, dir }
    }
}

/// A new store at that server.
pub fn store(server: SocketAddr) -> BucketStore {
    open(server, &format!("some/prefix-{}", NUMBER.fetch_add(1, Ordering::Relaxed)), "secret")
}

/// The store behind that prefix.
pub fn open(server: SocketAddr, prefix: &str, secret: &str) -> BucketStore {
    let variables = [
        ("AWS_ENDPOINT", format!("http://{server}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    BucketStore::open(&format!("s3://bucket/{prefix}"), variables).unwrap()
}
