//! `baton push`: a release of a directory, on the server.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use baton_core::ids::{ReleaseId, ServiceName};
use baton_core::release::Manifest;
use baton_core::units::Millis;
use baton_release::manifest;
use baton_release::push::{Prepared, Reading, Source, Step, Wanted, literally, prepare};
use baton_release::remote::Remote;
use baton_release::signing::PrivateKey;
use baton_wire::api::{ReleaseView, ServiceStatus};
use serde::Serialize;

use crate::args::Push;
use crate::build::{Trust, build};
use crate::context::Context;
use crate::difference::{Difference, difference};
use crate::failure::{Failure, chain};
use crate::progress::Progress;
use crate::project::Project;
use crate::proposal::actor;
use crate::secrets::pinned;
use crate::signed::sign;
use crate::{caches, keys, render};

/// How many pairs of twins are named.
const TWINS_MAX: usize = 3;

/// What a push has done, or would do.
#[derive(Serialize)]
pub struct View {
    #[serde(flatten)]
    release: ReleaseView,
    /// Content that the server did not have, in bytes.
    bytes_new: u64,
    /// Whether the release is on the server now; not after `--dry-run`.
    pushed: bool,
    /// What changes from the release in force; absent when there is none.
    difference: Option<Difference>,
}

/// Pushes a directory, signs the release if there is a key, and prints it.
pub fn run(args: Push, context: &Context) -> Result<(), Failure> {
    let project = Project::required(&args.dir)?;
    let service = args.service.unwrap_or_else(|| project.settings.service.clone());
    let project = project.of_service(&service)?;
    let keys = keys::read(&args.keys)?;
    if !args.no_build {
        build(&project, context, trust(&keys), false)?;
    }
    let view = Pushing::begin(&project, service, context)?.end(args.dry_run, &keys)?;
    context.ui.result(&view, |_| String::new())
}

/// Pushes a project as a release of this service, and says so.
///
/// # Errors
/// The server cannot be reached, or the directory cannot become a release.
pub fn push(
    project: &Project,
    service: ServiceName,
    keys: &[PrivateKey],
    context: &Context,
) -> Result<ReleaseId, Failure> {
    build(project, context, trust(keys), false)?;
    let push = Pushing::begin(project, service, context)?;
    let id = push.id();
    push.end(false, keys)?;
    Ok(id)
}

/// What a signature vouches for was made by whoever signs.
fn trust(keys: &[PrivateKey]) -> Trust {
    if keys.is_empty() { Trust::Store } else { Trust::Here }
}

/// A directory that has been read, and a server that is there.
pub struct Pushing<'a> {
    context: &'a Context,
    dir: PathBuf,
    prepared: Prepared,
    store: Remote,
    /// The release in force.
    in_force: Option<String>,
    start: Instant,
    progress: Mutex<Progress>,
}

impl<'a> Pushing<'a> {
    /// Reads the directory.
    ///
    /// # Errors
    /// The server cannot be reached, or the directory cannot become a release.
    pub fn begin(project: &Project, service: ServiceName, context: &'a Context) -> Result<Self, Failure> {
        let start = Instant::now();
        // Says at once that nobody is there; the store's own calls are patient.
        let in_force = in_force(&context.client.services()?, &service);
        context.interrupt.on_ctrl_c("stopped: no release was pushed; pushing again goes on from here");
        let settings = &project.settings;
        let source = Source {
            dir: project.dir.clone(),
            run: pinned(&settings.run, &service, context)?,
            service,
            builder: actor(),
        };
        let made = settings.build.iter().flat_map(|step| &step.outputs);
        let made = made.map(|output| literally(output.as_str()));
        let (include, exclude) = (settings.push.include.iter().cloned(), settings.push.exclude.clone());
        let wanted = Wanted {
            include: include.chain(made).collect(),
            exclude,
            external_links: settings.push.external_links.clone(),
            only: false,
            own: caches::home(),
        };
        let reading =
            Reading { wanted, stat_caches: caches::folder("push"), portable: settings.push.portable };
        let progress = Mutex::new(Progress::default());
        let prepared = prepare(&source, &reading, &|step| show(&progress, step, context))?;
        let store = Remote::of(context.client.control());
        Ok(Self { context, dir: project.dir.clone(), prepared, store, in_force, start, progress })
    }

    /// The release that it is.
    pub fn id(&self) -> ReleaseId {
        self.prepared.id()
    }

    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        self.prepared.manifest()
    }

    /// Brings the release to the server and signs it, or only finds out what that would take, and says so.
    ///
    /// # Errors
    /// The server cannot be reached, or something has changed meanwhile.
    pub fn end(self, dry_run: bool, keys: &[PrivateKey]) -> Result<View, Failure> {
        let Self { context, dir, prepared, store, in_force, start, progress } = self;
        let (brought, changes, twins) = thread::scope(|scope| {
            // What there is to say of it is found out meanwhile.
            let changes = scope.spawn(|| in_force.map(|since| changes(since, &prepared, &dir, &store)));
            let twins = scope.spawn(|| twins(&prepared));
            let brought = match dry_run {
                true => prepared.lacking(&store).map(|lacking| lacking.bytes),
                false => prepared
                    .send(&store, &|step| show(&progress, step, context))
                    .map(|pushed| pushed.bytes_new),
            };
            (brought, changes.join().ok().flatten(), twins.join().unwrap_or_default())
        });
        progress.into_inner().unwrap_or_else(PoisonError::into_inner).clear(&context.ui)?;
        let bytes_new = brought?;
        // What cannot be found out is no reason not to push.
        let difference = changes.and_then(|changes| changes.inspect_err(|why| context.ui.remark(why)).ok());
        let (id, manifest) = (prepared.id(), prepared.manifest());
        let view = View { release: view(id, manifest), bytes_new, pushed: !dry_run, difference };
        context.ui.text(&told(&view, start.elapsed()))?;
        if !dry_run {
            sign(id, manifest, keys, &store, &context.ui)?;
        }
        twins.iter().for_each(|twins| context.ui.remark(twins));
        if view.release.files == 0 {
            context.ui.remark("the release has no files: is it the right directory, and do .gitignore and .batonignore leave something?");
        }
        Ok(view)
    }
}

fn show(progress: &Mutex<Progress>, step: Step, context: &Context) {
    progress.lock().unwrap_or_else(PoisonError::into_inner).step(step, &context.ui);
}

fn in_force(services: &[ServiceStatus], service: &ServiceName) -> Option<String> {
    let status = services.iter().find(|status| status.service == service.as_str())?;
    Some(status.deploy.as_ref()?.release.clone())
}

/// What changes since a release, or why that is not known.
fn changes(since: String, new: &Prepared, dir: &Path, store: &Remote) -> Result<Difference, String> {
    let unknown = |why: &dyn Error| {
        format!("what changes since release {} is not known: {}", render::id(&since), chain(why))
    };
    let id: ReleaseId = since.parse().map_err(|error| unknown(&error))?;
    if id == new.id() {
        return Ok(difference(since, new.manifest(), new.manifest(), dir, store));
    }
    let old = manifest::read(id, store, new.known()).map_err(|error| unknown(&error))?;
    Ok(difference(since, &old, new.manifest(), dir, store))
}

/// What is to be said of paths that are twins.
fn twins(prepared: &Prepared) -> Vec<String> {
    let twins = prepared.twins();
    let others = twins.len().saturating_sub(TWINS_MAX);
    let more = (others > 0).then(|| format!("and {others} more such pairs"));
    let line = |(one, other)| {
        format!("{one} and {other} are one path where case or the form of accents does not count")
    };
    twins.into_iter().take(TWINS_MAX).map(line).chain(more).collect()
}

fn view(id: ReleaseId, manifest: &Manifest) -> ReleaseView {
    let provenance = &manifest.provenance;
    ReleaseView {
        id: id.to_string(),
        service: manifest.service.to_string(),
        files: manifest.tree.files().count() as u64,
        bytes: manifest.tree.bytes(),
        commit: provenance.commit.as_ref().map(|commit| commit.hash.clone()),
        created_ms: provenance.created,
    }
}

fn told(view: &View, took: Duration) -> String {
    let View { release, bytes_new, pushed, difference } = view;
    let (id, service) = (render::id(&release.id), &release.service);
    let files = render::count(release.files, "file");
    let (bytes, new) = (render::bytes(release.bytes), render::bytes(*bytes_new));
    let took = Millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    let first = match pushed {
        true => format!(
            "pushed release {id} of {service}: {files}, {bytes}, of which {new} were new, in {took}\n"
        ),
        false => format!("would push release {id} of {service}: {files}, {bytes}, of which {new} are new\n"),
    };
    first + &difference.as_ref().map(render::difference::difference).unwrap_or_default()
}
