//! `baton pending`: deploys that wait for a second person.

use baton_core::ids::ServiceName;
use baton_core::trust::Signed;
use baton_wire::access::{Approving, PendingView, Protection, ProtectionView};

use crate::args::{Pending, PendingAction, PendingApprove, PendingOne, PendingProtect, Wait};
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow;
use crate::keys;
use crate::moment::now_ms;
use crate::render::access;
use crate::render::rollout::replaces;
use crate::signed::{sign_too, signed_by};

/// Shows what waits, or does something about it.
pub fn run(args: Pending, context: &Context) -> Result<(), Failure> {
    match args.action {
        None => {
            let pending = context.client.pending()?;
            context.ui.result(&pending, |pending| access::pending(pending, now_ms(), context.ui.width))
        }
        Some(PendingAction::Approve(args)) => approve(&args, context),
        Some(PendingAction::Reject(args)) => {
            let rejected = context.client.reject(&one(&args, context)?)?;
            context.ui.result(&rejected, |rejected| format!("{} waits no more\n", rejected.id))
        }
        Some(PendingAction::Protect(args)) => protect(args, context),
    }
}

/// Lets one begin, and waits for its end if that is wanted.
fn approve(args: &PendingApprove, context: &Context) -> Result<(), Failure> {
    let pending = one(&args.one, context)?;
    let keys = keys::read(&args.keys)?;
    let warrant = match &args.release {
        Some(release) => Some(sign_too(&pending, release, &keys)?),
        None if !keys.is_empty() && !args.as_signed && pending.asked.warrant.is_some() => {
            let text = "there is a key, and nothing says what it signs: name the release with --release, or let it begin with the \
                        signatures that it has, by --as-signed";
            return Err(Failure::Usage(text.to_owned()));
        }
        None => None,
    };
    let approving = Approving { warrant: warrant.as_ref().map(Signed::to_text), as_signed: args.as_signed };
    let deploy = context.client.approve(&pending, &approving)?;
    if let Some(warrant) = &warrant {
        context.ui.text(&signed_by(warrant))?;
    }
    let service: ServiceName = deploy.service.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    if let Some(until) = args.wait {
        return follow(context, &service, &deploy, &Wait { until, detach: false, timeout: args.timeout });
    }
    context.ui.result(&deploy, |deploy| {
        format!(
            "deploy {} of {service} has begun: wait for its end with `baton wait --service {service}`\n{}",
            deploy.epoch,
            replaces(deploy)
        )
    })
}

fn protect(args: PendingProtect, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    let protection = context.client.protect(&service, Protection { protected: !args.off })?;
    context.ui.result(&protection, |ProtectionView { protected, by }| match (protected, by) {
        (true, _) => format!("deploys of {service} wait for a second person\n"),
        (false, Some(by)) => format!(
            "{service} itself is not protected, and its deploys wait for a second person all the same, since {by} is: \
             `baton pending protect --service {by} --off` is for both\n"
        ),
        (false, None) => format!("deploys of {service} wait for nobody\n"),
    })
}

/// The one whose id begins so.
fn one(args: &PendingOne, context: &Context) -> Result<PendingView, Failure> {
    let pending = context.client.pending()?;
    let mut found = pending.into_iter().filter(|pending| pending.id.starts_with(&args.id));
    match (found.next(), found.next()) {
        (Some(pending), None) => Ok(pending),
        (None, _) => Err(Failure::Usage(format!("nothing waits as {}: see `baton pending`", args.id))),
        (Some(_), Some(_)) => {
            Err(Failure::Usage(format!("several begin with {}: write more digits", args.id)))
        }
    }
}
