//! The notify socket of a generation: `sd_notify(3)`, received.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};

use rustix::net::sockopt::set_socket_passcred;
use tokio::net::UnixDatagram;

/// The longest message that is read; systemd's own limit is a page.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What a program said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`
    Ready,
}

/// The socket that one generation's processes write to.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    name: String,
}

impl NotifySocket {
    /// Opens one under a name that nobody else has; abstract, so that nothing is left on a disk.
    pub fn open(name: &str) -> io::Result<Self> {
        let socket = StdDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        socket.set_nonblocking(true)?;
        set_socket_passcred(&socket, true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)?, name: name.to_owned() })
    }

    /// What `NOTIFY_SOCKET` must be.
    pub fn address(&self) -> String {
        format!("@{}", self.name)
    }

    /// Waits for the next message and tells what of it matters, with the pid that the kernel says sent it.
    pub async fn next(&self) -> io::Result<(i32, Vec<Notice>)> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        self.socket
            .async_io(tokio::io::Interest::READABLE, || receive(&self.socket, &mut buffer))
            .await
            .map(|(sender, length)| (sender, notices(&buffer[..length])))
    }
}

/// One message and the pid of its sender.
fn receive(socket: &UnixDatagram, buffer: &mut [u8]) -> io::Result<(i32, usize)> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [io::IoSliceMut::new(buffer)],
        &mut control,
        // Descriptors that somebody sends along are closed with the message.
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid.as_raw_nonzero().get()),
        _ => None,
    });
    Ok((sender.unwrap_or(0), received.bytes))
}

fn notices(message: &[u8]) -> Vec<Notice> {
    let lines = message.split(|byte| *byte == b'\n');
    lines.filter(|line| *line == b"READY=1").map(|_| Notice::Ready).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_taken_from_a_message() {
        assert_eq!(notices(b"STATUS=READY=1\nREADY=1\nX=2"), [Notice::Ready]);
        assert_eq!(notices(b"READY=10\n READY=1\n\xff"), []);
    }
}
