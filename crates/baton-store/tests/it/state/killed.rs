//! A server that is killed at any moment keeps what it has accepted.

use std::io::{BufRead, BufReader, Write, stdout};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, hint};

use baton_core::event::{Event, What};
use baton_core::ids::{DeployId, Epoch};
use baton_core::units::Millis;
use baton_store::state::{EmbeddedStore, StateStore};
use tempfile::TempDir;

use super::{NOW, id, rollout, web};

/// Tells this program to be the server, with the file to use.
const SERVER: &str = "BATON_TEST_STATE";

/// How often a server is killed: enough to hit most steps of opening, creating and writing.
const KILLS: u64 = 40;

#[test]
fn p31_what_was_accepted_survives_kill_9_at_any_moment() {
    if let Some(path) = env::var_os(SERVER) {
        return serve(Path::new(&path));
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.redb");
    let mut accepted: Vec<(Epoch, DeployId)> = Vec::new();
    for kill in 0..KILLS {
        let mut server = start(&path);
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
        // Some are killed before they say anything, the others after a few deploys, all a bit later.
        let wanted = accepted.len() + (kill % 4) as usize;
        while accepted.len() < wanted {
            accepted.extend(answer(&lines.next().unwrap()));
        }
        spin(Duration::from_micros(kill * 7919 % 3000));
        server.kill().unwrap();
        server.wait().unwrap();
        accepted.extend(lines.filter_map(|line| answer(&line)));
        check(&path, &accepted);
    }
    assert!(accepted.len() as u64 > KILLS, "there was something to lose");
}

/// Deploys until it is killed, and says so each time.
fn serve(path: &Path) {
    let store = EmbeddedStore::open(path, Millis::ZERO).unwrap();
    let mut parent = store.service(&web(), NOW).unwrap().history().in_force().map(|deploy| deploy.id);
    loop {
        let number = store.service(&web(), NOW).unwrap().history().past().len() as u64 + 1;
        let deploy = store.propose(&web(), rollout(number, parent), NOW).unwrap().deploy;
        let text = format!("deploy {number}");
        let event = Event {
            at: 1,
            service: web(),
            deploy: Some(deploy.id),
            member: None,
            what: What::Deployed,
            text,
        };
        store.append(vec![event]).unwrap();
        // Not by `println!`, which the test harness would keep for itself. One write, so no half lines.
        let line = format!("accepted {} {}\n", deploy.epoch, deploy.id);
        stdout().lock().write_all(line.as_bytes()).unwrap();
        parent = Some(deploy.id);
    }
}

fn start(path: &Path) -> Child {
    let test = "state::killed::p31_what_was_accepted_survives_kill_9_at_any_moment";
    Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(SERVER, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a line of a server acknowledges; the test harness has lines of its own, and the last may be cut.
fn answer(line: &str) -> Option<(Epoch, DeployId)> {
    let (epoch, deploy) = line.split_once("accepted ")?.1.split_once(' ')?;
    Some((Epoch(epoch.parse().ok()?), deploy.parse().ok()?))
}

/// Lets a moment pass that is too short for the scheduler, to hit other instructions than the last time.
fn spin(moment: Duration) {
    let start = Instant::now();
    while start.elapsed() < moment {
        hint::spin_loop();
    }
}

fn check(path: &Path, accepted: &[(Epoch, DeployId)]) {
    let store = EmbeddedStore::open(path, Millis::ZERO).unwrap();
    let known = store.service(&web(), NOW).unwrap();
    let log: Vec<_> = known.history().past().iter().map(|past| &past.deploy).collect();
    for accepted in accepted {
        let found = log.iter().find(|deploy| deploy.epoch == accepted.0);
        assert_eq!(found.map(|deploy| deploy.id), Some(accepted.1), "{accepted:?} was accepted");
    }
    for (deploy, number) in log.iter().zip(1..) {
        let before = (number > 1).then(|| id(number - 1));
        assert_eq!((deploy.epoch, deploy.id, deploy.parent), (Epoch(number), id(number), before));
    }
    let events = store.events(None, 0, usize::MAX).unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    assert!(events.len() >= accepted.len());
}
