//! What people type.

mod args;
mod build;
mod caches;
mod client;
mod commands;
mod context;
mod course;
mod demo;
mod dev;
mod difference;
mod doctor;
mod end;
mod environments;
mod escape;
mod exit;
mod failure;
mod follow;
mod interrupt;
mod keys;
mod local;
mod locked;
mod moment;
mod patience;
mod policy;
mod progress;
mod project;
mod proposal;
mod proposed;
mod reader;
mod render;
#[cfg(test)]
mod sample;
mod secrets;
mod signed;
mod soname;
mod table;
mod ui;

use std::process::ExitCode;

use crate::exit::Exit;
use crate::ui::Ui;

fn main() -> ExitCode {
    let cli = args::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let ui = Ui::new(cli.global.output, std::env::var_os("NO_COLOR").as_deref());
    match commands::run(cli, ui) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            if failure.exit() != Exit::Done {
                ui.complain(failure.code(), &failure.message());
            }
            failure.exit().into()
        }
    }
}
