//! `baton halt`: a rollout stops where it is.

use baton_wire::api::Wanted;

use crate::args::Halt;
use crate::context::Context;
use crate::failure::Failure;
use crate::proposal::proposal;
use crate::render;

/// Proposes the halt; it is in force once it is accepted.
pub fn run(args: Halt, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    let deploy = context.client.propose(&service, &proposal(Wanted::Halt, args.message)?)?;
    context.ui.result(&deploy, |deploy| {
        format!(
            "{}go on with `baton resume`, or take it back with `baton rollback`\n",
            render::rollout::accepted(deploy)
        )
    })
}
