//! A reuseport group and its selector, with real connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use baton_sys::held::HeldPorts;
use baton_sys::ports;
use baton_sys::selector::{Choice, Rest, attach};
use baton_sys::socket;

struct Group {
    address: SocketAddr,
    sockets: Vec<OwnedFd>,
    held: HeldPorts,
}

impl Group {
    /// A group of `size` sockets on a free port of this loopback address.
    fn open(ip: &str, size: usize) -> Self {
        let first = socket::first_of_group((ip, 0).to_socket_addrs().unwrap().next().unwrap(), 128).unwrap();
        let address = socket::address(&first).unwrap();
        let others = (1..size).map(|_| socket::join_group(address, 128).unwrap());
        let sockets = std::iter::once(first).chain(others).collect();
        Self { address, sockets, held: HeldPorts::hold(address).unwrap() }
    }

    fn choose(&self, serving: u32, private: u32) {
        let choice = Choice { serving: vec![serving], private, held: self.held.first(), rest: None };
        attach(self.sockets[0].as_fd(), &choice).unwrap();
    }

    /// How many connections wait at each socket; they are accepted and closed.
    fn drain(&self) -> Vec<u32> {
        let waiting = |socket: &OwnedFd| {
            let count = socket::queue(socket.as_fd()).unwrap().waiting;
            (0..count).for_each(|_| drop(socket::accept(socket.as_fd()).unwrap()));
            count
        };
        self.sockets.iter().map(waiting).collect()
    }

    fn connect(&self, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| TcpStream::connect(self.address).unwrap()).collect()
    }

    fn connect_privately(&self, turn: usize) -> OwnedFd {
        let socket = socket::bound_shared(self.held.address(turn)).unwrap();
        // A normally closed connection would block its port for the next one.
        rustix::net::sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO)).unwrap();
        rustix::net::connect(&socket, &self.address).unwrap();
        socket
    }
}

#[test]
fn everybody_goes_to_the_serving_socket_and_held_ports_to_the_private_one() {
    let _alone = crate::FORKING.lock().unwrap();
    for ip in ["127.0.0.1", "::1"] {
        let group = Group::open(ip, 4);
        for (serving, private) in [(0, 1), (1, 2), (2, 0), (0, 3), (1, 1)] {
            group.choose(serving, private);
            let _open = group.connect(50);
            let _probes: Vec<_> = (0..8).map(|turn| group.connect_privately(turn)).collect();
            let mut expected = vec![0; 4];
            expected[serving as usize] += 50;
            expected[private as usize] += 8;
            assert_eq!(group.drain(), expected, "{ip} {serving} {private}");
        }
    }
}

#[test]
fn a_dual_stack_listener_judges_ipv4_connections_alike() {
    let group = Group::open("::", 2);
    let v4 = SocketAddr::from(([127, 0, 0, 1], group.address.port()));
    let held = HeldPorts::hold(v4).unwrap();
    let choice = Choice { serving: vec![0], private: 1, held: held.first(), rest: None };
    attach(group.sockets[0].as_fd(), &choice).unwrap();
    let _ordinary = TcpStream::connect(v4).unwrap();
    let probe = socket::bound_shared(held.address(3)).unwrap();
    rustix::net::connect(&probe, &v4).unwrap();
    assert_eq!(group.drain(), [1, 1]);
}

/// A quarter to one socket and the rest to another, within five standard deviations of 2,000 draws: one run in two
/// million is outside.
#[test]
fn connections_are_divided_by_chance_and_probes_are_not() {
    const DRAWS: u32 = 2000;
    let _alone = crate::FORKING.lock().unwrap();
    for ip in ["127.0.0.1", "::1"] {
        let group = Group::open(ip, 3);
        let rest = Some(Rest { from: 1 << 30, indices: vec![0] });
        let choice = Choice { serving: vec![1], private: 1, held: group.held.first(), rest };
        attach(group.sockets[0].as_fd(), &choice).unwrap();
        let mut arrived = [0; 3];
        for _ in 0..DRAWS / 50 {
            let _open = group.connect(50);
            let found = group.drain();
            arrived.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        }
        let (quarter, deviation) = (DRAWS / 4, 20);
        assert_eq!((arrived[0] + arrived[1], arrived[2]), (DRAWS, 0), "{ip}");
        assert!(arrived[1].abs_diff(quarter) <= 5 * deviation, "{ip}: {arrived:?}");
        let _probes: Vec<_> = (0..8).map(|turn| group.connect_privately(turn)).collect();
        assert_eq!(group.drain(), [0, 8, 0], "{ip}");
    }
}

/// The same to three, each as often as the others, and the rest to two, in a group as large as any.
#[test]
fn connections_are_spread_evenly_over_several_sockets() {
    const DRAWS: u32 = 3000;
    let _alone = crate::FORKING.lock().unwrap();
    let group = Group::open("127.0.0.1", 6);
    // What no socket has, the kernel chooses itself: it must not be drawn.
    let many: Vec<u32> = (0..256).map(|index| 1 + index % 3).collect();
    for serving in [vec![3, 1, 2], many] {
        let rest = Some(Rest { from: 1 << 31, indices: vec![5, 4] });
        let choice = Choice { serving, private: 0, held: group.held.first(), rest };
        attach(group.sockets[0].as_fd(), &choice).unwrap();
        let mut arrived = [0; 6];
        for _ in 0..DRAWS / 50 {
            let _open = group.connect(50);
            arrived.iter_mut().zip(group.drain()).for_each(|(sum, found)| *sum += found);
        }
        // Five standard deviations: of a sixth less than 21 each, of a quarter less than 24.
        for socket in 1..=3 {
            assert!(arrived[socket].abs_diff(DRAWS / 6) <= 105, "{arrived:?}");
        }
        assert!(arrived[4].abs_diff(DRAWS / 4) <= 120, "{arrived:?}");
        assert_eq!((arrived[0], arrived.iter().sum::<u32>()), (0, DRAWS), "{arrived:?}");
    }
}

/// How often the selector is switched under load.
const SWITCHES: usize = 200;
const CLIENTS: usize = 4;

/// Answers each client which socket it came by, until one comes after the end.
fn answer(index: u8, socket: OwnedFd, over: &AtomicBool) {
    let listener = TcpListener::from(socket);
    while let Ok((mut client, _)) = listener.accept() {
        if over.load(SeqCst) {
            return;
        }
        // Who has gone is missed by its own count.
        let _ = client.write_all(&[index]);
    }
}

/// By which socket a new connection is answered.
fn answered_by(address: SocketAddr) -> std::io::Result<u8> {
    let mut answer = [0];
    TcpStream::connect(address)?.read_exact(&mut answer)?;
    Ok(answer[0])
}

#[test]
fn f34_two_hundred_switches_under_connecting_clients_lose_no_connection() {
    let _alone = crate::FORKING.lock().unwrap();
    let group = Group::open("127.0.0.1", 2);
    group.choose(0, 0);
    let (enough, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let answered = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let count = || answered.iter().map(|by| by.load(SeqCst)).sum::<usize>();
    let lost: usize = std::thread::scope(|scope| {
        for (index, socket) in (0..).zip(&group.sockets) {
            let (socket, over) = (socket.try_clone().unwrap(), &over);
            scope.spawn(move || answer(index, socket, over));
        }
        let connecting = || {
            let mut lost = 0;
            while !enough.load(SeqCst) {
                match answered_by(group.address) {
                    Ok(by) => drop(answered[usize::from(by)].fetch_add(1, SeqCst)),
                    Err(_) => lost += 1,
                }
            }
            lost
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(connecting)).collect();
        for switch in 1..=SWITCHES {
            let (before, serving) = (count(), (switch % 2) as u8);
            group.choose(serving.into(), serving.into());
            assert_eq!(answered_by(group.address).unwrap(), serving, "switch {switch}");
            // Clients have come and gone before the next one, and others are on their way.
            while count() < before + CLIENTS {
                std::thread::yield_now();
            }
        }
        enough.store(true, SeqCst);
        let lost = clients.into_iter().map(|client| client.join().unwrap()).sum();
        over.store(true, SeqCst);
        for serving in 0..2 {
            group.choose(serving, serving);
            let _woken = TcpStream::connect(group.address).unwrap();
        }
        lost
    });
    let answered = answered.map(AtomicUsize::into_inner);
    assert_eq!(lost, 0, "of {answered:?}");
    assert!(answered.iter().all(|by| *by >= SWITCHES), "{answered:?}");
}

/// A machine that has made many connections has most of the ports that these get in `TIME_WAIT`: of eight
/// neighbours one nearly always is.
#[test]
fn ports_are_held_where_no_outgoing_connection_gets_one() {
    let all: Vec<HeldPorts> =
        (0..50).map(|_| HeldPorts::hold(([127, 0, 0, 1], 80).into()).unwrap()).collect();
    let firsts: std::collections::BTreeSet<u16> = all.iter().map(HeldPorts::first).collect();
    assert_eq!(firsts.len(), 50, "two have the same");
    assert!(firsts.iter().all(|first| ports::PRIVATE.contains(first)), "{firsts:?}");
}

/// What removing a socket does to the others is why the bootloader never removes one.
#[test]
fn a_socket_that_is_shut_down_leaves_and_the_last_takes_its_index() {
    let group = Group::open("127.0.0.1", 3);
    group.choose(0, 0);
    rustix::net::shutdown(&group.sockets[0], rustix::net::Shutdown::Both).unwrap();
    assert!(!socket::queue(group.sockets[0].as_fd()).unwrap().listening);
    let _open = group.connect(10);
    let waiting = |index: usize| socket::queue(group.sockets[index].as_fd()).unwrap().waiting;
    assert_eq!((waiting(1), waiting(2)), (0, 10));
}

/// A client that goes on while its kernel connects.
fn connecting(to: SocketAddr) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    assert!(matches!(connect(&socket, &to), Ok(()) | Err(rustix::io::Errno::INPROGRESS)));
    socket
}

#[test]
fn p4_who_connects_while_a_group_is_opened_waits_where_everybody_does() {
    let _alone = crate::FORKING.lock().unwrap();
    for ip in ["127.0.0.1", "::1"] {
        let mut clients = Vec::new();
        let address = (ip, 0).to_socket_addrs().unwrap().next().unwrap();
        let group = socket::group(address, 128, |group| {
            // There are two by now, and nobody has told the kernel how to choose.
            let address = socket::address(group)?;
            clients.extend((0..20).map(|_| connecting(address)));
            attach(group, &Choice { serving: vec![0], private: 0, held: 0, rest: None })
        });
        let [first, second] = group.unwrap();
        let waiting = |socket: &OwnedFd| socket::queue(socket.as_fd()).unwrap().waiting;
        let start = std::time::Instant::now();
        while waiting(&first) < 20 && start.elapsed() < std::time::Duration::from_secs(10) {
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        assert_eq!((waiting(&first), waiting(&second)), (20, 0), "{ip}");
        // From now on the second one hears as well.
        attach(first.as_fd(), &Choice { serving: vec![1], private: 1, held: 0, rest: None }).unwrap();
        let _client = TcpStream::connect(socket::address(&first).unwrap()).unwrap();
        assert_eq!(waiting(&second), 1, "{ip}");
    }
}

#[test]
fn a_group_never_starts_on_an_address_where_somebody_listens() {
    let group = Group::open("127.0.0.1", 1);
    let taken = socket::first_of_group(group.address, 1).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn of_two_who_open_a_group_at_once_never_both_have_it() {
    let _alone = crate::FORKING.lock().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let both = std::sync::Barrier::new(2);
    for round in 0..5000 {
        let open = || {
            both.wait();
            let opened = socket::first_of_group(address, 8);
            // Nobody lets go of it before the other one has tried.
            both.wait();
            opened.is_ok()
        };
        let have_it = std::thread::scope(|scope| {
            let other = scope.spawn(open);
            usize::from(open()) + usize::from(other.join().unwrap())
        });
        // The kernel refuses both where each finds the other one about to listen.
        assert!(have_it <= 1, "both in round {round}");
    }
}

#[test]
fn an_address_is_free_unless_somebody_listens_there() {
    let _alone = crate::FORKING.lock().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    assert!(!socket::is_free(address));
    // Whoever closes first has the connection in TIME_WAIT, which is no obstacle.
    drop(listener.accept().unwrap());
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop((client, listener));
    assert!(socket::is_free(address));
}
