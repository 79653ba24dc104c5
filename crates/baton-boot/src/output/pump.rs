//! The thread through which all output goes.
//!
//! One thread for every stream of every generation and for the bootloader's own lines: so they come in the order
//! in which they were written, as far as that can be seen from the pipes, and no line comes into the middle of
//! another one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use baton_core::output::json::Encoder;
use baton_core::output::lines::{End, Piece};
use baton_core::output::time::UnixMicros;
use baton_core::output::{Stream, printable};
use baton_core::units::Millis;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::kept::Kept;
use super::sink::Sink;
use super::source::{READ_BYTES, Read, Source};
use super::{OwnLine, Shared};
use crate::outlive::outlive;

/// How long a sink may take nothing when the bootloader ends: longer than a busy reader is away, and short enough
/// for a stop to keep within its limit.
const LAST_STALL: Millis = Millis(500);
/// What the bootloader's own lines begin with where they are not JSON.
const PREFIX: &str = "baton-boot: ";
/// The thread needs little: its buffers are elsewhere.
const STACK_BYTES: usize = 256 * 1024;

/// Everything that the thread has.
pub struct Pump {
    shared: Arc<Shared>,
    /// One, if standard output and error lead to the same place.
    sinks: Vec<Sink>,
    sources: Vec<Source>,
    kept: Kept,
    buffer: Vec<u8>,
    /// Spells the bootloader's own lines, when they are JSON.
    encoder: Option<Encoder>,
    /// Who waits for the end.
    ending: Option<SyncSender<()>>,
    started: Instant,
}

impl Pump {
    /// For these sinks: that of standard output first, that of standard error last.
    pub(super) fn new(shared: Arc<Shared>, sinks: Vec<Sink>) -> Self {
        Self {
            kept: Kept::new(shared.clone()),
            shared,
            sinks,
            sources: Vec::new(),
            buffer: vec![0; READ_BYTES],
            encoder: None,
            ending: None,
            started: Instant::now(),
        }
    }

    /// Runs until the bootloader ends.
    /// Starts the thread. One for all that is written, because a sink that stalls must hold up the programs, and
    /// nothing of ours.
    pub fn start(mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name("output".to_owned()).stack_size(STACK_BYTES);
        // Without it the pipes of every program would be closed at once.
        let started = thread.spawn(move || outlive(|| self.run()));
        started.map(drop).inspect_err(|_| shared.ended.store(true, Ordering::Relaxed))
    }

    fn run(&mut self) {
        loop {
            let ready = self.wait();
            self.take_orders();
            let now = self.now();
            self.sinks.iter_mut().filter(|sink| !sink.is_free()).for_each(|sink| sink.flush(now));
            self.say_own(now);
            self.pass_all(&ready, now);
            self.say_own(now);
            if self.kept.due().is_some_and(|due| now >= due) {
                self.kept.settle(&mut self.buffer);
            }
            if self.has_ended(now) {
                return;
            }
        }
    }

    /// Waits until there is something to do, and says which of the sources have something.
    fn wait(&self) -> Vec<bool> {
        let now = self.now();
        let mut asked = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        let sinks = self.sinks.iter().filter_map(Sink::awaited);
        asked.extend(sinks.map(|sink| PollFd::from_borrowed_fd(sink, PollFlags::OUT)));
        let sources_from = asked.len();
        // A source whose sink is full is not asked; the program waits, until its patience is over.
        let wanted = |source: &Source| self.may_read(source, now);
        let sources = self.sources.iter().filter(|source| wanted(source));
        asked.extend(sources.map(|source| PollFd::from_borrowed_fd(source.descriptor(), PollFlags::IN)));
        let deadline = self.deadline(now).map(|left| Timespec {
            tv_sec: i64::try_from(left.0 / 1000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(left.0 % 1000 * 1_000_000).unwrap_or_default(),
        });
        // Reading never waits: where asking fails, everything is tried.
        let tried = poll(&mut asked, deadline.as_ref()).is_err();
        if !asked[0].revents().is_empty() {
            let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        }
        let mut found = asked[sources_from..].iter().map(|asked| tried || !asked.revents().is_empty());
        self.sources.iter().map(|source| wanted(source) && found.next().unwrap_or_default()).collect()
    }

    fn may_read(&self, source: &Source, now: Millis) -> bool {
        let sink = &self.sinks[sink_of(source, self.sinks.len())];
        sink.is_free() || sink.patience.is_over(source.stall, now)
    }

    /// How long nothing has to be done at the most.
    fn deadline(&self, now: Millis) -> Option<Millis> {
        if self.ending.is_some() {
            let sinks = self.sinks.iter().filter(|sink| !sink.is_free());
            let ends = sinks.filter_map(|sink| sink.patience.ends(LAST_STALL));
            return Some(ends.map(|end| end.since(now)).min().unwrap_or(Millis::ZERO));
        }
        let waiting = self.sources.iter().filter(|source| !self.may_read(source, now));
        let ends = waiting
            .filter_map(|source| self.sinks[sink_of(source, self.sinks.len())].patience.ends(source.stall));
        ends.chain(self.kept.due()).map(|end| end.since(now)).min()
    }

    fn take_orders(&mut self) {
        let mut inbox = self.shared.inbox();
        self.sources.append(&mut inbox.sources);
        if let Some(waiting) = inbox.ending.take() {
            self.ending = Some(waiting);
        }
    }

    /// Lets every source that has something read it and pass it on.
    fn pass_all(&mut self, ready: &[bool], now: Millis) {
        let ending = self.ending.is_some();
        let Self { sinks, sources, kept, buffer, .. } = self;
        let count = sinks.len();
        let mut ready = ready.iter().copied();
        sources.retain_mut(|source| {
            let is_ready = ready.next().unwrap_or_default();
            let number = sink_of(source, count);
            let mut turn = Turn { is_ready, ending, is_alone: number + 1 < count, kept, buffer, now };
            match turn.take(source, &mut sinks[number]) {
                Outcome::Stays => true,
                // At the end nobody writes any more: what was there has been read.
                Outcome::Idle => !ending,
                Outcome::Ended => false,
            }
        });
        // Who comes last for a sink that gets full each time would never get anything through.
        if !sources.is_empty() {
            sources.rotate_left(1);
        }
    }

    /// Says what the bootloader has to say, if there is room.
    fn say_own(&mut self, now: Millis) {
        let news: Vec<String> = self.sinks.iter_mut().flat_map(Sink::take_news).collect();
        let mut inbox = self.shared.inbox();
        news.into_iter().for_each(|text| inbox.say(OwnLine { time: time_of_day(), text }));
        let Some(sink) = self.sinks.last_mut().filter(|sink| sink.is_free()) else { return };
        let lost = std::mem::take(&mut inbox.own_lost);
        if lost > 0 {
            let text = format!("{lost} lines of the bootloader itself were lost here: nobody read them");
            inbox.own.push_back(OwnLine { time: time_of_day(), text });
        }
        // Both at once: what is said after a launch is spelled as that wants it.
        self.encoder = inbox.spelling.take().unwrap_or_else(|| self.encoder.take());
        let lines = std::mem::take(&mut inbox.own);
        drop(inbox);
        if !lines.is_empty() {
            sink.end_line(now);
            for line in lines {
                sink.add(|into| spell(&line, self.encoder.as_mut(), into));
            }
            sink.flush(now);
        }
    }

    /// Whether everything has been passed on that can be, and whoever waits for that has been told.
    fn has_ended(&mut self, now: Millis) -> bool {
        let Some(waiting) = &self.ending else { return false };
        let dead = |sink: &&mut Sink| !sink.is_free() && sink.patience.is_over(LAST_STALL, now);
        self.sinks.iter_mut().filter(dead).for_each(|sink| sink.close("at the end"));
        let ended = self.sources.is_empty()
            && self.sinks.iter().all(|sink| sink.is_free() && !sink.has_news())
            && self.shared.inbox().own.is_empty();
        ended.then(|| waiting.try_send(())).is_some()
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// A source's turn.
struct Turn<'a> {
    /// Whether it has something.
    is_ready: bool,
    /// Whether this is the end, and everything is tried.
    ending: bool,
    /// Whether its sink has nothing to do with the bootloader's own lines.
    is_alone: bool,
    kept: &'a mut Kept,
    buffer: &'a mut [u8],
    now: Millis,
}

/// How a source's turn ended.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// It may have more.
    Stays,
    /// It had nothing.
    Idle,
    /// It has ended.
    Ended,
}

impl Turn<'_> {
    /// Reads what the source has, and passes it on.
    fn take(&mut self, source: &mut Source, sink: &mut Sink) -> Outcome {
        let now = self.now;
        let over = sink.patience.is_over(source.stall, now);
        if source.has_rest(sink) && (sink.is_free() || sink.is_owed_by(source.origin)) {
            source.pass_rest(sink, now);
        }
        let may_pass = sink.is_free() && !source.has_rest(sink);
        if !(may_pass || over) || !(self.is_ready || self.ending) {
            return Outcome::Stays;
        }
        let time = time_of_day();
        if may_pass && self.is_alone && self.is_ready && source.refer(self.kept, time, sink, now) {
            return Outcome::Stays;
        }
        self.kept.settle(self.buffer);
        match source.read(self.buffer) {
            Read::Nothing => Outcome::Idle,
            Read::Some(count) => {
                let bytes = &self.buffer[..count];
                let fresh = source.fresh(bytes);
                self.kept.add(source, time, fresh);
                if may_pass {
                    source.pass(bytes, time, sink, now);
                } else {
                    source.lose(bytes, sink);
                }
                Outcome::Stays
            }
            Read::End => {
                source.end(time, sink, now);
                self.kept.end(source.origin);
                Outcome::Ended
            }
        }
    }
}

/// One of the bootloader's own lines in the form in which it is said. What it quotes, it does not obey.
fn spell(line: &OwnLine, encoder: Option<&mut Encoder>, into: &mut Vec<u8>) {
    match encoder {
        Some(encoder) => {
            let piece = Piece { bytes: line.text.as_bytes(), part: None, end: End::LineFeed };
            encoder.encode(line.time, piece, into);
        }
        None => {
            into.extend_from_slice(PREFIX.as_bytes());
            into.extend_from_slice(printable(&line.text).as_bytes());
            into.push(b'\n');
        }
    }
}

/// The number of the sink that a source goes to.
fn sink_of(source: &Source, sinks: usize) -> usize {
    match source.origin.1 {
        Stream::Stdout => 0,
        Stream::Stderr => sinks - 1,
    }
}

/// What the clock on the wall says.
pub(super) fn time_of_day() -> UnixMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
