//! What must hold whatever was broken: a pure look at all that was seen.

use std::collections::{BTreeMap, BTreeSet};

use super::ill::Ill;
use crate::load::Report;

/// Two moments that different processes noted may be in the wrong order by so much, in ms: what is on a member's disk is looked
/// at ten times a second, on a machine that is busy.
const SLACK_MS: u64 = 1_500;
/// So many ill releases that members have tried cannot all have been superseded before control took one back.
const TRIED_MIN: usize = 4;

/// A deploy, as any server has told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// Its id.
    pub id: String,
    /// Its number.
    pub epoch: u64,
    /// `rollout`, `halt` or `rollback`.
    pub kind: String,
    /// What it brings.
    pub release: String,
    /// When it was accepted, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether it has reached every member.
    pub switched: bool,
}

/// Something about a member at a moment, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted<T> {
    /// Which member.
    pub member: String,
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: T,
}

/// What a member has written down of the newest deploy that it has heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub epoch: u64,
    /// Its id.
    pub deploy: String,
}

/// All that was seen.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Releases that were pushed, and what is wrong with them.
    pub releases: BTreeMap<String, Option<Ill>>,
    /// Deploys.
    pub deploys: Vec<Deploy>,
    /// Slots, each by the id of its deploy.
    pub grants: Vec<Noted<String>>,
    /// What programs told of their launches: their release.
    pub launches: Vec<Noted<String>>,
    /// What members committed to: the release. Looked at, and noted whenever it was another one.
    pub commits: Vec<Noted<String>>,
    /// What members had seen. Likewise.
    pub seen: Vec<Noted<Seen>>,
    /// The account of requests.
    pub report: Report,
    /// Until when everybody was to have come to the last good release; what it is, and what each member answered.
    pub wanted: String,
    /// What each member answered then.
    pub answers: BTreeMap<String, Option<String>>,
    /// The processes that were left when everything was stopped.
    pub left: Vec<String>,
}

impl Evidence {
    /// What should not be. Empty if all is well.
    pub fn violations(&self) -> Vec<String> {
        [
            self.unaccounted(),
            self.wrong_launches(),
            self.widely_touched(),
            self.ill_and_switched(),
            self.ill_and_kept(),
            self.epochs_that_fell(),
            self.epochs_with_two_deploys(),
            self.elsewhere_at_the_end(),
            self.left.iter().map(|process| format!("left running: {process}")).collect(),
        ]
        .concat()
    }

    fn deploy(&self, id: &str) -> Option<&Deploy> {
        self.deploys.iter().find(|deploy| deploy.id == id)
    }

    /// Requests without an answer, and answers of who must not answer.
    fn unaccounted(&self) -> Vec<String> {
        let report = &self.report;
        let mut wrong: Vec<String> = report
            .losses
            .iter()
            .filter(|(_, losses)| losses.count > 0)
            .map(|(loss, losses)| format!("{} requests lost ({loss:?}): {:?}", losses.count, losses.example))
            .collect();
        if report.unfinished + report.not_sent > 0 || report.sent == 0 {
            let Report { sent, unfinished, not_sent, .. } = report;
            wrong.push(format!("of {sent} requests {unfinished} have no end, {not_sent} were not sent"));
        }
        let ends = report.answered
            + report.died_with_program
            + report.found_nobody
            + report.unfinished
            + report.not_sent
            + report.losses_beside_answers();
        if ends != report.sent {
            wrong.push(format!("{} requests were sent, and {ends} have an end", report.sent));
        }
        wrong.extend(
            report
                .releases
                .keys()
                .filter(|release| !self.releases.contains_key(*release))
                .map(|release| format!("release {release} answered, and nobody ever deployed it")),
        );
        wrong
    }

    /// A program may be launched when its member has committed to its release, or has a slot for it in a deploy that is not
    /// older than the newest one which the member has heard of.
    fn wrong_launches(&self) -> Vec<String> {
        let wrong = |launch: &&Noted<String>| !self.had_committed(launch) && !self.had_slot(launch);
        let told = |launch: &Noted<String>| {
            format!(
                "{} launched release {} at {}, without a slot and without having committed to it",
                launch.member, launch.what, launch.at_ms
            )
        };
        self.launches.iter().filter(wrong).map(told).collect()
    }

    fn had_committed(&self, launch: &Noted<String>) -> bool {
        let own: Vec<_> = self.commits.iter().filter(|commit| commit.member == launch.member).collect();
        own.iter().enumerate().any(|(number, commit)| {
            let until = own.get(number + 1).map_or(u64::MAX, |next| next.at_ms);
            commit.what == launch.what
                && commit.at_ms <= launch.at_ms + SLACK_MS
                && launch.at_ms <= until.saturating_add(SLACK_MS)
        })
    }

    fn had_slot(&self, launch: &Noted<String>) -> bool {
        let before =
            |seen: &&Noted<Seen>| seen.member == launch.member && seen.at_ms + SLACK_MS <= launch.at_ms;
        let newest = self.seen.iter().filter(before).map(|seen| seen.what.epoch).max().unwrap_or(0);
        self.grants.iter().any(|grant| {
            let deploy = self.deploy(&grant.what);
            grant.member == launch.member
                && grant.at_ms <= launch.at_ms + SLACK_MS
                && deploy.is_some_and(|deploy| deploy.release == launch.what && deploy.epoch >= newest)
        })
    }

    /// The first member that tries a release finds out what shows in its bake, and nobody else tries it.
    fn widely_touched(&self) -> Vec<String> {
        let mut touched = BTreeMap::<&str, BTreeSet<&str>>::new();
        for launch in &self.launches {
            touched.entry(&launch.what).or_default().insert(&launch.member);
        }
        let shown = |release: &str| {
            self.releases.get(release).copied().flatten().filter(|ill| ill.shows_in_the_bake())
        };
        touched
            .into_iter()
            .filter(|(_, members)| members.len() > 1)
            .filter_map(|(release, members)| {
                let ill = shown(release)?;
                Some(format!("release {release}, which {}, was tried by {members:?}", ill.words()))
            })
            .collect()
    }

    fn ill_and_switched(&self) -> Vec<String> {
        let ill = |deploy: &&Deploy| self.is_ill(&deploy.release);
        let told =
            |deploy: &Deploy| format!("release {}, which is ill, is switched: {deploy:?}", deploy.release);
        self.deploys.iter().filter(ill).filter(|deploy| deploy.switched).map(told).collect()
    }

    /// What came after each rollout of an ill release that a member has tried: nothing, if it was never taken back.
    pub fn after_the_ill(&self) -> Vec<Option<&Deploy>> {
        let tried = |release: &str| self.launches.iter().any(|launch| launch.what == release);
        let ill = |deploy: &&Deploy| deploy.kind == "rollout" && self.is_ill(&deploy.release);
        let next = |deploy: &Deploy| {
            let later = self.deploys.iter().filter(|later| later.epoch > deploy.epoch);
            later.min_by_key(|later| later.epoch)
        };
        self.deploys.iter().filter(ill).filter(|deploy| tried(&deploy.release)).map(next).collect()
    }

    /// Ill releases that nobody took back: somebody else's deploy may come first, but not each time.
    fn ill_and_kept(&self) -> Vec<String> {
        let after = self.after_the_ill();
        let mut wrong = Vec::new();
        if after.iter().any(Option::is_none) {
            wrong.push(
                "the last deploy is that of an ill release, which was tried and not taken back".to_owned(),
            );
        }
        let by_control = after.iter().flatten().filter(|next| next.kind != "rollout").count();
        if by_control == 0 && after.len() >= TRIED_MIN {
            wrong.push(format!("of {} ill releases that were tried control took none back", after.len()));
        }
        let back_to_ill = |deploy: &&Deploy| deploy.kind == "rollback" && self.is_ill(&deploy.release);
        wrong.extend(
            self.deploys
                .iter()
                .filter(back_to_ill)
                .map(|back| format!("a way back led to an ill release: {back:?}")),
        );
        wrong
    }

    fn is_ill(&self, release: &str) -> bool {
        self.releases.get(release).is_some_and(Option::is_some)
    }

    fn epochs_that_fell(&self) -> Vec<String> {
        let mut newest = BTreeMap::<&str, &Seen>::new();
        let mut wrong = Vec::new();
        for Noted { member, at_ms, what } in &self.seen {
            let before = newest.insert(member, what);
            let stays = |before: &Seen| before == what || before.epoch < what.epoch;
            if let Some(before) = before.filter(|before| !stays(before)) {
                wrong.push(format!("{member} had seen {before:?}, and at {at_ms} it had {what:?}"));
            }
        }
        wrong
    }

    /// Of two deploys with one number one is lost: members have heard of one of them only.
    fn epochs_with_two_deploys(&self) -> Vec<String> {
        let mut heard = BTreeMap::<u64, BTreeSet<&str>>::new();
        for Noted { what, .. } in &self.seen {
            heard.entry(what.epoch).or_default().insert(&what.deploy);
        }
        let told = |(epoch, deploys)| format!("members obeyed two deploys of epoch {epoch}: {deploys:?}");
        heard.into_iter().filter(|(_, deploys)| deploys.len() > 1).map(told).collect()
    }

    fn elsewhere_at_the_end(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self
            .answers
            .iter()
            .filter(|(_, answer)| answer.as_ref() != Some(&self.wanted))
            .map(|(member, answer)| format!("at the end {member} answers {answer:?}, not {}", self.wanted))
            .collect();
        if self.answers.is_empty() {
            wrong.push("nobody was asked at the end".to_owned());
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Loss, Losses};

    fn noted<T>(member: &str, at_ms: u64, what: T) -> Noted<T> {
        Noted { member: member.into(), at_ms, what }
    }

    fn deploy(epoch: u64, release: &str, switched: bool) -> Deploy {
        Deploy {
            id: format!("d{epoch}"),
            epoch,
            kind: "rollout".into(),
            release: release.into(),
            at_ms: epoch * 10_000,
            switched,
        }
    }

    fn seen(member: &str, at_ms: u64, epoch: u64) -> Noted<Seen> {
        noted(member, at_ms, Seen { epoch, deploy: format!("d{epoch}") })
    }

    /// Two members: both get to `good`, the first tries `ill` and goes back, and both get to `last`.
    fn story() -> Evidence {
        let well = |release: &str| (release.to_owned(), None);
        let grants = [("a", 10_100, "d1"), ("b", 12_000, "d1"), ("a", 20_100, "d2")];
        let last = [("b", 40_100, "d4"), ("a", 42_100, "d4")];
        let of = |at: &[(&str, u64, &str)]| {
            at.iter().map(|(member, at, what)| noted(member, *at, (*what).to_owned())).collect::<Vec<_>>()
        };
        Evidence {
            releases: [well("good"), ("ill".to_owned(), Some(Ill::Crashes)), well("last")].into(),
            deploys: vec![
                deploy(1, "good", true),
                deploy(2, "ill", false),
                Deploy { kind: "rollback".into(), ..deploy(3, "good", true) },
                deploy(4, "last", true),
            ],
            grants: [of(&grants), of(&last)].concat(),
            launches: of(&[
                ("a", 10_200, "good"),
                ("b", 12_100, "good"),
                ("a", 20_200, "ill"),
                // It was killed, bootloader and all.
                ("b", 35_000, "good"),
                ("b", 40_200, "last"),
                ("a", 42_200, "last"),
            ]),
            commits: of(&[
                ("a", 12_000, "good"),
                ("b", 14_000, "good"),
                ("b", 42_000, "last"),
                ("a", 44_000, "last"),
            ]),
            seen: vec![
                seen("a", 10_000, 1),
                seen("b", 10_000, 1),
                seen("a", 20_050, 2),
                seen("a", 23_000, 3),
                seen("b", 24_000, 3),
                seen("b", 40_000, 4),
                seen("a", 40_000, 4),
            ],
            report: Report {
                sent: 10,
                answered: 8,
                died_with_program: 1,
                found_nobody: 1,
                releases: [("good".to_owned(), 5), ("last".to_owned(), 3)].into(),
                ..Report::default()
            },
            wanted: "last".into(),
            answers: ["a", "b"].map(|member| (member.to_owned(), Some("last".to_owned()))).into(),
            left: Vec::new(),
        }
    }

    #[test]
    fn a_story_in_which_all_is_well_has_no_violations() {
        assert_eq!(story().violations(), [] as [String; 0]);
    }

    /// The story with one thing changed has one violation, which says so.
    #[track_caller]
    fn notices(what: &str, change: impl FnOnce(&mut Evidence)) {
        let mut story = story();
        change(&mut story);
        let violations = story.violations();
        assert!(violations.len() == 1 && violations[0].contains(what), "{what}: {violations:#?}");
    }

    #[test]
    fn each_thing_that_is_wrong_is_noticed() {
        notices("b launched release last at 30000", |story| {
            story.launches.push(noted("b", 30_000, "last".into()));
        });
        notices("b launched release good at 50000", |story| {
            story.launches.push(noted("b", 50_000, "good".into()));
        });
        notices("a launched release last at 42200", |story| {
            story.grants.pop();
        });
        notices("which crashes in its bake, was tried by {\"a\", \"b\"}", |story| {
            story.launches.push(noted("b", 20_300, "ill".into()));
            story.grants.push(noted("b", 20_300, "d2".into()));
        });
        notices("which is ill, is switched", |story| story.deploys[1].switched = true);
        notices("a way back led to an ill release", |story| {
            (story.deploys[2].release, story.deploys[2].switched) = ("ill".into(), false);
        });
        notices("not taken back", |story| story.deploys.push(deploy(5, "ill", false)));
        notices("control took none back", |story| {
            story.deploys.remove(2);
            // Others were tried later, and others' deploys followed each.
            for number in 5..=4 + 2 * TRIED_MIN as u64 {
                let release = if number % 2 == 1 { "ill" } else { "last" };
                story.deploys.push(deploy(number, release, release == "last"));
            }
        });
        notices("b had seen Seen { epoch: 4", |story| story.seen.push(seen("b", 41_000, 3)));
        notices("two deploys of epoch 4", |story| {
            let other = Seen { epoch: 4, deploy: "other".into() };
            story.seen.push(noted("c", 41_000, other));
        });
        notices("at the end b answers Some(\"good\")", |story| {
            story.answers.insert("b".into(), Some("good".into()));
        });
        notices("at the end b answers None", |story| {
            story.answers.insert("b".into(), None);
        });
        notices("nobody was asked", |story| story.answers.clear());
        notices("left running: baton-boot", |story| story.left.push("baton-boot".into()));
    }

    #[test]
    fn each_request_that_is_not_accounted_for_is_noticed() {
        notices("1 requests lost (Refused)", |story| {
            story.report.answered -= 1;
            story.report.losses.insert(Loss::Refused, Losses { count: 1, example: None });
            story.report.lost = 1;
        });
        notices("1 requests lost (WrongRelease)", |story| {
            story.report.losses.insert(Loss::WrongRelease, Losses { count: 1, example: None });
            story.report.lost = 1;
        });
        notices("1 have no end", |story| {
            story.report.answered -= 1;
            story.report.unfinished = 1;
        });
        notices("10 requests were sent, and 9 have an end", |story| story.report.answered -= 1);
        notices("release other answered", |story| {
            story.report.releases.insert("other".into(), 1);
        });
    }

    #[test]
    fn a_slot_of_a_deploy_that_is_past_is_none_any_more() {
        let mut story = story();
        // It has heard of the way back, and tries the ill one again.
        story.launches.push(noted("a", 30_000, "ill".into()));
        let violations = story.violations();
        assert!(violations[0].contains("a launched release ill at 30000"), "{violations:#?}");
    }
}
