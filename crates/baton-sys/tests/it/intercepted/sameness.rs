//! What a program does not notice: everything else that it binds.

use std::io::Read;

use super::{Trial, listener_on, python, start, wait};
use baton_sys::spawn::spawn;

/// Every kind of `bind` that means none of our listeners, each with the answer that it gets.
const EVERYTHING_ELSE: &str = "
libc = ctypes.CDLL(None, use_errno=True)
def raw(fd, address, length):
    if libc.bind(fd, address, length) == 0: return 'ok'
    return errno.errorcode[ctypes.get_errno()]
def sockaddr(family, port): return family.to_bytes(2, sys.byteorder) + port.to_bytes(2, 'big') + bytes([127, 0, 0, 1])
good = sockaddr(socket.AF_INET, port).ljust(128, b'\\0')
s = socket.socket()
tell(('udp on the same port', attempt(socket.socket(type=socket.SOCK_DGRAM).bind, there)))
tell(('port 0', attempt(socket.socket().bind, ('127.0.0.1', 0))))
tell(('another loopback address', attempt(socket.socket().bind, ('127.0.0.2', port))))
tell(('an address of somebody else', attempt(socket.socket().bind, ('192.0.2.1', port))))
tell(('unix', attempt(socket.socket(socket.AF_UNIX).bind, b'\\0' + b'baton-%d' % os.getpid())))
tell(('unix, as long as an IP address', attempt(socket.socket(socket.AF_UNIX).bind, b'\\0%013d' % os.getpid())))
tell(('netlink', attempt(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).bind, (0, 0))))
tell(('a descriptor that is not open', raw(999, good, 16)))
tell(('a negative descriptor', raw(-1, good, 16)))
tell(('a file', raw(os.open('/dev/null', os.O_RDWR), good, 16)))
tell(('a pipe', raw(os.pipe()[0], good, 16)))
tell(('a pointer to nowhere', raw(s.fileno(), ctypes.c_void_p(8), 16)))
tell(('no pointer', raw(s.fileno(), None, 16)))
tell(('an IPv6 address for an IPv4 socket', raw(s.fileno(), sockaddr(socket.AF_INET6, port).ljust(28, b'\\0'), 28)))
s6 = socket.socket(socket.AF_INET6)
tell(('an IPv4 address for an IPv6 socket', raw(s6.fileno(), good, 128)))
tell(('a length that is too short', raw(s.fileno(), good, 4)))
tell(('a length that is too long', raw(s.fileno(), good, 4096)))
tell(('a negative length', raw(s.fileno(), good, -1)))
tell(('an unknown family', raw(s.fileno(), sockaddr(77, port).ljust(16, b'\\0'), 16)))
bound = socket.socket(); bound.bind(('127.0.0.1', 0)); bound.listen()
tell(('a port that another socket has', attempt(socket.socket().bind, bound.getsockname())))
tell(('a socket that is bound', attempt(bound.bind, ('127.0.0.1', 0))))
";

#[test]
fn whatever_else_a_program_binds_has_the_same_end_as_without() {
    let listener = listener_on("127.0.0.1");
    let command = python(EVERYTHING_ELSE);
    let (pid, _input, mut output) = start(&command, listener.address.port(), spawn).unwrap();
    let mut without = String::new();
    output.read_to_string(&mut without).unwrap();
    wait(pid);
    assert_eq!(without.lines().count(), 21, "{without}");

    let (with, reports) = Trial::of(listener, &command).end();
    assert_eq!(with, without);
    assert!(reports.is_empty(), "{reports:?}");
}

#[test]
fn a_program_may_bind_the_port_with_the_largest_address_size() {
    let script = "
libc = ctypes.CDLL(None)
address = socket.AF_INET.to_bytes(2, sys.byteorder) + port.to_bytes(2, 'big') + bytes([127, 0, 0, 1])
s = socket.socket()
tell(libc.bind(s.fileno(), address.ljust(128, b'\\0'), 128))";
    let (text, reports) = Trial::python(script).end();
    assert_eq!(text, "0\n");
    assert!(reports.iter().all(super::is_substituted) && reports.len() == 1, "{reports:?}");
}

/// What a program hears that binds its port more than once: the same as where nobody answers.
const MORE_THAN_ONCE: &str = "
def fresh(*options):
    s = socket.socket()
    for option in options: s.setsockopt(socket.SOL_SOCKET, option, 1)
    return s
def again(what, *options):
    s = fresh(*options); tell((what, attempt(s.bind, there))); s.close()
first = fresh(); first.bind(there); first.listen(7)
again('beside one that listens')
again('which lets others in', socket.SO_REUSEPORT)
again('which takes what is left over', socket.SO_REUSEADDR)
if os.fork() == 0:
    again('in a child'); os._exit(0)
os.wait()
copy = os.dup(first.fileno()); first.close(); os.close(copy)
again('when that is closed')
first = fresh(socket.SO_REUSEADDR); first.bind(there)
again('beside one that does not listen yet', socket.SO_REUSEADDR)
again('which wants it alone')
first.listen(9)
again('beside one that listens by now', socket.SO_REUSEADDR)
first.close()
first = fresh(socket.SO_REUSEPORT); first.bind(there); first.listen(11)
again('beside one that lets others in', socket.SO_REUSEPORT)
again('which lets nobody in')
first.close()
if os.fork() == 0:
    first = fresh(); first.bind(there); first.listen(13); os._exit(0)
os.wait()
again('when who had it has ended')
";

#[test]
fn a_port_that_the_program_has_already_is_in_use_as_it_is_without() {
    let command = python(MORE_THAN_ONCE);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (pid, _input, mut output) = start(&command, free.port(), spawn).unwrap();
    let mut without = String::new();
    output.read_to_string(&mut without).unwrap();
    wait(pid);
    assert!(without.lines().count() == 11 && without.contains("EADDRINUSE"), "{without}");
    let (with, _) = Trial::of(listener_on("127.0.0.1"), &command).end();
    assert_eq!(with, without);
}
