//! The load generator that accounts for every request.
//!
//! Every request has a number, every connection too, and every answer must repeat both and say which release and
//! process gave it. So nothing can get lost, come twice or come from the wrong program without being counted.
//!
//! [`run()`] drives the clients; each reports what became of its requests to the [`Ledger`], which alone judges: a
//! pure fold over events. Whoever breaks things on purpose says so in lines of text ([`Said`]), so that requests
//! which had to end with a killed program are told apart from lost ones.

mod answer;
mod client;
mod clock;
mod connection;
mod ledger;
mod plan;
mod report;
mod run;
mod said;

pub use ledger::{Attempt, Close, End, Event, Ledger};
pub use plan::{InvalidPlan, Plan, Target};
pub use report::{Example, Line, Loss, Losses, Report};
pub use run::run;
pub use said::{Misheard, Said};
