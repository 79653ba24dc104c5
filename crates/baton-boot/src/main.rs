//! `baton-boot`: the process wrapper in every member.

mod address;
mod admin;
mod capacity;
mod config;
mod controlled;
mod copying;
mod driver;
mod elsewhere;
mod environment;
mod errands;
mod evidence;
mod followed;
mod forwarding;
mod group;
mod identity;
mod image;
mod interception;
mod link;
mod listener;
mod listeners;
mod log;
mod marks;
mod memory;
mod names;
mod notify;
mod outlive;
mod output;
mod place;
mod probe;
mod progress;
mod proxy;
mod remedy;
mod rescue;
mod runs;
mod secrets;
mod seldom;
mod service_manager;
mod session;
mod sharing;
mod signalled;
mod strangers;
mod stream;
mod supply;
mod traffic;
mod tree;
mod trust;
mod unix;
mod watching;
mod world;

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baton_core::ids::ServiceName;
use baton_core::retention;
use baton_core::supervisor::Supervisor;
use baton_release::releases::ReleasesDir;
use baton_sys::descriptors;
use baton_sys::process::{self, adopts_orphans, become_subreaper, close_to_others, host_name};
use baton_sys::signals::Signals;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::admin::Followers;
use crate::config::{Config, Request};
use crate::controlled::{Controlled, Start};
use crate::driver::{Driver, Inbox};
use crate::image::Image;
use crate::output::Outlet;
use crate::place::{CutOff, Place, STATE_DIR_DEFAULT};
use crate::service_manager::ServiceManager;
use crate::world::World;

/// The exit code for what the bootloader cannot work with: bad arguments or settings.
const EXIT_USAGE: u8 = 2;

/// How much of what programs say of themselves may wait for the loop. Anybody can say anything at any rate; the
/// rest waits where it came from.
const NOTICES_MAX: usize = 16;
/// How many threads may wait for disks and for `/proc` at a time; whatever more there is to do waits for one of them.
const BLOCKING_THREADS_MAX: usize = 8;
/// Longer than a member lives: a thread that was made once is never given back.
const THREAD_LIFE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

fn main() -> std::process::ExitCode {
    // Before anything else: threads inherit the mask, and no signal may come before there is somebody to read it.
    let code = Signals::block_all().map_err(Into::into).and_then(start).unwrap_or_else(|error| {
        log::say(log::chain(&*error));
        EXIT_USAGE
    });
    log::end(log::END);
    code.into()
}

fn start(signals: Signals) -> Result<u8, Box<dyn Error>> {
    let config =
        match Config::parse(std::env::args_os().skip(1), std::env::vars_os().collect(), &host_name())? {
            Request::Run(config) => *config,
            Request::Print(text) => {
                std::io::stdout().write_all(text.as_bytes())?;
                return Ok(0);
            }
            Request::Ask(question) => {
                signals.unblock()?;
                return admin::run(question);
            }
        };
    // Mistakes are told before anything is opened. Who has control can do without the image, whatever it lacks.
    let image = Image::open(&config)?;
    let first = match config.control {
        None => Some(image.first()?.0),
        Some(_) => None,
    };
    let runtime = runtime()?;
    let no_way_out = |error| format!("cannot pass on output: {error}");
    let (outlet, pump) = Outlet::to_ours().map_err(no_way_out)?;
    log::to(outlet.clone());
    outlive::tell_panics();
    // What is forwarded takes many.
    if let Err(error) = descriptors::raise() {
        log::say(format_args!("there may be no more than {} files open: {error}", descriptors::most()));
    }
    // A program of the same user must not read our environment where it does not inherit it.
    if let Err(error) = close_to_others() {
        log::say(format_args!("programs can look into this process: {error}"));
    }
    // Nobody has ended yet who could have left anybody.
    if let Err(error) = become_subreaper()
        && !adopts_orphans()
    {
        log::say(format_args!(
            "what a program leaves behind does not come to this process (prctl(PR_SET_CHILD_SUBREAPER): {error}): it is \
             looked for by its session, by what it was started with and by its sockets"
        ));
    }
    if let Err(error) = process::seen() {
        log::say(format_args!(
            "processes cannot be seen ({error}): at a stop only main processes are asked and killed before this one ends, \
             and nothing is told of memory and of open files"
        ));
    }
    // The first program is launched before there are any other threads: they would cost it time. Signals wait.
    let (signalled, heard) = signalled::channel();
    let begun = runtime.block_on(async {
        let (mut driver, followers) = build(heard, config, image, outlet)?;
        let code = driver.begin(first);
        Ok::<_, Box<dyn Error>>((driver, followers, code))
    });
    // While there is one, what is to be done waits for it when no other can be made; without any it would be a panic.
    // A program may have used up all that there may be.
    runtime.spawn_blocking(|| ());
    pump.start().map_err(no_way_out)?;
    driver::read(signals, signalled)?;
    let code = runtime.block_on(async {
        let (driver, followers, code) = begun?;
        let code = match code {
            Some(code) => code,
            None => driver.run().await,
        };
        // When all that was written has been read, those who follow get the last of it.
        log::end(log::END);
        if let Some(followers) = followers {
            followers.end().await;
        }
        Ok::<u8, Box<dyn Error>>(code)
    });
    // Threads that fetch may still wait for a disk or a server.
    runtime.shutdown_background();
    code
}

/// One thread for the loop, and others for what may take long.
fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(THREAD_LIFE)
        .build()
}

fn build(
    signals: signalled::Receiver,
    config: Config,
    image: Image,
    outlet: Outlet,
) -> Result<(Driver, Option<Followers>), Box<dyn Error>> {
    let (events, happened) = mpsc::unbounded_channel();
    let (inputs, heard) = mpsc::unbounded_channel();
    let (notices, said) = mpsc::channel(NOTICES_MAX);
    let state_dir = config.state_dir.as_deref().unwrap_or(Path::new(STATE_DIR_DEFAULT));
    let releases = match &config.control {
        Some(control) => Some(Arc::new(
            ReleasesDir::open(state_dir)
                .map(|releases| releases.only_for(control.service.clone()))
                .map_err(|error| format!("{}: {}", state_dir.display(), log::chain(&error)))?,
        )),
        None => None,
    };
    let place = Place::open(config.state_dir.clone(), releases.clone())?;
    let controlled = match (&config.control, releases) {
        (Some(control), Some(releases)) => {
            let listens = config.listen.iter().map(|(name, address)| format!("{name}={address}")).collect();
            let keep = config.keep_releases.unwrap_or(retention::KEEP_DEFAULT);
            let environment = config.environment.clone();
            let killed_in = place.cut_off().and_then(CutOff::killed_in);
            let start = Start { keep, listens, environment, releases, killed_in };
            Some(Controlled::start(control, start, inputs, events.clone())?)
        }
        _ => None,
    };
    let (asking, asked) = mpsc::unbounded_channel();
    let followers = admin::serve(asking, outlet.clone())
        .inspect_err(|error| log::say(format_args!("nobody can ask for the status: {error}")))
        .ok();
    match &config.control {
        Some(control) => outlet.introduce(Some(control.service.as_str()), control.member.as_str()),
        None => outlet.introduce(image.service().as_ref().map(ServiceName::as_str), &host_name()),
    }
    if let Some(cut_off) = place.cut_off() {
        log::say(cut_off.told());
    }
    let machine = Supervisor::new().with_stop_limit(config.stop_limit);
    let status_signal = config.status_signal;
    let manager = config.manager.as_ref().and_then(ServiceManager::find);
    let world = World::new(config, place, events, notices, outlet);
    let inbox = Inbox::new(signals, happened, heard, said, asked);
    let driver = Driver::new(inbox, machine, world, image, controlled, manager);
    Ok((driver.with_status_signal(status_signal), followers))
}
