//! The audit log: every call that changes something, and what came of it, in a file that only grows.
//!
//! One thread writes, many records at a time. A call that changes something is answered when its record is durable, and refused
//! while none can be written; what has happened by then is kept in memory and written first.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use baton_core::access::{Broken, Chain, Head, Record};
use baton_release::disk::{DiskError, failed};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::api::Refusal;
use crate::chain::chain;
use crate::clock::unix_ms;

/// Longest line that is read: twice the longest that is written.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// Most records that wait for a disk that cannot be written: those of the requests at that moment, and no more, since further
/// ones are refused.
const WAITING_MAX: usize = 4096;

/// How much space on the disk is kept for further lines: some thousands of them.
const ROOM_BYTES: u64 = 1 << 20;
/// How much of it is left to what stops harm once no more is to be had: some hundreds of lines.
const HARM_BYTES: u64 = ROOM_BYTES / 4;
/// How often half as much space is tried for where nobody knows how much was kept before: down to some lines.
const TRIES_MAX: u32 = 8;

/// The code of a refusal, beside the answer that has it in its body.
#[derive(Debug, Clone)]
pub(crate) struct Code(pub &'static str);

/// What a handler has to say beyond its status.
#[derive(Debug, Clone)]
pub(crate) struct Note(pub String);

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is in the file is not what was written to it.
    #[error(
        "the audit log {} was changed by something else: look at it with `baton audit verify --file`, and move it away to begin a new one",
        path.display()
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: Broken,
    },
}

/// What a call has come to. A handler says so where the status does not: what succeeds has changed something, and what is refused
/// has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Something was changed by it.
    Changed,
    /// It was refused, or was done before, or has brought bytes that nothing refers to yet.
    Nothing,
}

/// What for something is to be changed: the last space on a full disk is not there for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To stop harm: a halt, an abort, a way back, a revocation, a lock.
    StopsHarm,
    /// Anything else.
    Other,
}

/// What is asked of who writes.
enum Asked {
    /// To write a record.
    Write(Record, Effect),
    /// Whether what was written before is on the disk, and there is room for what is to be changed.
    Room(Purpose),
}

/// It, and where the answer goes.
type Question = (Asked, oneshot::Sender<Result<(), String>>);

/// Where records go.
#[derive(Clone)]
pub(crate) struct Audit {
    queue: mpsc::Sender<Question>,
    path: Arc<PathBuf>,
    head: Arc<Mutex<Head>>,
    /// Whether a call waits for the disk, and is refused when that fails.
    strict: bool,
}

/// The file, and who writes it.
pub(crate) struct Writer {
    file: File,
    path: Arc<PathBuf>,
    chain: Chain,
    head: Arc<Mutex<Head>>,
    /// How long the file is, as far as it is whole.
    length: u64,
    /// Whether part of a line may be behind that.
    torn: bool,
    /// Up to where there is space on the disk.
    room_until: u64,
    /// Whether the disk is so full that what is kept cannot be made more.
    is_full: bool,
    /// How many records without an effect were not written since then.
    left_out: u64,
    /// Lines that are not in the file yet.
    waiting: Vec<String>,
    queue: mpsc::Receiver<Question>,
}

impl Audit {
    /// Opens the log in a data directory, and looks whether it is as it was written. Nothing is written before
    /// [`Writer::run`]. Who is not `strict` goes on without a log that cannot be written.
    ///
    /// # Errors
    /// The file cannot be used, or is not as it was written.
    pub(crate) fn open(data_dir: &Path, strict: bool) -> Result<(Self, Writer), AuditError> {
        let path = Arc::new(data_dir.join("audit.log"));
        let options = OpenOptions::new().read(true).append(true).create(true).mode(0o600).clone();
        let file = options.open(&*path).map_err(failed("open", &*path))?;
        let (chain, length) = read(&file, &path)?;
        // What was cut off when it was written was not answered to anybody.
        if file.metadata().map_err(failed("read", &*path))?.len() > length {
            file.set_len(length).map_err(failed("shorten", &*path))?;
        }
        let (sender, queue) = mpsc::channel(WAITING_MAX);
        let head = Arc::new(Mutex::new(chain.head()));
        let mut writer = Writer {
            room_until: length,
            is_full: false,
            left_out: 0,
            file,
            path: Arc::clone(&path),
            chain,
            head: Arc::clone(&head),
            length,
            torn: false,
            waiting: Vec::new(),
            queue,
        };
        writer.keep_room();
        Ok((Self { queue: sender, path, head, strict }, writer))
    }

    /// Whether something may be changed: what was written down before is on the disk, and what space is left there is for this.
    ///
    /// # Errors
    /// It is not, and cannot be.
    pub(crate) async fn ready(&self, purpose: Purpose) -> Result<(), Refusal> {
        match self.send(Asked::Room(purpose)).await {
            Err(why) if self.strict => {
                Err(Refusal::unavailable(format!("nothing is changed that is not written down: {why}")))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes a record down, and waits until it is on the disk if `durable`. While the disk is full, one without an effect is only
    /// counted.
    ///
    /// # Errors
    /// It is not, for now: it is kept in memory, written before anything else, and until then nothing more is changed.
    pub(crate) async fn add(&self, record: Record, effect: Effect, durable: bool) -> Result<(), Refusal> {
        if !(durable && self.strict) {
            let (reply, _) = oneshot::channel();
            // A queue that is full is one that nobody can write down.
            let _ = self.queue.try_send((Asked::Write(record, effect), reply));
            return Ok(());
        }
        let outcome = record.outcome.clone();
        self.send(Asked::Write(record, effect)).await.map_err(|why| {
            let text = format!("what was asked was done ({outcome}), and is not written down yet: {why}");
            Refusal::unavailable(text)
        })
    }

    async fn send(&self, asked: Asked) -> Result<(), String> {
        let (reply, written) = oneshot::channel();
        let stopping = || "the server is stopping".to_owned();
        self.queue.send((asked, reply)).await.map_err(|_| stopping())?;
        written.await.map_err(|_| stopping())?
    }

    /// Where the log ends.
    pub(crate) fn head(&self) -> Head {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At most `most` lines after the record with this number.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) async fn lines(&self, after: u64, most: usize) -> Result<Vec<String>, Refusal> {
        let (path, head) = (Arc::clone(&self.path), self.head());
        let read = move || {
            let read = File::open(&*path).and_then(|file| lines(file, after, most, head.number));
            read.map_err(failed("read", &*path))
        };
        let read = spawn_blocking(read).await.map_err(|_| Refusal::stopping())?;
        read.map_err(|error: DiskError| Refusal::unavailable(chain(&error)))
    }
}

impl Writer {
    /// Writes down what this server has changed by itself when it was started, as far as that can be written now.
    pub(crate) fn note(&mut self, at: u64, what: &str, Note(detail): Note) {
        let record = Record { what: what.to_owned(), detail, ..by_control(at) };
        self.take(&record, Effect::Changed);
        // What cannot be is written before what comes.
        let _ = self.write();
    }

    /// Writes what comes until nobody is left who could say anything. Blocks.
    pub(crate) fn run(mut self) {
        let mut batch = Vec::new();
        while self.queue.blocking_recv_many(&mut batch, WAITING_MAX) > 0 {
            let mut replies = Vec::new();
            for (asked, reply) in batch.drain(..) {
                let answer = match asked {
                    Asked::Write(record, effect) => {
                        self.take(&record, effect);
                        Ok(())
                    }
                    Asked::Room(purpose) => self.has_room(purpose),
                };
                replies.push((reply, answer));
            }
            let written = self.write().map_err(|error| chain(&error));
            for (reply, answer) in replies {
                // Whoever does not wait has gone.
                let _ = reply.send(written.clone().and(answer));
            }
        }
        if self.left_out > 0 {
            self.tell_left_out(unix_ms(), "");
            // It was tried: the disk is full.
            let _ = self.write();
        }
    }

    /// Lets a record wait for the next write. On a disk that is full the space that is left is for what changes something: who is
    /// refused there without end must not use it up.
    fn take(&mut self, record: &Record, effect: Effect) {
        match effect {
            Effect::Nothing if self.is_short() => {
                self.left_out += 1;
                // Ever more seldom, for who finds this log after a server that was killed.
                if self.left_out.is_power_of_two() && self.room() >= HARM_BYTES {
                    self.tell_left_out(record.at, " so far");
                }
                return;
            }
            Effect::Nothing | Effect::Changed => {}
        }
        if self.left_out > 0 && !self.is_full {
            self.tell_left_out(record.at, "");
            self.left_out = 0;
        }
        // Only refusals can be more than that, while nothing can be written.
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(self.chain.add(record));
        }
    }

    /// Lets a line wait for the next write that says how many were left out.
    fn tell_left_out(&mut self, at: u64, until: &str) {
        let detail = format!("{} calls that changed nothing{until}, while the disk was full", self.left_out);
        let what = "not written".to_owned();
        self.waiting.push(self.chain.add(&Record { what, detail, ..by_control(at) }));
    }

    /// Whether something may be changed for this purpose, as far as the space on the disk is asked.
    fn has_room(&mut self, purpose: Purpose) -> Result<(), String> {
        if purpose == Purpose::StopsHarm || !self.is_short() || self.room() >= HARM_BYTES {
            return Ok(());
        }
        Err(format!(
            "its disk is full, and what room is left in {} is kept for who stops harm: free some space there",
            self.path.display()
        ))
    }

    /// How much of the space that is kept is left.
    fn room(&self) -> u64 {
        let waiting: usize = self.waiting.iter().map(|line| line.len() + 1).sum();
        self.room_until.saturating_sub(self.length + waiting as u64)
    }

    /// Whether there is less space than is kept, and no more to be had.
    fn is_short(&mut self) -> bool {
        if self.is_full {
            self.keep_room();
        }
        self.is_full
    }

    /// Writes what waits. After a failure the file ends where it ended before.
    fn write(&mut self) -> Result<(), DiskError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut text = self.waiting.join("\n");
        text.push('\n');
        let written = self.mend().and_then(|()| {
            self.torn = true;
            self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data())
        });
        if let Err(error) = written {
            // Where this fails too, it is done before the next write.
            let _ = self.mend();
            return Err(failed("write", &*self.path)(error));
        }
        self.torn = false;
        self.length += text.len() as u64;
        self.keep_room();
        self.waiting.clear();
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = self.chain.head();
        Ok(())
    }

    /// Keeps space on the disk for further lines, behind the end of the file, so that a halt can be written down when something
    /// has filled the disk. Where there is none, the next line may not be written.
    fn keep_room(&mut self) {
        if self.room_until >= self.length + ROOM_BYTES / 2 {
            return;
        }
        let keep = |from, bytes| fallocate(&self.file, FallocateFlags::KEEP_SIZE, from, bytes);
        let kept = keep(self.length, ROOM_BYTES);
        if kept.is_ok() {
            self.room_until = self.length + ROOM_BYTES;
        }
        // Where space cannot be kept at all, nobody knows how much there is.
        self.is_full = matches!(kept, Err(Errno::NOSPC | Errno::DQUOT));
        if self.is_full && self.room_until <= self.length {
            // A server before this one may have kept some, which is there still.
            let mut until = self.length;
            for bytes in (1..=TRIES_MAX).map(|half| ROOM_BYTES >> half) {
                if keep(until, bytes).is_ok() {
                    until += bytes;
                }
            }
            self.room_until = until;
        }
    }

    /// Takes away what was written of a line that is not whole.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn && self.file.metadata()?.len() > self.length {
            self.file.set_len(self.length)?;
            // That has given the room away.
            self.room_until = self.length;
            self.keep_room();
        }
        self.torn = false;
        Ok(())
    }
}

/// What nobody has asked for.
fn by_control(at: u64) -> Record {
    let [who, from, what, outcome] = ["control", "-", "", "-"].map(str::to_owned);
    Record { at, who, from, what, outcome, detail: String::new() }
}

/// Reads a log from its beginning: where it ends, and how long it is as far as it is whole.
fn read(file: &File, path: &Path) -> Result<(Chain, u64), AuditError> {
    let mut from = BufReader::new(file);
    from.rewind().map_err(failed("read", path))?;
    let (mut chain, mut length, mut line) = (Chain::default(), 0, String::new());
    loop {
        line.clear();
        let read = from.by_ref().take(LINE_BYTES_MAX).read_line(&mut line).map_err(failed("read", path))?;
        let Some(text) = line.strip_suffix('\n') else { return Ok((chain, length)) };
        chain.read(text).map_err(|source| AuditError::Broken { path: path.to_owned(), source })?;
        length += read as u64;
    }
}

/// At most `most` lines with the numbers that they begin with, after one and up to another.
fn lines<R: Read + Seek>(from: R, after: u64, most: usize, last: u64) -> io::Result<Vec<String>> {
    let mut from = BufReader::new(from);
    let begin = begin_after(&mut from, after)?;
    from.seek(SeekFrom::Start(begin))?;
    let (mut found, mut line) = (Vec::new(), String::new());
    while found.len() < most {
        line.clear();
        from.read_line(&mut line)?;
        match whole(&line) {
            Some((number, text)) if number <= last => found.push(text.to_owned()),
            // It is being written.
            Some(_) | None => break,
        }
    }
    Ok(found)
}

/// Where the first line begins whose number is above `after`. They are in order, so that a log of any length is not read for it.
fn begin_after<R: Read + Seek>(from: &mut BufReader<R>, after: u64) -> io::Result<u64> {
    let (mut low, mut high) = (0, from.seek(SeekFrom::End(0))?);
    let mut line = String::new();
    while low < high {
        let middle = low + (high - low) / 2;
        // What is left of the line in which that is, and the one that follows.
        let mut begin = middle;
        if let Some(before) = middle.checked_sub(1) {
            from.seek(SeekFrom::Start(before))?;
            begin = before + from.skip_until(b'\n')? as u64;
        } else {
            from.rewind()?;
        }
        line.clear();
        from.read_line(&mut line)?;
        match whole(&line) {
            Some((number, _)) if number <= after => low = begin + line.len() as u64,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

/// The number of a line and its text, where it is there to its end.
fn whole(line: &str) -> Option<(u64, &str)> {
    let text = line.strip_suffix('\n')?;
    let (number, _) = text.split_once('\t')?;
    Some((number.parse().ok()?, text))
}

#[cfg(test)]
mod tests;
