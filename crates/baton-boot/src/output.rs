//! What the programs write, and what the bootloader says itself: one way out for all of it.

mod door;
mod echo;
mod kept;
mod last_lines;
mod pump;
mod sink;
mod source;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use baton_core::ids::GenerationId;
use baton_core::output::Stream;
use baton_core::output::json::{Encoder, Names};
use baton_core::output::ring::Ring;
use baton_core::output::time::UnixMicros;
use baton_core::run;
use baton_sys::spawn;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_setfl};

use self::door::Door;
pub use self::last_lines::LastLines;
pub use self::pump::Pump;
use self::pump::time_of_day;
use self::sink::Sink;
use self::source::{Form, Json, Raw, Source};

/// How much of the output is kept for whoever asks what happened: minutes of most programs.
const RING_BYTES: usize = 1024 * 1024;
/// Own lines that may wait for a reader. Later ones are lost, and counted: nothing here waits for a log.
const OWN_LINES_MAX: usize = 256;

/// The way out. All clones are the same one.
#[derive(Debug, Clone)]
pub struct Outlet(Arc<Shared>);

/// What the thread shares with whoever writes.
#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    /// Readable when there is something in the inbox.
    wake: OwnedFd,
    ring: Mutex<Ring>,
    names: OnceLock<(Option<String>, String)>,
    /// Nothing is passed on any more.
    ended: AtomicBool,
}

/// What the thread is to take over.
#[derive(Debug, Default)]
struct Inbox {
    sources: Vec<Source>,
    own: VecDeque<OwnLine>,
    /// Own lines for which there was no room.
    own_lost: u64,
    /// How the bootloader's own lines are spelled from now on; none within is text.
    spelling: Option<Option<Encoder>>,
    /// Whom to tell when everything is out.
    ending: Option<SyncSender<()>>,
}

/// A line of the bootloader's own.
#[derive(Debug)]
struct OwnLine {
    time: UnixMicros,
    text: String,
}

/// Where a program writes to.
#[derive(Debug)]
pub struct Ends {
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
}

impl Outlet {
    /// A way out to our standard output and error; what goes there waits until the [`Pump`] is started.
    pub fn to_ours() -> io::Result<(Self, Pump)> {
        let sinks = sinks(Door::open(io::stdout().as_fd())?, Door::open(io::stderr().as_fd())?);
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            ring: Mutex::new(Ring::new(RING_BYTES)),
            names: OnceLock::new(),
            ended: AtomicBool::new(false),
        });
        Ok((Self(shared.clone()), Pump::new(shared, sinks)))
    }

    /// Says once whose member this is, for lines that are JSON.
    pub fn introduce(&self, service: Option<&str>, member: &str) {
        let _ = self.0.names.set((service.map(str::to_owned), member.to_owned()));
    }

    /// Opens both streams for a generation and starts to pass them on, as its settings say. From now on the
    /// bootloader's own lines have the same form.
    pub fn open(
        &self,
        generation: GenerationId,
        release: &str,
        settings: &run::Output,
        last: &LastLines,
    ) -> io::Result<Ends> {
        let is_json = settings.format == run::Format::Json;
        let spelling = is_json.then(|| Encoder::of_bootloader(self.names()));
        self.send(|inbox| inbox.spelling = Some(spelling));
        if settings.format == run::Format::Inherit {
            let stdout = io::stdout().as_fd().try_clone_to_owned()?;
            return Ok(Ends { stdout, stderr: io::stderr().as_fd().try_clone_to_owned()? });
        }
        let open = |stream| {
            let (read, write) = spawn::pipe()?;
            // Of this end only: the program's own may wait.
            fcntl_setfl(&read, OFlags::NONBLOCK)?;
            let form = if is_json {
                let encoder = Encoder::of_program(self.names(), release, generation, stream);
                Form::Json(Box::new(Json::new(settings.line_max.in_memory(), encoder)))
            } else {
                Form::Raw(Raw::default())
            };
            let source = Source::new(read, (generation, stream), settings.stall, form, last.clone());
            Ok::<_, io::Error>((source, write))
        };
        let ((out, stdout), (err, stderr)) = (open(Stream::Stdout)?, open(Stream::Stderr)?);
        self.send(|inbox| inbox.sources.extend([out, err]));
        Ok(Ends { stdout, stderr })
    }

    /// Says one line on standard error. Never waits, and a line that cannot be written is no reason to stop.
    pub fn say(&self, text: String) {
        let line = OwnLine { time: time_of_day(), text };
        self.send(|inbox| inbox.say(line));
    }

    /// Whether nothing is passed on any more.
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// As [`Outlet::say`], from within anything; `false`, when somebody has the inbox, perhaps this very thread.
    pub fn try_say(&self, text: &str) -> bool {
        let Ok(mut inbox) = self.0.inbox.try_lock() else { return false };
        inbox.say(OwnLine { time: time_of_day(), text: text.to_owned() });
        drop(inbox);
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
        true
    }

    /// What was written last, of all generations, for whoever asks: [`Ring::tail`] and [`Ring::since`].
    pub fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring()
    }

    /// Waits until everything that was written is out, as far as somebody reads it, for that time at most; nothing is passed on
    /// after.
    pub fn end(&self, limit: Duration) {
        if self.0.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let (done, wait) = sync_channel(1);
        self.send(|inbox| inbox.ending = Some(done));
        let _ = wait.recv_timeout(limit);
    }

    fn names(&self) -> Names<'_> {
        let names = self.0.names.get();
        Names {
            service: names.and_then(|(service, _)| service.as_deref()),
            member: names.map_or("", |(_, member)| member),
        }
    }

    fn send(&self, put: impl FnOnce(&mut Inbox)) {
        put(&mut self.0.inbox());
        // It can only fail when it is readable anyway.
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    fn say(&mut self, line: OwnLine) {
        if self.own.len() < OWN_LINES_MAX {
            self.own.push_back(line);
        } else {
            self.own_lost += 1;
        }
    }
}

fn sinks(stdout: Door, stderr: Door) -> Vec<Sink> {
    if stdout.leads_where(&stderr) {
        return vec![Sink::new("standard output, which is standard error too,", stdout)];
    }
    vec![Sink::new("standard output", stdout), Sink::new("standard error", stderr)]
}
