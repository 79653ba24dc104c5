//! What is stored, whatever stores it.

use baton_wire::stored::LoggedDeploy;

/// Whether a deploy is the next one of a log, stored in its place.
pub(super) fn check_link(
    last: Option<&LoggedDeploy>,
    next: &LoggedDeploy,
    service: &str,
    epoch: u64,
) -> Result<(), &'static str> {
    if next.deploy.service.as_str() != service || next.deploy.epoch.0 != epoch {
        Err("it lies in the place of another one")
    } else if next.deploy.parent != last.map(|last| last.deploy.id) {
        Err("its parent is not the deploy before it")
    } else {
        Ok(())
    }
}
