//! How far a push is.

use std::time::{Duration, Instant};

use baton_core::units::Millis;
use baton_release::push::Step;

use crate::failure::Failure;
use crate::render;
use crate::ui::{Live, Ui};

/// How often progress is drawn at most.
const REDRAW: Duration = Duration::from_millis(100);
/// How often progress is told where nothing can be redrawn: seldom enough for a log.
const RETELL: Duration = Duration::from_secs(5);
/// The cells of a bar: with all that stands beside it, it fits into 80 columns.
const CELLS: u64 = 24;

/// How far a push is, as it is shown.
#[derive(Default)]
pub struct Progress {
    phase: Option<Phase>,
    drawn: Option<Instant>,
    told: Option<Instant>,
    live: Live,
}

/// One of the things that take long, one after the other.
struct Phase {
    what: &'static str,
    began: Instant,
    total: u64,
    done: u64,
}

impl Progress {
    /// Shows a step.
    pub fn step(&mut self, step: Step, ui: &Ui) {
        match step {
            Step::Found { bytes } => self.begin("reading", bytes),
            Step::Compared { bytes_new } => self.begin("pushing", bytes_new),
            Step::Cut { bytes } | Step::Uploaded { bytes } => self.go_on(bytes),
            Step::Read { .. } => self.phase = None,
        }
        self.show(ui);
    }

    fn begin(&mut self, what: &'static str, total: u64) {
        self.phase = (total > 0).then(|| Phase { what, began: Instant::now(), total, done: 0 });
        self.told = None;
    }

    fn go_on(&mut self, bytes: u64) {
        if let Some(phase) = &mut self.phase {
            phase.done += bytes;
        }
    }

    fn show(&mut self, ui: &Ui) {
        let Some(phase) = &self.phase else { return };
        if ui.is_live() {
            if self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
                self.drawn = Some(Instant::now());
                // What cannot be drawn is no reason to stop pushing; the result will tell.
                let _ = self.live.draw(ui, &phase.line(phase.began.elapsed()));
            }
        } else if phase.is_due(self.told.unwrap_or(phase.began).elapsed()) {
            self.told = Some(Instant::now());
            ui.remark(phase.line(phase.began.elapsed()).trim_end());
        }
    }

    /// Leaves nothing of it on the screen.
    pub fn clear(mut self, ui: &Ui) -> Result<(), Failure> {
        if self.drawn.is_some() { self.live.draw(ui, "") } else { Ok(()) }
    }
}

impl Phase {
    /// Whether it is time for a line, and something is left to tell of.
    fn is_due(&self, since: Duration) -> bool {
        self.done < self.total && since >= RETELL
    }

    /// `pushing  [######..........]  1.2 MB of 3.4 MB  5.0 MB/s  440 ms left`
    fn line(&self, elapsed: Duration) -> String {
        let Self { what, total, done, .. } = self;
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = done.saturating_mul(1000) / ms;
        let left = match total.saturating_sub(*done).saturating_mul(1000).checked_div(rate) {
            Some(left) => format!("  {} left", Millis(left)),
            None => String::new(),
        };
        let full = (done.saturating_mul(CELLS) / (*total).max(1)).min(CELLS);
        let bar = "#".repeat(full as usize) + &".".repeat((CELLS - full) as usize);
        let (done, total, rate) = (render::bytes(*done), render::bytes(*total), render::bytes(rate));
        format!("{what}  [{bar}]  {done} of {total}  {rate}/s{left}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(done: u64, total: u64) -> Phase {
        Phase { what: "pushing", began: Instant::now(), total, done }
    }

    #[test]
    fn a_long_upload_is_told_of_every_few_seconds() {
        assert!(!phase(5, 10).is_due(RETELL - Duration::from_millis(1)) && phase(5, 10).is_due(RETELL));
        assert!(!phase(10, 10).is_due(RETELL), "its end is told anyway");
    }

    #[test]
    fn a_phase_begins_anew_and_nothing_to_do_is_none() {
        let mut progress = Progress::default();
        progress.begin("reading", 10);
        progress.go_on(10);
        progress.begin("pushing", 4);
        progress.go_on(1);
        let phase = progress.phase.as_ref().unwrap();
        assert_eq!((phase.what, phase.done, phase.total), ("pushing", 1, 4));
        progress.begin("pushing", 0);
        assert!(progress.phase.is_none());
    }

    #[test]
    fn a_bar_tells_rate_and_remaining_time_and_fits() {
        let second = Duration::from_secs(1);
        assert_eq!(
            phase(1_000_000, 3_000_000).line(second),
            "pushing  [########................]  1.0 MB of 3.0 MB  1.0 MB/s  2 s left\n"
        );
        assert_eq!(
            phase(0, 3_000_000).line(second),
            format!("pushing  [{}]  0 B of 3.0 MB  0 B/s\n", ".".repeat(24))
        );
        assert_eq!(
            phase(5, 5).line(Duration::ZERO),
            format!("pushing  [{}]  5 B of 5 B  5.0 kB/s  0 ms left\n", "#".repeat(24))
        );
        assert!(phase(199_900_000_000, 999_900_000_000).line(second * 3599).len() <= 80);
    }
}
