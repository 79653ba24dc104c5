//! Ports that this process takes for its own use on the loopback address.

use std::ops::Range;

/// Where they are looked for: below those that the kernel gives to outgoing connections (32768 to 60999, where
/// nothing else was said, `ip_local_port_range`). A machine that makes many of these has most of that range in
/// `TIME_WAIT` at times.
pub const PRIVATE: Range<u16> = 20_000..32_768;
