//! Waiting for the end of a deploy, and showing how it goes.

use std::time::{Duration, Instant};

use baton_core::ids::ServiceName;
use baton_wire::api::{DeployView, FailureView, ServiceStatus};

use crate::args::{Until, Wait};
use crate::client::ClientError;
use crate::context::Context;
use crate::course::{self, Course, Stage};
use crate::end::End;
use crate::failure::Failure;
use crate::patience::Pauses;
use crate::render::rollout::{Told, block, change_line, phase_line, summary};
use crate::table::fit;
use crate::ui::{Live, Ui};
use crate::{moment, render};

/// How long one question waits for a change. Shorter than what proxies allow.
const QUESTION: Duration = Duration::from_secs(25);
/// The same where the elapsed time is redrawn.
const TICK: Duration = Duration::from_secs(1);

/// Follows a deploy that was just accepted to its end, as far as the caller wants to wait; prints the result.
///
/// # Errors
/// [`End`] when it ended otherwise than well, or took too long; else the server refuses or is gone for good.
pub fn follow(
    context: &Context,
    service: &ServiceName,
    deploy: &DeployView,
    wait: &Wait,
) -> Result<(), Failure> {
    if wait.detach {
        return context.ui.result(deploy, |deploy| {
            let accepted = render::rollout::accepted(deploy);
            format!(
                "{accepted}see how it goes with `baton status {service} --watch`, wait for its end with `baton wait \
                 --service {service}`\n"
            )
        });
    }
    let ended = to_the_end(context, service, deploy, Course::of(deploy), wait)?;
    tell(context, deploy, &ended, Some(ended.took), wait.until)
}

/// The same for a deploy that was accepted before; `deploys` are those of its service.
///
/// # Errors
/// As for [`follow`].
pub fn follow_on(
    context: &Context,
    service: &ServiceName,
    deploy: &DeployView,
    deploys: &[DeployView],
    wait: &Wait,
) -> Result<(), Failure> {
    let ended = to_the_end(context, service, deploy, Course::among(deploy, deploys), wait)?;
    // How long it took nobody has seen; but how long it was waited for in vain.
    let took = Some(ended.took).filter(|_| end(ended.stage, wait.until) == Some(End::TimedOut));
    tell(context, deploy, &ended, took, wait.until)
}

/// How a deploy stood when the waiting for it ended.
struct Ended {
    stage: Stage,
    status: ServiceStatus,
    took: Duration,
    cause: Option<FailureView>,
}

fn to_the_end(
    context: &Context,
    service: &ServiceName,
    deploy: &DeployView,
    course: Course,
    wait: &Wait,
) -> Result<Ended, Failure> {
    context.ui.text(&render::rollout::accepted(deploy))?;
    context.interrupt.on_ctrl_c(&format!(
        "detached: the rollout goes on; see `baton status {service} --watch`, stop it with `baton halt`"
    ));
    watch(context, service, deploy, course, wait)
}

fn tell(
    context: &Context,
    deploy: &DeployView,
    ended: &Ended,
    took: Option<Duration>,
    until: Until,
) -> Result<(), Failure> {
    let Ended { stage, status, cause, .. } = ended;
    context.ui.result(status, |status| summary(deploy, *stage, status, cause.as_ref(), took))?;
    match end(*stage, until) {
        None => Ok(()),
        Some(end) => Err(Failure::Ended(end)),
    }
}

/// What a stage means to who waited; nothing when it is what was wanted.
const fn end(stage: Stage, until: Until) -> Option<End> {
    match stage {
        Stage::Drained => None,
        Stage::Switched => match until {
            Until::Switched => None,
            Until::Drained => Some(End::TimedOut),
        },
        Stage::Incomplete => Some(End::Incomplete),
        Stage::Halted | Stage::RollbackStuck => Some(End::Halted),
        Stage::RolledBack => Some(End::RolledBack),
        Stage::Superseded => Some(End::Superseded),
        Stage::Rolling | Stage::RollingBack => Some(End::TimedOut),
    }
}

/// Looks until the deploy has ended or the time is up.
fn watch(
    context: &Context,
    service: &ServiceName,
    deploy: &DeployView,
    mut course: Course,
    wait: &Wait,
) -> Result<Ended, Failure> {
    let (start, limit) = (Instant::now(), Duration::from_millis(wait.timeout.0));
    let mut show = Show::default();
    let mut cause = None;
    let mut status = context.client.service(service)?;
    loop {
        let stage = course.see(&status);
        if stage != Stage::Superseded {
            // What takes it back carries on why; what fails after that is another story.
            cause = cause.or_else(|| status.failure.clone());
        }
        show.status(&context.ui, &status, start.elapsed())?;
        let left = limit.saturating_sub(start.elapsed());
        let ended = match stage {
            Stage::Rolling | Stage::RollingBack => false,
            Stage::Switched => wait.until == Until::Switched,
            Stage::Drained
            | Stage::Incomplete
            | Stage::Halted
            | Stage::RolledBack
            | Stage::RollbackStuck
            | Stage::Superseded => true,
        };
        if ended || left.is_zero() {
            let took = start.elapsed();
            let may_have_ended = stage == Stage::Superseded && wait.until == Until::Switched;
            let stage = if may_have_ended { how_it_was(context, service, deploy)? } else { stage };
            return Ok(Ended { stage, status, took, cause });
        }
        let longest = if context.ui.is_live() { TICK } else { QUESTION };
        match context.client.service_after(service, status.version, left.min(longest)) {
            Ok(newer) => status = newer,
            Err(away) if away.is_away() => {
                show.away(&context.ui, &away)?;
                status = back_again(context, service, limit.saturating_sub(start.elapsed()))?;
            }
            Err(other) => return Err(other.into()),
        }
    }
}

/// Waits for a server that is away. The rollout goes on meanwhile, or stands where it is.
fn back_again(context: &Context, service: &ServiceName, limit: Duration) -> Result<ServiceStatus, Failure> {
    let (start, mut pauses) = (Instant::now(), Pauses::default());
    loop {
        pauses.take(limit.saturating_sub(start.elapsed()));
        match context.client.service(service) {
            Err(away) if away.is_away() && start.elapsed() < limit => {}
            answer => return Ok(answer?),
        }
    }
}

/// What became of a deploy that another one took over from: it may have ended just before.
fn how_it_was(context: &Context, service: &ServiceName, deploy: &DeployView) -> Result<Stage, Failure> {
    Ok(course::stage_before(deploy, &context.client.deploys(service)?))
}

/// Shows a rollout as it goes on: redrawn on a terminal, else a line for each change.
#[derive(Default)]
struct Show {
    live: Live,
    /// The status that was shown last, and when.
    last: Option<(ServiceStatus, Duration)>,
    line: String,
    told: Told,
}

impl Show {
    fn status(&mut self, ui: &Ui, status: &ServiceStatus, elapsed: Duration) -> Result<(), Failure> {
        if ui.is_live() {
            if let Some((last, at)) = self.last.take().filter(|(last, _)| another_phase(last, status)) {
                self.live.keep(ui, &phase_line(&last, at, ui.width, ui.paint))?;
            }
            self.live.draw(ui, &block(status, elapsed, ui.width, ui.paint))?;
            self.last = Some((status.clone(), elapsed));
            return Ok(());
        }
        let line = change_line(status);
        if self.line == line {
            return Ok(());
        }
        let short = self.told.cut(&line);
        ui.text(&format!("{}  {short}\n", moment::stamp(moment::now_ms())))?;
        self.told.note(status);
        self.line = line;
        Ok(())
    }

    fn away(&mut self, ui: &Ui, away: &ClientError) -> Result<(), Failure> {
        let text = format!("{away}; trying again");
        self.line.clear();
        if ui.is_live() {
            self.live.keep(ui, &format!("{}\n", fit(&text, ui.width)))
        } else {
            ui.text(&format!("{}  {text}\n", moment::stamp(moment::now_ms())))
        }
    }
}

/// Whether what was shown last is over: its line stays, and another one begins.
fn another_phase(last: &ServiceStatus, now: &ServiceStatus) -> bool {
    let of = |status: &ServiceStatus| (status.deploy.as_ref().map(|deploy| deploy.epoch), status.phase);
    of(last) != of(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::sample;

    #[test]
    fn every_end_has_its_exit_code() {
        for (stage, exit) in [
            (Stage::Switched, None),
            (Stage::Incomplete, Some(Exit::Failed)),
            (Stage::Halted, Some(Exit::Halted)),
            (Stage::RolledBack, Some(Exit::Halted)),
            (Stage::RollbackStuck, Some(Exit::Halted)),
            (Stage::Superseded, Some(Exit::Conflict)),
            (Stage::Rolling, Some(Exit::TimedOut)),
            (Stage::RollingBack, Some(Exit::TimedOut)),
        ] {
            assert_eq!(end(stage, Until::Switched).map(End::exit), exit, "{stage:?}");
        }
    }

    #[test]
    fn who_waits_for_the_last_old_generation_has_not_got_it_before() {
        assert_eq!(end(Stage::Switched, Until::Drained), Some(End::TimedOut));
        for until in [Until::Switched, Until::Drained] {
            assert_eq!(end(Stage::Drained, until), None);
        }
    }

    #[test]
    fn a_phase_is_over_when_the_next_or_another_deploy_begins() {
        let now = sample::status("rolling-out");
        let mut next = now.clone();
        next.counts.proven += 1;
        assert!(!another_phase(&now, &next));
        next.phase += 1;
        assert!(another_phase(&now, &next));
        let mut back = now.clone();
        back.deploy = None;
        assert!(another_phase(&now, &back));
    }
}
