//! What a server was given back by its members.

use baton_wire::api::{Repaired, RepairedRelease};

use super::{bytes, count, id};
use crate::escape::escape;

/// How many members are named of a release.
const MEMBERS_MAX: usize = 5;

/// Adds what the next answer tells. A release of which there was more to ask for goes on in it.
pub fn add(all: &mut Repaired, part: Repaired) {
    all.releases += part.releases;
    all.next = part.next;
    for mut one in part.repaired {
        if let Some(before) = all.repaired.pop_if(|before| before.goes_on && before.id == one.id) {
            one.manifest |= before.manifest;
            (one.chunks, one.bytes) = (one.chunks + before.chunks, one.bytes + before.bytes);
            one.lacked = before.lacked;
            one.members.extend(before.members);
            one.members.sort_unstable();
            one.members.dedup();
            one.failed.extend(before.failed);
        }
        all.repaired.push(one);
    }
}

/// How far it is, for who waits.
pub fn so_far(all: &Repaired) -> String {
    let given = all.repaired.iter().map(|one| one.bytes).sum();
    format!("looked up {}, {} given back", count(all.releases, "release"), bytes(given))
}

/// A line for each release that lacked something, and one for all.
pub fn text(all: &Repaired) -> String {
    let lines: String = all.repaired.iter().map(|one| line(one, all.dry_run)).collect();
    let looked = format!("looked up {}", count(all.releases, "release"));
    let lacking = all.repaired.len();
    let whole = all.repaired.iter().filter(|one| one.is_whole).count();
    match (lacking, all.dry_run) {
        (0, _) => format!(
            "{looked}: nothing is missing; `baton releases verify` reads whether it is as it should be\n"
        ),
        (lacking, true) => {
            format!("{lines}{looked}: {lacking} would be given back, as far as members have it\n")
        }
        (lacking, false) => {
            format!("{lines}{looked}: {whole} given back, {} not\n", lacking - whole)
        }
    }
}

fn line(one: &RepairedRelease, dry_run: bool) -> String {
    let service = one.service.as_deref().map(|service| format!(" of {}", escape(service)));
    let release = format!("release {}{}", id(&one.id), service.unwrap_or_default());
    let members = members(&one.members);
    let mut text = match (dry_run, &one.why) {
        (true, Some(why)) => format!("{release}: {}; {}\n", escape(&one.lacked), escape(why)),
        (true, None) => format!("{release}: {}; {members} have it\n", escape(&one.lacked)),
        (false, Some(why)) => format!("{release} is not whole: {}\n", escape(why)),
        (false, None) => format!("{release}: {} given back by {members}\n", given(one)),
    };
    for failed in &one.failed {
        text += &format!("  {} is not asked any more: {}\n", escape(&failed.member), escape(&failed.why));
    }
    text
}

fn given(one: &RepairedRelease) -> String {
    let chunks = format!("{} of {}", count(one.chunks, "chunk"), bytes(one.bytes));
    match (one.chunks, one.manifest) {
        (0, _) => "its manifest".to_owned(),
        (_, true) => format!("{chunks} and its manifest"),
        (_, false) => chunks,
    }
}

/// Some of these members, and how many more there are.
fn members(all: &[String]) -> String {
    let some = all.iter().take(MEMBERS_MAX).map(|member| escape(member)).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(MEMBERS_MAX) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use baton_wire::api::FailedLender;

    use super::*;

    fn release(digit: &str) -> RepairedRelease {
        RepairedRelease {
            id: digit.repeat(64),
            service: Some("web".into()),
            lacked: "3 of its chunks are missing".into(),
            ..RepairedRelease::default()
        }
    }

    fn members(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("web/web-{number}")).collect()
    }

    #[test]
    fn what_was_given_back_and_what_was_not_is_told_with_who_had_it() {
        let mut all = Repaired { releases: 4, ..Repaired::default() };
        let expected = "looked up 4 releases: nothing is missing; `baton releases verify` reads whether it is as it should be\n";
        assert_eq!(text(&all), expected);
        let failed = vec![FailedLender { member: "web/web-3".into(), why: "it \u{1b} lies".into() }];
        all.repaired = vec![
            RepairedRelease {
                is_whole: true,
                chunks: 3,
                bytes: 5_000_000,
                members: members(2),
                ..release("a")
            },
            RepairedRelease { is_whole: true, manifest: true, members: members(7), ..release("b") },
            RepairedRelease { why: Some("1 of its chunks is nowhere".into()), failed, ..release("c") },
        ];
        let expected = "\
release aaaaaaaaaaaa of web: 3 chunks of 5.0 MB given back by web/web-1, web/web-2
release bbbbbbbbbbbb of web: its manifest given back by web/web-1, web/web-2, web/web-3, web/web-4, web/web-5 and 2 more
release cccccccccccc of web is not whole: 1 of its chunks is nowhere
  web/web-3 is not asked any more: it \\x1b lies
looked up 4 releases: 2 given back, 1 not
";
        assert_eq!(text(&all), expected);
        all.dry_run = true;
        all.repaired = vec![
            RepairedRelease { members: members(1), ..release("a") },
            RepairedRelease { why: Some("nobody has it".into()), ..release("b") },
        ];
        let expected = "\
release aaaaaaaaaaaa of web: 3 of its chunks are missing; web/web-1 have it
release bbbbbbbbbbbb of web: 3 of its chunks are missing; nobody has it
looked up 4 releases: 2 would be given back, as far as members have it
";
        assert_eq!(text(&all), expected);
    }

    #[test]
    fn a_release_that_comes_in_parts_is_one() {
        let part = |bytes, goes_on, member: &str| Repaired {
            repaired: vec![RepairedRelease {
                goes_on,
                is_whole: !goes_on,
                chunks: 1,
                bytes,
                members: vec![member.to_owned()],
                ..release("a")
            }],
            releases: u64::from(!goes_on),
            next: goes_on.then(|| "a".repeat(64)),
            ..Repaired::default()
        };
        let mut all = Repaired::default();
        add(&mut all, part(1, true, "web/web-2"));
        assert!(all.next.is_some());
        add(&mut all, part(2, true, "web/web-1"));
        add(&mut all, part(4, false, "web/web-2"));
        assert_eq!((all.releases, all.next.as_ref(), all.repaired.len()), (1, None, 1));
        let one = &all.repaired[0];
        assert_eq!((one.chunks, one.bytes, one.is_whole), (3, 7, true));
        assert_eq!(one.members, members(2));
    }
}
