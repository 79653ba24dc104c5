//! What members and their programs write, each line with the member's name before it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::escape::escape;
use crate::failure::Failure;
use crate::ui::Ui;

/// A pipe with a name, to which a member writes.
pub struct Output;

impl Output {
    /// Makes it, and passes on what comes on a thread of its own, for as long as this program runs.
    pub fn open(path: &Path, member: &str, ui: Ui) -> Result<(), Failure> {
        let failed = |source| Failure::Write { path: path.to_owned(), source };
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|error| failed(error.into()))?;
        // Also for writing, so that it has no end while a member is started anew.
        let pipe = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let member = member.to_owned();
        let thread = std::thread::Builder::new().name(member.clone());
        thread.spawn(move || pass_on(pipe, &member, ui)).map(drop).map_err(failed)
    }
}

fn pass_on(pipe: File, member: &str, ui: Ui) {
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // Where a terminal is gone, Ctrl-C comes as well.
        let _ = ui.text(&format!("{member} | {}\n", escape(&line)));
    }
}
