//! The table at the end of the demo.

use std::time::Duration;

use super::load::Counts;

/// One step of the demo and what it came to.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was done.
    pub step: &'static str,
    /// How long it took.
    pub time: Duration,
    /// How many members it touched.
    pub members: usize,
    /// What the load counted meanwhile.
    pub counts: Counts,
}

/// The rows, and a line for all of the load from its first to its last request.
pub fn render(rows: &[Row], total: &Counts) -> String {
    let mut text = format!(
        "{:<33} {:>7} {:>7} {:>6} {:>8} {:>4} {:>4} {:>4}\n",
        "", "time", "members", "sent", "answered", "lost", "died", "idle"
    );
    for row in rows {
        let seconds = format!("{:.1} s", row.time.as_secs_f64());
        text.push_str(&line(row.step, &seconds, &row.members.to_string(), &row.counts));
    }
    text.push_str(&line("all", "", "", total));
    text.push_str("\ndied: in flight when a program was killed or crashed; idle: kept connections closed between requests\n");
    text
}

fn line(step: &str, time: &str, members: &str, counts: &Counts) -> String {
    let Counts { sent, answered, lost, died_with_program, idle_closes, .. } = counts;
    format!(
        "{step:<33} {time:>7} {members:>7} {sent:>6} {answered:>8} {lost:>4} {died_with_program:>4} {idle_closes:>4}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_a_terminal_and_names_every_step() {
        let counts = Counts { sent: 123_456, answered: 123_400, lost: 1, ..Counts::default() };
        let row = Row { step: "a step", time: Duration::from_millis(12_340), members: 8, counts };
        let text = render(&[row], &counts);
        assert!(
            text.contains("a step                             12.3 s       8 123456   123400    1"),
            "{text}"
        );
        assert!(text.lines().take(3).all(|line| line.len() <= 80), "{text}");
    }
}
