//! `baton guards`: what keeps mistakes and strangers away, and is switched off.

use crate::context::Context;
use crate::escape::escape;
use crate::failure::Failure;
use crate::render::access;

/// Prints those that are off, which is a failure of its own.
pub fn run(context: &Context) -> Result<(), Failure> {
    let off = context.client.guards()?;
    context.ui.result(&off, |off| access::guards(off, context.ui.width))?;
    if off.is_empty() { Ok(()) } else { Err(Failure::Unguarded(off.len())) }
}

/// Says that some are off, beside what was asked for.
pub fn remind(context: &Context) {
    // A server that does not know of guards has none to tell of.
    let Ok(off) = context.client.guards() else { return };
    if !off.is_empty() {
        let mut names: Vec<String> = off.iter().map(|guard| escape(&guard.guard)).collect();
        names.dedup();
        context.ui.remark(&format!("guards that are switched off: {}; see `baton guards`", names.join(", ")));
    }
}
