//! What members say, for tests.

use baton_core::report::{Report, Seen, Stamp, Standing};
use baton_store::state::News;

/// A report of a healthy member, in its first life.
pub(crate) fn report(member: &str, sequence: u64, seen: Option<Seen>, standing: Standing) -> News {
    let plain = Report::plain(member.parse().unwrap(), Stamp { life: 1, sequence }, standing);
    News::Report(Report { seen, ..plain })
}
