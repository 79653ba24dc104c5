//! What came out of simulated rollouts, and a picture of one.

use std::collections::BTreeMap;
use std::fmt::Write;

use baton_core::simulate::Moment;
use baton_core::units::Millis;
use serde::Serialize;

use super::count;

/// How high the picture in a terminal is, in lines, and how wide at the most, in columns.
const LINES: usize = 10;
const COLUMNS_MAX: usize = 100;
/// What stands left of the picture.
const MARGIN: usize = 7;
/// Parts of a line's height.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The drawing's own size; viewers scale it.
const SVG_WIDTH: f64 = 800.0;
const SVG_HEIGHT: f64 = 300.0;
const SVG_MARGIN: f64 = 40.0;

/// What came out of all runs, with the course of the first.
#[derive(Debug, Serialize)]
pub struct Simulated {
    /// How many members there are.
    pub members: u32,
    /// The name of the policy.
    pub policy: String,
    /// How long a start takes.
    pub startup_ms: u64,
    /// How many runs ended how.
    pub ends: BTreeMap<String, u32>,
    /// The shortest, the median and the longest.
    pub took_ms: [u64; 3],
    /// How many members ever tried the release, in the worst run.
    pub touched_most: u32,
    /// How many served with it at once.
    pub exposed_most: u32,
    /// How many were on trial at once.
    pub on_trial_most: u32,
    /// The first run.
    pub timeline: Vec<Point>,
}

/// How far the first run was.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    /// When.
    pub at_ms: u64,
    /// How many members serve with the new release.
    pub exposed: u32,
    /// How many try a release, or bake one.
    pub on_trial: u32,
}

/// The same as the API has such things.
pub fn moment(moment: &Moment) -> Point {
    Point { at_ms: moment.at.0, exposed: moment.exposed, on_trial: moment.on_trial }
}

/// The figures, and the first run as a picture.
pub fn text(simulated: &Simulated, width: usize) -> String {
    let Simulated { members, policy, startup_ms, ends, took_ms, .. } = simulated;
    let ends: Vec<String> =
        ends.iter().map(|(end, runs)| format!("{end} in {}", count(u64::from(*runs), "run"))).collect();
    let [least, median, most] = took_ms.map(Millis);
    format!(
        "{}, {policy}, starts in {}\n{} after {median} ({least} to {most})\n\
         tried by {} at the most; at once at the most: {} on trial, {} serving with it\n\n{}",
        count(u64::from(*members), "member"),
        Millis(*startup_ms),
        ends.join(", "),
        count(u64::from(simulated.touched_most), "member"),
        simulated.on_trial_most,
        simulated.exposed_most,
        picture(simulated, width.min(COLUMNS_MAX).saturating_sub(MARGIN + 1).max(10))
    )
}

/// How many members serve with the release, over time.
fn picture(simulated: &Simulated, columns: usize) -> String {
    let end = end(simulated);
    let eighths = |column: usize| {
        // What holds at the end of the column's time.
        let exposed = u64::from(exposed_at(simulated, end * (column as u64 + 1) / columns as u64));
        usize::try_from(exposed * (LINES * 8) as u64 / u64::from(simulated.members.max(1))).unwrap_or(0)
    };
    let heights: Vec<usize> = (0..columns).map(eighths).collect();
    let mut text = String::new();
    for line in (0..LINES).rev() {
        let label = match line {
            _ if line == LINES - 1 => "100 % ",
            0 => "      ",
            _ if line == LINES / 2 - 1 => " 50 % ",
            _ => "      ",
        };
        let bar: String =
            heights.iter().map(|height| EIGHTHS[height.saturating_sub(line * 8).min(8)]).collect();
        text.push_str(&format!("{label}│{}\n", bar.trim_end()));
    }
    let (begin, finish) = ("0", Millis(end).to_string());
    let gap = columns.saturating_sub(begin.len() + finish.len());
    text.push_str(&format!("      └{}\n       {begin}{}{finish}\n", "─".repeat(columns), " ".repeat(gap)));
    text
}

fn end(simulated: &Simulated) -> u64 {
    simulated.timeline.last().map_or(1, |last| last.at_ms.max(1))
}

/// How many served with the release at this time.
fn exposed_at(simulated: &Simulated, at_ms: u64) -> u32 {
    let before = simulated.timeline.partition_point(|point| point.at_ms <= at_ms);
    before.checked_sub(1).and_then(|last| simulated.timeline.get(last)).map_or(0, |point| point.exposed)
}

/// The first run as a drawing: who serves with the release, and who is on trial.
pub fn svg(simulated: &Simulated) -> String {
    let (members, end) = (f64::from(simulated.members.max(1)), end(simulated) as f64);
    let x = |at_ms: u64| SVG_MARGIN + at_ms as f64 / end * (SVG_WIDTH - 2.0 * SVG_MARGIN);
    let y =
        |count: u32| SVG_HEIGHT - SVG_MARGIN - f64::from(count) / members * (SVG_HEIGHT - 2.0 * SVG_MARGIN);
    let line = |of: fn(&Point) -> u32| {
        let mut path = format!("M{:.1} {:.1}", x(0), y(0));
        for point in &simulated.timeline {
            // Writing to memory does not fail.
            let _ = write!(path, "H{:.1}V{:.1}", x(point.at_ms), y(of(point)));
        }
        path
    };
    let (exposed, on_trial) = (line(|point| point.exposed), line(|point| point.on_trial));
    let title = format!("{} members, {}: {}", simulated.members, simulated.policy, Millis(end as u64));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SVG_WIDTH} {SVG_HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <path d=\"M{SVG_MARGIN} {SVG_MARGIN}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>\n\
         <path d=\"{exposed}\" fill=\"none\" stroke=\"#2a7\" stroke-width=\"2\"/>\n\
         <path d=\"{on_trial}\" fill=\"none\" stroke=\"#c80\" stroke-width=\"2\"/>\n\
         <text x=\"{SVG_MARGIN}\" y=\"20\">{title}</text>\n\
         <text x=\"{SVG_MARGIN}\" y=\"34\" fill=\"#2a7\">serve with it</text>\n\
         <text x=\"140\" y=\"34\" fill=\"#c80\">on trial</text>\n\
         <text x=\"{SVG_MARGIN}\" y=\"{below}\">0</text>\n\
         <text x=\"{right}\" y=\"{below}\" text-anchor=\"end\">{length}</text>\n</svg>\n",
        bottom = SVG_HEIGHT - SVG_MARGIN,
        right = SVG_WIDTH - SVG_MARGIN,
        below = SVG_HEIGHT - SVG_MARGIN / 2.0,
        length = Millis(end as u64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulated() -> Simulated {
        let point = |at_ms, exposed, on_trial| Point { at_ms, exposed, on_trial };
        Simulated {
            members: 8,
            policy: "fast".to_owned(),
            startup_ms: 1000,
            ends: BTreeMap::from([("switched".to_owned(), 2)]),
            took_ms: [3000, 4000, 5000],
            touched_most: 8,
            exposed_most: 8,
            on_trial_most: 2,
            timeline: vec![point(0, 0, 2), point(2000, 4, 2), point(4000, 8, 0)],
        }
    }

    #[test]
    fn figures_come_with_a_picture_of_one_run() {
        let text = text(&simulated(), 18);
        let expected = "8 members, fast, starts in 1 s\nswitched in 2 runs after 4 s (3 s to 5 s)\n\
            tried by 8 members at the most; at once at the most: 2 on trial, 8 serving with it\n\n\
            100 % │         █\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains(" 50 % │    ██████\n") && text.ends_with("       0      4 s\n"), "{text}");
    }

    #[test]
    fn a_run_in_which_nothing_happens_has_a_picture_too() {
        let nothing = Simulated { timeline: Vec::new(), members: 0, ..simulated() };
        assert!(text(&nothing, usize::MAX).contains("100 % │\n"));
        assert!(svg(&nothing).contains("</svg>"));
    }

    #[test]
    fn the_drawing_is_xml_with_both_lines() {
        let drawn = svg(&simulated());
        assert_eq!(drawn.matches("<path").count(), 3);
        assert!(
            drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n") && !drawn.contains("NaN"),
            "{drawn}"
        );
    }
}
