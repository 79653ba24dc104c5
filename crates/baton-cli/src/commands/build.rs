//! `baton build`: what the steps of a project make.

use crate::args::Build;
use crate::build::{Trust, build};
use crate::context::Context;
use crate::failure::Failure;
use crate::project::Project;

/// Takes the build steps of a directory.
pub fn run(args: &Build, context: &Context) -> Result<(), Failure> {
    let project = Project::required(&args.dir)?;
    if project.settings.build.is_empty() {
        context.ui.remark("baton.toml has no build steps: describe them in [[build]]");
    }
    let built = build(&project, context, Trust::Store, args.explain)?;
    context.ui.result(&built, |_| String::new())
}
