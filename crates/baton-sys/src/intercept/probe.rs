//! Proves the whole chain with a throw-away child, before a program depends on it.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use baton_core::run::SocketOptions;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::filter::{self, Watch};
use super::{Given, Interceptor, Listener, NotCopied, Refusal, Report};
use crate::{socket, spawn};

/// How long each thing that the probe waits for may take: it takes a millisecond, and a hung one must not keep a
/// member from starting.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Why binding cannot be intercepted here.
#[derive(Debug, thiserror::Error)]
#[error("binding cannot be intercepted here: {step} failed")]
pub struct ProbeError {
    /// What was refused.
    pub step: &'static str,
    /// By what.
    #[source]
    pub source: io::Error,
}

/// Whether this says nothing of what the system allows: something was used up, and may be there the next time.
pub fn is_passing(error: &io::Error) -> bool {
    let used_up = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::AGAIN,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRINUSE,
        Errno::ADDRNOTAVAIL,
    ];
    error.raw_os_error().is_some_and(|code| used_up.iter().any(|errno| errno.raw_os_error() == code))
}

/// What the child does after it installed the filter, as named in errors. Its steps are numbered across both.
const STEPS: [&str; 6] =
    ["socket", "bind", "the child's look at its socket", "replacing the child's socket", "accept", "write"];

/// What the child writes when all went well: no step has this number.
const WELL: u8 = u8::MAX;

/// What the client hears from the child.
const WORD: &[u8] = b"ours";

/// Starts a child that binds a port on which we listen, and sees whether it gets our socket and can accept a
/// connection from it. Takes about a millisecond. Call it before the first launch.
///
/// # Errors
/// The first step that this system refuses.
pub fn probe() -> Result<(), ProbeError> {
    let failed = |step| move |source: io::Error| ProbeError { step, source };
    let listener = socket::alone(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1).map_err(failed("listen"))?;
    let address = socket::address(&listener).map_err(failed("getsockname"))?;
    // It waits in the queue until the child accepts it.
    let mut client = TcpStream::connect(address).map_err(failed("connect"))?;
    let (watch, handed) = Watch::prepare().map_err(failed("socketpair"))?;
    let (verdict, verdict_out) = spawn::pipe().map_err(failed("pipe"))?;
    // SAFETY: the child only makes system calls, allocates nothing, and never returns.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(failed("fork")(io::Error::last_os_error())),
        0 => become_probe(&watch, address, verdict_out.as_raw_fd()),
        pid => Child(pid),
    };
    drop((watch, verdict_out));
    let (said, heard) = mpsc::channel();
    let interceptor = wait_for(handed.as_fd())
        .and_then(|()| filter::take(handed))
        // Without a descriptor, the verdict tells why.
        .map(|notify| {
            let listener = Listener {
                address,
                given: Given::Socket(Arc::new(listener)),
                options: SocketOptions::default(),
            };
            Interceptor::start(notify, vec![listener], move |report| drop(said.send(report)))
        })
        .ok()
        .transpose()
        .map_err(failed("starting the interceptor"))?;
    let verdict = read_verdict(verdict);
    drop(child);
    interceptor.map(Interceptor::stop);
    let (step, source) = match verdict.map_err(failed("the child"))? {
        Ok(()) => return hear(&mut client).map_err(failed("read")),
        Err(verdict) => verdict,
    };
    // What the interceptor met is the cause of what the child met.
    match heard.iter().find_map(obstacle) {
        Some((step, source)) => Err(failed(step)(source)),
        // Nobody else binds this address: the kernel says so only to somebody whom the interceptor did not find.
        None if is_taken(&source) => Err(failed(step)(io::Error::other("/proc does not show who calls"))),
        None => Err(failed(step)(source)),
    }
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// A child that ends with the probe.
struct Child(i32);

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0) {
            // It has ended by itself, unless it hangs.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
    }
}

fn become_probe(watch: &Watch, address: SocketAddr, verdict: RawFd) -> ! {
    // A program has this from its exec: whatever the bootloader lets others see of itself, its child can be read.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
    let done = watch.install().and_then(|()| {
        bind_and_accept(address).map_err(|(step, errno)| (filter::STEPS.len() as u8 + step, errno))
    });
    let (step, errno) = done.map_or_else(|(step, errno)| (step, errno.raw_os_error()), |()| (WELL, 0));
    let errno = errno.to_ne_bytes();
    let report = [step, errno[0], errno[1], errno[2], errno[3]];
    // SAFETY: two system calls, on a descriptor and a buffer that are alive.
    unsafe {
        libc::write(verdict, report.as_ptr().cast(), report.len());
        libc::_exit(0)
    }
}

/// What every server does. The index in [`STEPS`] of what failed, and why.
fn bind_and_accept(address: SocketAddr) -> Result<(), (u8, Errno)> {
    let at = |step| move |errno| (step, errno);
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(at(0))?;
    rustix::net::bind(&socket, &address).map_err(at(1))?;
    // Ours listens already; a fresh one would have to be told.
    if !sockopt::socket_acceptconn(&socket).map_err(at(2))? {
        return Err((3, Errno::OPNOTSUPP));
    }
    let connection = rustix::net::accept(&socket).map_err(at(4))?;
    rustix::io::write(&connection, WORD).map_err(at(5))?;
    Ok(())
}

fn wait_for(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&PATIENCE)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the child wrote; the outer error means that it wrote nothing.
fn read_verdict(verdict: OwnedFd) -> io::Result<Result<(), (&'static str, io::Error)>> {
    wait_for(verdict.as_fd())?;
    let mut report = [0; 5];
    std::fs::File::from(verdict).read_exact(&mut report)?;
    let [step, errno @ ..] = report;
    let names = filter::STEPS.iter().chain(&STEPS);
    Ok(match names.copied().nth(step.into()) {
        None => Ok(()),
        Some(step) => Err((step, io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))),
    })
}

/// Reads what the child wrote into the connection that it accepted.
fn hear(client: &mut TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(PATIENCE.tv_sec.unsigned_abs())))?;
    let mut word = [0; WORD.len()];
    client.read_exact(&mut word)?;
    if word == *WORD { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn obstacle(report: Report) -> Option<(&'static str, io::Error)> {
    match report {
        Report::Unjudged(error) => Some(("reading the child", error)),
        Report::Refused { why: Refusal::NotGiven(error), .. } => {
            Some(("replacing the child's socket", error))
        }
        Report::Lost(error) => Some(("answering", error)),
        Report::Refused {
            why: Refusal::OtherFamily | Refusal::RegisteredBeforeBind | Refusal::NotMoved(_),
            ..
        }
        | Report::Moved { .. }
        | Report::OptionsNotCopied { why: NotCopied::Unreadable(_) | NotCopied::Forbidden(_), .. }
        | Report::Substituted { .. }
        | Report::AlreadyOurs { .. }
        | Report::InUse { .. }
        | Report::Gone => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_up_says_nothing_of_what_is_allowed() {
        let passing = |errno: Errno| is_passing(&io::Error::from(errno));
        assert_eq!([Errno::MFILE, Errno::AGAIN, Errno::ADDRINUSE].map(passing), [true; 3]);
        assert_eq!([Errno::PERM, Errno::NOSYS, Errno::BUSY, Errno::INVAL].map(passing), [false; 4]);
        assert!(!is_passing(&io::Error::other("the child ended")));
    }
}
