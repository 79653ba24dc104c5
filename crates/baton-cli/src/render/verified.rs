//! What was found in a store that was checked.

use baton_wire::api::Verified;

use super::{bytes, count, id};
use crate::escape::escape;

/// What is damaged, and how much was checked.
pub fn text(verified: &Verified) -> String {
    let line = |damaged: &baton_wire::api::DamagedView| {
        format!("{} {} is damaged: {}\n", escape(&damaged.what), id(&damaged.id), escape(&damaged.why))
    };
    let found: String = verified.damaged.iter().map(line).collect();
    let checked = format!(
        "checked {} and {}, {}",
        count(verified.packs, "pack"),
        count(verified.releases, "release"),
        bytes(verified.bytes)
    );
    match verified.damaged.len() {
        0 => format!("{checked}: all is well\n"),
        damaged => {
            format!(
                "{found}{checked}: {damaged} damaged; push the releases that lack something again, or give them back with \
                 `baton releases repair`\n"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_wire::api::DamagedView;

    use super::*;

    #[test]
    fn what_is_damaged_is_told_by_name() {
        let mut verified = Verified { packs: 3, releases: 1, bytes: 5_000_000, ..Verified::default() };
        assert_eq!(text(&verified), "checked 3 packs and 1 release, 5.0 MB: all is well\n");
        verified.damaged.push(DamagedView {
            what: "pack".into(),
            id: "a".repeat(64),
            why: "it \u{1b}".into(),
        });
        let expected = "pack aaaaaaaaaaaa is damaged: it \\x1b\n\
            checked 3 packs and 1 release, 5.0 MB: 1 damaged; push the releases that lack something again, or give \
            them back with `baton releases repair`\n";
        assert_eq!(text(&verified), expected);
    }
}
