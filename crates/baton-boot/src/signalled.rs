//! Signals on their way from the thread that reads them to the loop.
//!
//! That children have ended is one fact, however many have: whoever asks hears of all of them. Said as often as the
//! kernel says it, it would be what everything else waits behind.

use std::sync::Arc;

use baton_core::signal::Signal;
use tokio::sync::{Notify, mpsc};

/// Where the thread puts them.
#[derive(Debug)]
pub struct Sender {
    others: mpsc::UnboundedSender<Signal>,
    children: Arc<Notify>,
}

/// Where the loop finds them.
#[derive(Debug)]
pub struct Receiver {
    /// All but `CHLD`.
    pub others: mpsc::UnboundedReceiver<Signal>,
    /// Some children have ended, or stopped.
    pub children: Arc<Notify>,
}

/// A way for signals.
pub fn channel() -> (Sender, Receiver) {
    let (send, others) = mpsc::unbounded_channel();
    let children = Arc::<Notify>::default();
    (Sender { others: send, children: Arc::clone(&children) }, Receiver { others, children })
}

impl Sender {
    /// Puts one there; `false` when nobody wants any more.
    pub fn send(&self, signal: Signal) -> bool {
        if signal == Signal::CHLD {
            self.children.notify_one();
            return !self.others.is_closed();
        }
        self.others.send(signal).is_ok()
    }
}
