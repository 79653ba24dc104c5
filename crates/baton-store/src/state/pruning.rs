//! Pruning of the artefact store that servers of one state store share: one of them at a time, and nobody begins to need a release
//! while it is removed.

use std::time::Duration;

/// For how long a turn to prune holds that nobody renews: whoever has it was killed.
pub const PRUNE_TURN: Duration = Duration::from_secs(60);

/// What is known of pruning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruning {
    /// How often a turn has begun. As long as that is the same number and none is taken, what is there stays there.
    pub begun: u64,
    /// Somebody has a turn now.
    pub is_taken: bool,
}
