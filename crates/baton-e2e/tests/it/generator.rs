//! Each way to lose a request is counted as exactly that: every check can fail.

use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use baton_core::units::{Millis, Share};
use baton_e2e::load::{Loss, Plan, Report, Target};
use tokio::sync::mpsc;

use crate::load::{Load, kinds};
use crate::server::{Asked, Peer, Server, answer, well_behaved};

/// How many connections a test makes before it stops.
const ENOUGH: usize = 5;

fn new_connections(target: Target) -> Plan {
    Plan { new: 1, keep: 0, rate: 0, ..Plan::on(vec![target]) }
}

fn kept_connections(target: Target) -> Plan {
    Plan { new: 0, keep: 1, rate: 0, ..Plan::on(vec![target]) }
}

/// Makes load on a server until it has had enough connections. It may say things to the generator.
fn load_on(
    plan: impl Fn(Target) -> Plan,
    serve: impl Fn(usize, Peer, &mpsc::Sender<String>) + Send + Sync + 'static,
) -> Report {
    let (said, heard) = mpsc::channel(64);
    let driver = said.clone();
    let server = Server::start(move |nth, peer| {
        if nth == ENOUGH {
            driver.blocking_send("stop".into()).unwrap();
        }
        serve(nth, peer, &driver);
    });
    Load::with(plan(server.target.clone()), said, heard).end()
}

/// Every request was lost in this way and no other.
fn assert_all(report: &Report, loss: Loss) {
    assert_eq!(kinds(report), [loss], "{report:#?}");
    assert_eq!(report.count(loss), report.sent, "{report:#?}");
    assert!(report.sent > 0 && !report.is_clean(), "{report:#?}");
    assert!(report.losses[&loss].example.is_some(), "{report:#?}");
}

#[test]
fn a_server_that_behaves_loses_nothing() {
    for plan in [new_connections, kept_connections] {
        let report = load_on(plan, |nth, mut peer, _| {
            // Closing after some requests, as announced, makes kept connections change too.
            for last in [false, false, true] {
                let Some(asked) = peer.asked() else { return };
                let answer = answer(&format!("r{nth}"), asked);
                if last || asked.close {
                    peer.send(&answer.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
                    return peer.close();
                }
                peer.send(&answer);
            }
        });
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!(report.answered, report.sent);
        assert_eq!(report.releases.values().sum::<u64>(), report.sent);
        assert!(report.sent >= ENOUGH as u64 && report.connections >= ENOUGH as u64);
    }
}

#[test]
fn a_client_of_new_connections_does_not_reuse_one_that_the_server_keeps_open() {
    let report = load_on(new_connections, |_, mut peer, _| {
        while let Some(asked) = peer.asked() {
            peer.send(&answer("r1", asked));
        }
    });
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.connections, report.sent);
}

#[test]
fn a_refused_connection_is_refused() {
    let target = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string().parse().unwrap()
    };
    let plan = Plan { duration: Some(Millis(200)), ..new_connections(target) };
    assert_all(&Load::start(plan).end(), Loss::Refused);
}

#[test]
fn a_reset_before_the_answer_is_told_from_one_within_it() {
    let before = load_on(new_connections, |_, mut peer, _| {
        peer.asked();
        peer.reset();
    });
    assert_all(&before, Loss::ResetBeforeFirstByte);
    let closed = load_on(new_connections, |_, mut peer, _| {
        peer.asked();
        peer.close();
    });
    assert_all(&closed, Loss::ResetBeforeFirstByte);

    let part = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{";
    let within = load_on(new_connections, move |_, mut peer, _| {
        peer.asked();
        peer.send(part);
        peer.wait_until_read();
        peer.reset();
    });
    assert_all(&within, Loss::ResetAfterFirstByte);
    let short = load_on(new_connections, move |_, mut peer, _| {
        peer.asked();
        peer.send(part);
        peer.close();
    });
    assert_all(&short, Loss::ResetAfterFirstByte);
}

#[test]
fn a_request_that_is_never_answered_times_out() {
    let kept = Mutex::new(Vec::new());
    let plan = |target| Plan { timeout: Millis(50), ..new_connections(target) };
    let report = load_on(plan, move |_, mut peer, _| {
        peer.asked();
        kept.lock().unwrap().push(peer);
    });
    assert_all(&report, Loss::TimedOut);
}

#[test]
fn p6_a_reused_connection_that_closes_is_an_idle_close_and_its_request_is_sent_again() {
    let report = load_on(kept_connections, |_, mut peer, _| {
        if let Some(asked) = peer.asked() {
            peer.send(&answer("r1", asked));
            peer.asked();
        }
        peer.reset();
    });
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.idle_closes >= 1 && report.idle_closes < report.connections, "{report:#?}");
    assert_eq!(report.answered, report.sent);
}

#[test]
fn p3_a_slow_request_cut_in_its_midst_is_lost_on_a_reused_connection_too() {
    let slow = |target| Plan { slow_share: Share::ALL, slow: Millis(1), ..kept_connections(target) };
    let report = load_on(slow, |_, mut peer, _| {
        if let Some(asked) = peer.asked() {
            peer.send(&answer("r1", asked));
            // Work on the next one for a while, and drop it.
            peer.asked();
            std::thread::park_timeout(Duration::from_millis(400));
        }
        peer.reset();
    });
    assert_eq!(kinds(&report), [Loss::ResetBeforeFirstByte], "{report:#?}");
}

#[test]
fn an_idle_connection_that_closes_between_two_requests_is_nobodys_loss() {
    let plan = |target| Plan { idle_gap: Millis(20), ..kept_connections(target) };
    let report = load_on(plan, |_, mut peer, _| {
        if let Some(asked) = peer.asked() {
            peer.send(&answer("r1", asked));
        }
        peer.close();
    });
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.connections >= ENOUGH as u64);
}

#[test]
fn an_answer_to_another_request_is_mismatched() {
    for wrong in [
        |asked: Asked| Asked { seq: asked.seq + 1, ..asked },
        |asked: Asked| Asked { conn: asked.conn + 1, ..asked },
    ] {
        for plan in [new_connections, kept_connections] {
            let report = load_on(plan, move |_, mut peer, _| {
                if let Some(asked) = peer.asked() {
                    peer.send(&answer("r1", wrong(asked)));
                }
                peer.close();
            });
            assert_all(&report, Loss::Mismatched);
        }
    }
}

#[test]
fn an_error_is_not_an_answer() {
    let report = load_on(new_connections, |_, mut peer, _| {
        if let Some(asked) = peer.asked() {
            peer.send(&answer("r1", asked).replace("200 OK", "503 Service Unavailable"));
        }
        peer.close();
    });
    assert_all(&report, Loss::Mismatched);
}

#[test]
fn an_answer_that_comes_twice_is_duplicated() {
    for plan in [new_connections, kept_connections] {
        let report = load_on(plan, |_, mut peer, _| {
            if let Some(asked) = peer.asked() {
                let answer = answer("r1", asked);
                peer.send(&format!("{answer}{answer}"));
            }
            peer.close();
        });
        assert_eq!(kinds(&report), [Loss::Duplicated], "{report:#?}");
        assert_eq!(report.count(Loss::Duplicated), report.answered, "{report:#?}");
    }
}

#[test]
fn p2_a_forbidden_release_is_wrong() {
    for plan in [new_connections, kept_connections] {
        let report = load_on(plan, |nth, mut peer, driver| {
            if nth == 1 {
                driver.blocking_send("forbid bad".into()).unwrap();
            }
            if let Some(asked) = peer.asked() {
                peer.send(&answer(if nth % 2 == 0 { "bad" } else { "good" }, asked));
            }
            peer.close();
        });
        assert_eq!(kinds(&report), [Loss::WrongRelease], "{report:#?}");
        assert_eq!(report.count(Loss::WrongRelease), report.releases["bad"]);
    }
}

#[test]
fn p5_an_old_release_is_wrong_on_a_connection_begun_after_the_commit() {
    let (said, heard) = mpsc::channel(64);
    let driver = said.clone();
    let server = Server::start(move |nth, peer| {
        if nth == ENOUGH {
            driver.blocking_send("stop".into()).unwrap();
        }
        well_behaved("old", peer);
    });
    said.blocking_send(format!("committed {} new", server.target)).unwrap();
    // Slowly enough that connections are begun at later moments than the commit was heard.
    let plan = Plan { rate: 100, ..new_connections(server.target.clone()) };
    let report = Load::with(plan, said, heard).end();
    assert_eq!(kinds(&report), [Loss::WrongRelease], "{report:#?}");
    assert_eq!(report.answered, report.sent);
}
