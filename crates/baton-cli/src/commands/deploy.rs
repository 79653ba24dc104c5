//! `baton deploy`: a release, onto the members of a service.

mod named;
mod ordered;

use std::path::{Path, PathBuf};

use baton_core::deploy::Policy;
use baton_core::ids::ServiceName;
use baton_wire::api::{PolicyView, Propose, Wanted};

use self::named::Named;
use super::push::push;
use crate::args::Deploy;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow;
use crate::keys;
use crate::project::Project;
use crate::proposal::proposal;
use crate::secrets::refresh;
use crate::signed::propose;
use crate::{policy, render};

/// Pushes if no release was named, proposes the rollout, and waits for its end.
pub fn run(mut args: Deploy, context: &Context) -> Result<(), Failure> {
    if !args.rest.is_empty() {
        return ordered::run(&args, context);
    }
    let named = args.release.take().map(|text| Named::of(&text, Path::new("."))).transpose()?;
    let (here, release) = match named {
        Some(Named::Directory(dir)) => (dir, None),
        Some(Named::Release(release)) => (PathBuf::from("."), Some(release)),
        None => (PathBuf::from("."), None),
    };
    args.release = release;
    let meant = meant(&args, &here, context)?;
    // Before anything is pushed: what cannot be rolled out or signed need not travel.
    let policy = policy::of_service(&meant.service, meant.policy, &args, context)?;
    let keys = keys::read(&args.signing.keys)?;
    let release = match (args.release, meant.project) {
        (Some(release), _) => release,
        (None, _) if args.secrets => refresh(&meant.service, &keys, context)?.to_string(),
        (None, _) if args.renew => in_force(&meant.service, context)?,
        (None, Some(project)) => push(&project, meant.service.clone(), &keys, context)?.to_string(),
        (None, None) => {
            let project = Project::required(&here)?;
            push(&project, meant.service.clone(), &keys, context)?.to_string()
        }
    };
    let proposal = Propose {
        release: Some(release),
        policy: Some(PolicyView::of(&policy)),
        again: args.again,
        dry_run: args.dry_run,
        ..proposal(Wanted::Rollout, args.message)?
    };
    if args.dry_run {
        let preview = context.client.preview(&meant.service, &proposal)?;
        policy::has_room(&policy, &preview)?;
        let width = context.ui.width;
        return context.ui.result(&preview, |preview| render::rollout::preview(preview, width));
    }
    let deploy = propose(context, &meant.service, proposal, &keys, &args.signing)?;
    follow(context, &meant.service, &deploy, &args.wait)
}

/// The release that is in force.
fn in_force(service: &ServiceName, context: &Context) -> Result<String, Failure> {
    let deploy = context.client.service(service)?.deploy;
    deploy.map(|deploy| deploy.release).ok_or_else(|| {
        Failure::Usage(format!("nothing was ever deployed to {service}: there is nothing to sign anew"))
    })
}

/// What is to be deployed, as far as it was typed or stands in the settings.
struct Meant {
    service: ServiceName,
    /// The policy of the settings, when they are those of the service.
    policy: Option<Policy>,
    project: Option<Project>,
}

fn meant(args: &Deploy, here: &Path, context: &Context) -> Result<Meant, Failure> {
    let project = match &args.release {
        None if !args.renew && !args.secrets => Some(Project::required(here)?),
        None => Project::read(here)?,
        Some(_) => Project::read(here)?,
    };
    let typed = args.service.clone().or_else(|| Some(project.as_ref()?.settings.service.clone()));
    let service = match typed {
        Some(service) => service,
        None => context.service(None)?,
    };
    Meant::of(service, project, args.release.is_some())
}

impl Meant {
    /// A deploy of this service in the directory of a project; of a release that was named, or of what is there.
    fn of(service: ServiceName, project: Option<Project>, is_named: bool) -> Result<Self, Failure> {
        let project = project.map(|project| match project.settings.of_service(&service) {
            // A release that is named needs nothing of what is here, such as a flavor that is there no more.
            None if is_named => Ok(project),
            None | Some(_) => project.of_service(&service),
        });
        let project = project.transpose()?;
        let settings = project.as_ref().map(|project| &project.settings);
        let own = settings.filter(|settings| !is_named || settings.service == service);
        Ok(Self { policy: own.map(|settings| settings.policy.clone()), service, project })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavor_that_is_named_by_its_service_is_rolled_out_as_its_settings_say() {
        let folder = tempfile::tempdir().unwrap();
        let text = "service = \"web\"\n[run]\ncommand = [\"serve\"]\n[rollout]\nbake = \"1m\"\n\
                    [flavor.beat]\nrun.command = [\"beat\"]\nrollout.bake = \"2m\"\n";
        std::fs::write(folder.path().join("baton.toml"), text).unwrap();
        let project = || Project::read(folder.path()).unwrap();
        for (service, is_named, minutes, command) in [
            ("web", false, Some(1), "serve"),
            ("web", true, Some(1), "serve"),
            ("web.beat", false, Some(2), "beat"),
            ("web.beat", true, Some(2), "beat"),
            // It is pushed as another service, or is none of these.
            ("staging", false, Some(1), "serve"),
            ("staging", true, None, "serve"),
        ] {
            let meant = Meant::of(service.parse().unwrap(), project(), is_named).unwrap();
            let bake = meant.policy.map(|policy| policy.phases[0].bake.0 / 60_000);
            let run = meant.project.unwrap().settings.run;
            assert_eq!((bake, run.command.as_slice()), (minutes, &[command.to_owned()][..]), "{service}");
        }
    }
}
