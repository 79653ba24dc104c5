//! The notify descriptor of a filter: calls that wait come out of it, answers go in (`man 2 seccomp_unotify`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// The call's identity. It ends with the call, so that an answer never reaches another one.
    pub(super) id: u64,
    /// The thread that called, as this process knows it; zero if it cannot see it.
    pub(super) tid: u32,
    pub(super) arguments: [u64; 6],
}

/// Why waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// A call waits.
    Called,
    /// The other descriptor became readable.
    Asked,
    /// No process is left that could call.
    Gone,
}

/// The descriptor, and how much the kernel writes and reads.
#[derive(Debug)]
pub(super) struct Notify {
    fd: OwnedFd,
    request_words: usize,
    response_words: usize,
}

impl Notify {
    /// Asks the kernel how large its records are.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let mut sizes =
            libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
        // SAFETY: the kernel fills `sizes`, which lives until the call returns.
        let failed =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        // A newer kernel may know longer records than this program, and the reverse.
        let words = |ours: usize, kernels: u16| ours.max(kernels.into()).div_ceil(size_of::<u64>());
        Ok(Self {
            fd,
            request_words: words(size_of::<libc::seccomp_notif>(), sizes.seccomp_notif),
            response_words: words(size_of::<libc::seccomp_notif_resp>(), sizes.seccomp_notif_resp),
        })
    }

    /// The descriptor itself.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Waits for a call, for the end of all callers, or for `other` to become readable.
    pub(super) fn wait(&self, other: BorrowedFd<'_>) -> io::Result<Woken> {
        loop {
            let mut fds =
                [PollFd::new(&self.fd, PollFlags::IN), PollFd::from_borrowed_fd(other, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let [call, other] = [fds[0].revents(), fds[1].revents()];
            if other.contains(PollFlags::IN) {
                return Ok(Woken::Asked);
            }
            if call.contains(PollFlags::IN) {
                return Ok(Woken::Called);
            }
            if call.contains(PollFlags::HUP) {
                return Ok(Woken::Gone);
            }
            if call.intersects(PollFlags::ERR | PollFlags::NVAL) {
                return Err(io::Error::other("the notify descriptor is broken"));
            }
        }
    }

    /// Takes a call after [`Woken::Called`]: then it does not block. `None` if the caller is gone meanwhile.
    pub(super) fn receive(&self) -> io::Result<Option<Call>> {
        // The kernel insists on zeros.
        let mut room = vec![0u64; self.request_words];
        match self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, room.as_mut_ptr()) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // SAFETY: `room` is aligned for the record and at least as long, and any bytes are a valid one.
        let request = unsafe { room.as_ptr().cast::<libc::seccomp_notif>().read() };
        Ok(Some(Call { id: request.id, tid: request.pid, arguments: request.data.args }))
    }

    /// Whether the caller still waits. If so, what was read of its thread before was no stranger's.
    pub(super) fn waits(&self, call: Call) -> bool {
        let mut id = call.id;
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw mut id).is_ok()
    }

    /// Puts a descriptor of ours in the place of one of the caller's.
    pub(super) fn replace(
        &self,
        call: Call,
        theirs: RawFd,
        ours: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> Result<(), Errno> {
        let mut request = libc::seccomp_notif_addfd {
            id: call.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
            srcfd: ours.as_raw_fd().cast_unsigned(),
            newfd: theirs.cast_unsigned(),
            newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
        };
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut request)
    }

    /// The call returns 0, and the kernel does nothing.
    pub(super) fn succeed(&self, call: Call) -> Result<(), Errno> {
        self.answer(call, 0, 0)
    }

    /// The call fails with this error, and the kernel does nothing.
    pub(super) fn fail(&self, call: Call, error: Errno) -> Result<(), Errno> {
        self.answer(call, -error.raw_os_error(), 0)
    }

    /// The kernel does what was asked for.
    pub(super) fn let_through(&self, call: Call) -> Result<(), Errno> {
        self.answer(call, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    fn answer(&self, call: Call, error: i32, flags: u32) -> Result<(), Errno> {
        let mut room = vec![0u64; self.response_words];
        let response = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
        // SAFETY: `room` is aligned for the record and at least as long.
        unsafe { room.as_mut_ptr().cast::<libc::seccomp_notif_resp>().write(response) };
        match self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, room.as_mut_ptr()) {
            // The caller was killed: nobody waits for the answer.
            Err(Errno::NOENT) => Ok(()),
            answer => answer,
        }
    }

    /// `record` is what this request reads or writes.
    fn ioctl<T>(&self, request: libc::Ioctl, record: *mut T) -> Result<(), Errno> {
        loop {
            // SAFETY: every caller above passes a record of the size and alignment that the request is defined
            // with, or larger, and it lives until the call returns.
            if unsafe { libc::ioctl(self.fd.as_raw_fd(), request, record) } >= 0 {
                return Ok(());
            }
            let errno = Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO);
            // Reading again could block: whoever waits for calls comes back to it.
            if errno != Errno::INTR || request == libc::SECCOMP_IOCTL_NOTIF_RECV {
                return Err(errno);
            }
        }
    }
}
