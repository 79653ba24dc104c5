//! `baton resume`: what was halted goes on.

use baton_wire::api::Wanted;

use crate::args::Resume;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow;
use crate::proposal::proposal;

/// Proposes to go on and waits for the end.
pub fn run(args: Resume, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    let deploy = context.client.propose(&service, &proposal(Wanted::Resume, args.message)?)?;
    follow(context, &service, &deploy, &args.wait)
}
