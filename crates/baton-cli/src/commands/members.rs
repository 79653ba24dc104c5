//! `baton members`: where each member stands.

use crate::args::Members;
use crate::context::Context;
use crate::failure::Failure;
use crate::render::lists;

/// Prints the members of a service.
pub fn run(args: Members, context: &Context) -> Result<(), Failure> {
    let members = context.client.members(&context.service(args.service)?)?;
    context.ui.result(&members, |members| lists::members(members, context.ui.width))
}
