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

/// Longest line that is read: twice the longest that is written.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// Most records that wait for a disk that cannot be written: those of the requests at that moment, and no more, since further
/// ones are refused.
const WAITING_MAX: usize = 4096;

/// How much space on the disk is kept for further lines: some thousands of them.
const ROOM_BYTES: u64 = 1 << 20;

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

/// What a call has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Something was changed by it.
    Changed,
    /// It was refused, or has brought bytes that nothing refers to yet.
    Nothing,
}

/// A record to be written, or only the question whether those before it are; and where the answer goes.
type Asked = (Option<(Record, Effect)>, oneshot::Sender<Result<(), String>>);

/// Where records go.
#[derive(Clone)]
pub(crate) struct Audit {
    queue: mpsc::Sender<Asked>,
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
    queue: mpsc::Receiver<Asked>,
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

    /// Whether something may be changed: what was written down before is on the disk.
    ///
    /// # Errors
    /// It is not, and cannot be.
    pub(crate) async fn ready(&self) -> Result<(), Refusal> {
        match self.send(None).await {
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
            let _ = self.queue.try_send((Some((record, effect)), reply));
            return Ok(());
        }
        let outcome = record.outcome.clone();
        self.send(Some((record, effect))).await.map_err(|why| {
            let text = format!("what was asked was done ({outcome}), and is not written down yet: {why}");
            Refusal::unavailable(text)
        })
    }

    async fn send(&self, record: Option<(Record, Effect)>) -> Result<(), String> {
        let (reply, written) = oneshot::channel();
        let stopping = || "the server is stopping".to_owned();
        self.queue.send((record, reply)).await.map_err(|_| stopping())?;
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
    /// Writes what comes until nobody is left who could say anything. Blocks.
    pub(crate) fn run(mut self) {
        let mut batch = Vec::new();
        while self.queue.blocking_recv_many(&mut batch, WAITING_MAX) > 0 {
            let mut replies = Vec::new();
            for (record, reply) in batch.drain(..) {
                if let Some((record, effect)) = record {
                    self.take(&record, effect);
                }
                replies.push(reply);
            }
            let written = self.write().map_err(|error| chain(&error));
            for reply in replies {
                // Whoever does not wait has gone.
                let _ = reply.send(written.clone());
            }
        }
    }

    /// Lets a record wait for the next write. On a disk that is full the space that is left is for what stops harm: who is refused
    /// there without end must not use it up.
    fn take(&mut self, record: &Record, effect: Effect) {
        match effect {
            Effect::Nothing if self.is_short() => {
                self.left_out += 1;
                return;
            }
            Effect::Nothing | Effect::Changed => {}
        }
        if self.left_out > 0 && !self.is_full {
            let detail = format!("{} calls that changed nothing, while the disk was full", self.left_out);
            self.left_out = 0;
            self.waiting.push(self.chain.add(&Record { detail, ..not_written(record.at) }));
        }
        // Only refusals can be more than that, while nothing can be written.
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(self.chain.add(record));
        }
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
        if self.room_until < self.length + ROOM_BYTES / 2 {
            let room = fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, ROOM_BYTES);
            if room.is_ok() {
                self.room_until = self.length + ROOM_BYTES;
            }
            // Where space cannot be kept at all, nobody knows how much there is.
            self.is_full = matches!(room, Err(Errno::NOSPC | Errno::DQUOT));
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

/// What tells that something is missing here.
fn not_written(at: u64) -> Record {
    let [who, from, what, outcome] = ["control", "-", "not written", "-"].map(str::to_owned);
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
