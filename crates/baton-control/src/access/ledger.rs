//! Where the book is kept: in a file of one server, or in the state store, sealed, for all servers that share that.
//!
//! What is changed is kept first and counts then. A store that others can write to is not believed where it goes back: each
//! server has what it has seen last, also in its data directory, and puts the two together.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_release::disk::{DiskError, failed, replace_private};
use baton_store::reserve::Reserve;
use baton_store::state::{StateError, StateStore};
use baton_wire::access::BadBook;
use tokio::sync::watch;

use super::book::Book;
use super::merge::{merge, together};
use super::seal::{Opened, SealError, SealKey, is_bound};
use super::{AccessError, first_token};
use crate::api::Refusal;
use crate::chain::chain;
use crate::clock::unix_ms;
use crate::tls::Authority;

/// How often a change is attempted anew because another server was faster. Each time one of them has got on.
const RACES_MAX: usize = 100;
/// And for how long: whoever owns the store could let each attempt fail, as slowly as it likes.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether there is space for what is taken back.
const RESERVE_EVERY: Duration = Duration::from_secs(60);
/// The list of one server.
const FILE: &str = "access.json";
/// What a server has seen last of the list that it shares. It is sealed as that and not for the fleet: whoever brings a server to
/// another place brings its list along.
const COPY: &str = "access.sealed";
/// Where the list is that space is kept for: in one of them.
pub(crate) const FILES: [&str; 2] = [FILE, COPY];
/// What becomes of the list of one server that is shared from then on.
const MOVED: &str = "access.json.shared";
/// What becomes of what a server has seen last where it does not open.
const UNREADABLE: &str = "access.sealed.unreadable";

/// Where a book is kept.
pub(crate) enum Place {
    /// In a file of the data directory.
    File,
    /// In the state store, sealed.
    Store {
        /// The store.
        store: Arc<dyn StateStore>,
        /// What seals it.
        key: SealKey,
    },
}

/// A book, and where it is kept.
pub(super) struct Ledger {
    place: Place,
    data_dir: PathBuf,
    /// Space for what is taken back.
    reserve: Reserve,
    /// When it was looked last whether it is there.
    reserved: Mutex<Option<Instant>>,
    book: watch::Sender<Arc<Book>>,
    /// Held by who changes the book, from the look at it until it is kept. What is taken back counts without it: the store may
    /// hang meanwhile.
    changing: Mutex<Seen>,
    /// Held by who writes the copy, so that none is replaced by an older one.
    copying: Mutex<()>,
    /// Whether the list was looked at since this server has started, and is sealed as it would seal it.
    is_settled: AtomicBool,
}

/// What was seen of the store last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What is there.
    there: Option<Vec<u8>>,
    /// The book that it is, where nothing else was known here.
    book: Option<Arc<Book>>,
    /// Whether it is sealed as this server would seal it.
    is_current: bool,
    /// Whether the copy in the data directory is of that.
    copied: bool,
}

impl Seen {
    /// Whether that is all of this book, which is known here.
    fn is_all(&self, known: &Arc<Book>) -> bool {
        self.book.as_ref().is_some_and(|book| Arc::ptr_eq(book, known))
    }
}

/// Something that was taken back.
#[derive(Debug)]
pub(crate) struct TakenBack<T> {
    /// What that was.
    pub what: T,
    /// Where it could not be kept: that it counts on this server only, and what to do.
    pub only_here: Option<Refusal>,
}

/// Why a change has not come to its end.
enum Stopped {
    /// Whoever makes it does not want it.
    Refused(Refusal),
    /// It cannot be kept.
    Unkept(LedgerError),
}

impl From<LedgerError> for Stopped {
    fn from(why: LedgerError) -> Self {
        Self::Unkept(why)
    }
}

/// Why a book is not kept, or cannot be read again.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk fails.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The store fails.
    #[error(transparent)]
    State(#[from] StateError),
    /// What is in the store is not what servers have sealed.
    #[error(
        "the list of tokens in the state store cannot be used: {}or delete it there, and a server that knows it writes it back",
        or_else(.0)
    )]
    Sealed(#[from] SealError),
    /// Neither what this server has seen last can be used, nor what is in the store.
    #[error(
        "there is no list of tokens that this server can use: {} is what it has seen last, and the state store has {there}: \
         give it the key that it was sealed with, or move the file away to go on with what the store has, or with nothing",
        path.display()
    )]
    Copy {
        /// What it has seen last.
        path: PathBuf,
        /// What the store has.
        there: &'static str,
        /// Why the file cannot be used.
        #[source]
        source: Unreadable,
    },
    /// What was sealed is no book.
    #[error(
        "the list of tokens in the state store is not one that this version can read: start the newest version that any server \
         has, or delete it there, and a server that knows it writes it back"
    )]
    Book(#[from] BadBook),
    /// It is changed too often.
    #[error("the other servers change the list of tokens all the time: try again")]
    Busy,
    /// It cannot be made text.
    #[error("the list of tokens cannot be made text")]
    Text(#[from] serde_json::Error),
}

/// What can be done about what does not open, other than to delete it.
const fn or_else(why: &SealError) -> &'static str {
    match why {
        SealError::Closed
        | SealError::Disk(_)
        | SealError::NoKey
        | SealError::Open
        | SealError::Randomness(_) => "give all servers the same key, ",
        SealError::Elsewhere { .. } => "give this fleet a prefix or a database of its own, ",
        SealError::Old => "start all servers in this version, ",
    }
}

/// Why bytes are no book that was sealed.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Servers have not sealed them.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// What was sealed is no book.
    #[error("it is not one that this version can read")]
    Book(#[from] BadBook),
}

/// Of those that lie in the store.
impl From<Unreadable> for LedgerError {
    fn from(why: Unreadable) -> Self {
        match why {
            Unreadable::Sealed(why) => Self::Sealed(why),
            Unreadable::Book(why) => Self::Book(why),
        }
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        Self::unavailable(chain(&error))
    }
}

impl Ledger {
    /// Opens the book that is kept at a place. Where there is none yet, `begin` makes one.
    ///
    /// # Errors
    /// It cannot be read, or a new one not be kept.
    pub(super) fn open(
        data_dir: &Path,
        place: Place,
        begin: impl FnOnce() -> Result<Book, AccessError>,
    ) -> Result<Self, AccessError> {
        let local = read_file(&data_dir.join(FILE))?;
        let book = match (&place, local) {
            (Place::File, Some(book)) => book,
            (Place::File, None) => {
                // A new list would shut out everybody, and let in who was revoked.
                let path = data_dir.join(COPY);
                if path.exists() {
                    return Err(AccessError::Left { path });
                }
                let book = begin()?;
                write_file(&data_dir.join(FILE), &book)?;
                book
            }
            (Place::Store { store, key }, local) => share(data_dir, &**store, key, local, begin)?,
        };
        let file = match &place {
            Place::File => FILE,
            Place::Store { .. } => COPY,
        };
        let ledger = Self {
            place,
            reserve: Reserve::of(&data_dir.join(file)),
            data_dir: data_dir.to_owned(),
            book: watch::Sender::new(Arc::new(book)),
            reserved: Mutex::default(),
            changing: Mutex::default(),
            copying: Mutex::default(),
            is_settled: AtomicBool::new(false),
        };
        // One from the beginning, or from when the store is back.
        match ledger.settle() {
            Err(LedgerError::State(error)) if error.may_heal() => {}
            settled => settled?,
        }
        ledger.reserve.keep();
        Ok(ledger)
    }

    /// The book as it is known here.
    pub(super) fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.borrow())
    }

    /// Where it is told that another book counts.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Book>> {
        self.book.subscribe()
    }

    fn alone(&self) -> MutexGuard<'_, Seen> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the book: it is kept first, and then true for all who look. `change` may be asked again, with another book.
    /// Blocks.
    pub(super) fn change<T, E: From<LedgerError>>(
        &self,
        mut change: impl FnMut(&mut Book) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut seen = self.alone();
        let until = Instant::now() + CHANGE_MAX;
        for _ in 0..RACES_MAX {
            let known = match &self.place {
                Place::File => self.book(),
                Place::Store { store, key } => self.look(&**store, key, &mut seen)?,
            };
            let mut book = (*known).clone();
            // First, so that what has ended takes nobody's room.
            book.forget_ended(unix_ms());
            let done = change(&mut book)?;
            if (book == *known && seen.is_all(&known)) || self.keep(&mut seen, &known, book)? {
                return Ok(done);
            }
            if Instant::now() >= until {
                break;
            }
        }
        Err(LedgerError::Busy.into())
    }

    /// Takes something back. Who is asked to do so may be asked by somebody who has to get rid of a thief: it counts on this
    /// server before anybody else is asked, whatever becomes of the rest, and is brought to where it belongs as soon as that
    /// can be used. `take` may be asked again, with another book, and takes back what was taken back. Blocks.
    pub(super) fn take_back<T>(
        &self,
        mut take: impl FnMut(&mut Book) -> Result<T, Refusal>,
    ) -> Result<TakenBack<T>, Refusal> {
        // What is not known here may be known elsewhere.
        let here = self.take_here(&mut take);
        let copied = match &self.place {
            Place::Store { key, .. } if here.is_some() => self.write_copy_in_any_case(key).is_ok(),
            Place::Store { .. } | Place::File => false,
        };
        let mut change = || self.change(|book| take(book).map_err(Stopped::Refused));
        let changed = match change() {
            Err(Stopped::Unkept(LedgerError::Disk(why))) if is_full(&why) && self.reserve.release() => {
                change()
            }
            changed => changed,
        };
        let why = match changed {
            Ok(what) => return Ok(TakenBack { what, only_here: None }),
            Err(Stopped::Refused(refusal)) => return Err(refusal),
            Err(Stopped::Unkept(why)) => why,
        };
        let Some(what) = here else { return Err(why.into()) };
        let where_else = match (&self.place, copied) {
            (Place::File, _) => "until it is restarted: ask again once it can be written down",
            (Place::Store { .. }, true) => {
                "and the others may not know it yet: ask each of them, or wait until this one can tell them"
            }
            (Place::Store { .. }, false) => {
                "until it is restarted, and the others may not know it yet: ask each of them, and again later"
            }
        };
        let only_here = format!("it is revoked on this server {where_else}: {}", chain(&why));
        Ok(TakenBack { what, only_here: Some(Refusal::unavailable(only_here)) })
    }

    /// Takes something back for all who look here, and asks nobody; none where it is not known here.
    fn take_here<T>(&self, take: impl FnOnce(&mut Book) -> Result<T, Refusal>) -> Option<T> {
        let mut taken = None;
        self.book.send_if_modified(|known| {
            let mut book = (**known).clone();
            taken = take(&mut book).ok();
            if taken.is_some() {
                *known = Arc::new(book);
            }
            taken.is_some()
        });
        taken
    }

    /// Takes in what other servers have changed, and brings to the store what it has lost. Blocks; it is quick where nothing
    /// is new.
    pub(super) fn refresh(&self) -> Result<(), LedgerError> {
        self.keep_reserve();
        let Place::Store { store, key } = &self.place else { return Ok(()) };
        if !self.is_settled.load(Relaxed) {
            return self.settle();
        }
        let mut seen = self.alone();
        let known = self.look(&**store, key, &mut seen)?;
        if !seen.is_all(&known) {
            // Where another server was faster, the next look shows what it has written.
            self.keep(&mut seen, &known, (*known).clone())?;
        }
        self.copy(&mut seen);
        Ok(())
    }

    /// What was given away, or could not be had, is kept as soon as there is space.
    fn keep_reserve(&self) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if reserved.is_none_or(|at| at.elapsed() >= RESERVE_EVERY) {
            *reserved = Some(Instant::now());
            self.reserve.keep();
        }
    }

    /// Makes one of what is in the store and what was known here, sealed with this server's first key.
    ///
    /// Only who starts, or sees the store for the first time, seals what another key has sealed: while the key is replaced,
    /// servers have different first ones, and would seal it against each other for ever.
    fn settle(&self) -> Result<(), LedgerError> {
        let Place::Store { store, key } = &self.place else { return Ok(()) };
        let mut seen = self.alone();
        for _ in 0..RACES_MAX {
            let known = self.look(&**store, key, &mut seen)?;
            if (seen.is_all(&known) && seen.is_current) || self.keep(&mut seen, &known, (*known).clone())? {
                self.copy(&mut seen);
                self.is_settled.store(true, Relaxed);
                return Ok(());
            }
        }
        Err(LedgerError::Busy)
    }

    /// What is known here and in the store, in one.
    fn look(&self, store: &dyn StateStore, key: &SealKey, seen: &mut Seen) -> Result<Arc<Book>, LedgerError> {
        let there = store.access()?;
        let ours = self.book();
        if seen.is_all(&ours) && seen.there == there {
            return Ok(ours);
        }
        let found = there.as_deref().map(|there| open(key, &store.fleet(), there)).transpose()?;
        *seen = Seen { there, ..Seen::default() };
        if let Some((found, is_current)) = found {
            let (book, is_all) = together((*ours).clone(), found, unix_ms());
            let book = Arc::new(book);
            self.put(&ours, &book);
            seen.book = is_all.then_some(book);
            seen.is_current = is_current;
        }
        Ok(self.book())
    }

    /// Keeps a book in the place of what was seen, unless another server was faster. It was made of one that was known.
    fn keep(&self, seen: &mut Seen, known: &Arc<Book>, book: Book) -> Result<bool, LedgerError> {
        let there = match &self.place {
            Place::File => {
                write_file(&self.data_dir.join(FILE), &book)?;
                self.reserve.keep();
                None
            }
            Place::Store { store, key } => {
                let sealed = seal(key, &store.fleet(), &book)?;
                if !store.set_access(seen.there.as_deref(), &sealed)? {
                    *seen = Seen::default();
                    return Ok(false);
                }
                Some(sealed)
            }
        };
        let book = Arc::new(book);
        self.put(known, &book);
        *seen = Seen { there, book: Some(book), is_current: true, copied: false };
        self.copy(seen);
        Ok(true)
    }

    /// Lets a book count that was made of one that was known, with what was taken back meanwhile.
    pub(super) fn put(&self, known: &Arc<Book>, book: &Arc<Book>) {
        self.book.send_modify(|counts| {
            *counts = match Arc::ptr_eq(counts, known) {
                true => Arc::clone(book),
                false => Arc::new(merge((**counts).clone(), book, unix_ms())),
            };
        });
    }

    /// Writes down what was seen last, so that a store that has less at the next start is not believed.
    fn copy(&self, seen: &mut Seen) {
        if let Place::Store { key, .. } = &self.place
            && seen.book.is_some()
            && !seen.copied
        {
            // A disk that fails leaves an older copy, which is put together with what the store has all the same.
            seen.copied = self.write_copy(key).is_ok();
        }
    }

    /// Sealed here, so that it opens with this server's first key whoever has written what the store has.
    fn write_copy(&self, key: &SealKey) -> Result<(), LedgerError> {
        let _alone = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        replace_private(&self.data_dir.join(COPY), &seal(key, COPY, &self.book())?)?;
        self.reserve.keep();
        Ok(())
    }

    fn write_copy_in_any_case(&self, key: &SealKey) -> Result<(), LedgerError> {
        match self.write_copy(key) {
            Err(LedgerError::Disk(why)) if is_full(&why) && self.reserve.release() => self.write_copy(key),
            written => written,
        }
    }
}

fn is_full(error: &DiskError) -> bool {
    matches!(error.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The book that all servers share, as one that starts finds it; where there is none, the first one makes it, of what it had
/// for itself or anew.
fn share(
    data_dir: &Path,
    store: &dyn StateStore,
    key: &SealKey,
    local: Option<Book>,
    begin: impl FnOnce() -> Result<Book, AccessError>,
) -> Result<Book, AccessError> {
    if let Some(known) = known(data_dir, store, key)? {
        match local {
            // It was shared before, and this server had no time to put its own away.
            Some(local) if local.key != known.key => {
                return Err(AccessError::Apart { path: data_dir.join(FILE) });
            }
            Some(_) => put_away(data_dir)?,
            None => {}
        }
        return Ok(known);
    }
    let (book, was_local) = match local {
        Some(local) => {
            // Both were made at the first start.
            let made = local.made;
            let authority = Authority::known_in(data_dir)?.map(|known| Authority { made, ..known });
            (Book { authority, ..local }, true)
        }
        None => (begin()?, false),
    };
    if store.set_access(None, &seal(key, &store.fleet(), &book)?).map_err(LedgerError::from)? {
        if was_local {
            put_away(data_dir)?;
        }
        return Ok(book);
    }
    // Another server has begun one at the same time, and this one's is nobody's.
    if was_local {
        return Err(AccessError::Apart { path: data_dir.join(FILE) });
    }
    let _ = fs::remove_file(first_token(data_dir));
    known(data_dir, store, key)?.ok_or(AccessError::Kept(LedgerError::Sealed(SealError::Closed)))
}

/// What the store has and what was seen last, in one. While the store is away, what was seen last counts, as it does on a
/// server that runs.
fn known(data_dir: &Path, store: &dyn StateStore, key: &SealKey) -> Result<Option<Book>, LedgerError> {
    let path = data_dir.join(COPY);
    let copy = match fs::read(&path) {
        Ok(sealed) => Some(sealed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read", &path)(error).into()),
    };
    // What an older version has sealed opens everywhere. Who has kept it gives it to nobody who has sealed anew.
    let may_be_old = !copy.as_deref().is_some_and(is_bound);
    let open = |whose: &str, sealed: &[u8]| match open(key, whose, sealed) {
        Err(Unreadable::Sealed(SealError::Old)) if may_be_old => open_old(key, sealed),
        opened => opened,
    };
    let copied = copy.map(|sealed| open(COPY, &sealed));
    let there = match store.access() {
        Err(error) if matches!(copied, Some(Ok(_))) && error.may_heal() => None,
        there => there?,
    };
    let found = there.as_deref().map(|there| open(&store.fleet(), there));
    let book = match (copied, found) {
        (None, None) => None,
        (None, Some(found)) => Some(found?.0),
        (Some(Ok((copied, _))), None) => Some(copied),
        (Some(Ok((copied, _))), Some(found)) => Some(together(copied, found?.0, unix_ms()).0),
        // It was away while the key was replaced.
        (Some(Err(why)), Some(Ok((found, _)))) => {
            let (why, kept) = (chain(&why), data_dir.join(UNREADABLE));
            fs::rename(&path, &kept).map_err(failed("rename", &path))?;
            eprintln!(
                "baton server: what this server has seen last of the list of tokens is of no use, and is kept as {}; what the \
                 state store has is believed without it: look whether what was revoked while this server ran is so still \
                 (`baton token list`): {why}",
                kept.display()
            );
            Some(found)
        }
        (Some(Err(source)), None) => return Err(LedgerError::Copy { path, there: "none", source }),
        (Some(Err(source)), Some(Err(_))) => {
            return Err(LedgerError::Copy { path, there: "one that it cannot use either", source });
        }
    };
    if let (Some(book), Some(there)) = (&book, there.filter(|there| !is_bound(there))) {
        // At once: it is not opened again. Where another server was faster, it has done this.
        store.set_access(Some(&there), &seal(key, &store.fleet(), book)?)?;
    }
    Ok(book)
}

/// The list of one server is none any more. It is left for who wants to go back.
fn put_away(data_dir: &Path) -> Result<(), LedgerError> {
    let path = data_dir.join(FILE);
    Ok(fs::rename(&path, data_dir.join(MOVED)).map_err(failed("rename", &path))?)
}

fn seal(key: &SealKey, whose: &str, book: &Book) -> Result<Vec<u8>, LedgerError> {
    Ok(key.seal(whose, &book.to_text()?)?)
}

/// The book that an older version has sealed.
fn open_old(key: &SealKey, sealed: &[u8]) -> Result<(Book, bool), Unreadable> {
    let Opened { text, is_current } = key.open_old(sealed)?;
    Ok((Book::parse(&text)?, is_current))
}

/// The book that was sealed, and whether that was done as this server would do it now.
fn open(key: &SealKey, whose: &str, sealed: &[u8]) -> Result<(Book, bool), Unreadable> {
    let Opened { text, is_current } = key.open(whose, sealed)?;
    Ok((Book::parse(&text)?, is_current))
}

/// Reads the list of one server; none where there is none.
fn read_file(path: &Path) -> Result<Option<Book>, AccessError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error).into()),
    };
    let book = Book::parse(&text);
    book.map(Some).map_err(|source| AccessError::Book { path: path.to_owned(), source })
}

/// Writes it. It is durable on return.
fn write_file(path: &Path, book: &Book) -> Result<(), LedgerError> {
    Ok(replace_private(path, book.to_text()?.as_bytes())?)
}

#[cfg(test)]
mod tests;
