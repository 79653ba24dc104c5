//! `baton dev`: one's own program on this machine, as it would be run in a fleet.

mod fleet;
mod output;
mod saves;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use baton_core::ids::ReleaseId;
use baton_core::release::Tree;
use baton_core::run::RunSettings;
use baton_wire::api::{Propose, Wanted};

use self::fleet::Fleet;
use self::saves::Saves;
use crate::args::{Dev, Until, Wait};
use crate::client::Client;
use crate::commands::push::Pushing;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow;
use crate::interrupt::Interrupt;
use crate::project::Project;
use crate::proposal::proposal;
use crate::ui::Ui;
use crate::{build, policy};

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
    let fleet = Fleet::start(&project, args.members, &ui)?;
    let context = Context { client: Client::new(&fleet.control())?, ui, interrupt };
    fleet.wait_for_members(&context.client)?;
    ui.text(&fleet.told())?;
    let fleet = Arc::new(Mutex::new(Some(fleet)));
    let to_stop = Arc::clone(&fleet);
    context.interrupt.before_leaving(Some(Box::new(move || stop(&to_stop))));
    let done = deploy_and_watch(args, &project, &context);
    stop(&fleet);
    done
}

/// Stops all members and control; who comes second waits until that is done.
fn stop(fleet: &Mutex<Option<Fleet>>) {
    drop(fleet.lock().unwrap_or_else(PoisonError::into_inner).take());
}

fn deploy_and_watch(args: &Dev, project: &Project, context: &Context) -> Result<(), Failure> {
    // Before the first deploy: what is saved meanwhile is not missed.
    let saves = args.watch.then(|| Saves::of(&args.dir)).transpose()?;
    let mut last = None;
    let first = deploy(args, project, &mut last, context);
    let Some(saves) = saves else {
        first?;
        context.ui.text("Ctrl-C stops all of it\n")?;
        loop {
            std::thread::park();
        }
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
        policy: Some(policy::view(&policy::named(args.policy))),
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

/// A folder for what lives as long as this program.
fn folder() -> Result<tempfile::TempDir, Failure> {
    let made = tempfile::Builder::new().prefix("baton-dev-").tempdir();
    made.map_err(|source| Failure::System { what: "make a temporary folder", source })
}

/// A program that lies beside this one.
fn beside(name: &str) -> Result<std::path::PathBuf, Failure> {
    let this = std::env::current_exe();
    let this = this.map_err(|source| Failure::System { what: "find this program", source })?;
    let path = this.with_file_name(name);
    match path.is_file() {
        true => Ok(path),
        false => Err(Failure::Usage(format!(
            "there is no {name} in {}: install it beside `baton`",
            this.parent().unwrap_or(Path::new("/")).display()
        ))),
    }
}
