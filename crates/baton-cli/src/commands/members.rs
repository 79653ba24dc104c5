//! `baton members`: where each member stands, and letting those go that will not come back.

use baton_core::ids::ServiceName;
use baton_wire::api::Forget;

use crate::args::{Members, MembersAction, MembersForget};
use crate::context::Context;
use crate::failure::Failure;
use crate::render::lists;

/// Prints the members of a service, or lets some go.
pub fn run(args: Members, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    match args.action {
        None => {
            let members = context.client.members(&service)?;
            context.ui.result(&members, |members| lists::members(members, context.ui.width))
        }
        Some(MembersAction::Forget(args)) => forget(&service, &args, context),
    }
}

fn forget(service: &ServiceName, args: &MembersForget, context: &Context) -> Result<(), Failure> {
    let members = args.members.iter().map(ToString::to_string).collect();
    let forgotten = context.client.forget(service, &Forget { members, silent: args.silent })?;
    context.ui.result(&forgotten, |forgotten| match forgotten.members.as_slice() {
        [] => format!("no member of {service} is silent: nobody waits for one\n"),
        members => format!("nobody waits any more for {}\n", members.join(", ")),
    })
}
