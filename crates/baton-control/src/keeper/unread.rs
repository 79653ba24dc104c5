//! What the keeper does before it has read its store: it waits, and turns everybody away.

use std::future::ready;
use std::sync::Arc;

use baton_store::state::StateError;
use baton_wire::session::{Farewell, Reason};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{Ask, BATCH_MAX, Keeper, TICK};
use crate::api::Refusal;
use crate::chain::chain;
use crate::outgoing::end;

/// Why nobody gets what they ask for.
const WAITS: &str = "control waits for its state store";

impl Keeper {
    /// Puts on the board what the store knows, all of it.
    pub(super) fn take_over(&mut self) -> Result<(), StateError> {
        for service in self.store.services()? {
            self.remember(&service)?;
            self.post(&service, true, true);
        }
        Ok(())
    }

    pub(super) fn tell_unread(&mut self, error: &StateError) {
        if !self.board.borrow().unread {
            eprintln!(
                "baton server: the state store was not read yet: members go on as they are, and nobody is told anything \
                 until it is there"
            );
        }
        self.complain(error);
        self.board.send_modify(|board| {
            let board = Arc::make_mut(board);
            (board.unread, board.trouble) = (true, Some(chain(error)));
        });
    }

    /// In one step: whoever is answered is not told of a trouble that is over.
    fn tell_read(&mut self) {
        let trouble = self.trouble();
        self.board.send_modify(|board| {
            let board = Arc::make_mut(board);
            (board.unread, board.trouble) = (false, trouble);
        });
    }

    /// Waits until the store was read for the first time, and turns everybody away meanwhile. Returns who came last and was
    /// not answered yet; none when the server ends.
    pub(super) fn wait_for_store(&mut self, runtime: &Handle) -> Option<Vec<Ask>> {
        let mut asks = Vec::new();
        while self.board.borrow().unread {
            if asks.drain(..).any(turn_down) {
                return None;
            }
            // The limit is set inside, where the runtime's clock is.
            let wait = async { timeout(TICK, self.inbox.recv_many(&mut asks, BATCH_MAX, ready(()))).await };
            if runtime.block_on(wait) == Ok(0) {
                return None;
            }
            match self.take_over() {
                Ok(()) => self.tell_read(),
                Err(error) => self.tell_unread(&error),
            }
        }
        Some(asks)
    }
}

/// Answers somebody for whom nothing can be done before the store was read, and whether the server is to end. Members try another
/// server, which may be able to read it, or come again.
fn turn_down(ask: Ask) -> bool {
    let waits = || Refusal::unavailable(format!("{WAITS}: try again, or ask another server"));
    match ask {
        Ask::Hello { out, .. } => end(&out, Farewell::new(Reason::LATER, WAITS)),
        // Also where the store answers again: only who has taken over tells what was changed, and answers once that is on the
        // board.
        Ask::Propose { reply, .. } => drop(reply.send(Err(waits()))),
        Ask::Tag { reply, .. } => drop(reply.send(Err(waits()))),
        Ask::Lock { reply, .. } => drop(reply.send(Err(waits()))),
        Ask::Forget { reply, .. } => drop(reply.send(Err(waits()))),
        // What members say they say again in their next session.
        Ask::News { .. } | Ask::Measured { .. } | Ask::Note(_) | Ask::LookAgain => {}
        Ask::Stop => return true,
    }
    false
}
