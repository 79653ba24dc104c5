//! `baton deploy api then web`: several services, one after the other.

use std::collections::BTreeSet;
use std::path::Path;

use baton_core::deploy::Policy;
use baton_core::ids::ServiceName;
use baton_wire::api::{PolicyView, Propose, Wanted};

use super::super::push::push;
use crate::args::Deploy;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow;
use crate::keys;
use crate::project::{FILE, Project};
use crate::proposal::proposal;
use crate::signed::propose;
use crate::{policy, render};

/// What stands between two services.
const THEN: &str = "then";

/// One of the services.
struct Item {
    service: ServiceName,
    source: Source,
    /// That of the settings, where these are of the service.
    policy: Option<Policy>,
}

/// Where its release comes from.
enum Source {
    /// A directory that is pushed first.
    Project(Box<Project>),
    /// One that was pushed.
    Release(String),
}

/// One that control would accept.
struct Checked {
    service: ServiceName,
    proposal: Propose,
    policy: Policy,
}

/// Pushes everything, sees to it that control would take all of it, and then deploys each once the one before it has come
/// to its end. What follows one that has not ended well is not begun.
pub fn run(args: &Deploy, context: &Context) -> Result<(), Failure> {
    let items = items(args, Path::new("."))?;
    let keys = keys::read(&args.signing.keys)?;
    let mut meant = Vec::new();
    for Item { service, source, policy } in items {
        let policy = policy::of_service(&service, policy, args, context)?;
        meant.push((service, source, policy));
    }
    let mut checked = Vec::new();
    for (service, source, policy) in meant {
        let release = match source {
            Source::Project(project) => push(&project, service.clone(), &keys, context)?.to_string(),
            Source::Release(release) => release,
        };
        let proposal = Propose {
            release: Some(release),
            policy: Some(PolicyView::of(&policy)),
            again: args.again,
            ..proposal(Wanted::Rollout, args.message.clone())?
        };
        checked.push(Checked { service, proposal, policy });
    }
    let mut previews = Vec::new();
    for Checked { service, proposal, policy } in &checked {
        let preview = context.client.preview(service, &Propose { dry_run: true, ..proposal.clone() })?;
        if args.dry_run {
            policy::has_room(policy, &preview)?;
        }
        previews.push(preview);
    }
    if args.dry_run {
        let width = context.ui.width;
        return context.ui.result(&previews, |previews| {
            previews.iter().map(|preview| render::rollout::preview(preview, width)).collect()
        });
    }
    let services: Vec<ServiceName> = checked.iter().map(|one| one.service.clone()).collect();
    for (at, Checked { service, proposal, .. }) in checked.into_iter().enumerate() {
        let deployed = propose(context, &service, proposal, &keys, &args.signing)
            .and_then(|deploy| follow(context, &service, &deploy, &args.wait));
        if let Err(failure) = deployed {
            if let [_, ..] = &services[at + 1..] {
                context.ui.remark(&format!("not begun: {}", names(&services[at + 1..])));
            }
            return Err(failure);
        }
    }
    Ok(())
}

fn names(services: &[ServiceName]) -> String {
    services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}

/// What was typed: all of it makes sense before anything is done.
fn items(args: &Deploy, here: &Path) -> Result<Vec<Item>, Failure> {
    if args.service.is_some() || args.wait.detach {
        let text = "several services in an order: each is named by what is deployed there, and waited for; \
                    leave out --service and --detach";
        return Err(Failure::Usage(text.to_owned()));
    }
    let mut items = Vec::new();
    for text in words(args.release.as_deref().unwrap_or_default(), &args.rest)? {
        items.push(item(text, here)?);
    }
    let mut seen = BTreeSet::new();
    match items.iter().find(|item| !seen.insert(item.service.clone())) {
        Some(twice) => Err(Failure::Usage(format!("service {} is named twice", twice.service))),
        None => Ok(items),
    }
}

/// The words between which stands `then`.
fn words<'a>(first: &'a str, rest: &'a [String]) -> Result<Vec<&'a str>, Failure> {
    let mut words = vec![first];
    for pair in rest.chunks(2) {
        match pair {
            [then, next] if then == THEN && next != THEN => words.push(next),
            _ => {
                let text =
                    "write what is deployed with `then` in between, as in: baton deploy ./api then ./web";
                return Err(Failure::Usage(text.to_owned()));
            }
        }
    }
    Ok(words)
}

/// `SERVICE=RELEASE`, which is rolled out as the settings here say, where that is their service; or a directory.
fn item(text: &str, here: &Path) -> Result<Item, Failure> {
    if let Some((service, release)) = text.split_once('=') {
        let service = service.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
        let source = Source::Release(release.to_owned());
        let settings = Project::read(here)?.and_then(|project| project.settings.of_service(&service));
        return Ok(Item { service, source, policy: settings.map(|settings| settings.policy) });
    }
    let project = Project::read(Path::new(text))?.ok_or_else(|| {
        Failure::Usage(format!("{text} is no directory with a {FILE}: name one, or write SERVICE=RELEASE"))
    })?;
    let (service, policy) = (project.settings.service.clone(), Some(project.settings.policy.clone()));
    Ok(Item { service, source: Source::Project(Box::new(project)), policy })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn typed(arguments: &[&str]) -> Deploy {
        match Cli::try_parse_from(["baton", "deploy"].iter().chain(arguments)).unwrap().command {
            Command::Deploy(deploy) => deploy,
            other => panic!("{other:?}"),
        }
    }

    fn services(arguments: &[&str]) -> Result<Vec<String>, String> {
        let items = items(&typed(arguments), Path::new(".")).map_err(|failure| failure.message())?;
        Ok(items.iter().map(|item| item.service.to_string()).collect())
    }

    #[test]
    fn directories_and_releases_are_deployed_in_the_order_in_which_they_were_typed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join(FILE),
            "service = \"api\"\n[run]\ncommand = [\"x\"]\n[rollout]\npolicy = \"fast\"\n",
        )
        .unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(
            services(&[path, "then", "web=9f3a", "then", "mail=1234"]).unwrap(),
            ["api", "web", "mail"]
        );
        let items = items(&typed(&["web=9f3a", "then", path]), Path::new(".")).unwrap();
        let policies: Vec<_> = items.into_iter().map(|item| item.policy).collect();
        assert_eq!(policies, [None, Some(Policy::fast())]);
    }

    #[test]
    fn a_release_is_rolled_out_as_the_settings_here_say_of_its_service() {
        let dir = tempfile::tempdir().unwrap();
        let text =
            "service = \"web\"\n[run]\ncommand = [\"x\"]\n[flavor.beat]\nrollout.policy = \"careful\"\n";
        fs::write(dir.path().join(FILE), text).unwrap();
        let items = items(&typed(&["api=9f3a", "then", "web.beat=1234"]), dir.path()).unwrap();
        let policies: Vec<_> = items.into_iter().map(|item| item.policy).collect();
        assert_eq!(policies, [None, Some(Policy::careful())]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_done() {
        for (typed, why) in [
            (&["web=1234", "api=1234"][..], "`then` in between"),
            (&["web=1234", "then"], "`then` in between"),
            (&["web=1234", "then", "then"], "`then` in between"),
            (&["web=1234", "then", "web=5678"], "named twice"),
            (&["web=1234", "then", "/nowhere"], "no directory"),
            (&["w b=1234", "then", "api=1234"], "not valid"),
            (&["web=1234", "then", "api=1234", "--detach"], "--detach"),
            (&["web=1234", "then", "api=1234", "--service", "web"], "--service"),
        ] {
            let refused = services(typed).unwrap_err();
            assert!(refused.contains(why), "{typed:?}: {refused}");
        }
    }
}
