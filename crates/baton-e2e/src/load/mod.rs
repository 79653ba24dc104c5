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
mod driven;
pub mod echo;
mod http1;
mod http2;
mod ledger;
mod plan;
mod report;
mod run;
mod said;
mod stream;
mod websocket;

pub use driven::Driven;
pub use ledger::{Attempt, Close, End, Event, Ledger};
pub use plan::{Habit, InvalidPlan, Kind, Plan, Target};
pub use report::{Example, Latency, Line, Loss, Losses, Phase, Report, Requests};
pub use run::run;
pub use said::{Misheard, Said};
