//! `baton demo`: the whole product on this machine.

use crate::demo;
use crate::failure::Failure;
use crate::ui::Ui;

/// Runs the demo and prints it as it goes.
///
/// # Errors
/// A step did not end as it should, or requests were lost.
pub fn run(ui: &Ui) -> Result<(), Failure> {
    let clean = demo::run(&|line| {
        // A terminal that is gone is no reason to leave processes behind.
        let _ = ui.text(&format!("{line}\n"));
    })?;
    if clean { Ok(()) } else { Err(demo::DemoError::Lost.into()) }
}
