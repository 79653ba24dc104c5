//! What a program says of itself, by the protocol of `sd_notify(3)`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::units::Millis;
use crate::words::Words;

/// One thing that a program says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`: it can be judged, or has finished reloading.
    Ready,
    /// `RELOADING=1`: it reads its settings again.
    Reloading,
    /// `STOPPING=1`: it ends by its own wish.
    Stopping,
    /// `STATUS=…`: how it is, for people.
    Status(Words),
    /// `WATCHDOG=1`: it is alive.
    Alive,
    /// `WATCHDOG=trigger`: it knows itself that it hangs.
    Hangs,
    /// `EXTEND_TIMEOUT_USEC=…`: its start or its end takes this much longer, from now on.
    Extend(Millis),
    /// `MAINPID=…`: another process of it wants to be the main one.
    MainPid(i32),
    /// `X_BATON_IDLE=1`: it has no work left.
    Idle,
}

/// What of a message is known, in its order. Everything else is ignored, as the protocol asks for: among others
/// `ERRNO`, `BUSERROR` and `MONOTONIC_USEC`.
pub fn read(message: &[u8]) -> Vec<Notice> {
    message.split(|byte| *byte == b'\n').filter_map(read_line).collect()
}

fn read_line(line: &[u8]) -> Option<Notice> {
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&line[..equals], &line[equals + 1..]);
    match (key, value) {
        (b"READY", b"1") => Some(Notice::Ready),
        (b"RELOADING", b"1") => Some(Notice::Reloading),
        (b"STOPPING", b"1") => Some(Notice::Stopping),
        (b"STATUS", text) => Some(Notice::Status(Words::new(&String::from_utf8_lossy(text)))),
        (b"WATCHDOG", b"1") => Some(Notice::Alive),
        (b"WATCHDOG", b"trigger") => Some(Notice::Hangs),
        (b"EXTEND_TIMEOUT_USEC", digits) => {
            let micros: u64 = number(digits)?;
            Some(Notice::Extend(Millis(micros.div_ceil(1000))))
        }
        (b"MAINPID", digits) => number(digits).filter(|pid| *pid > 0).map(Notice::MainPid),
        (b"X_BATON_IDLE", b"1") => Some(Notice::Idle),
        (_, _) => None,
    }
}

fn number<N: core::str::FromStr>(digits: &[u8]) -> Option<N> {
    // `+7` is a number to Rust, and to nobody else.
    let plain = digits.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_message_of_the_protocol_is_read_and_others_are_ignored() {
        let table: &[(&[u8], &[Notice])] = &[
            (b"READY=1", &[Notice::Ready]),
            (b"READY=1\nSTATUS=up\n", &[Notice::Ready, Notice::Status("up".into())]),
            (b"STATUS=READY=1\nX=2", &[Notice::Status("READY=1".into())]),
            (b"STATUS=", &[Notice::Status("".into())]),
            (b"STATUS=a\x1bb\xff", &[Notice::Status("a b\u{fffd}".into())]),
            (b"READY=10\n READY=1\n\xff", &[]),
            (b"RELOADING=1\nMONOTONIC_USEC=12", &[Notice::Reloading]),
            (b"STOPPING=1", &[Notice::Stopping]),
            (b"WATCHDOG=1\nWATCHDOG=trigger\nWATCHDOG=2", &[Notice::Alive, Notice::Hangs]),
            (b"EXTEND_TIMEOUT_USEC=1500", &[Notice::Extend(Millis(2))]),
            (b"EXTEND_TIMEOUT_USEC=+1", &[]),
            (b"EXTEND_TIMEOUT_USEC=-1", &[]),
            (b"EXTEND_TIMEOUT_USEC=99999999999999999999", &[]),
            (b"EXTEND_TIMEOUT_USEC=", &[]),
            (b"MAINPID=77", &[Notice::MainPid(77)]),
            (b"MAINPID=0\nMAINPID=-1\nMAINPID=x", &[]),
            (b"X_BATON_IDLE=1", &[Notice::Idle]),
            (b"ERRNO=2\nBUSERROR=org.example\nFDSTORE=1\nBARRIER=1", &[]),
            (b"", &[]),
            (b"=1\n=", &[]),
        ];
        for (message, expected) in table {
            assert_eq!(read(message), *expected, "{}", String::from_utf8_lossy(message));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(&message);
        }
    }
}
