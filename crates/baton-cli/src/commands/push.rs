//! `baton push`: a release of a directory, on the server.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_core::ids::ServiceName;
use baton_core::units::Millis;
use baton_release::push::{self, Pushed, Source, Step};
use baton_release::remote::Remote;
use baton_wire::api::ReleaseView;

use crate::args::Push;
use crate::context::Context;
use crate::failure::Failure;
use crate::project::Project;
use crate::proposal::actor;
use crate::render;
use crate::ui::{Live, Ui};

/// How often progress is drawn at most.
const REDRAW: Duration = Duration::from_millis(100);
/// How often progress is told where nothing can be redrawn: seldom enough for a log.
const RETELL: Duration = Duration::from_secs(5);

/// Pushes a directory and prints the release.
pub fn run(args: Push, context: &Context) -> Result<(), Failure> {
    let project = Project::required(&args.dir)?;
    let service = args.service.unwrap_or_else(|| project.settings.service.clone());
    let pushed = push(&project, service, context)?;
    context.ui.result(&view(&pushed), |_| String::new())
}

/// Pushes a project as a release of this service, and says so.
///
/// # Errors
/// The server cannot be reached, or the directory cannot become a release.
pub fn push(project: &Project, service: ServiceName, context: &Context) -> Result<Pushed, Failure> {
    // Says at once that nobody is there; the store's own calls are patient.
    context.client.services()?;
    context.interrupt.on_ctrl_c("stopped: no release was pushed; pushing again goes on from here");
    let source =
        Source { dir: project.dir.clone(), service, run: project.settings.run.clone(), builder: actor() };
    let (start, progress) = (Instant::now(), Mutex::new(Progress::default()));
    let step = |step| progress.lock().unwrap_or_else(PoisonError::into_inner).step(step, start, &context.ui);
    let pushed = push::push(&source, &Remote::new(context.client.base()), &step)?;
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).clear(&context.ui)?;
    context.ui.text(&done(&pushed, start.elapsed()))?;
    if pushed.files == 0 {
        context.ui.remark("the release has no files: is it the right directory, and do .gitignore and .batonignore leave something?");
    }
    Ok(pushed)
}

fn view(pushed: &Pushed) -> ReleaseView {
    let provenance = &pushed.manifest.provenance;
    ReleaseView {
        id: pushed.id.to_string(),
        service: pushed.manifest.service.to_string(),
        files: pushed.files as u64,
        bytes: pushed.bytes_total,
        commit: provenance.commit.as_ref().map(|commit| commit.hash.clone()),
        created_ms: provenance.created,
    }
}

fn done(pushed: &Pushed, took: Duration) -> String {
    format!(
        "pushed release {} of {}: {}, {}, of which {} were new, in {}\n",
        pushed.id.short(),
        pushed.manifest.service,
        render::count(pushed.files as u64, "file"),
        render::bytes(pushed.bytes_total),
        render::bytes(pushed.bytes_new),
        Millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    )
}

/// How far an upload is.
#[derive(Default)]
struct Progress {
    new: u64,
    uploaded: u64,
    drawn: Option<Instant>,
    /// When progress was told last, since the start.
    told: Duration,
    live: Live,
}

impl Progress {
    fn step(&mut self, step: Step, start: Instant, ui: &Ui) {
        match step {
            Step::Read { .. } => {}
            Step::Compared { bytes_new } => self.new = bytes_new,
            Step::Uploaded { bytes } => self.uploaded += bytes,
        }
        if ui.is_live() && self.new > 0 && self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            self.drawn = Some(Instant::now());
            // What cannot be drawn is no reason to stop pushing; the result will tell.
            let _ = self.live.draw(ui, &line(self.uploaded, self.new, start.elapsed()));
        }
        if !ui.is_live() && self.is_due(start.elapsed()) {
            self.told = start.elapsed();
            ui.remark(line(self.uploaded, self.new, start.elapsed()).trim_end());
        }
    }

    /// Whether it is time for a line, and something is left to tell of.
    fn is_due(&self, elapsed: Duration) -> bool {
        self.uploaded < self.new && elapsed.saturating_sub(self.told) >= RETELL
    }

    fn clear(mut self, ui: &Ui) -> Result<(), Failure> {
        if self.drawn.is_some() { self.live.draw(ui, "") } else { Ok(()) }
    }
}

/// `pushing  1.2 MB of 3.4 MB  5.0 MB/s  440 ms left`
fn line(uploaded: u64, new: u64, elapsed: Duration) -> String {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = uploaded.saturating_mul(1000) / ms;
    let left = match new.saturating_sub(uploaded).saturating_mul(1000).checked_div(rate) {
        Some(left) => format!("  {} left", Millis(left)),
        None => String::new(),
    };
    let (uploaded, new, rate) = (render::bytes(uploaded), render::bytes(new), render::bytes(rate));
    format!("pushing  {uploaded} of {new}  {rate}/s{left}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_upload_is_told_of_every_few_seconds() {
        let mut progress = Progress { new: 10, uploaded: 5, ..Progress::default() };
        assert!(!progress.is_due(RETELL - Duration::from_millis(1)) && progress.is_due(RETELL));
        progress.told = RETELL;
        assert!(!progress.is_due(RETELL + Duration::from_secs(1)) && progress.is_due(RETELL * 2));
        progress.uploaded = 10;
        assert!(!progress.is_due(RETELL * 2), "its end is told anyway");
    }

    #[test]
    fn an_upload_tells_rate_and_remaining_time() {
        let second = Duration::from_secs(1);
        assert_eq!(line(1_000_000, 3_000_000, second), "pushing  1.0 MB of 3.0 MB  1.0 MB/s  2 s left\n");
        assert_eq!(line(0, 3_000_000, second), "pushing  0 B of 3.0 MB  0 B/s\n");
        assert_eq!(line(5, 5, Duration::ZERO), "pushing  5 B of 5 B  5.0 kB/s  0 ms left\n");
    }
}
