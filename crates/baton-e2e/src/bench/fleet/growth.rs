//! How the figures grow with the fleet, as a table and as a picture.

use std::fmt::Write;

use super::Figures;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 60.0;
/// The least and the greatest that the picture shows, of whatever unit: each line is in its own.
const SHOWN: (f64, f64) = (1.0, 10_000.0);
const COLOURS: [&str; 4] = ["#2a7", "#27a", "#a52", "#72a"];

/// One figure of fleets of several sizes.
struct Line {
    name: &'static str,
    points: Vec<(usize, f64)>,
}

fn lines(all: &[Figures], decision_ns: &[(usize, f64)]) -> Vec<Line> {
    let of = |name, figure: fn(&Figures) -> f64| Line {
        name,
        points: all.iter().map(|figures| (figures.setup.members, figure(figures))).collect(),
    };
    vec![
        of("notice to the last member, ms", |figures| figures.notice.median()),
        of("one wave to switched, ms", |figures| figures.deploys[0].took.median() * 1000.0),
        of("a report at the server, µs", |figures| figures.report_us),
        Line { name: "the decision about a report, ns", points: decision_ns.to_vec() },
    ]
}

/// The figures as a table, a fleet in each line.
pub fn table(all: &[Figures], decision_ns: &[(usize, f64)]) -> String {
    let lines = lines(all, decision_ns);
    let mut text = "| members |".to_owned();
    lines.iter().for_each(|line| text.push_str(&format!(" {} |", line.name)));
    text.push_str(" a PUBLISH, ms | most memory, MiB | heartbeats, % of a core |\n");
    text.push_str(&"| --- ".repeat(lines.len() + 4));
    text.push_str("|\n");
    for (index, figures) in all.iter().enumerate() {
        let _ = write!(text, "| {} |", figures.setup.members);
        for line in &lines {
            let _ = write!(text, " {:.1} |", line.points.get(index).map_or(f64::NAN, |(_, figure)| *figure));
        }
        let (publish, peak, cpu) = (figures.publish.median(), figures.peak_mib, figures.cpu.heartbeats);
        let _ = writeln!(text, " {publish:.1} | {peak:.0} | {cpu:.2} |");
    }
    text
}

/// The same as a picture, both scales logarithmic: a figure that grows as the fleet does is a line at 45 degrees in
/// one decade each way, and one that does not is flat.
pub fn svg(all: &[Figures], decision_ns: &[(usize, f64)]) -> String {
    plot(&lines(all, decision_ns))
}

fn plot(lines: &[Line]) -> String {
    let sizes: Vec<usize> = lines.iter().flat_map(|line| line.points.iter().map(|(size, _)| *size)).collect();
    let least = sizes.iter().min().map_or(1.0, |size| *size as f64);
    let most = sizes.iter().max().map_or(10.0, |size| *size as f64).max(least * 2.0);
    let part = |value: f64, (from, to): (f64, f64)| (value.clamp(from, to) / from).ln() / (to / from).ln();
    let x = |size: usize| MARGIN + part(size as f64, (least, most)) * (WIDTH - 2.0 * MARGIN);
    let y = |figure: f64| HEIGHT - MARGIN - part(figure, SHOWN) * (HEIGHT - 2.0 * MARGIN);
    let (right, bottom) = (WIDTH - MARGIN, HEIGHT - MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <path d=\"M{MARGIN} {MARGIN}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>\n"
    );
    for figure in [1.0, 10.0, 100.0, 1000.0, 10_000.0] {
        let at = y(figure);
        let _ = writeln!(svg, "<path d=\"M{MARGIN} {at:.1}H{right}\" stroke=\"#eee\"/>");
        let (x, at) = (MARGIN - 6.0, at + 4.0);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{at:.1}\" text-anchor=\"end\">{figure}</text>");
    }
    let mut marks = sizes;
    marks.sort_unstable();
    marks.dedup();
    for size in marks {
        let (x, y) = (x(size), bottom + 16.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{size}</text>");
    }
    let (middle, under) = (WIDTH / 2.0, HEIGHT - 20.0);
    let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{under}\" text-anchor=\"middle\">members</text>");
    for (index, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
        let points: Vec<_> =
            line.points.iter().map(|(size, figure)| format!("{:.1},{:.1}", x(*size), y(*figure))).collect();
        let points = points.join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        let (at, name) = (16.0 + 14.0 * index as f64, line.name);
        let _ = writeln!(svg, "<text x=\"{MARGIN}\" y=\"{at}\" fill=\"{colour}\">{name}</text>");
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_does_not_grow_is_flat_and_one_that_does_climbs() {
        let points = |figures: [f64; 2]| [250, 4000].into_iter().zip(figures).collect();
        let svg = plot(&[
            Line { name: "flat", points: points([7.0, 7.0]) },
            Line { name: "climbs", points: points([1.0, 10_000.0]) },
        ]);
        let heights = |line: &str| -> Vec<f64> {
            let points = line.split('"').nth(1).unwrap();
            points.split(' ').map(|point| point.split(',').nth(1).unwrap().parse().unwrap()).collect()
        };
        let drawn: Vec<_> = svg.lines().filter(|line| line.starts_with("<polyline")).map(heights).collect();
        assert_eq!(drawn[0][0], drawn[0][1]);
        assert_eq!(drawn[1], [HEIGHT - MARGIN, MARGIN]);
        assert!(svg.ends_with("</svg>\n") && svg.contains(">flat<"));
    }
}
