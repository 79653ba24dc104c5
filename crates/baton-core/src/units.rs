//! Quantities with their unit in the type.

use core::fmt;
use core::ops::{Add, Sub};

/// Milliseconds: a duration, or a moment on a monotonic clock whose zero means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// This many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// The time from `earlier` until this moment; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Millis {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}
impl Sub for Millis {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}
impl fmt::Display for Millis {
    /// `350 ms`, `2.5 s`, `4 min 10 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms @ 0..=999 => write!(f, "{ms} ms"),
            ms @ 1000..=59_999 if ms % 1000 < 100 => write!(f, "{} s", ms / 1000),
            ms @ 1000..=59_999 => write!(f, "{}.{} s", ms / 1000, ms % 1000 / 100),
            ms => match (ms / 60_000, ms % 60_000 / 1000) {
                (minutes, 0) => write!(f, "{minutes} min"),
                (minutes, seconds) => write!(f, "{minutes} min {seconds} s"),
            },
        }
    }
}

/// A share in parts per million. Shares are compared as integers, so that every CPU decides alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// Everything.
    pub const ALL: Self = Self(1_000_000);
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// A share of `ppm` parts per million; nothing when that is more than everything.
    pub const fn from_ppm(ppm: u32) -> Option<Self> {
        if ppm <= Self::ALL.0 { Some(Self(ppm)) } else { None }
    }

    /// A share of `percent` hundredths, capped at everything.
    pub const fn from_percent(percent: u32) -> Self {
        if percent >= 100 { Self::ALL } else { Self(percent * 10_000) }
    }

    /// The share in parts per million.
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// The largest whole number of `n` things that is within this share.
    pub const fn floor_of(self, n: u32) -> u32 {
        (n as u64 * self.0 as u64 / 1_000_000) as u32
    }

    /// The smallest whole number of `n` things that is at least this share.
    pub const fn ceil_of(self, n: u32) -> u32 {
        (n as u64 * self.0 as u64).div_ceil(1_000_000) as u32
    }
}

impl fmt::Display for Share {
    /// `25 %`, `0.5 %`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            return write!(f, "{whole} %");
        }
        let (mut digits, mut width) = (rest, 4);
        while digits % 10 == 0 {
            digits /= 10;
            width -= 1;
        }
        write!(f, "{whole}.{digits:0width$} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn durations_read_as_people_say_them() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (2500, "2.5 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min"),
            (250_000, "4 min 10 s"),
        ] {
            assert_eq!(Millis(ms).to_string(), text);
        }
    }

    #[test]
    fn shares_round_as_their_name_says() {
        let share = Share::from_percent(5);
        assert_eq!((share.floor_of(4000), share.floor_of(19), share.ceil_of(19)), (200, 0, 1));
        assert_eq!(Share::ALL.ceil_of(u32::MAX), u32::MAX);
        assert_eq!(Share::from_ppm(1_000_001), None);
    }

    #[test]
    fn shares_read_as_percent() {
        for (ppm, text) in
            [(0, "0 %"), (250_000, "25 %"), (5_000, "0.5 %"), (1, "0.0001 %"), (125_000, "12.5 %")]
        {
            assert_eq!(Share::from_ppm(ppm).unwrap().to_string(), text);
        }
    }
}
