//! The child's side: the filter that makes `bind` wait for an answer, installed in the child.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// The steps of [`Watch::install`] as they are named in errors, in order.
pub(crate) const STEPS: [&str; 3] = ["prctl(PR_SET_NO_NEW_PRIVS)", "seccomp", "sendmsg"];

/// Everything that the child needs in order to be watched.
#[derive(Debug)]
pub(crate) struct Watch {
    filter: [libc::sock_filter; 10],
    /// Where the notify descriptor goes to.
    handover: OwnedFd,
}

impl Watch {
    /// Prepares it before there is a child; the second is where [`take`] finds the descriptor afterwards.
    pub(crate) fn prepare() -> io::Result<(Self, OwnedFd)> {
        let (handed, handover) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { filter: filter(), handover }, handed))
    }

    /// Makes every later `bind` of this process and its descendants wait for an answer, and hands over the
    /// descriptor that gives it. Allocates nothing and makes only system calls, as the child must.
    ///
    /// # Errors
    /// The index in [`STEPS`] of what failed, and why.
    pub(crate) fn install(&self) -> Result<(), (u8, Errno)> {
        rustix::thread::set_no_new_privs(true).map_err(|errno| (0, errno))?;
        let notify = self.listener().map_err(|errno| (1, errno))?;
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let descriptor = [notify.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptor));
        // A message of no bytes could not be told from the end.
        sendmsg(&self.handover, &[IoSlice::new(b"n")], &mut control, SendFlags::NOSIGNAL)
            .map_err(|errno| (2, errno))?;
        Ok(())
    }

    fn listener(&self) -> Result<OwnedFd, Errno> {
        // Without SPEC_ALLOW older kernels slow the whole program down.
        let wanted = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        // So that only a deadly signal takes back a call that has been read; unknown before Linux 5.19.
        let killable = wanted | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        match self.seccomp(killable) {
            Err(Errno::INVAL) => self.seccomp(wanted),
            answer => answer,
        }
    }

    fn seccomp(&self, flags: libc::c_ulong) -> Result<OwnedFd, Errno> {
        let program =
            libc::sock_fprog { len: self.filter.len() as u16, filter: self.filter.as_ptr().cast_mut() };
        // SAFETY: `program` points at as many instructions as it says; the kernel copies and never writes them.
        let fd = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        if fd < 0 {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        // SAFETY: the kernel just gave us this descriptor, which it made close-on-exec, and nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

/// Takes what the child handed over. Does not wait: the child did it before it ran the program.
///
/// # Errors
/// When it handed nothing over, because it was killed, or when this process may open no more descriptors.
pub(crate) fn take(handed: OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(&handed, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptors.next().ok_or_else(|| io::Error::other("no descriptor was handed over"))
}

/// How the kernel calls this processor's system calls (`linux/audit.h`). On others, zero: every call passes
/// unseen, which [`probe`](super::probe) finds out.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0
};

/// Sizes of `sockaddr_in`, `sockaddr_in6` and `sockaddr_storage`: what programs pass for an IP address. All other
/// families keep their speed.
const ADDRESS_SIZES: [u32; 3] = [16, 28, 128];

/// Offsets in `seccomp_data`; of the third argument the low half, all that the kernel looks at.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const THIRD_ARGUMENT: u32 = 32;

/// `bind` with the size of an IP address waits for an answer, everything else passes. Calls by another
/// architecture's numbers pass too: a 32-bit program fails to bind as it would without us.
fn filter() -> [libc::sock_filter; 10] {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let when = |k, jt, jf| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, k);
    let end = |k| step(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    let [ipv4, ipv6, storage] = ADDRESS_SIZES;
    [
        load(ARCH),
        when(ARCHITECTURE, 0, 6),
        load(NUMBER),
        // An x32 call has another bit in its number.
        when(libc::SYS_bind as u32, 0, 4),
        load(THIRD_ARGUMENT),
        when(ipv4, 3, 0),
        when(ipv6, 2, 0),
        when(storage, 1, 0),
        end(libc::SECCOMP_RET_ALLOW),
        end(libc::SECCOMP_RET_USER_NOTIF),
    ]
}
