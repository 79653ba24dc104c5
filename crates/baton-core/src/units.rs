//! Quantities with their unit in the type.

use alloc::string::{String, ToString};
use core::fmt;
use core::ops::{Add, Sub};
use core::str::FromStr;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    /// Not a duration.
    #[error("{0:?} is not a duration: write whole numbers with units, such as 250ms, 30s, 5m or 1m30s")]
    Duration(String),
    /// Not a size.
    #[error("{0:?} is not a size: write a whole number with a unit, such as 512B, 64KiB or 1MiB")]
    Size(String),
    /// Not a share.
    #[error("{0:?} is not a share: write percent of at most 100%, such as 25% or 0.5%")]
    Share(String),
}

/// Milliseconds: a duration, or a moment on a monotonic clock whose zero means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;

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
impl FromStr for Millis {
    type Err = InvalidQuantity;

    /// Reads `250ms`, `30s`, `5m`, `2h` and sums with the greater unit first, such as `1m30s`.
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        duration(text).ok_or_else(|| InvalidQuantity::Duration(text.to_string()))
    }
}
fn duration(text: &str) -> Option<Millis> {
    let (mut rest, mut sum, mut smallest) = (text, 0u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = rest.split_at(digits);
        let (factor, letters) = match unit.as_bytes() {
            [b'm', b's', ..] => (1, 2),
            [b's', ..] => (1000, 1),
            [b'm', ..] => (60_000, 1),
            [b'h', ..] => (3_600_000, 1),
            _ => return None,
        };
        if factor >= smallest {
            return None;
        }
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        (rest, smallest) = (&unit[letters..], factor);
    }
    (!text.is_empty()).then_some(Millis(sum))
}

impl fmt::Display for Millis {
    /// `350 ms`, `2.5 s`, `4 min 10 s`, `25 h`, `1 h 30 min`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms @ 0..=999 => write!(f, "{ms} ms"),
            ms @ 1000..=59_999 if ms % 1000 < 100 => write!(f, "{} s", ms / 1000),
            ms @ 1000..=59_999 => write!(f, "{}.{} s", ms / 1000, ms % 1000 / 100),
            ms @ 60_000..HOUR_MS => match (ms / 60_000, ms % 60_000 / 1000) {
                (minutes, 0) => write!(f, "{minutes} min"),
                (minutes, seconds) => write!(f, "{minutes} min {seconds} s"),
            },
            ms => match (ms / HOUR_MS, ms % HOUR_MS / 60_000) {
                (hours, 0) => write!(f, "{hours} h"),
                (hours, minutes) => write!(f, "{hours} h {minutes} min"),
            },
        }
    }
}

/// Microseconds: a duration that is shorter than what people wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

impl fmt::Display for Micros {
    /// `850 µs`, `1.2 ms`, and above a second as [`Millis`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ 0..=999 => write!(f, "{us} µs"),
            us @ 1000..=999_999 if us % 1000 < 100 => write!(f, "{} ms", us / 1000),
            us @ 1000..=999_999 => write!(f, "{}.{} ms", us / 1000, us % 1000 / 100),
            us => Millis(us / 1000).fmt(f),
        }
    }
}

/// So many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

/// The units of sizes, the greatest first. Powers of two only: what `MB` means differs from place to place.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Bytes {
    /// So many times 1024 bytes.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib * 1024)
    }

    /// As a number that memory is counted in; the greatest there is when it is more.
    pub fn in_memory(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Bytes {
    type Err = InvalidQuantity;

    /// Reads `512B`, `64KiB`, `1MiB`, `2GiB`.
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        size(text).ok_or_else(|| InvalidQuantity::Size(text.to_string()))
    }
}
fn size(text: &str) -> Option<Bytes> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Bytes(number.parse::<u64>().ok()?.checked_mul(*factor)?))
}

impl fmt::Display for Bytes {
    /// `512 B`, `64 KiB`, `1.5 MiB`: to a tenth, rounded down.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u64)| self.0 >= *factor;
        let (name, factor) = SIZE_UNITS.iter().find(fits).copied().unwrap_or(("B", 1));
        match (self.0 / factor, (self.0 % factor) * 10 / factor) {
            (whole, 0) => write!(f, "{whole} {name}"),
            (whole, tenth) => write!(f, "{whole}.{tenth} {name}"),
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

    /// Whether a random number is within this share: as many of all `u32` are.
    pub const fn holds(self, random: u32) -> bool {
        (random as u64) < self.bound()
    }

    /// How many of all `u32` are within this share: those below this.
    pub const fn bound(self) -> u64 {
        ((self.0 as u64) << 32) / 1_000_000
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

impl FromStr for Share {
    type Err = InvalidQuantity;

    /// Reads `25%` or `0.5%`, exactly: down to a ten-thousandth of a percent, which is one part per million.
    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        share(text).ok_or_else(|| InvalidQuantity::Share(text.to_string()))
    }
}
fn share(text: &str) -> Option<Share> {
    let number = text.strip_suffix('%')?;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if (1..=4).contains(&fraction.len()) => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    // `parse` would let a sign through.
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole = whole.parse::<u32>().ok()?.checked_mul(10_000)?;
    let rest = alloc::format!("{fraction:0<4}").parse::<u32>().ok()?;
    Share::from_ppm(whole.checked_add(rest)?)
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

    #[test]
    fn a_share_holds_as_many_random_numbers_as_it_says() {
        for (share, bound) in [
            (Share::NONE, 0),
            (Share::from_percent(25), 1 << 30),
            (Share::from_percent(50), 1 << 31),
            (Share::ALL, 1 << 32),
        ] {
            assert_eq!(share.bound(), bound, "{share}");
        }
        let half = Share::from_percent(50);
        assert!(half.holds(0) && half.holds((1 << 31) - 1) && !half.holds(1 << 31));
        assert!(Share::ALL.holds(u32::MAX) && !Share::NONE.holds(0));
    }

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
            (3_599_999, "59 min 59 s"),
            (5_400_000, "1 h 30 min"),
            (90_000_000, "25 h"),
        ] {
            assert_eq!(Millis(ms).to_string(), text);
        }
    }

    #[test]
    fn short_durations_read_as_people_say_them() {
        let all = [(0, "0 µs"), (999, "999 µs"), (1000, "1 ms"), (1250, "1.2 ms"), (999_999, "999.9 ms")];
        for (us, text) in all.into_iter().chain([(1_000_000, "1 s"), (2_500_000, "2.5 s")]) {
            assert_eq!(Micros(us).to_string(), text);
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

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, ms) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1m30s", 90_000),
            ("1h2m3s4ms", 3_723_004),
            ("90s", 90_000),
        ] {
            assert_eq!(text.parse(), Ok(Millis(ms)), "{text}");
        }
        for bad in [
            "",
            "30",
            "s",
            "ms",
            "-1s",
            "+1s",
            "1.5s",
            "30 s",
            " 30s",
            "30S",
            "1s1m",
            "1s1s",
            "1d",
            "1m30",
            "1sm",
            "18446744073709551616ms",
            "18446744073709551615h",
            "1ä",
        ] {
            assert!(bad.parse::<Millis>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_unit_and_shown_with_one() {
        for (text, bytes, shown) in [
            ("0B", 0, "0 B"),
            ("512B", 512, "512 B"),
            ("64KiB", 65_536, "64 KiB"),
            ("1536KiB", 1_572_864, "1.5 MiB"),
            ("1MiB", 1_048_576, "1 MiB"),
            ("2047MiB", 2_146_435_072, "1.9 GiB"),
            ("4GiB", 4_294_967_296, "4 GiB"),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
            assert_eq!(Bytes(bytes).to_string(), shown);
        }
        for bad in
            ["", "1", "B", "1KB", "1kib", "1 KiB", "+1B", "-1B", "1.5KiB", "1KiB1B", "17179869184GiB", "1ä"]
        {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_are_read_exactly() {
        for (text, ppm) in [
            ("0%", 0),
            ("25%", 250_000),
            ("0.5%", 5_000),
            ("12.34%", 123_400),
            ("0.0001%", 1),
            ("100%", 1_000_000),
            ("100.0%", 1_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Share::from_ppm(ppm).unwrap()), "{text}");
        }
        for bad in [
            "",
            "%",
            "25",
            "-1%",
            "+1%",
            ".5%",
            "5.%",
            "101%",
            "100.0001%",
            "0.00001%",
            "1e1%",
            "25 %",
            "1.+5%",
            "4294967296%",
            "ä%",
        ] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }
}
