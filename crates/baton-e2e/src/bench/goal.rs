//! Goals, with the figures that meet them or do not.

use std::fmt;

/// Something that is to be reached.
#[derive(Debug, Clone)]
pub struct Goal {
    what: String,
    /// The figure must not be beyond this.
    limit: f64,
    side: Side,
    figure: f64,
    unit: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    AtMost,
    AtLeast,
}

impl Goal {
    /// A figure that shall be no greater than a limit.
    pub fn at_most(what: impl Into<String>, limit: f64, unit: &'static str, figure: f64) -> Self {
        Self { what: what.into(), limit, side: Side::AtMost, figure, unit }
    }

    /// A figure that shall be no smaller than a limit.
    pub fn at_least(what: impl Into<String>, limit: f64, unit: &'static str, figure: f64) -> Self {
        Self { what: what.into(), limit, side: Side::AtLeast, figure, unit }
    }

    /// Whether it is reached. What could not be measured is not.
    pub fn is_met(&self) -> bool {
        match self.side {
            Side::AtMost => self.figure <= self.limit,
            Side::AtLeast => self.figure >= self.limit,
        }
    }
}

impl fmt::Display for Goal {
    /// A line of a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, limit, side, figure, unit } = self;
        let side = match side {
            Side::AtMost => "≤",
            Side::AtLeast => "≥",
        };
        let met = if self.is_met() { "met" } else { "**not met**" };
        write!(f, "| {what} | {side} {limit:.2}{unit} | {figure:.2}{unit} | {met} |")
    }
}

/// All of them as a table.
pub fn table(goals: &[Goal]) -> String {
    let lines: String = goals.iter().map(|goal| format!("{goal}\n")).collect();
    format!("| goal | limit | figure (median) | |\n| --- | --- | --- | --- |\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_up_to_its_limit_and_never_without_a_figure() {
        for (figure, at_most, at_least) in
            [(1.0, true, false), (2.0, true, true), (3.0, false, true), (f64::NAN, false, false)]
        {
            assert_eq!(Goal::at_most("x", 2.0, " ms", figure).is_met(), at_most, "{figure}");
            assert_eq!(Goal::at_least("x", 2.0, "", figure).is_met(), at_least, "{figure}");
        }
        let told = Goal::at_most("start", 2.0, " ms", 3.891).to_string();
        assert_eq!(told, "| start | ≤ 2.00 ms | 3.89 ms | **not met** |");
    }
}
