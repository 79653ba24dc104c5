//! `baton releases`: what could be deployed, and what need not be kept.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use baton_core::ids::ReleaseId;
use baton_release::push::Step;
use baton_release::remote::Remote;
use baton_release::repair::{self, RepairError};
use baton_release::store::Retry;
use baton_wire::api::{Prune, Repair, Repaired as Regained, Tagging, Verified, Verify};

use crate::args::{
    Releases, ReleasesAction, ReleasesPrune, ReleasesRepair, ReleasesTag, ReleasesTags, ReleasesUntag,
    ReleasesVerify,
};
use crate::context::Context;
use crate::failure::{Failure, chain};
use crate::moment::now_ms;
use crate::progress::Progress;
use crate::proposal::actor;
use crate::render::repaired::Repaired;
use crate::render::{self, lists, pruned, regained, repaired, verified};

/// Prints the releases that the server keeps, or does something with them.
pub fn run(args: &Releases, context: &Context) -> Result<(), Failure> {
    match &args.action {
        None => list(args, context),
        Some(ReleasesAction::Prune(args)) => prune(args, context),
        Some(ReleasesAction::Verify(ReleasesVerify {})) => verify(context),
        Some(ReleasesAction::Tag(args)) => tag(args, context),
        Some(ReleasesAction::Untag(args)) => untag(args, context),
        Some(ReleasesAction::Tags(args)) => tags(args, context),
        Some(ReleasesAction::Repair(args)) => repair(args, context),
    }
}

fn list(args: &Releases, context: &Context) -> Result<(), Failure> {
    let mut releases = context.client.releases()?;
    if let Some(service) = &args.service {
        releases.retain(|release| release.service == service.as_str());
        if releases.is_empty() {
            // Nothing was pushed for it; unless somebody runs it, its name is a mistake.
            context.client.service(service)?;
        }
    }
    context.ui.result(&releases, |releases| lists::releases(releases, now_ms(), context.ui.width))
}

fn prune(args: &ReleasesPrune, context: &Context) -> Result<(), Failure> {
    let asked = Prune { dry_run: args.dry_run, keep: args.keep, grace_ms: args.grace.map(|grace| grace.0) };
    let answer = context.client.prune(&asked)?;
    context.ui.result(&answer, |answer| pruned::text(answer, context.ui.width))
}

fn tag(args: &ReleasesTag, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service.clone())?;
    let asked = Tagging { release: args.release.clone(), actor: actor() };
    let tagged = context.client.tag(&service, &args.tag, &asked)?;
    context.ui.result(&tagged, |tagged| {
        format!("{} of {service} is release {}\n", args.tag, render::id(&tagged.release))
    })
}

fn untag(args: &ReleasesUntag, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service.clone())?;
    let was = context.client.untag(&service, &args.tag)?;
    context.ui.result(&was, |was| {
        let was = was.as_ref().map(|was| format!(" (it was release {})", render::id(&was.release)));
        format!("{service} has no tag {} any more{}\n", args.tag, was.unwrap_or_default())
    })
}

fn tags(args: &ReleasesTags, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service.clone())?;
    let tags = context.client.tags(&service)?;
    context.ui.result(&tags, |tags| lists::tags(tags, now_ms(), context.ui.width))
}

/// Asks for one part of the store after the other.
fn verify(context: &Context) -> Result<(), Failure> {
    let mut all = Verified::default();
    let mut progress = Progress::default();
    loop {
        let part = context.client.verify(&Verify { after: all.next.take() })?;
        if all.packs == 0 {
            progress.step(Step::Found { bytes: part.bytes_all }, &context.ui);
        }
        progress.step(Step::Cut { bytes: part.bytes }, &context.ui);
        all.packs += part.packs;
        all.releases += part.releases;
        all.bytes += part.bytes;
        all.bytes_all = part.bytes_all;
        all.damaged.extend(part.damaged);
        all.next = part.next;
        if all.next.is_none() {
            break;
        }
    }
    progress.clear(&context.ui)?;
    context.ui.result(&all, verified::text)?;
    if all.damaged.is_empty() { Ok(()) } else { Err(Failure::Damaged(all.damaged.len())) }
}

/// Gives back what is lost: from these directories, else from the members that the server knows.
fn repair(args: &ReleasesRepair, context: &Context) -> Result<(), Failure> {
    if args.dirs.is_empty() { regain(args.dry_run, context) } else { repair_from(&args.dirs, context) }
}

/// Has the server ask its members, for some releases after the other.
fn regain(dry_run: bool, context: &Context) -> Result<(), Failure> {
    let mut all = Regained { dry_run, ..Regained::default() };
    loop {
        let part = context.client.repair(&Repair { dry_run, from: all.next.take() })?;
        regained::add(&mut all, part);
        if all.next.is_none() {
            break;
        }
        context.ui.remark(&regained::so_far(&all));
    }
    context.ui.result(&all, regained::text)?;
    match all.repaired.iter().filter(|one| !one.is_whole).count() {
        left if left > 0 && !dry_run => Err(Failure::NotRepaired(left)),
        _ => Ok(()),
    }
}

/// Gives back one release after the other. What one member has damaged another one may have right.
fn repair_from(dirs: &[PathBuf], context: &Context) -> Result<(), Failure> {
    // Says at once that nobody is there; the store's own calls are patient.
    context.client.releases()?;
    let store = Remote::of(context.client.control());
    let mut all: Vec<Repaired> = Vec::new();
    for dir in dirs {
        let ids = repair::releases_in(dir)
            .map_err(|error| Failure::Read { path: dir.clone(), source: error.source })?;
        for id in ids {
            all.push(repair_one(id, dir, &store, context)?);
        }
    }
    context.ui.result(&all, |all| repaired::text(all))?;
    match repaired::left(&all) {
        0 => Ok(()),
        left => Err(Failure::NotRepaired(left)),
    }
}

fn repair_one(id: ReleaseId, dir: &Path, store: &Remote, context: &Context) -> Result<Repaired, Failure> {
    let progress = Mutex::new(Progress::default());
    let show = |step: Step| {
        progress.lock().unwrap_or_else(PoisonError::into_inner).step(step, &context.ui);
    };
    let done = repair::give_back(id, dir, store, &show);
    progress.into_inner().unwrap_or_else(PoisonError::into_inner).clear(&context.ui)?;
    match done {
        // What does not work now does not work for the next one either.
        Err(RepairError::Store(error)) if error.retry() == Retry::Later => Err(Failure::Store(error)),
        done => Ok(Repaired::of(id, dir, done.map_err(|error| chain(&error)))),
    }
}
