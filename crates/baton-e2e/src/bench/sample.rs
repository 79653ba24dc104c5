//! Figures of repeated measurements.

use std::fmt;

/// One figure, measured several times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Adds a measurement.
    pub fn add(&mut self, value: f64) {
        let at = self.0.partition_point(|known| *known < value);
        self.0.insert(at, value);
    }

    /// The value that half of the measurements do not exceed; not a number without any.
    pub fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The smallest and the greatest.
    pub fn range(&self) -> (f64, f64) {
        let nan = f64::NAN;
        (self.0.first().copied().unwrap_or(nan), self.0.last().copied().unwrap_or(nan))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Sample {
    /// `12.3 (11.0 to 15.2, n = 20)`, and `–` where there was nothing to measure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count() == 0 {
            return f.write_str("–");
        }
        let (least, most) = self.range();
        write!(f, "{:.2} ({least:.2} to {most:.2}, n = {})", self.median(), self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_told_by_its_median_and_range() {
        let mut sample = Sample::default();
        for value in [3.0, 1.0, 2.0] {
            sample.add(value);
        }
        assert_eq!(sample.to_string(), "2.00 (1.00 to 3.00, n = 3)");
        assert!(Sample::default().median().is_nan());
        assert_eq!(Sample::default().to_string(), "–");
    }
}
