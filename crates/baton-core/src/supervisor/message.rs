//! What the supervisor hears and what it asks for.

use alloc::string::String;
use alloc::sync::Arc;

use super::plan::{Launch, Plan, Running, Ticket};
use super::report::Fact;
use super::selection::Selection;
use super::slots::Slot;
use crate::exit::Exit;
use crate::ids::GenerationId;
use crate::notice::Notice;
use crate::run::{Needs, Room};
use crate::signal::Signal;
use crate::units::{Bytes, Micros, Millis};
use crate::words::Words;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants something.
    Order(Order),
    /// The generation was spawned.
    Started(GenerationId),
    /// The generation could not be spawned.
    FailedToStart(GenerationId, Exit),
    /// The generation said something of itself.
    Said(GenerationId, Notice),
    /// The generation names one of its processes as its main one, which was looked up.
    Named {
        /// Which generation.
        generation: GenerationId,
        /// The process.
        pid: i32,
        /// When that was started, in kernel ticks since boot: with the pid, its identity.
        started: u64,
    },
    /// A probe of the generation has ended, and found this wrong.
    Probed(GenerationId, Result<(), Words>),
    /// It could not be asked how it is, by no fault of its own: nothing is known of it that was not known before.
    NotAsked(GenerationId),
    /// What a generation's main process was doing when [`Command::Examine`] asked for it.
    Examined(GenerationId, String),
    /// The file has changed by which the generation shows that it gets on.
    Moved(GenerationId),
    /// The generation listens where none of its clients are, as these words say.
    ListensElsewhere(GenerationId, Words),
    /// How much memory a generation uses, and how much the member may use. Said only of generations that are to
    /// be replaced for it.
    Used {
        /// Which generation.
        generation: GenerationId,
        /// What its processes use together.
        used: Bytes,
        /// What all that runs here may use.
        limit: Bytes,
    },
    /// What [`Command::Measure`] has found.
    Measured {
        /// For whom.
        generation: GenerationId,
        /// How much memory there is, where that can be told.
        room: Option<Room>,
        /// How much it will take, as far as anything is known of that but what its settings say.
        known: Option<Needs>,
    },
    /// The generation's main process has ended.
    Exited {
        /// Whose.
        generation: GenerationId,
        /// How.
        exit: Exit,
        /// No other process of the generation is left.
        empty: bool,
    },
    /// One of the copies of a generation that has several has ended, or could not be launched again.
    CopyExited {
        /// Whose.
        generation: GenerationId,
        /// Which, counted from 0.
        copy: u32,
        /// How.
        exit: Exit,
        /// No other process of the generation is left.
        empty: bool,
    },
    /// No process of the generation is left.
    Emptied(GenerationId),
    /// Nothing has landed on a slot that is being rescued for long enough.
    Quiet(Slot),
    /// Memory is about to run out.
    NoMemoryLeft,
    /// The last [`Command::Select`] failed: everybody reaches whom they reached before.
    NotSelected,
    /// The generation has accepted so many connections since [`Command::CountAccepted`].
    Accepted(GenerationId, u64),
    /// The generation has got the new connections of another one, so long after it was known to be healthy.
    HandedOver(GenerationId, Micros),
    /// The deadline has passed.
    Woken,
}

/// Something that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Try this beside what serves.
    Try(Launch),
    /// Go back to what is kept warm, if it is what this says. It is proven, and does not bake.
    GoBack(Launch),
    /// End the trial under way and return to what was proven before it.
    HandBack,
    /// The container is being stopped. Said again it is more urgent.
    Stop,
    /// Pass a signal on to the serving program.
    Forward(Signal),
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// From now on have at least this many sockets behind those that the selector names.
    Spare(usize),
    /// Give new connections to these slots; where that fails, [`Event::NotSelected`] follows, and a generation that
    /// is spawned after it is not started.
    Select(Selection),
    /// Count the connections that are accepted at the generation's listeners from now on; [`Event::Accepted`] follows again and
    /// again, until there are enough. Where nobody can tell, it does not.
    CountAccepted {
        /// Whose.
        generation: GenerationId,
        /// How many are enough.
        enough: u64,
    },
    /// How many there are is of no use any more.
    StopCounting(GenerationId),
    /// With the [`Command::Select`] before this one the generation gets the new connections of another one:
    /// [`Event::HandedOver`] follows, where that has succeeded.
    TimeHandover(GenerationId),
    /// Find out whether there is memory for a generation; [`Event::Measured`] follows.
    Measure {
        /// Its number.
        generation: GenerationId,
        /// What it runs.
        release: Running,
    },
    /// Start a generation; [`Event::Started`] or [`Event::FailedToStart`] follows.
    Spawn {
        /// Its number.
        generation: GenerationId,
        /// What to run.
        plan: Arc<Plan>,
        /// Whose sockets it gets.
        slot: Slot,
    },
    /// Start one of the copies of a generation again; [`Event::CopyExited`] follows when that fails.
    SpawnCopy {
        /// Whose.
        generation: GenerationId,
        /// Which.
        copy: u32,
    },
    /// From now on give the connections of one of the copies of a generation to the others, where it has a queue of
    /// its own, and forward what waits in that, until it is started again.
    Bypass {
        /// Whose.
        generation: GenerationId,
        /// Which.
        copy: u32,
    },
    /// Ask a generation how it is; [`Event::Probed`] follows.
    Probe {
        /// Whom.
        generation: GenerationId,
        /// Which of its copies, where each can be reached by itself.
        copy: u32,
        /// On the private path, as long as it is not the serving one.
        private: bool,
    },
    /// Find out what a generation's main process does, before it ends; [`Event::Examined`] follows.
    Examine(GenerationId),
    /// Ask a generation's main process, that of each copy, to stop, as soon as it has accepted what was forwarded to it.
    Stop {
        /// Whom.
        generation: GenerationId,
        /// By which signal. One that is suspended is continued, for it handles no signal until then.
        signal: Signal,
        /// How long it may take to accept that.
        limit: Millis,
    },
    /// There is less time than there was when a generation was to be stopped: it is asked after this much at the
    /// latest, if it has not been yet.
    Hurry {
        /// Whom.
        generation: GenerationId,
        /// How long what was forwarded to it may still take to be accepted.
        limit: Millis,
    },
    /// Find out whether a generation that does not answer listens elsewhere; [`Event::ListensElsewhere`] follows if
    /// it does.
    Locate(GenerationId),
    /// From now on another process is a generation's main one: signals go to it, and [`Event::Exited`] tells its end.
    Follow {
        /// Whose.
        generation: GenerationId,
        /// Which.
        pid: i32,
        /// When that was started, in kernel ticks since boot: with the pid, its identity.
        started: u64,
        /// What it is sent, where the main process before it was asked to stop or to take no new work.
        ask: Option<Signal>,
    },
    /// Send a signal.
    Kill {
        /// To whom.
        generation: GenerationId,
        /// Which.
        signal: Signal,
        /// To which of its processes.
        scope: Scope,
    },
    /// Forward what lands on this slot to the serving one, until it is quiet; [`Event::Quiet`] follows.
    Rescue(Slot),
    /// Stop listening: the container ends, and clients shall be told at once.
    Close,
    /// The generation is gone: what was kept for it can go.
    Forget(GenerationId),
    /// This is what the member runs from now on: keep it on disk.
    Commit {
        /// Which generation has shown it.
        generation: GenerationId,
        /// What.
        plan: Arc<Plan>,
        /// On whose behalf it came.
        ticket: Ticket,
    },
    /// Tell people and control.
    Say(Fact),
    /// End with this exit code.
    Exit(u8),
}

/// Which processes of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Its main process, or that of each of its copies.
    Main,
    /// All that are left but those.
    Rest,
    /// All that are left.
    Tree,
}
