//! What members say, for tests.

use baton_core::costs::Costs;
use baton_core::report::{Report, Seen, Stamp, Standing};
use baton_store::state::News;

/// A report of a healthy member, in its first life.
pub(crate) fn report(member: &str, sequence: u64, seen: Option<Seen>, standing: Standing) -> News {
    News::Report(Report {
        member: member.parse().unwrap(),
        stamp: Stamp { life: 1, sequence },
        seen,
        committed: None,
        running: None,
        healthy: true,
        standing,
        fetching: None,
        attempts: 0,
        relapses: 0,
        standby: None,
        drained: true,
        bake_connections: 0,
        costs: Costs::default(),
        labels: Vec::new(),
    })
}
