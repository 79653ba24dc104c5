//! `baton doctor`: runs the program as Baton does, and tells what it does and what to set.

use std::fs;
use std::path::Path;

use baton_core::doctor::{Verdict, findings};

use crate::args::Doctor;
use crate::doctor::{Subject, catch_interrupts, examine};
use crate::failure::Failure;
use crate::local::beside;
use crate::project::{FILE, Project};
use crate::render;
use crate::render::doctor::Diagnosis;
use crate::ui::Ui;

/// Tries the program of a directory out, and prints the findings.
///
/// # Errors
/// Something loses requests, or the program cannot be tried.
pub fn run(args: &Doctor, ui: &Ui) -> Result<(), Failure> {
    let dir = directory(&args.dir)?;
    let project = Project::required(&args.dir)?;
    catch_interrupts()?;
    let boot = beside("baton-boot")?;
    let file = dir.join(FILE);
    let subject = Subject {
        boot: &boot,
        directory: &dir,
        file: &file,
        settings: &project.settings,
        path: &args.path,
        slow: args.slow.as_deref(),
        thoroughly: true,
    };
    ui.remark(&format!(
        "runs {} under baton-boot, reloads it under a small load (bake {}), stops it, and starts it elsewhere; \
         some seconds, at most {}",
        project.settings.service,
        subject.bake(),
        subject.at_most()
    ));
    let examined = examine(&subject)?;
    let found = findings(&project.settings.run, &examined.seen);
    let bad = found.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    let diagnosis = Diagnosis::new(&project.settings, &examined, &found);
    ui.result(&diagnosis, |diagnosis| render::doctor::diagnosis(diagnosis, ui))?;
    if bad == 0 { Ok(()) } else { Err(Failure::Unfit(bad)) }
}

/// The directory as it is called from anywhere.
///
/// # Errors
/// There is none.
pub fn directory(dir: &Path) -> Result<std::path::PathBuf, Failure> {
    fs::canonicalize(dir).map_err(|source| Failure::Read { path: dir.to_owned(), source })
}
