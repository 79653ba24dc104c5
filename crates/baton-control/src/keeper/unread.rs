//! What the keeper does before it has read its store: it waits, and turns everybody away.

use std::sync::Arc;

use baton_store::state::StateError;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::Status;

use super::{Ask, BATCH_MAX, Keeper, TICK};
use crate::api::Refusal;
use crate::chain::chain;
use crate::sessions::end;

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
            if asks.drain(..).any(|ask| self.turn_down(ask)) {
                return None;
            }
            // The limit is set inside, where the runtime's clock is.
            let wait = async { timeout(TICK, self.inbox.recv_many(&mut asks, BATCH_MAX)).await };
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

    /// Answers somebody for whom nothing can be done before the store was read, and whether the server is to end. Members try
    /// another server, which may be able to read it, or come again.
    fn turn_down(&self, ask: Ask) -> bool {
        match ask {
            Ask::Hello { out, .. } => {
                end(&out, Status::unavailable("control waits for its state store"));
            }
            Ask::Propose { service, proposal, reply } => {
                drop(reply.send(self.store.propose(&service, proposal, self.clock.now())));
            }
            Ask::Lock { service, lock, reply } => drop(reply.send(self.store.set_lock(&service, lock))),
            Ask::Forget { service, reply, .. } => {
                let why = self.store.service(&service, self.clock.now()).map(|_| Vec::new());
                drop(reply.send(why.map_err(Refusal::from)));
            }
            // What members say they say again in their next session.
            Ask::News { .. } | Ask::Measured { .. } | Ask::Note(_) | Ask::LookAgain => {}
            Ask::Stop => return true,
        }
        false
    }
}
