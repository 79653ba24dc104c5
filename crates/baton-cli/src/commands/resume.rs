//! `baton resume`: what was halted goes on.

use baton_wire::api::Wanted;

use crate::args::Resume;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow;
use crate::keys;
use crate::proposal::proposal;
use crate::signed::propose;

/// Proposes to go on and waits for the end.
pub fn run(args: Resume, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    let proposal = proposal(Wanted::Resume, args.message)?;
    let deploy = propose(context, &service, proposal, &keys::read(&args.signing.keys)?, &args.signing)?;
    follow(context, &service, &deploy, &args.wait)
}
