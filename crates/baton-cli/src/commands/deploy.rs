//! `baton deploy`: a release, onto the members of a service.

mod ordered;

use std::path::Path;

use baton_core::deploy::Policy;
use baton_core::ids::ServiceName;
use baton_wire::api::{Propose, Wanted};

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
    // No release has that in its id: it is a flavor of a directory.
    let flavor = args.release.take_if(|text| text.contains('@'));
    let here = Path::new(flavor.as_deref().unwrap_or("."));
    let meant = meant(&args, here, context)?;
    // Before anything is pushed: what cannot be rolled out or signed need not travel.
    let policy = policy::meant(meant.policy, &args)?;
    let keys = keys::read(&args.signing.keys)?;
    let release = match (args.release, meant.project) {
        (Some(release), _) => release,
        (None, _) if args.secrets => refresh(&meant.service, &keys, context)?.to_string(),
        (None, _) if args.renew => in_force(&meant.service, context)?,
        (None, Some(project)) => push(&project, meant.service.clone(), &keys, context)?.to_string(),
        (None, None) => {
            let project = Project::required(here)?;
            push(&project, meant.service.clone(), &keys, context)?.to_string()
        }
    };
    let proposal = Propose {
        release: Some(release),
        policy: Some(policy::view(&policy)),
        again: args.again,
        dry_run: args.dry_run,
        ..proposal(Wanted::Rollout, args.message)?
    };
    if args.dry_run {
        let preview = context.client.preview(&meant.service, &proposal)?;
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
    let service = match (&args.service, &project) {
        (Some(typed), _) => typed.clone(),
        (None, Some(project)) => project.settings.service.clone(),
        (None, None) => context.service(None)?,
    };
    let settings = project.as_ref().map(|project| &project.settings);
    let own = |name: &ServiceName| args.release.is_none() || *name == service;
    let policy = settings.filter(|settings| own(&settings.service)).map(|settings| settings.policy.clone());
    Ok(Meant { service, policy, project })
}
