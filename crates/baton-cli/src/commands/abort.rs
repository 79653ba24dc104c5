//! `baton abort`: what is under way is taken back.

use baton_wire::api::Wanted;

use crate::args::Abort;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow;
use crate::keys;
use crate::proposal::proposal;
use crate::signed::propose;

/// Proposes the rollback and waits for its end.
pub fn run(args: Abort, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    let proposal = proposal(Wanted::Abort, args.message)?;
    let deploy = propose(context, &service, proposal, &keys::read(&args.signing.keys)?, &args.signing)?;
    follow(context, &service, &deploy, &args.wait)
}
