//! How long a program waits for somebody who does not read what it writes.

use core::fmt;

use crate::units::Millis;

/// Watches one sink: since when it has not taken all that it was given.
///
/// Programs wait for it for as long as they are willing to, each for itself. From then on what they write is
/// dropped, until the sink has taken everything again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patience {
    full_since: Option<Millis>,
}

impl Patience {
    /// The sink did not take everything.
    pub fn full(&mut self, now: Millis) {
        self.full_since.get_or_insert(now);
    }

    /// The sink has taken everything.
    pub fn empty(&mut self) {
        self.full_since = None;
    }

    /// When a program that waits for so long stops waiting; none while nothing has to wait.
    pub fn ends(&self, stall: Millis) -> Option<Millis> {
        self.full_since.map(|since| since + stall)
    }

    /// Whether a program that waits for so long waits no more.
    pub fn is_over(&self, stall: Millis, now: Millis) -> bool {
        self.ends(stall).is_some_and(|ends| now >= ends)
    }
}

/// What was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// How many bytes, line feeds included.
    pub bytes: u64,
    /// How many of them were line feeds.
    pub lines: u64,
}

impl Lost {
    /// Nothing.
    pub const NONE: Self = Self { bytes: 0, lines: 0 };

    /// Counts more.
    pub fn add(&mut self, bytes: usize, lines: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.lines = self.lines.saturating_add(lines as u64);
    }
}

impl fmt::Display for Lost {
    /// `12 lines (345 bytes)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lines ({} bytes)", self.lines, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p22_a_program_is_held_up_for_no_longer_than_it_said() {
        let mut sink = Patience::default();
        let (short, long) = (Millis(10), Millis(1000));
        assert_eq!(sink.ends(short), None);
        assert!(!sink.is_over(Millis::ZERO, Millis(5)));
        sink.full(Millis(100));
        // That it is still full is no reason to wait anew, however much it took meanwhile.
        sink.full(Millis(105));
        assert!(sink.is_over(Millis::ZERO, Millis(100)));
        assert_eq!((sink.ends(short), sink.ends(long)), (Some(Millis(110)), Some(Millis(1100))));
        assert!(!sink.is_over(short, Millis(109)) && sink.is_over(short, Millis(110)));
        assert!(!sink.is_over(long, Millis(110)) && sink.is_over(long, Millis(1100)));
        sink.empty();
        assert!(!sink.is_over(short, Millis(2000)));
        sink.full(Millis(2000));
        assert!(!sink.is_over(short, Millis(2009)) && sink.is_over(short, Millis(2010)));
    }
}
