//! Signals as a stream of events: blocked before the first fork and read from a descriptor, so that none is
//! lost and none interrupts anything.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use baton_core::signal::Signal;

/// Signals that stay as they are: two cannot be caught, SIGPIPE is how a write fails, and the rest is how a
/// fault in the bootloader itself shows (sent from outside to PID 1 the kernel drops them).
const LEFT_ALONE: [i32; 9] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGPIPE,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// The real-time signals that both C libraries keep for their threads (musl uses 34 too, but only blocked).
const KEPT_BY_THE_C_LIBRARY: std::ops::RangeInclusive<i32> = 32..=33;

/// Every signal that the process can handle, as a stream.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    /// What was blocked before.
    before: libc::sigset_t,
}

impl Signals {
    /// Blocks every signal that can be handled, in this thread and in those it will start, and opens the
    /// stream. Call it first thing in `main`: a thread that is already running keeps its own mask.
    pub fn block_all() -> io::Result<Self> {
        let set = handled();
        let mut before = MaybeUninit::uninit();
        // SAFETY: `set` is an initialised signal set, and the other one is filled in.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, before.as_mut_ptr()) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        // SAFETY: the call above succeeded.
        let before = unsafe { before.assume_init() };
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, before })
    }

    /// Lets signals do again, in this thread, what they did before: to a process that only asks another one something.
    pub fn unblock(self) -> io::Result<()> {
        // SAFETY: the set was filled in by the kernel, and a null third argument asks for no old mask.
        match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for the next signal.
    pub fn next(&self) -> io::Result<Signal> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        loop {
            // SAFETY: the buffer is as large as the one record that we ask for.
            let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
            if read < 0 {
                let error = io::Error::last_os_error();
                // Rust's handler of SIGSEGV and SIGBUS may run in this thread; the stream must not end by it.
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            // SAFETY: a successful read of a signalfd fills whole records.
            let number = unsafe { info.assume_init() }.ssi_signo;
            if let Some(signal) = i32::try_from(number).ok().and_then(Signal::from_number) {
                return Ok(signal);
            }
        }
    }
}

fn handled() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set; sigdelset gets an initialised one and valid numbers.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for signal in LEFT_ALONE.into_iter().chain(KEPT_BY_THE_C_LIBRARY) {
            libc::sigdelset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}
