//! Bind interception: a program binds its port as it always did, and gets our listening socket, without knowing.
//!
//! A seccomp filter, installed between fork and exec by [`spawn_intercepted`](crate::spawn::spawn_intercepted),
//! makes every `bind` of the program and its descendants wait for an answer (`man 2 seccomp_unotify`). An
//! [`Interceptor`] answers: what means one of our listeners gets that listener's socket put over its descriptor,
//! everything else goes through to the kernel untouched. [`probe`] finds out whether this system allows it all.
//!
//! Programs cost one thread each, which sleeps unless one of them binds. Whoever holds the notify descriptor must
//! hold it as long as the tree lives: once it is closed, every later `bind` in it fails with `ENOSYS`.

mod caller;
pub(crate) mod filter;
mod matching;
mod notify;
mod probe;
mod taken;
mod told;
mod user;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use baton_core::run::SocketOptions;
use rustix::event::EventfdFlags;
use rustix::io::Errno;

use self::caller::Caller;
use self::matching::{Decision, Ours, Socket};
use self::notify::{Call, Notify, Woken};
pub use self::probe::{ProbeError, is_passing, probe};
use self::taken::Descriptors;
use self::told::Flags;
use crate::options::{copy, set};
use crate::socket;

/// A listener of the service, and the socket that one generation has for it.
#[derive(Debug, Clone)]
pub struct Listener {
    /// What the service listens on: what the program binds when it means this listener.
    pub address: SocketAddr,
    /// What the program gets instead.
    pub given: Given,
    /// What the settings say of its options goes before what the program has set.
    pub options: SocketOptions,
}

/// What a program gets that binds a listener's address.
#[derive(Debug, Clone)]
pub enum Given {
    /// The generation's own listening socket, of the address's family. The program gets the same open file: its
    /// `O_NONBLOCK` and its options become those of the program's socket.
    Socket(Arc<OwnedFd>),
    /// Its own socket, bound to this address, of IPv4.
    Address(SocketAddr),
}

/// What happened. Listeners are named by their place in the list that the interceptor got.
#[derive(Debug)]
pub enum Report {
    /// The program got this listener's socket.
    Substituted {
        /// Which one.
        listener: usize,
        /// What the program asked for. It listens on the listener's address instead.
        asked: SocketAddr,
    },
    /// The program's own socket was bound to the address that is given for this listener.
    Moved {
        /// Which one.
        listener: usize,
        /// What the program asked for.
        asked: SocketAddr,
    },
    /// The program bound this listener's socket once more, which changes nothing.
    AlreadyOurs {
        /// Which one.
        listener: usize,
    },
    /// The program has this listener's socket already, and another of its descriptors cannot have it too: it was told that the
    /// address is in use, as it would be without us.
    InUse {
        /// Which one.
        listener: usize,
        /// What the program asked for.
        asked: SocketAddr,
    },
    /// The socket that the program gets lacks options that the program set before `bind`. Comes before
    /// [`Report::Substituted`].
    OptionsNotCopied {
        /// The listener of the socket.
        listener: usize,
        /// Why.
        why: NotCopied,
    },
    /// The program meant this listener and cannot have its socket: its `bind` went through, and fails, since the
    /// address is ours.
    Refused {
        /// Which one.
        listener: usize,
        /// What the program asked for.
        asked: SocketAddr,
        /// Why.
        why: Refusal,
    },
    /// It could not be told what a call means, and it went through.
    Unjudged(io::Error),
    /// Every process of the tree has ended (and, before Linux 6.11, been reaped). Nothing follows.
    Gone,
    /// The interceptor ended although the tree may live; `bind` fails in it from now on. Nothing follows.
    Lost(io::Error),
}

/// Why options were not copied.
#[derive(Debug)]
pub enum NotCopied {
    /// The program's socket cannot be looked at: containers mostly refuse it.
    Unreadable(io::Error),
    /// These may not be set by us.
    Forbidden(Vec<&'static str>),
}

/// Why a program cannot have the socket of the listener that it means.
#[derive(Debug)]
pub enum Refusal {
    /// The program opened an IPv4 socket and ours is an IPv6 one: it would take the addresses of its clients for
    /// IPv4 ones. A listener on an IPv4 address serves such a program.
    OtherFamily,
    /// The program registered its socket with epoll before it bound it, and would never hear of a connection to
    /// another one.
    RegisteredBeforeBind,
    /// The kernel did not give the socket to the program.
    NotGiven(io::Error),
    /// The program's socket could not be bound to another address: containers mostly refuse that.
    NotMoved(io::Error),
}

/// Answers the calls of one generation's tree, on a thread of its own.
///
/// Dropped, it goes on until the tree is gone.
#[derive(Debug)]
pub struct Interceptor {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<Option<OwnedFd>>,
}

impl Interceptor {
    /// Answers what arrives on `notify`, the descriptor that
    /// [`spawn_intercepted`](crate::spawn::spawn_intercepted) returned. `report` is called on the interceptor's
    /// thread, while the program may wait: it must return at once.
    ///
    /// # Errors
    /// If there is no thread or no descriptor to be had. `notify` is closed then, and the program of no more use.
    pub fn start(
        notify: OwnedFd,
        listeners: Vec<Listener>,
        report: impl Fn(Report) + Send + 'static,
    ) -> io::Result<Self> {
        let ours = |listener: &Listener| {
            let inode = match &listener.given {
                Given::Socket(socket) => Some(socket::inode(socket)?),
                Given::Address(_) => None,
            };
            Ok(Ours { address: listener.address, inode })
        };
        let ours = listeners.iter().map(ours).collect::<io::Result<Vec<_>>>()?;
        let notify = Notify::new(notify)?;
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
        let desk =
            Desk { notify, stop: stop.clone(), listeners, ours, taken: Descriptors::default(), report };
        let thread = thread::Builder::new().name("intercept".to_owned()).spawn(move || desk.serve())?;
        Ok(Self { stop, thread })
    }

    /// Stops answering and returns the notify descriptor, on which another interceptor can go on: no call is left
    /// half answered, later ones wait. `None` if all callers are gone. No [`Report::Gone`] comes of it.
    pub fn stop(self) -> Option<OwnedFd> {
        // Only a descriptor that somebody else closed could fail here; then the thread has ended too.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        self.thread.join().ok().flatten()
    }
}

/// What the thread works with.
struct Desk<R> {
    notify: Notify,
    stop: Arc<OwnedFd>,
    listeners: Vec<Listener>,
    ours: Vec<Ours>,
    taken: Descriptors,
    report: R,
}

impl<R: Fn(Report)> Desk<R> {
    fn serve(self) -> Option<OwnedFd> {
        let end = loop {
            match self.notify.wait(self.stop.as_fd()) {
                Ok(Woken::Called) => {
                    if let Err(error) = self.answer_next() {
                        break Report::Lost(error);
                    }
                }
                Ok(Woken::Asked) => return Some(self.notify.into_fd()),
                Ok(Woken::Gone) => break Report::Gone,
                Err(error) => break Report::Lost(error),
            }
        };
        // Closed first: whoever hears of the end may rely on it.
        drop(self.notify);
        (self.report)(end);
        None
    }

    fn answer_next(&self) -> io::Result<()> {
        let Some(call) = self.notify.receive()? else { return Ok(()) };
        // Nobody else can answer: whatever happens here, the next call must find somebody.
        let answered = catch_unwind(AssertUnwindSafe(|| self.answer(call)));
        let failed = match answered {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => io::Error::other("the interceptor panicked"),
        };
        // If it was answered already, the kernel says so and nothing more happens.
        let _ = self.notify.let_through(call);
        let _ = catch_unwind(AssertUnwindSafe(|| (self.report)(Report::Unjudged(failed))));
        Ok(())
    }

    fn answer(&self, call: Call) -> io::Result<()> {
        let caller = Caller::of(call);
        // Most calls end here: only what may mean a listener is worth a look at descriptors.
        let Some(asked) = caller.asked()? else { return Ok(self.notify.let_through(call)?) };
        let Some(listener) = matching::meant(asked, &self.ours) else {
            return Ok(self.notify.let_through(call)?);
        };
        let Some((socket, flags)) = caller.socket()? else { return Ok(self.notify.let_through(call)?) };
        if !self.notify.waits(call) {
            // The thread that was read may have been another one of the same number.
            return Ok(());
        }
        let refuse = |listener, why| {
            (self.report)(Report::Refused { listener, asked, why });
            self.notify.let_through(call)
        };
        match matching::decide(asked, socket, listener, &self.ours) {
            Decision::LetThrough => self.notify.let_through(call)?,
            Decision::AlreadyOurs(listener) => {
                self.notify.succeed(call)?;
                (self.report)(Report::AlreadyOurs { listener });
            }
            Decision::OtherFamily(listener) => refuse(listener, Refusal::OtherFamily)?,
            Decision::RegisteredBeforeBind(listener) => refuse(listener, Refusal::RegisteredBeforeBind)?,
            Decision::Move(listener) => match self.bind_elsewhere(caller, listener, socket) {
                Ok(()) => {
                    self.notify.succeed(call)?;
                    (self.report)(Report::Moved { listener, asked });
                }
                Err(error) => refuse(listener, Refusal::NotMoved(error))?,
            },
            Decision::Substitute(listener) => match self.give(call, caller, (asked, listener), socket, flags)
            {
                Ok(true) => {
                    self.notify.succeed(call)?;
                    (self.report)(Report::Substituted { listener, asked });
                }
                Ok(false) => {
                    self.notify.fail(call, Errno::ADDRINUSE)?;
                    (self.report)(Report::InUse { listener, asked });
                }
                Err(error) => refuse(listener, Refusal::NotGiven(error))?,
            },
        }
        Ok(())
    }

    /// Gives a program the socket of the listener that it means, unless another of its descriptors has it: then `false`.
    fn give(
        &self,
        call: Call,
        caller: Caller,
        (asked, listener): (SocketAddr, usize),
        theirs: Socket,
        flags: Flags,
    ) -> io::Result<bool> {
        let Listener { given, options, .. } = self.listeners.get(listener).ok_or(io::ErrorKind::NotFound)?;
        let Given::Socket(ours) = given else { return Err(io::ErrorKind::NotFound.into()) };
        let (ours, theirs) = (ours.as_fd(), caller.borrow(theirs));
        // Where it cannot be looked at, it is not known what the kernel would say.
        let claim = theirs.as_ref().ok().and_then(|theirs| taken::claim(asked, theirs.as_fd()));
        if claim.is_some_and(|claim| self.taken.forbid(caller, listener, ours, claim)) {
            return Ok(false);
        }
        self.copy_options(listener, theirs, ours);
        set(ours, options)?;
        socket::set_blocking(ours, !flags.nonblocking)?;
        // Two calls, this and the answer: the kernel's call for both would return the descriptor's number from `bind`.
        self.notify.replace(call, caller.fd(), ours, flags.close_on_exec)?;
        claim.into_iter().for_each(|claim| self.taken.add(caller, listener, ours, claim));
        Ok(true)
    }

    /// Copies the options of the program's socket, and tells which could not be.
    fn copy_options(&self, listener: usize, theirs: io::Result<OwnedFd>, ours: BorrowedFd<'_>) {
        let not_copied = match theirs {
            Ok(socket) => match copy(socket.as_fd(), ours) {
                refused if refused.is_empty() => None,
                refused => Some(NotCopied::Forbidden(refused)),
            },
            Err(error) => Some(NotCopied::Unreadable(error)),
        };
        if let Some(why) = not_copied {
            (self.report)(Report::OptionsNotCopied { listener, why });
        }
    }

    /// Binds the program's own socket to another address. Whatever it has done with it before, it stays what it is.
    fn bind_elsewhere(&self, caller: Caller, listener: usize, theirs: Socket) -> io::Result<()> {
        let given = self.listeners.get(listener).map(|listener| &listener.given);
        let Some(Given::Address(to)) = given else { return Err(io::ErrorKind::NotFound.into()) };
        socket::bind(caller.borrow(theirs)?.as_fd(), *to)
    }
}
