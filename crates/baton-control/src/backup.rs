//! The state of a server that does not run, as one file.

use std::path::Path;

use baton_core::units::Millis;
use baton_store::state::{Backup, EmbeddedStore, RedisStore, StateError, StateStore};

use crate::identity::Identity;
use crate::server::{STATE_FILE, State};

/// Reads all of a state store. A file must not be open elsewhere; a Redis may be used meanwhile.
///
/// # Errors
/// When there is none, or when it cannot be read.
pub fn export(state: &State, data_dir: &Path) -> Result<Backup, StateError> {
    match state {
        State::File => {
            let path = data_dir.join(STATE_FILE);
            // Nobody wants the backup of a store that was made for it.
            path.metadata().map_err(|source| StateError::Unavailable {
                attempted: format!("read {}", path.display()),
                source: source.into(),
            })?;
            back_up(&EmbeddedStore::open(&path, Millis::ZERO)?)
        }
        State::Redis(address) => back_up(&RedisStore::open((**address).clone(), Millis::ZERO)?),
    }
}

fn back_up(store: &dyn StateStore) -> Result<Backup, StateError> {
    Backup::of(store, Millis::ZERO)
}

/// Brings a backup to where there is no state store yet. The directory must exist.
///
/// # Errors
/// When there is one, or when it cannot be written.
pub fn import(backup: Backup, state: &State, data_dir: &Path) -> Result<(), StateError> {
    match state {
        State::File => {
            // What is brought to a new directory makes it no one that has lost something.
            Identity::open(data_dir).map_err(|error| StateError::Unavailable {
                attempted: format!("use {}", data_dir.display()),
                source: error.into(),
            })?;
            EmbeddedStore::import(&data_dir.join(STATE_FILE), backup, Millis::ZERO)
        }
        State::Redis(address) => {
            RedisStore::open((**address).clone(), Millis::ZERO)?.import(backup, Millis::ZERO)
        }
    }
}
