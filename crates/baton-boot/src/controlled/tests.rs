//! A member whose control and store do not answer.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use baton_core::ids::DeployId;
use baton_core::member::{Purpose, Wish};
use baton_core::run::RunSettings;
use tokio::time::timeout;

use super::*;
use crate::config::SupplySettings;

/// How long a condition is waited for at the most.
const LIMIT: Duration = Duration::from_secs(20);

/// A store that says nothing until it is let go, and then that it has nothing.
struct SilentStore {
    address: String,
    /// What it was asked for.
    asked: Receiver<String>,
    let_go: Arc<Mutex<()>>,
}

impl SilentStore {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (tell, asked) = channel();
        let let_go: Arc<Mutex<()>> = Arc::default();
        let silence = let_go.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (tell, silence) = (tell.clone(), silence.clone());
                thread::spawn(move || answer(stream.unwrap(), &tell, &silence));
            }
        });
        Self { address, asked, let_go }
    }
}

fn answer(mut stream: TcpStream, tell: &Sender<String>, silence: &Mutex<()>) {
    let mut asked = Vec::new();
    while !String::from_utf8_lossy(&asked).contains("\r\n\r\n") {
        let mut some = [0; 4096];
        match stream.read(&mut some) {
            Ok(read) if read > 0 => asked.extend_from_slice(&some[..read]),
            Ok(_) | Err(_) => return,
        }
    }
    let asked = String::from_utf8_lossy(&asked).into_owned();
    let path = asked.split(' ').nth(1).unwrap_or_default();
    if path.starts_with("/v1/releases/") {
        // Nobody may be listening any more.
        let _ = tell.send(path.to_owned());
    }
    drop(silence.lock());
    let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

/// A member of this control with nothing on its disk, which gives its orders to nobody, and what it hears.
fn member(server: &str, dir: &std::path::Path) -> (Controlled, mpsc::UnboundedReceiver<Input>) {
    let control = Control {
        server: server.to_owned(),
        token: None,
        authority: None,
        service: "web".parse().unwrap(),
        member: "web-1".parse().unwrap(),
        labels: Vec::new(),
        trusted_keys: None,
        supply: SupplySettings::default(),
    };
    let releases = Arc::new(ReleasesDir::open(dir).unwrap());
    let start = Start { keep: 3, listens: Vec::new(), environment: Vec::new(), releases, killed_in: None };
    let ((inputs, heard), (orders, _)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    (Controlled::start(&control, start, inputs, orders).unwrap(), heard)
}

fn release(number: u8) -> ReleaseId {
    ReleaseId::from_bytes([number; 32])
}

/// The member hears of a deploy of this release, and has written that down.
fn obey(member: &mut Controlled, epoch: u8) -> Ticket {
    let (id, epoch) = (DeployId::from_bytes([epoch; 16]), Epoch(epoch.into()));
    let seen = Seen { epoch, deploy: id };
    let release = release(u8::try_from(epoch.0).unwrap());
    let wish = Wish { seen, purpose: Purpose::Rollout, release, base: None };
    member.step(Millis(0), Input::Wish(wish));
    member.step(Millis(0), Input::Remembered(seen));
    Ticket::Deploy { id, epoch }
}

#[test]
fn f54_releases_that_a_silent_store_keeps_waiting_hold_up_nothing_else_and_only_the_newest_is_fetched() {
    let (store, dir) = (SilentStore::start(), tempfile::tempdir().unwrap());
    let silence = store.let_go.lock().unwrap();
    let runtime = crate::runtime().unwrap();
    runtime.block_on(async {
        let (mut member, mut heard) = member(&store.address, dir.path());
        for epoch in 1..=20 {
            obey(&mut member, epoch);
        }
        // As what control says next is judged, and what is on the disk verified.
        let free = timeout(LIMIT, spawn_blocking(|| ())).await;
        assert!(free.is_ok(), "every thread waits for the store");
        drop(silence);
        let newest = async {
            while !matches!(heard.recv().await, Some(Input::NotStaged(one, _)) if one == release(20)) {}
        };
        timeout(LIMIT, newest).await.unwrap();
    });
    runtime.shutdown_background();
    let mut asked: Vec<String> = store.asked.try_iter().collect();
    asked.dedup();
    assert!(asked.len() <= 2 && asked.last().unwrap().contains(&release(20).to_string()), "{asked:?}");
}

#[test]
fn p12_a_way_back_that_took_long_is_not_gone_for_another_deploy() {
    let (store, dir) = (SilentStore::start(), tempfile::tempdir().unwrap());
    let runtime = crate::runtime().unwrap();
    runtime.block_on(async {
        let (mut member, _heard) = member(&store.address, dir.path());
        let plan = Arc::new(Plan::new(Running::Image, RunSettings::for_command(vec!["true".to_owned()])));
        let back = |ticket| Order::GoBack(Launch { plan: plan.clone(), ticket, bake: Bake::NONE });
        let first = obey(&mut member, 1);
        assert!(member.wants(&back(first)));
        let second = obey(&mut member, 2);
        assert!(!member.wants(&back(first)) && member.wants(&back(second)));
    });
    runtime.shutdown_background();
}
