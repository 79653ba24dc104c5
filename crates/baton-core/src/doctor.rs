//! What a program that was tried out does, what that means, and what to set: `baton doctor` and `baton init`.
//!
//! Whoever tries a program writes down what was [`Seen`]; what follows from it is decided here.

mod end;
mod finding;
mod kind;
mod proposal;
mod reload;
mod seen;
mod sockets;
mod start;
#[cfg(test)]
mod tests;

pub use self::finding::{Finding, Topic, Verdict, findings};
pub use self::kind::{Kind, kind_of};
pub use self::proposal::{Environment, Found, Proposal, Source, propose};
pub use self::seen::{
    Given, Idle, Place, Process, Reaction, Reload, ReloadEnd, Request, Running, Seen, Start, Stop, Traffic,
};
