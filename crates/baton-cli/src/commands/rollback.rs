//! `baton rollback`: back to the release before, or to one that was named.

use baton_wire::api::{Propose, Wanted};

use crate::args::Rollback;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow;
use crate::keys;
use crate::proposal::proposal;
use crate::signed::propose;

/// Proposes the rollback and waits for its end.
pub fn run(args: Rollback, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    let proposal = Propose { release: args.to, ..proposal(Wanted::Rollback, args.message)? };
    let deploy = propose(context, &service, proposal, &keys::read(&args.signing.keys)?, &args.signing)?;
    follow(context, &service, &deploy, &args.wait)
}
