//! Signals by number and name, as Linux numbers them on x86-64 and arm64.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

/// A signal: 1 to 31 are the standard ones, up to 64 the real-time ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

/// The text names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a signal: use a name such as TERM, QUIT, USR1 or RTMIN+1, or a number from 1 to 64")]
pub struct InvalidSignal(pub String);

/// Names of signals 1 to 31, by number (`man 7 signal`).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that programs see: the C libraries keep 32 and 33 for themselves.
const RTMIN: u8 = 34;
/// The highest signal.
const MAX: u8 = 64;

impl Signal {
    /// Hang-up: reload.
    pub const HUP: Self = Self(1);
    /// Interrupt: Ctrl-C.
    pub const INT: Self = Self(2);
    /// Quit: Ctrl-\, and the graceful stop of some servers.
    pub const QUIT: Self = Self(3);
    /// Kill: cannot be caught.
    pub const KILL: Self = Self(9);
    /// First user-defined signal.
    pub const USR1: Self = Self(10);
    /// Terminate: the usual stop signal.
    pub const TERM: Self = Self(15);
    /// A child changed its state.
    pub const CHLD: Self = Self(17);
    /// Stop: cannot be caught.
    pub const STOP: Self = Self(19);
    /// Continue after a stop.
    pub const CONT: Self = Self(18);

    /// The signal with this number, if there is one.
    pub const fn from_number(number: i32) -> Option<Self> {
        if number >= 1 && number <= MAX as i32 { Some(Self(number as u8)) } else { None }
    }

    /// The number, 1 to 64.
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

impl FromStr for Signal {
    type Err = InvalidSignal;

    /// Reads `TERM`, `SIGTERM`, `RTMIN+2` or `15`; letters in either case.
    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let known = NAMES.iter().position(|known| *known == name).map(|index| index as i32 + 1);
        let real_time = || match name.strip_prefix("RTMIN")? {
            "" => Some(i32::from(RTMIN)),
            offset => Some(i32::from(RTMIN) + offset.strip_prefix('+')?.parse::<u8>().ok()? as i32),
        };
        known
            .or_else(real_time)
            .or_else(|| name.parse().ok())
            .and_then(Self::from_number)
            .ok_or_else(|| InvalidSignal(text.to_string()))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 >= RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "signal {}", self.0),
        }
    }
}
impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_read_back_as_printed() {
        for number in (1..=64).filter(|n| !(32..34).contains(n)) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.to_string().parse(), Ok(signal));
            assert_eq!(number.to_string().parse(), Ok(signal));
        }
        assert_eq!("term".parse(), Ok(Signal::TERM));
        for bad in ["", "SIG", "TERMINATE", "0", "65", "RTMIN+31", "RTMIN-1"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }
}
