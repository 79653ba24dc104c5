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
    /// How many requests can have been in flight with the programs that died in it.
    pub in_flight: u64,
}

impl Row {
    /// Whether no request was lost.
    ///
    /// # Errors
    /// Some were lost, or more ended with a program than it can have had; in words.
    pub fn verdict(&self) -> Result<(), String> {
        let Counts { lost, died_with_program: died, .. } = self.counts;
        if lost > 0 {
            Err(format!("{lost} LOST"))
        } else if died > self.in_flight {
            Err(format!("{died} DIED with a program, where at most {} were in flight", self.in_flight))
        } else {
            Ok(())
        }
    }
}

/// Whether every request of the whole load has its place in these rows, and none was lost.
pub fn is_clean(rows: &[Row], total: &Counts) -> bool {
    let in_flight: u64 = rows.iter().map(|row| row.in_flight).sum();
    rows.iter().all(|row| row.verdict().is_ok())
        && total.died_with_program <= in_flight
        && (total.lost, total.not_sent, total.unfinished) == (0, 0, 0)
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

    fn row(counts: Counts, in_flight: u64) -> Row {
        Row { step: "a step", time: Duration::from_millis(12_340), members: 8, counts, in_flight }
    }

    #[test]
    fn more_that_died_than_were_in_flight_is_a_loss() {
        let counts = |lost, died| Counts { lost, died_with_program: died, ..Counts::default() };
        for (counts, in_flight, clean) in [
            (counts(0, 0), 0, true),
            (counts(0, 9), 9, true),
            (counts(0, 10), 9, false),
            (counts(0, 1), 0, false),
            (counts(1, 0), 9, false),
        ] {
            let row = row(counts, in_flight);
            assert_eq!((row.verdict().is_ok(), is_clean(&[row], &counts)), (clean, clean), "{counts:?}");
        }
        let fine = row(Counts::default(), 0);
        for total in [
            counts(0, 1),
            counts(1, 0),
            Counts { not_sent: 1, ..Counts::default() },
            Counts { unfinished: 1, ..Counts::default() },
        ] {
            assert!(!is_clean(std::slice::from_ref(&fine), &total), "{total:?}");
        }
    }

    #[test]
    fn the_table_fits_a_terminal_and_names_every_step() {
        let counts = Counts { sent: 123_456, answered: 123_400, lost: 1, ..Counts::default() };
        let text = render(&[row(counts, 0)], &counts);
        assert!(
            text.contains("a step                             12.3 s       8 123456   123400    1"),
            "{text}"
        );
        assert!(text.lines().take(3).all(|line| line.len() <= 80), "{text}");
    }
}
