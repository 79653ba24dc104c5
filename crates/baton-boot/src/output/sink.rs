//! Where output goes: standard output, standard error, or the one place that both lead to.

use std::os::fd::BorrowedFd;

use baton_core::output::Stream;
use baton_core::output::patience::{Lost, Patience};
use baton_core::units::Millis;

use super::door::{Door, Taken};
use super::source::Origin;

/// More room than this is given back once it is empty: one line of JSON can be large, few are.
const ROOM_KEPT: usize = 256 * 1024;

/// One place, and what waits for it.
#[derive(Debug)]
pub struct Sink {
    /// What people call it.
    name: String,
    /// None when nobody will ever read again: then everything counts as written.
    door: Option<Door>,
    /// What the door has not taken yet, from `taken` on.
    waiting: Vec<u8>,
    taken: usize,
    /// The source whose bytes it has no room for, and that still has them.
    owed_by: Option<Origin>,
    /// It had no room for bytes that were given up meanwhile, and is not known to have any.
    is_full: bool,
    /// Since when the door has not taken everything.
    pub patience: Patience,
    /// What was dropped since, of each stream.
    lost: [Lost; 2],
    /// Whether the last byte that was given to it ended a line.
    at_line_start: bool,
    /// It was full before, and is as large as it gets.
    is_large: bool,
    /// What people should know of it.
    news: Vec<String>,
}

impl Sink {
    /// A sink with nothing in it.
    pub fn new(name: &str, door: Door) -> Self {
        Self {
            name: name.to_owned(),
            door: Some(door),
            waiting: Vec::new(),
            taken: 0,
            owed_by: None,
            is_full: false,
            patience: Patience::default(),
            lost: [Lost::NONE; 2],
            at_line_start: true,
            is_large: false,
            news: Vec::new(),
        }
    }

    /// Whether nothing waits, so that more may come.
    pub fn is_free(&self) -> bool {
        self.taken == self.waiting.len() && self.owed_by.is_none() && !self.is_full
    }

    /// Whether this source is the one that has bytes for it.
    pub fn is_owed_by(&self, origin: Origin) -> bool {
        self.owed_by == Some(origin)
    }

    /// Whether bytes can be moved to it without being copied.
    pub fn takes_references(&self) -> bool {
        self.door.as_ref().is_some_and(Door::is_pipe)
    }

    /// The descriptor to wait for, while something waits for it.
    pub fn awaited(&self) -> Option<BorrowedFd<'_>> {
        self.door.as_ref().filter(|_| !self.is_free()).map(Door::descriptor)
    }

    /// Takes bytes: as many as there is room for at once, and the rest later. Only when it [is free](Self::is_free),
    /// or what waits would grow.
    pub fn give(&mut self, bytes: &[u8], now: Millis) {
        self.note_end(bytes);
        let rest = if self.is_free() { self.push(bytes, now) } else { bytes };
        self.waiting.extend_from_slice(rest);
    }

    /// Takes the next bytes of a source's pipe, which are at least so many, without copying them; when it is free,
    /// or owed by this source. Returns how many it took; of the others it will be told again.
    pub fn refer(&mut self, from: BorrowedFd<'_>, origin: Origin, bytes: usize, now: Millis) -> usize {
        // Nobody knows what the last of them is.
        self.at_line_start = false;
        let (Ok(done) | Err(done)) = self.pass(bytes, |door, done| door.refer(from, bytes - done), now);
        self.owed_by = self.door.as_ref().filter(|_| done < bytes).map(|_| origin);
        done
    }

    /// What a source has for it will not come.
    pub fn forgive(&mut self, origin: Origin) {
        self.is_full |= self.owed_by.take_if(|by| *by == origin).is_some();
    }

    /// Adds bytes that `write` makes, for the next [`flush`](Self::flush), and returns how many wait now.
    pub fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.waiting.len();
        write(&mut self.waiting);
        let added = self.waiting.get(before..).and_then(<[u8]>::last).copied();
        self.note_end(added.as_slice());
        self.waiting.len() - self.taken
    }

    /// Ends the line that was begun, if one was.
    pub fn end_line(&mut self, now: Millis) {
        if !self.at_line_start {
            self.give(b"\n", now);
        }
    }

    /// Passes on what waits, as far as there is room.
    pub fn flush(&mut self, now: Millis) {
        if self.is_full && self.door.as_ref().is_none_or(Door::has_room) {
            self.is_full = false;
            self.flows(now);
        }
        if self.taken == self.waiting.len() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let left = self.push(&waiting[self.taken..], now).len();
        self.waiting = waiting;
        self.taken = self.waiting.len() - left;
        if left == 0 {
            self.waiting.clear();
            self.waiting.shrink_to(ROOM_KEPT);
            self.taken = 0;
        }
    }

    /// Counts what a program wrote and nobody will see.
    pub fn lose(&mut self, stream: Stream, bytes: usize, lines: usize) {
        if self.door.is_some() {
            if self.lost == [Lost::NONE; 2] {
                self.news
                    .push(format!("{} takes nothing: what goes there is dropped from now on", self.name));
            }
            self.lost[stream as usize].add(bytes, lines);
        }
    }

    /// Whether there is something that people should know of it.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// What people should know of it, once.
    pub fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// Gives up: nobody will read any more, since when or why.
    pub fn close(&mut self, when: &str) {
        let waited = self.waiting.len() - self.taken;
        let lost = self.take_lost().map(|lost| format!("; dropped {lost}")).unwrap_or_default();
        self.news.push(format!("{} takes nothing {when}; {waited} bytes waited{lost}", self.name));
        self.door = None;
        self.waiting = Vec::new();
        self.taken = 0;
        self.owed_by = None;
        self.is_full = false;
        self.patience.empty();
    }

    /// Writes bytes while there is room, and returns what is left to write.
    fn push<'a>(&mut self, bytes: &'a [u8], now: Millis) -> &'a [u8] {
        match self.pass(bytes.len(), |door, done| door.put(&bytes[done..]), now) {
            Ok(_) if self.door.is_none() => &[],
            Ok(done) => &bytes[done..],
            Err(done) => {
                self.lose(Stream::Stdout, bytes.len() - done, count_lines(&bytes[done..]));
                &[]
            }
        }
    }

    /// Lets `put` pass on so many bytes, of which it is told how many are done, while there is room; returns how
    /// many are done, as an error if the rest never will be.
    fn pass(
        &mut self,
        bytes: usize,
        put: impl Fn(&Door, usize) -> Taken,
        now: Millis,
    ) -> Result<usize, usize> {
        let mut done = 0;
        while let Some(door) = self.door.as_ref().filter(|_| done < bytes) {
            match put(door, done) {
                Taken::Some(count) => done += count,
                Taken::Full if !self.is_large => {
                    self.is_large = true;
                    door.enlarge();
                }
                Taken::Full => {
                    self.patience.full(now);
                    return Ok(done);
                }
                Taken::Refused => {
                    self.patience.full(now);
                    return Err(done);
                }
                Taken::Gone => self.close("any more: nobody reads it"),
            }
        }
        self.flows(now);
        Ok(done)
    }

    /// Everything was taken: tells what was lost until then.
    fn flows(&mut self, now: Millis) {
        let since = self.patience.ends(Millis::ZERO).unwrap_or(now);
        self.patience.empty();
        if let Some(lost) = self.take_lost() {
            let (name, time) = (&self.name, now.since(since));
            self.news.push(format!("{name} took nothing for {time}: dropped {lost}"));
        }
    }

    /// What was lost until now, in words.
    fn take_lost(&mut self) -> Option<String> {
        let lost = std::mem::replace(&mut self.lost, [Lost::NONE; 2]);
        let lost = Stream::ALL.iter().zip(lost).filter(|(_, lost)| *lost != Lost::NONE);
        let told: Vec<String> = lost.map(|(stream, lost)| format!("{lost} of {stream}")).collect();
        (!told.is_empty()).then(|| told.join(" and "))
    }

    fn note_end(&mut self, bytes: &[u8]) {
        self.at_line_start = bytes.last().map_or(self.at_line_start, |last| *last == b'\n');
    }
}

/// How many line feeds there are.
pub fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}
