//! Turns to prune: how many have begun, and whose turn it is, which ends by itself.

use std::time::Duration;

use redis::{Value, pipe};

use super::answer::{number, text};
use super::shared::Shared;
use crate::state::{Pruning, StateError};

impl Shared {
    /// What is known of pruning at this moment.
    pub(super) fn read_pruning(&mut self) -> Result<Pruning, StateError> {
        let (begun, whose) = self.read_turn()?;
        Ok(Pruning { begun, is_taken: whose.is_some() })
    }

    /// How many turns have begun, and whose it is.
    fn read_turn(&mut self) -> Result<(u64, Option<String>), StateError> {
        let mut ask = pipe();
        ask.cmd("GET").arg(self.keys.prunes());
        ask.cmd("GET").arg(self.keys.prune_turn());
        let answers = self.ask(&ask)?;
        let [begun, whose] = answers.as_slice() else {
            return Err(self.wrong(self.keys.prunes(), "it is incomplete"));
        };
        let begun = match begun {
            Value::Nil => 0,
            begun => number(begun).map_err(|error| self.wrong(self.keys.prunes(), error))?,
        };
        let whose = match whose {
            Value::Nil => None,
            whose => Some(text(whose).map_err(|error| self.wrong(self.keys.prune_turn(), error))?),
        };
        Ok((begun, whose))
    }

    /// Watches all that a turn consists of.
    fn watch_turn(&mut self) -> Result<(u64, Option<String>), StateError> {
        self.watch_keys(&[self.keys.prunes(), self.keys.prune_turn()])?;
        self.read_turn()
    }

    /// Takes a turn, unless somebody else has one, and tells which it is. What others have changed before is known then.
    pub(super) fn begin_prune(&mut self, turn: Duration) -> Result<Option<u64>, StateError> {
        let (begun, whose) = self.watch_turn()?;
        if whose.is_some() {
            self.unwatch();
            return Ok(None);
        }
        let mine = begun + 1;
        let mut commands = self.begin();
        commands.cmd("SET").arg(self.keys.prunes()).arg(mine);
        commands.cmd("SET").arg(self.keys.prune_turn()).arg(self.turn(mine)).arg("PX").arg(millis(turn));
        if !self.link.transact(&mut commands).map_err(|error| self.failed(error))? {
            return Ok(None);
        }
        self.link.copies(false).map_err(|error| self.failed(error))?;
        self.look(None)?;
        Ok(Some(mine))
    }

    /// Renews a turn, where this server has it still.
    pub(super) fn go_on_pruning(&mut self, mine: u64, turn: Duration) -> Result<bool, StateError> {
        let (_, whose) = self.watch_turn()?;
        if whose.as_deref() != Some(&self.turn(mine)) {
            self.unwatch();
            return Ok(false);
        }
        let mut commands = self.begin();
        commands.cmd("SET").arg(self.keys.prune_turn()).arg(self.turn(mine)).arg("PX").arg(millis(turn));
        self.link.transact(&mut commands).map_err(|error| self.failed(error))
    }

    /// Ends a turn, where this server has it still.
    pub(super) fn end_prune(&mut self, mine: u64) -> Result<(), StateError> {
        let (_, whose) = self.watch_turn()?;
        if whose.as_deref() != Some(&self.turn(mine)) {
            self.unwatch();
            return Ok(());
        }
        let mut commands = self.begin();
        commands.cmd("DEL").arg(self.keys.prune_turn());
        self.link.transact(&mut commands).map_err(|error| self.failed(error)).map(drop)
    }

    /// What stands there for a turn of this server.
    fn turn(&self, mine: u64) -> String {
        format!("{} {mine}", self.server())
    }
}

fn millis(turn: Duration) -> u64 {
    u64::try_from(turn.as_millis()).unwrap_or(u64::MAX)
}
