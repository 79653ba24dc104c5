//! `baton dev`: one's own program on this machine, as it would be run in a fleet.

mod fleet;
mod output;
mod saves;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_core::ids::ReleaseId;
use baton_core::release::Tree;
use baton_core::run::RunSettings;
use baton_wire::api::{PolicyView, Propose, Wanted};

use self::fleet::Fleet;
use self::saves::Saves;
use crate::args::{Dev, Until, Wait};
use crate::client::Client;
use crate::commands::push::Pushing;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow;
use crate::interrupt::Interrupt;
use crate::local::LocalError;
use crate::project::Project;
use crate::proposal::proposal;
use crate::ui::Ui;
use crate::{build, policy};

/// How long control and members may take to come.
const LIMIT: Duration = Duration::from_secs(30);
/// How long to wait between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What was pushed last, but for when and by whom.
type Content = (RunSettings, Tree);

/// Starts control and members, deploys the directory to them, and again whenever it is saved; until Ctrl-C.
///
/// # Errors
/// The fleet cannot be started; or the first deploy does not end well, and nobody watches for a better one.
pub fn run(args: &Dev, ui: Ui) -> Result<(), Failure> {
    let project = Project::required(&args.dir)?;
    // The lines of members come in between.
    let ui = ui.plain();
    let interrupt =
        Interrupt::install().map_err(|source| Failure::System { what: "catch Ctrl-C", source })?;
    // Before anything is there that would be left over.
    let stage = Arc::new(Mutex::new(Stage::Open));
    let to_close = Arc::clone(&stage);
    let leaving = interrupt.before_leaving(move || close(&to_close));
    let done = start(args, &project, &stage, &ui).and_then(|client| {
        deploy_and_watch(args, &project, &Context { client, servers: Vec::new(), ui, interrupt })
    });
    close(&stage);
    drop(leaving);
    done
}

/// Where the fleet is, for this thread and for that of Ctrl-C.
enum Stage {
    /// Nothing is there yet.
    Open,
    /// It is there.
    Running(Fleet),
    /// It is gone, and with it the reason for this program.
    Closed,
}

fn on(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stops all members and control. Whoever comes second waits for the first one to end this program.
fn close(stage: &Mutex<Stage>) {
    let mut stage = on(stage);
    if matches!(*stage, Stage::Closed) {
        drop(stage);
        wait_for_the_end();
    }
    *stage = Stage::Closed;
}

fn wait_for_the_end() -> ! {
    loop {
        std::thread::park();
    }
}

/// Starts the fleet and waits until all of it is in touch.
fn start(args: &Dev, project: &Project, stage: &Mutex<Stage>, ui: &Ui) -> Result<Client, Failure> {
    let (client, service, size) = {
        let mut stage = on(stage);
        if matches!(*stage, Stage::Open) {
            *stage = Stage::Running(Fleet::open(project)?);
        }
        let Stage::Running(fleet) = &mut *stage else { wait_for_the_end() };
        fleet.start(project, args.members, ui)?;
        (Client::new(&fleet.control())?, fleet.service().clone(), fleet.size())
    };
    let begun = Instant::now();
    loop {
        let live = client.service(&service).map(|status| status.counts.live as usize);
        let Stage::Running(fleet) = &mut *on(stage) else { wait_for_the_end() };
        if live.is_ok_and(|live| live == size) {
            ui.text(&fleet.told())?;
            return Ok(client);
        }
        fleet.check()?;
        if begun.elapsed() > LIMIT {
            return Err(LocalError::Unreported(LIMIT.as_secs()).into());
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

fn deploy_and_watch(args: &Dev, project: &Project, context: &Context) -> Result<(), Failure> {
    // Before the first deploy: what is saved meanwhile is not missed.
    let saves = args.watch.then(|| Saves::of(&args.dir)).transpose()?;
    let mut last = None;
    let first = deploy(args, project, &mut last, context);
    let Some(saves) = saves else {
        first?;
        context.ui.text("Ctrl-C stops all of it\n")?;
        wait_for_the_end();
    };
    tell(first, &context.ui);
    loop {
        context.ui.text("waiting for a file to be saved; Ctrl-C stops all of it\n")?;
        saves.wait()?;
        tell(again(args, &mut last, context), &context.ui);
    }
}

/// A mistake is the next thing to be mended, and no reason to end.
fn tell(done: Result<(), Failure>, ui: &Ui) {
    if let Err(failure) = done {
        ui.complain(failure.code(), &failure.message());
    }
}

/// Deploys what is there now, unless that is what was deployed last.
fn again(args: &Dev, last: &mut Option<Content>, context: &Context) -> Result<(), Failure> {
    deploy(args, &Project::required(&args.dir)?, last, context)
}

fn deploy(
    args: &Dev,
    project: &Project,
    last: &mut Option<Content>,
    context: &Context,
) -> Result<(), Failure> {
    let service = project.settings.service.clone();
    let Some(release) = push(project, last, context)? else { return Ok(()) };
    let proposal = Propose {
        release: Some(release.to_string()),
        policy: Some(PolicyView::of(&policy::named(args.policy))),
        // Whoever tries something out tries it twice.
        again: true,
        ..proposal(Wanted::Rollout, "baton dev".to_owned())?
    };
    let deploy = context.client.propose(&service, &proposal)?;
    let wait = Wait { until: Until::Switched, detach: false, timeout: args.timeout };
    let followed = follow(context, &service, &deploy, &wait);
    context.interrupt.on_ctrl_c("stopped");
    followed
}

/// The release of a directory, which is pushed; nothing when it is as it was the last time.
fn push(
    project: &Project,
    last: &mut Option<Content>,
    context: &Context,
) -> Result<Option<ReleaseId>, Failure> {
    build::build(project, context, build::Trust::Store, false)?;
    let pushing = Pushing::begin(project, project.settings.service.clone(), context)?;
    let manifest = pushing.manifest();
    let content = (manifest.run.clone(), manifest.tree.clone());
    if last.as_ref() == Some(&content) {
        return Ok(None);
    }
    let id = pushing.id();
    pushing.end(false, &[])?;
    *last = Some(content);
    Ok(Some(id))
}
