//! What a prune has removed, or would.

use baton_wire::api::{Pruned, PrunedRelease};

use super::{bytes, id};
use crate::escape::escape;
use crate::moment::ago;
use crate::table::table;

/// The releases with what becomes of each, where nothing was removed yet; and how much goes.
pub fn text(pruned: &Pruned, width: usize) -> String {
    let goes = pruned.releases.iter().filter(|release| release.goes).count();
    let shown = pruned.releases.iter().filter(|release| release.goes || pruned.dry_run);
    let rows: Vec<_> = shown.map(row).collect();
    let list = if rows.is_empty() {
        String::new()
    } else {
        format!("{}\n", table(["RELEASE", "SERVICE", "LAST USED", "", "WHY"], &rows, width))
    };
    let repacked = pruned.packs.iter().filter(|pack| pack.repacked_bytes > 0).count();
    let repacked = if repacked == 0 { String::new() } else { format!(", {repacked} of them repacked") };
    format!(
        "{list}{} {goes} of {} releases and {} packs{repacked}: {} of {}\n",
        if pruned.dry_run { "would remove" } else { "removed" },
        pruned.releases.len(),
        pruned.packs.len(),
        bytes(pruned.bytes_freed),
        bytes(pruned.bytes),
    )
}

fn row(release: &PrunedRelease) -> [String; 5] {
    [
        id(&release.id),
        release.service.as_deref().map_or_else(|| "-".to_owned(), escape),
        ago(0, release.idle_ms),
        if release.goes { "goes" } else { "stays" }.to_owned(),
        escape(&release.why),
    ]
}

#[cfg(test)]
mod tests {
    use baton_wire::api::PrunedPack;

    use super::*;

    #[test]
    fn what_goes_is_told_with_its_bytes_and_why_the_others_stay() {
        let release = |digit: &str, goes, why: &str| PrunedRelease {
            id: digit.repeat(64),
            service: Some("web".into()),
            idle_ms: 90_000,
            goes,
            why: why.into(),
        };
        let pack = |repacked_bytes| PrunedPack { id: "c".repeat(64), bytes: 3_000_000, repacked_bytes };
        let mut pruned = Pruned {
            dry_run: true,
            releases: vec![release("a", false, "in force in web"), release("b", true, "nobody names it")],
            packs: vec![pack(0), pack(1_000_000)],
            bytes: 9_000_000,
            bytes_freed: 5_000_000,
        };
        let expected = "\
RELEASE       SERVICE  LAST USED         WHY
aaaaaaaaaaaa  web      1m ago     stays  in force in web
bbbbbbbbbbbb  web      1m ago     goes   nobody names it

would remove 1 of 2 releases and 2 packs, 1 of them repacked: 5.0 MB of 9.0 MB
";
        assert_eq!(text(&pruned, 100), expected);
        pruned.dry_run = false;
        assert!(!text(&pruned, 100).contains("in force"));
        pruned.releases.clear();
        pruned.packs.clear();
        pruned.bytes_freed = 0;
        assert_eq!(text(&pruned, 100), "removed 0 of 0 releases and 0 packs: 0 B of 9.0 MB\n");
    }
}
