//! Several servers over one Redis.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use baton_core::event::{Event, What};
use baton_core::fleet::Presence;
use baton_core::history::{Proposal, Wish};
use baton_core::ids::ServiceName;
use baton_core::rollout::Rollout;
use baton_store::state::{Kept, Kind, Milestone, Pruning, StateError};

use super::nodes::{replica_of, wait};
use super::*;

const SERVERS: usize = 3;
/// A quarter of them may try at once.
const MEMBERS: usize = 40;
const SLOTS: usize = 10;

/// What every server gets when all act at the same time.
fn all_at_once<T: Send>(servers: &[RedisStore], act: impl Fn(usize, &RedisStore) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(servers.len());
    let act = |number: usize| {
        start.wait();
        act(number, &servers[number])
    };
    let act = &act;
    thread::scope(|scope| {
        let acting: Vec<_> = (0..servers.len()).map(|number| scope.spawn(move || act(number))).collect();
        acting.into_iter().map(|acting| acting.join().unwrap()).collect()
    })
}

fn servers(redis: &Redis) -> Vec<RedisStore> {
    let servers = (0..SERVERS).map(|_| open(&redis.address())).collect();
    // What is heard elsewhere in the milliseconds in which the clock of a server begins is a lease old at `NOW`.
    let opened = Instant::now();
    while opened.elapsed() < Duration::from_millis(20) {
        thread::yield_now();
    }
    servers
}

/// Lets every server say what it has heard, and hear what the others say.
fn all_look(servers: &[RedisStore]) {
    servers.iter().for_each(look);
    servers.iter().for_each(look);
}

/// A fleet whose members are split over the servers, and all have staged the release of the first deploy.
fn fleet(servers: &[RedisStore]) -> (Deploy, Vec<MemberId>) {
    let members: Vec<_> = (0..MEMBERS).map(member).collect();
    let of = |number: usize| &servers[number % servers.len()];
    for (number, member) in members.iter().enumerate() {
        hear(of(number), report(member, 1, None, Standing::Behind), NOW);
    }
    all_look(servers);
    let deploy = deploy(&servers[0], 1).unwrap();
    all_look(servers);
    for (number, member) in members.iter().enumerate() {
        hear(of(number), report(member, 2, Some(&deploy), Standing::Staged), NOW);
    }
    all_look(servers);
    (deploy, members)
}

#[test]
fn p37_what_one_server_says_of_who_may_do_what_wakes_the_others() {
    let redis = Redis::start();
    let servers = servers(&redis);
    let before = servers[1].changed(0, Duration::ZERO).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| servers[1].changed(before, Duration::from_secs(60)).unwrap());
        assert!(servers[0].set_access(None, b"first").unwrap());
        assert_ne!(waiting.join().unwrap(), before);
    });
    assert_eq!(servers[1].access().unwrap().as_deref(), Some(&b"first"[..]));
    assert!(servers[1].set_access(Some(b"first"), b"second").unwrap());
    assert!(!servers[0].set_access(Some(b"first"), b"third").unwrap(), "it has seen too little");
    assert_eq!(servers[0].access().unwrap().as_deref(), Some(&b"second"[..]));
}

#[test]
fn fleets_in_one_redis_are_told_apart_and_have_nothing_of_each_other() {
    let redis = Redis::start();
    let (ours, theirs) = (open(&redis.address()), open(&format!("{}?prefix=shop", redis.address())));
    assert_eq!((ours.fleet(), theirs.fleet()), ("baton".to_owned(), "shop".to_owned()));
    assert!(ours.set_access(None, b"sealed").unwrap());
    assert_eq!(theirs.access().unwrap(), None);
}

#[test]
fn p12_p16_of_proposals_by_several_servers_at_once_exactly_one_wins() {
    let redis = Redis::start();
    let servers = servers(&redis);
    // For a flavor, its base is watched as well.
    for name in [web(), "web.canary".parse().unwrap()] {
        let known = |server: &RedisStore| server.service(&name, NOW).unwrap();
        let mut parent = None;
        for round in 1..=10 {
            let answers = all_at_once(&servers, |number, server| {
                server.propose(&name, rollout((round * 10 + number) as u64, parent), NOW)
            });
            let is_lost = |answer: &&Result<_, StateError>| {
                answer.as_ref().is_err_and(|error| error.kind() == Kind::Conflict)
            };
            assert_eq!(answers.iter().filter(is_lost).count(), SERVERS - 1, "{name}, round {round}");
            let won = answers.into_iter().find_map(Result::ok).unwrap().deploy;
            assert_eq!(won.epoch.0, round as u64);
            servers.iter().for_each(look);
            for server in &servers {
                let in_force = known(server).history().in_force().map(|deploy| deploy.id);
                assert_eq!(in_force, Some(won.id), "all servers know of it");
            }
            parent = Some(won.id);
        }
        for server in &servers {
            assert_eq!(known(server).history().past().len(), 10);
        }
    }
}

#[test]
fn p32_a_proposal_that_is_made_again_at_another_server_is_the_same_deploy() {
    let redis = Redis::start();
    let servers = servers(&redis);
    let first = servers[0].propose(&web(), rollout(1, None), NOW).unwrap();
    let again = servers[1].propose(&web(), rollout(1, None), NOW).unwrap();
    assert!(!first.again && again.again && again.deploy == first.deploy);
}

#[test]
fn p12_servers_that_give_slots_at_the_same_time_never_give_too_many() {
    let redis = Redis::start();
    let servers = servers(&redis);
    let (deploy, members) = fleet(&servers);
    // Every server asks for everybody, one after the other, and begins elsewhere.
    let granted = all_at_once(&servers, |number, server| {
        let mut granted = Vec::new();
        for next in 0..MEMBERS {
            let chosen = &members[(number * 13 + next) % MEMBERS];
            match server.grant(&web(), deploy.epoch, std::slice::from_ref(chosen), NOW) {
                Ok(_) => granted.push(chosen.clone()),
                Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
            }
        }
        granted
    });
    let mut granted: Vec<_> = granted.into_iter().flatten().collect();
    granted.sort();
    assert_eq!(granted.len(), SLOTS, "{granted:?}");
    servers.iter().for_each(look);
    for server in &servers {
        let known = service(server, NOW);
        let held: Vec<_> = known.fleet().grants().map(|(member, _)| member.clone()).collect();
        assert_eq!(held, granted, "every server knows of every slot");
    }

    // Who proves the release to one server makes room at all of them.
    let at = members.iter().position(|member| *member == granted[0]).unwrap();
    let proven = with(report(&granted[0], 3, Some(&deploy), Standing::Proven), |report| {
        report.running = Some(deploy.release);
        report.committed = Some((deploy.release, deploy.epoch));
    });
    hear(&servers[at % SERVERS], proven, NOW);
    all_look(&servers);
    for server in &servers {
        let known = service(server, NOW);
        assert_eq!(Rollout::of(known.fleet(), NOW).unwrap().room(), 1);
    }
}

#[test]
fn p12_slots_end_with_their_deploy_at_every_server_and_milestones_count_once() {
    let redis = Redis::start();
    let servers = servers(&redis);
    let (first, members) = fleet(&servers);
    servers[0].grant(&web(), first.epoch, &members[..2], NOW).unwrap();
    let second = deploy(&servers[1], 2).unwrap();
    assert_eq!(second.parent, Some(first.id));
    let late = servers[0].grant(&web(), first.epoch, &members[2..3], NOW);
    assert_eq!(late.err().map(|error| error.kind()), Some(Kind::Conflict), "it has not heard of the second");
    servers[1].reach(&web(), second.id, Milestone::Switched, 10).unwrap();
    servers[2].reach(&web(), second.id, Milestone::Switched, 20).unwrap();
    servers.iter().for_each(look);
    for server in &servers {
        assert_eq!(service(server, NOW).milestones(second.id).switched, Some(10));
    }
}

#[test]
fn p9_p30_how_far_a_deploy_got_is_known_to_who_looks_only_when_the_next_one_is_in_force() {
    let redis = Redis::start();
    let (a, b) = (open(&redis.address()), open(&redis.address()));
    let first = deploy(&a, 1).unwrap();
    look(&b);
    a.reach(&web(), first.id, Milestone::Switched, 10).unwrap();
    let second = deploy(&a, 2).unwrap();
    look(&b);
    assert_eq!(service(&b, NOW).milestones(first.id).switched, Some(10));
    // The one who knew of it dies, and the second release is a bad one.
    let back = Proposal { wish: Wish::RollBack { to: None }, ..rollout(3, Some(second.id)) };
    assert_eq!(b.propose(&web(), back, NOW).unwrap().deploy.release, first.release);
}

#[test]
fn what_one_server_hears_all_know_and_it_ages_by_the_clock_of_the_store() {
    let redis = Redis::start();
    let (a, b) = (open(&redis.address()), open(&redis.address()));
    for number in 1..=2 {
        hear(&a, report(&member(number), 1, None, Standing::Behind), NOW);
    }
    look(&a);
    look(&b);
    let heard = |store: &RedisStore| {
        let known = service(store, Millis::ZERO);
        known.fleet().member(&member(1)).map(|member| member.heard_at()).unwrap()
    };
    // The clock of `b` began with it.
    let at = heard(&b);
    let presence = |now| service(&b, now).fleet().member(&member(1)).map(|member| member.presence(now));
    assert_eq!(presence(at), Some(Presence::Live));
    assert_eq!(presence(at + LEASE), Some(Presence::Silent { since: at }), "nobody hears it any more");
    let heartbeat = News::Heartbeat { member: member(1), stamp: Stamp { life: 1, sequence: 2 } };
    thread::park_timeout(Duration::from_millis(5));
    hear(&a, heartbeat, NOW);
    look(&a);
    look(&b);
    assert!(heard(&b) > at, "a heartbeat at one server renews the lease at all");
}

#[test]
fn a_member_that_leaves_by_one_server_and_comes_back_to_another_is_there_once() {
    let redis = Redis::start();
    let servers = [open(&redis.address()), open(&redis.address())];
    let [a, b] = &servers;
    for number in 1..=2 {
        hear(a, report(&member(number), 1, None, Standing::Behind), NOW);
    }
    all_look(&servers);
    let names = |store| {
        let known = service(store, Millis(500));
        known.fleet().members().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    // It went to the other server, and says goodbye there.
    hear(b, report(&member(1), 3, None, Standing::Behind), Millis(500));
    hear(b, News::Left(member(1)), Millis(500));
    all_look(&servers);
    assert_eq!((names(a), names(b)), (vec![member(2)], vec![member(2)]));
    let back = with(report(&member(1), 1, None, Standing::Staged), |report| report.stamp.life = 2);
    hear(a, back, Millis(500));
    all_look(&servers);
    let both = vec![member(1), member(2)];
    assert_eq!((names(a), names(b)), (both.clone(), both.clone()));
    assert_eq!(names(&open(&redis.address())), both, "and at a server that comes later");
}

#[test]
fn f51_what_a_server_says_late_does_not_count() {
    let redis = Redis::start();
    let (late, other) = (open(&redis.address()), open(&redis.address()));
    hear(&late, report(&member(1), 1, None, Standing::Behind), NOW);
    look(&late);
    look(&other);
    // The member has gone to another server, and says more there; the first one takes in what it had said before.
    hear(&other, report(&member(1), 9, None, Standing::Staged), NOW);
    look(&other);
    hear(&late, report(&member(1), 2, None, Standing::Behind), NOW);
    look(&late);
    look(&other);
    let fresh = open(&redis.address());
    for server in [&late, &other, &fresh] {
        let known = service(server, Millis::ZERO);
        let said =
            known.fleet().member(&member(1)).and_then(|member| member.report()).map(|said| &said.standing);
        assert_eq!(said, Some(&Standing::Staged));
    }
}

#[test]
fn events_that_several_servers_see_are_told_once_and_numbered_for_all() {
    let redis = Redis::start();
    let servers = servers(&redis);
    let event = |what, text: &str| {
        let (service, text) = (web(), text.to_owned());
        Event { at: 7, service, deploy: None, member: Some(member(1)), what, text }
    };
    let told =
        [event(What::Joined, "joined"), event(What::Silent, "silent"), event(What::Returned, "returned")];
    all_at_once(&servers, |_, server| server.append(told.to_vec()).unwrap());
    let read = |server: &RedisStore| -> Vec<(u64, String)> {
        let events = server.events(None, 0, usize::MAX).unwrap();
        events.into_iter().map(|event| (event.number, event.event.text)).collect()
    };
    look(&servers[0]);
    assert_eq!(read(&servers[0]).len(), told.len(), "{:?}", read(&servers[0]));
    servers[1].append(vec![event(What::TookOver, "this one")]).unwrap();
    servers[2].append(vec![event(What::TookOver, "that one")]).unwrap();
    servers.iter().for_each(look);
    let all = ["joined", "silent", "returned", "this one", "that one"];
    let all: Vec<_> = (1..).zip(all.map(str::to_owned)).collect();
    for server in &servers {
        assert_eq!(read(server), all);
    }
    assert_eq!(read(&open(&redis.address())), all, "and to a server that comes later");
}

#[test]
fn who_says_goodbye_to_one_server_is_gone_by_no_other_ones_word() {
    // Either server may be the first to tell.
    for is_late in [true, false] {
        let redis = Redis::start();
        let servers = [open(&redis.address()), open(&redis.address())];
        let [its, other] = &servers;
        for number in 1..=2 {
            hear(its, report(&member(number), 1, None, Standing::Behind), NOW);
        }
        all_look(&servers);
        hear(its, News::Left(member(1)), NOW);
        all_look(&servers);
        let left = |what, text: &str| Event { what, text: text.to_owned(), ..joined(1) };
        let tell_left = || its.append(vec![left(What::Left, "m-01 has left")]).unwrap();
        if !is_late {
            tell_left();
        }
        // All that it knows is that it is not there any more.
        other.append(vec![left(What::Gone, "m-01 was silent for too long")]).unwrap();
        if is_late {
            tell_left();
        }
        let events = other.events(None, 0, usize::MAX).unwrap();
        let told: Vec<_> = events.iter().map(|event| (event.event.what, &*event.event.text)).collect();
        assert_eq!(told, [(What::Left, "m-01 has left")]);
    }
}

#[test]
fn members_of_whom_something_was_told_are_saved_though_nothing_else_is_written() {
    let redis = Redis::start();
    let store = open(&redis.address());
    let saved = || redis.cli(&["HLEN", "{baton}:members:web"]);
    for number in 1..=2 {
        hear(&store, report(&member(number), 1, None, Standing::Behind), NOW);
        store.append(vec![joined(number)]).unwrap();
        wait("it is saved", || {
            store.ready().unwrap();
            saved().trim() == number.to_string()
        });
    }
}

#[test]
fn many_services_are_saved_without_a_look_for_each() {
    const SERVICES: usize = 30;
    let redis = Redis::start();
    let store = open(&redis.address());
    let names: Vec<ServiceName> =
        (0..SERVICES).map(|number| format!("web-{number}").parse().unwrap()).collect();
    for name in &names {
        let _ = store.hear(name, report(&member(1), 1, None, Standing::Behind), NOW).unwrap();
    }
    let events = names.iter().map(|name| Event { service: name.clone(), ..joined(1) }).collect();
    redis.cli(&["CONFIG", "RESETSTAT"]);
    store.append(events).unwrap();
    for name in &names {
        assert_eq!(redis.cli(&["HLEN", &format!("{{baton}}:members:{name}")]).trim(), "1", "{name}");
    }
    // Every look asks for the services that there are.
    let asked = redis.cli(&["INFO", "commandstats"]);
    let looks = asked.lines().find_map(|line| line.strip_prefix("cmdstat_smembers:calls="));
    let looks: usize = looks.unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(looks < SERVICES / 2, "{looks}");
}

#[test]
fn a_service_that_another_server_changes_before_it_is_saved_loses_nothing() {
    let redis = Redis::start();
    let other = open(&redis.address());
    let begun = deploy(&other, 1).unwrap().id;
    // Between the look and the write.
    let reach = move || other.reach(&web(), begun, Milestone::Switched, 7).unwrap();
    let store = open(&format!("redis://127.0.0.1:{}", cut_at(&redis, b"XADD", Arrives::Whole, reach)));
    hear(&store, report(&member(1), 1, None, Standing::Behind), NOW);
    store.append(vec![joined(1)]).unwrap();
    hear(&store, report(&member(2), 1, None, Standing::Behind), NOW);
    wait("both are saved", || {
        store.append(Vec::new()).unwrap();
        redis.cli(&["HLEN", "{baton}:members:web"]).trim() == "2"
    });
    for server in [&store, &open(&redis.address())] {
        assert_eq!(service(server, NOW).milestones(begun).switched, Some(7));
    }
    assert_eq!(lost::tales(&store), [What::Joined], "nothing was lost");
}

#[test]
fn p32_f68_connections_that_are_cut_at_any_moment_make_no_deploy_twice_and_lose_none() {
    const DEPLOYS: u64 = 40;
    let redis = Redis::start();
    let servers = servers(&redis);
    let done = AtomicBool::new(false);
    let accepted = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
        });
        let accepted = all_at_once(&servers, |server, store| {
            let propose = |number| accept(store, server as u64 * 1000 + number);
            (1..=DEPLOYS).map(propose).collect::<Vec<_>>()
        });
        done.store(true, Relaxed);
        accepted
    });
    let fresh = open(&redis.address());
    let known = service(&fresh, NOW);
    let log: Vec<_> = known.history().past().iter().map(|past| past.deploy.id).collect();
    let mut accepted: Vec<_> = accepted.into_iter().flatten().collect();
    accepted.sort_by_key(|deploy| deploy.epoch);
    let ids: Vec<_> = accepted.iter().map(|deploy| deploy.id).collect();
    assert_eq!(log, ids, "what was accepted is there, once, in the order of the epochs");
    assert_eq!(log.len() as u64, DEPLOYS * SERVERS as u64);
    for server in &servers {
        lost::wait_until_ready(server);
        assert_eq!(service(server, NOW).history(), known.history());
    }
}

/// What of a command that is cut off arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrives {
    Nothing,
    /// It is carried out, and its answer is lost.
    All,
    /// It is carried out and answered: nothing is cut.
    Whole,
}

/// The port of a way to a node, on which the first hint does not arrive: `before` is done, and the connection is cut.
fn cut_at_hint(redis: &Redis, before: impl FnOnce() + Send + 'static) -> u16 {
    cut_at(redis, b"PUBLISH", Arrives::Nothing, before)
}

/// The port of a way to a node, on which the connection is cut once, at the first command of this name, after `before`.
pub(super) fn cut_at(
    redis: &Redis,
    name: &'static [u8],
    arrives: Arrives,
    before: impl FnOnce() + Send + 'static,
) -> u16 {
    let (to, listener) = (redis.port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let mut before = Some(before);
    // A store asks on one connection at a time.
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut node = TcpStream::connect(("127.0.0.1", to)).unwrap();
            let (mut answers, mut back) = (node.try_clone().unwrap(), client.try_clone().unwrap());
            let back_of = client.try_clone().unwrap();
            thread::spawn(move || io::copy(&mut answers, &mut back));
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = client.read(&mut bytes) {
                let asked = &bytes[..length];
                if asked.windows(name.len()).any(|word| word == name)
                    && let Some(before) = before.take()
                {
                    before();
                    if arrives == Arrives::All {
                        let _ = back_of.shutdown(Shutdown::Write);
                        node.write_all(asked).unwrap();
                    }
                    if arrives != Arrives::Whole {
                        break;
                    }
                }
                if node.write_all(asked).is_err() {
                    break;
                }
            }
            // Either may have ended it already.
            let _ = client.shutdown(Shutdown::Both);
            let _ = node.shutdown(Shutdown::Both);
        }
    });
    port
}

#[test]
fn a_store_that_a_newer_version_writes_to_between_the_look_and_the_write_is_left_alone() {
    type Write = fn(&RedisStore) -> Result<(), StateError>;
    let writes: [Write; 3] = [
        |store| deploy(store, 2).map(drop),
        // Where something else is there than was seen, it is seen anew.
        |store| (0..2).try_for_each(|_| store.set_access(None, b"sealed").map(drop)),
        |store| store.append(vec![joined(1)]),
    ];
    for write in writes {
        let redis = Redis::start();
        deploy(&open(&redis.address()), 1).unwrap();
        let node = redis.port();
        let begin = move || say(node, "SET {baton}:schema 99");
        let store = open(&format!("redis://127.0.0.1:{}", cut_at(&redis, b"MULTI", Arrives::Whole, begin)));
        let error = write(&store).unwrap_err();
        assert!(matches!(error, StateError::Newer { found: 99, .. }), "{error}");
        assert_eq!(redis.cli(&["GET", "{baton}:schema"]).trim(), "99", "it is not taken for an older one");
        assert_eq!(redis.cli(&["HLEN", "{baton}:deploys:web"]).trim(), "1");
        assert_eq!(redis.cli(&["EXISTS", "{baton}:access", "{baton}:events"]).trim(), "0");
    }
}

/// Says something to a node, and waits until it has answered.
fn say(port: u16, command: &str) {
    let mut node = TcpStream::connect(("127.0.0.1", port)).unwrap();
    node.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    assert!(node.read(&mut [0; 64]).unwrap() > 0);
}

/// That a member has joined.
fn joined(number: usize) -> Event {
    let (text, member) = (format!("{number} joined"), Some(member(number)));
    Event { at: 7, service: web(), deploy: None, member, what: What::Joined, text }
}

#[test]
fn p16_f68_a_connection_that_is_lost_between_the_look_and_the_write_takes_no_deploy_away() {
    let redis = Redis::start();
    let other = open(&redis.address());
    let port = cut_at_hint(&redis, move || {
        deploy(&other, 1).unwrap();
    });
    let store = open(&format!("redis://127.0.0.1:{port}"));
    // The look before the write tells it to the others, with a hint.
    hear(&store, report(&member(1), 1, None, Standing::Behind), NOW);
    let late = deploy(&store, 2);
    assert_eq!(late.err().map(|error| error.kind()), Some(Kind::Conflict), "the other one was faster");
    let fresh = open(&redis.address());
    assert_eq!(service(&fresh, NOW).history().past().len(), 1);
    assert_eq!(in_force(&store), in_force(&fresh));
}

#[test]
fn p31_f68_a_connection_that_is_lost_behind_the_write_tells_of_no_copies() {
    let redis = Redis::start();
    let _replica = replica_of(&redis);
    let accept = |store: &RedisStore, number| {
        store.propose(&web(), rollout(number, in_force(store)), NOW).map(|accepted| accepted.kept)
    };
    // The write itself is the first that is hinted at.
    let store = open(&format!("redis://127.0.0.1:{}", cut_at_hint(&redis, || ())));
    assert_eq!(accept(&store, 1).unwrap(), Kept::Copies(1), "nobody knows of another one");
    assert_eq!(accept(&store, 2).unwrap(), Kept::Copies(2));
    let store = open(&format!("redis://127.0.0.1:{}?copies=2", cut_at_hint(&redis, || ())));
    assert_eq!(accept(&store, 3).unwrap_err().kind(), Kind::Unavailable);
    // Asked again, it is the same deploy, and there are two.
    assert_eq!(accept(&store, 3).unwrap(), Kept::Copies(2));
}

#[test]
fn f68_events_whose_answer_is_lost_are_told_once() {
    let redis = Redis::start();
    let store = open(&format!("redis://127.0.0.1:{}", cut_at(&redis, b"EXEC", Arrives::All, || ())));
    let event = |what, text: &str| {
        let (service, text) = (web(), text.to_owned());
        Event { at: 7, service, deploy: None, member: Some(member(1)), what, text }
    };
    let told = [event(What::Joined, "joined"), event(What::Pushed, "one"), event(What::Pushed, "two")];
    assert_eq!(store.append(told.to_vec()).unwrap_err().kind(), Kind::Unavailable);
    wait("the events to be there", || redis.cli(&["XLEN", "{baton}:events"]).trim() == "3");
    wait("it to answer again", || store.append(told.to_vec()).is_ok());
    assert_eq!(store.events(None, 0, usize::MAX).unwrap().len(), told.len());
    assert_eq!(open(&redis.address()).events(None, 0, usize::MAX).unwrap().len(), told.len());
}

#[test]
fn who_has_left_one_server_does_not_come_back_with_what_another_one_writes() {
    let redis = Redis::start();
    let servers = servers(&redis);
    let (deploy, members) = fleet(&servers);
    servers[1].grant(&web(), deploy.epoch, &members[..1], NOW).unwrap();
    all_look(&servers);
    let left = members.last().unwrap();
    hear(&servers[0], News::Left(left.clone()), NOW);
    // It has not been told yet.
    servers[1].grant(&web(), deploy.epoch, &members[1..2], NOW).unwrap();
    look(&servers[0]);
    assert!(service(&servers[0], NOW).fleet().member(left).is_none());
    all_look(&servers);
    for server in &servers {
        assert!(service(server, NOW).fleet().member(left).is_none());
        assert_eq!(service(server, NOW).fleet().members().count(), MEMBERS - 1);
    }
}

#[test]
fn p10_members_of_a_server_that_tells_nothing_are_silent_and_not_gone() {
    for (seconds, is_there) in [(30, true), (2, false)] {
        let redis = Redis::start();
        let other = open(&redis.address());
        hear(&other, report(&member(9), 1, None, Standing::Behind), NOW);
        look(&other);
        let other = redis.cli(&["ZRANGE", "{baton}:servers", "0", "-1"]).trim().to_owned();
        let clock: u64 = redis.cli(&["TIME"]).lines().next().unwrap().parse().unwrap();
        let ago = |seconds: u64| ((clock - seconds) * 1000).to_string();
        redis.cli(&["ZADD", "{baton}:servers", &ago(seconds), &other]);
        redis.cli(&["ZADD", &format!("{{baton}}:heard:{other}"), &ago(70), "web m-09"]);

        let now = Millis::from_secs(1000);
        let store = RedisStore::open(redis.address().parse().unwrap(), now).unwrap();
        for number in 0..3 {
            hear(&store, report(&member(number), 1, None, Standing::Behind), now);
        }
        look(&store);
        let known = service(&store, Millis(now.0 + 100));
        assert_eq!(known.fleet().member(&member(9)).is_some(), is_there, "silent for {seconds} s");
        assert_eq!(known.fleet().members().count(), 3 + usize::from(is_there));
    }
}

/// Proposes under one id until it is accepted, as somebody does who gets no answer or comes too late.
fn accept(store: &RedisStore, number: u64) -> Deploy {
    loop {
        match store.propose(&web(), rollout(number, in_force(store)), NOW) {
            Ok(accepted) => return accepted.deploy,
            Err(error) => {
                let again = matches!(error.kind(), Kind::Conflict | Kind::Unavailable);
                assert!(again, "{error}: {:?}", std::error::Error::source(&error));
                thread::park_timeout(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn p28_one_server_prunes_at_a_time_and_nobody_deploys_what_it_may_have_removed() {
    let redis = Redis::start();
    let servers = servers(&redis);
    let (one, other) = (&servers[0], &servers[1]);
    let turn = Duration::from_secs(60);
    let first = deploy(one, 1).unwrap();
    let begun = one.pruning().unwrap().begun;
    let propose = |begun| other.propose_unless_pruned(&web(), rollout(2, Some(first.id)), begun, NOW);
    let is_refused = |begun| matches!(propose(begun), Err(StateError::Pruned { .. }));

    let mine = one.begin_prune(turn).unwrap().unwrap();
    assert_eq!(other.begin_prune(turn).unwrap(), None, "one at a time");
    assert_eq!(other.pruning().unwrap(), Pruning { begun: mine, is_taken: true });
    assert!(is_refused(begun) && is_refused(mine), "it may be gone, or go");
    assert!(one.go_on_pruning(mine, turn).unwrap());
    assert!(!other.go_on_pruning(mine, turn).unwrap(), "it is another's turn");
    other.end_prune(mine).unwrap();
    assert!(other.pruning().unwrap().is_taken, "and ends with that");
    one.end_prune(mine).unwrap();
    assert!(is_refused(begun), "it may have gone since it was looked at");
    assert!(!one.go_on_pruning(mine, turn).unwrap());
    let second = propose(mine).unwrap().deploy;

    // Whoever has a turn knows what was accepted before it.
    let next = one.begin_prune(turn).unwrap().unwrap();
    assert_eq!(service(one, NOW).history().in_force().map(|deploy| deploy.id), Some(second.id));
    redis.cli(&["DEL", "{baton}:prune-turn"]);
    assert!(!one.go_on_pruning(next, turn).unwrap(), "it has ended by itself");
    assert_eq!(other.begin_prune(turn).unwrap(), Some(next + 1));
}
