//! What people type.

mod args;
mod client;
mod commands;
mod context;
mod course;
mod demo;
mod end;
mod escape;
mod exit;
mod failure;
mod follow;
mod interrupt;
mod moment;
mod policy;
mod project;
mod proposal;
mod render;
#[cfg(test)]
mod sample;
mod table;
mod ui;

use std::io::Write;
use std::process::ExitCode;

use baton_wire::api::Refused;
use clap::Parser;
use serde::Serialize;

use crate::args::Cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::ui::Ui;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::new(cli.global.output, std::env::var_os("NO_COLOR").as_deref());
    match commands::run(cli, ui) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            complain(&failure, ui);
            failure.exit().into()
        }
    }
}

/// A failure as `--output json` has it.
#[derive(Serialize)]
struct Complaint {
    error: Refused,
}

/// Says what is wrong, on standard error: a sentence, or one JSON document.
fn complain(failure: &Failure, ui: Ui) {
    if failure.exit() == Exit::Done {
        return;
    }
    let text = if ui.is_json() {
        let error = Refused { code: failure.code().to_owned(), message: failure.message() };
        serde_json::to_string(&Complaint { error }).unwrap_or_else(|_| failure.message())
    } else {
        format!("baton: {}", failure.message())
    };
    // Where even this cannot be written, the exit code is all that is left.
    let _ = writeln!(std::io::stderr(), "{text}");
}
