//! `baton-boot`: the process wrapper in every member.

mod config;
mod driver;
mod group;
mod image;
mod log;
mod notify;
mod output;
mod place;
mod probe;
mod rescue;
mod tree;
mod world;

use std::error::Error;
use std::io::Write;

use baton_sys::process::become_subreaper;
use baton_sys::signals::Signals;
use tokio::sync::mpsc;

use crate::config::{Config, Request};
use crate::driver::Driver;
use crate::image::Image;
use crate::place::Place;
use crate::world::World;

/// The exit code for what the bootloader cannot work with: bad arguments or settings.
const EXIT_USAGE: u8 = 2;

fn main() -> std::process::ExitCode {
    // Before anything else: threads inherit the mask, and no signal may come before there is somebody to read it.
    let code = Signals::block_all().map_err(Into::into).and_then(start).unwrap_or_else(|error| {
        log::say(log::chain(&*error));
        EXIT_USAGE
    });
    code.into()
}

fn start(signals: Signals) -> Result<u8, Box<dyn Error>> {
    let config = match Config::parse(std::env::args_os().skip(1), std::env::vars_os().collect())? {
        Request::Run(config) => *config,
        Request::Print(text) => {
            std::io::stdout().write_all(text.as_bytes())?;
            return Ok(0);
        }
    };
    let image = Image::new(&config);
    // Mistakes are told before anything is opened.
    image.load()?;
    become_subreaper()?;
    let place = Place::open(config.state_dir.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let (events, inbox) = mpsc::unbounded_channel();
        let world = World::new(config, place, events);
        Ok::<u8, Box<dyn Error>>(Driver::new(signals, inbox, world, image)?.run().await)
    });
    // Threads that pass on output may still wait for a process that outlived the stop.
    runtime.shutdown_background();
    code
}
