//! `baton releases`: what could be deployed.

use crate::args::Releases;
use crate::context::Context;
use crate::failure::Failure;
use crate::moment::now_ms;
use crate::render::lists;

/// Prints the releases that the server keeps.
pub fn run(args: &Releases, context: &Context) -> Result<(), Failure> {
    let mut releases = context.client.releases()?;
    if let Some(service) = &args.service {
        releases.retain(|release| release.service == service.as_str());
        if releases.is_empty() {
            // Nothing was pushed for it; unless somebody runs it, its name is a mistake.
            context.client.service(service)?;
        }
    }
    context.ui.result(&releases, |releases| lists::releases(releases, now_ms(), context.ui.width))
}
