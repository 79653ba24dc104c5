//! `baton deploys`: what was deployed, by whom, and what became of it.

use crate::args::Deploys;
use crate::context::Context;
use crate::failure::Failure;
use crate::moment::now_ms;
use crate::render::lists;

/// Prints the deploys of a service.
pub fn run(args: Deploys, context: &Context) -> Result<(), Failure> {
    let deploys = context.client.deploys(&context.service(args.service)?)?;
    context.ui.result(&deploys, |deploys| lists::deploys(deploys, now_ms(), context.ui.width))
}
