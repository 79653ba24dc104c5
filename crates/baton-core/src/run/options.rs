//! What the connections of a listener are given before any program has them.

use crate::units::{Bytes, Millis};

/// Options of a listening TCP socket, as `man 7 tcp` and `man 7 socket` have them. Accepted connections inherit them.
/// What is not set is as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketOptions {
    /// Whether small pieces are sent at once (`TCP_NODELAY`).
    pub nodelay: Option<bool>,
    /// How long a connection is idle before the kernel asks whether the other side is still there (`SO_KEEPALIVE`,
    /// `TCP_KEEPIDLE`), in whole seconds.
    pub keepalive: Option<Millis>,
    /// How long a connection waits for its first byte before it is accepted without one (`TCP_DEFER_ACCEPT`), in
    /// whole seconds.
    pub defer_accept: Option<Millis>,
    /// How long what was sent may stay unconfirmed (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Millis>,
    /// The receive buffer (`SO_RCVBUF`).
    pub rcvbuf: Option<Bytes>,
    /// The send buffer (`SO_SNDBUF`).
    pub sndbuf: Option<Bytes>,
}
