//! What is believed and what is not, and that a control in other hands never chooses what runs.

use super::*;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::vec;

use proptest::prelude::*;

use crate::ids::DeployId;
use crate::member::{Action, Input, Member};
use crate::release::Limits;
use crate::report::{Cause, Refusal};
use crate::supervisor::{Running, Status, Ticket, TrialState};
use crate::units::Share;

const ADA: KeyId = KeyId::from_bytes([1; 32]);
const GRACE: KeyId = KeyId::from_bytes([2; 32]);
const CI: KeyId = KeyId::from_bytes([3; 32]);
const EVE: KeyId = KeyId::from_bytes([4; 32]);
const MAIL: KeyId = KeyId::from_bytes([5; 32]);
const LEFT: KeyId = KeyId::from_bytes([6; 32]);
const STRANGER: KeyId = KeyId::from_bytes([9; 32]);
/// The second of June 2025.
const NOW: u64 = 1_748_822_400_000;
const HOUR: u64 = 3_600_000;

fn keys(deploys: u32) -> TrustedKeys {
    let text = alloc::format!(
        "baton-trusted-keys 1\nthreshold releases 1\nthreshold deploys {deploys}\n\
         key ada {ADA} releases,deploys *\nkey grace {GRACE} deploys web\nkey ci {CI} releases *\n\
         key eve {EVE} releases,deploys * revoked\nkey mail {MAIL} deploys mail\n\
         key left {LEFT} deploys * until 2025-06-01\n"
    );
    TrustedKeys::parse(&text).unwrap()
}

/// Stands for Ed25519: what nobody can make who does not have the key, here by agreement.
fn made_by(key: &KeyId, text: &[u8]) -> SignatureBytes {
    let mut bytes = [0; 64];
    blake3::Hasher::new().update(key.as_bytes()).update(text).finalize_xof().fill(&mut bytes);
    SignatureBytes::from_bytes(bytes)
}

fn verify(key: &KeyId, text: &[u8], signature: &SignatureBytes) -> bool {
    made_by(key, text) == *signature
}

fn release(number: u8) -> ReleaseId {
    ReleaseId::from_bytes([number; 32])
}

fn warrant(epoch: u64, of: u8, fallback: Option<u8>) -> Warrant {
    Warrant {
        service: "web".parse().unwrap(),
        epoch: Epoch(epoch),
        release: release(of),
        fallback: fallback.map(release),
        bounds: Bounds { bake: Millis(500), target: Share::ALL, max_unhealthy: Share::from_percent(25) },
        expires: NOW + HOUR,
    }
}

fn signed<T: Statement>(of: T, by: &[KeyId]) -> Signed<T> {
    let text = of.to_text();
    let mut signed = Signed::new(of);
    by.iter().for_each(|key| signed.add(Signature { key: *key, bytes: made_by(key, text.as_bytes()) }));
    signed
}

fn wish(epoch: u64, purpose: Purpose, of: u8, base: Option<u8>) -> Wish {
    let seen = Seen { epoch: Epoch(epoch), deploy: DeployId::from_bytes([epoch as u8; 16]) };
    Wish { seen, purpose, release: release(of), base: base.map(release) }
}

fn judged(
    threshold: u32,
    wish: Wish,
    offered: Option<&Signed<Warrant>>,
    kept: Option<&Signed<Warrant>>,
) -> Result<Allowed, Distrust> {
    let (keys, service) = (keys(threshold), "web".parse().unwrap());
    let judge = Judge { keys: &keys, service: &service, verify: &verify };
    judge.wish(wish, offered.map(Signed::to_text).as_deref(), kept, None, NOW)
}

#[test]
fn f99_only_distinct_keys_that_are_trusted_for_it_count() {
    let own = wish(12, Purpose::Rollout, 1, None);
    let too_few =
        |by: &[KeyId], threshold| match judged(threshold, own, Some(&signed(warrant(12, 1, None), by)), None)
        {
            Ok(_) => Ok(()),
            Err(Distrust::TooFew { count, needed, passed_over }) => {
                assert_eq!(needed, threshold);
                Err((count, passed_over.into_iter().map(|(_, why)| why).collect::<Vec<_>>()))
            }
            Err(other) => panic!("{other:?}"),
        };
    assert_eq!(too_few(&[ADA], 1), Ok(()));
    assert_eq!(too_few(&[ADA, GRACE], 2), Ok(()));
    assert_eq!(too_few(&[STRANGER, ADA], 1), Ok(()), "others do no harm");
    assert_eq!(too_few(&[ADA, ADA], 2), Err((1, vec![])), "one key is one key");
    assert_eq!(too_few(&[], 1), Err((0, vec![])));
    for (key, why) in [
        (STRANGER, Useless::Unknown),
        (CI, Useless::OtherRole),
        (MAIL, Useless::OtherService),
        (EVE, Useless::Revoked),
        (LEFT, Useless::Expired),
    ] {
        assert_eq!(too_few(&[key], 1), Err((0, vec![why])));
        assert_eq!(too_few(&[key, GRACE], 2), Err((1, vec![why])));
    }
    let mut altered = signed(warrant(12, 1, None), &[ADA]);
    altered.of.release = release(2);
    let refused = judged(1, wish(12, Purpose::Rollout, 2, None), Some(&altered), None).unwrap_err();
    assert_eq!(refused.to_string(), "0 of 1 trusted keys signed it: key ada did not sign this text");
}

#[test]
fn p38_a_signature_is_for_one_service_and_for_one_sort_of_text() {
    let own = wish(12, Purpose::Rollout, 1, None);
    let other = Warrant { service: "mail".parse().unwrap(), ..warrant(12, 1, None) };
    let refused = judged(1, own, Some(&signed(other, &[ADA])), None);
    assert!(matches!(refused, Err(Distrust::OtherService { .. })), "{refused:?}");
    // What was signed as an approval is no warrant, whatever its lines say.
    let limits = Limits { bytes: 1, entries: 1 };
    let approval = Approval { release: release(1), service: "web".parse().unwrap(), limits };
    let (keys, service) = (keys(1), "web".parse().unwrap());
    let judge = Judge { keys: &keys, service: &service, verify: &verify };
    let text = signed(approval, &[ADA]).to_text();
    assert!(matches!(judge.wish(own, Some(&text), None, None, NOW), Err(Distrust::Text(_))));
}

#[test]
fn p38_a_signed_deploy_allows_itself_and_the_way_back_and_nothing_else() {
    use Purpose::{Halt, Rollback, Rollout};
    let signed = signed(warrant(12, 1, Some(2)), &[ADA]);
    for (epoch, purpose, of, allowed) in [
        (12, Rollout, 1, true),
        (12, Rollback, 1, true),
        (12, Rollout, 2, false),
        (12, Rollout, 3, false),
        (13, Rollout, 1, false),
        (13, Rollout, 2, false),
        (13, Halt, 1, true),
        (13, Halt, 2, true),
        (13, Halt, 3, false),
        (14, Rollback, 2, true),
        (14, Rollback, 1, false),
        (14, Rollback, 3, false),
        (12 + FOLLOWING_EPOCHS_MAX, Rollback, 2, true),
        (13 + FOLLOWING_EPOCHS_MAX, Rollback, 2, false),
        (u64::MAX, Halt, 1, false),
        (11, Rollout, 1, false),
        (11, Halt, 1, false),
    ] {
        let judged = judged(1, wish(epoch, purpose, of, None), Some(&signed), None);
        assert_eq!(judged.is_ok(), allowed, "{epoch} {purpose:?} {of}: {judged:?}");
    }
    let none = signed_without_way_back();
    assert!(judged(1, wish(13, Halt, 1, None), Some(&none), None).is_ok());
    assert!(judged(1, wish(13, Rollback, 2, None), Some(&none), None).is_err());
}

fn signed_without_way_back() -> Signed<Warrant> {
    signed(warrant(12, 1, None), &[ADA])
}

#[test]
fn p38_what_a_new_member_starts_with_and_how_long_it_bakes_are_held_to_what_was_signed() {
    use Purpose::{Halt, Rollback, Rollout};
    let signed = signed(warrant(12, 1, Some(2)), &[ADA]);
    for (epoch, purpose, of, base, kept, bake) in [
        (12, Rollout, 1, 2, Some(2), 500),
        (12, Rollout, 1, 1, Some(1), 500),
        (12, Rollout, 1, 3, None, 500),
        (13, Halt, 1, 2, Some(2), 0),
        (13, Halt, 1, 1, None, 0),
        (14, Rollback, 2, 2, Some(2), 0),
        (14, Rollback, 2, 1, None, 0),
    ] {
        let allowed = judged(1, wish(epoch, purpose, of, Some(base)), Some(&signed), None).unwrap();
        assert_eq!(allowed.wish, wish(epoch, purpose, of, kept));
        assert_eq!(allowed.bake, Millis(bake));
    }
}

#[test]
fn p38_an_old_deploy_is_never_obeyed_and_an_old_release_is_when_it_is_signed_anew() {
    let [first, second] = [(11, 1), (12, 2)].map(|(epoch, of)| signed(warrant(epoch, of, Some(1)), &[ADA]));
    let again = |epoch, of, offered, kept| judged(1, wish(epoch, Purpose::Rollout, of, None), offered, kept);
    assert!(matches!(again(11, 1, Some(&first), Some(&second)), Err(Distrust::Old { .. })));
    // Nor what follows from it, under whichever number.
    let back = judged(1, wish(13, Purpose::Rollback, 1, None), Some(&first), Some(&second));
    assert!(matches!(back, Err(Distrust::Old { .. })), "{back:?}");
    let other = signed(warrant(12, 3, None), &[ADA]);
    assert!(matches!(again(12, 3, Some(&other), Some(&second)), Err(Distrust::Old { .. })), "one per number");
    let anew = signed(warrant(13, 1, None), &[ADA]);
    assert_eq!(again(13, 1, Some(&anew), Some(&second)).unwrap().keep, Some(anew.clone()));
    let same = again(12, 2, Some(&second), Some(&second)).unwrap();
    assert_eq!(same.keep, None);
    assert!(matches!(again(13, 1, None, None), Err(Distrust::Unsigned { .. })));
}

#[test]
fn p38_a_deploy_that_is_heard_of_too_late_is_refused_and_one_that_was_accepted_stays_so() {
    let signed = signed(warrant(12, 1, None), &[ADA]);
    let (keys, service) = (keys(1), "web".parse().unwrap());
    let judge = Judge { keys: &keys, service: &service, verify: &verify };
    let own = wish(12, Purpose::Rollout, 1, None);
    let at = |now, kept| judge.wish(own, Some(&signed.to_text()), kept, None, now).is_ok();
    let last = signed.of.expires + CLOCK_SKEW.0;
    assert!(at(0, None) && at(last, None) && !at(last + 1, None) && !at(u64::MAX, None));
    assert!(at(last + 1, Some(&signed)));
    let seen = Some(Seen { epoch: Epoch(13), deploy: DeployId::from_bytes([13; 16]) });
    let late = judge.wish(own, Some(&signed.to_text()), None, seen, NOW);
    assert!(matches!(late, Err(Distrust::Old { .. })), "a later one was obeyed: {late:?}");
}

#[test]
fn f104_a_signed_deploy_that_is_said_again_is_obeyed_by_nobody_whose_clock_is_minutes_off_either() {
    const MINUTE: u64 = 60_000;
    let said = signed(warrant(12, 1, None), &[ADA]);
    let end = said.of.expires;
    let newer = signed(warrant(13, 2, None), &[ADA]);
    let seen = Some(Seen { epoch: Epoch(13), deploy: DeployId::from_bytes([13; 16]) });
    let ask = |service: &str, kept: Option<&Signed<Warrant>>, seen, now| {
        let (keys, service) = (keys(1), service.parse().unwrap());
        let judge = Judge { keys: &keys, service: &service, verify: &verify };
        judge.wish(wish(12, Purpose::Rollout, 1, None), Some(&said.to_text()), kept, seen, now).map(|_| ())
    };
    // What the member's own clock says while it is NOW: right, and six minutes off each way.
    for now in [NOW, NOW - 6 * MINUTE, NOW + 6 * MINUTE] {
        assert_eq!(ask("web", None, None, now), Ok(()), "the first time");
        assert!(matches!(ask("web", None, seen, now), Err(Distrust::Old { .. })), "after a later one");
        assert!(
            matches!(ask("web", Some(&newer), None, now), Err(Distrust::Old { .. })),
            "after a later one"
        );
        assert!(matches!(ask("mail", None, None, now), Err(Distrust::OtherService { .. })));
    }
    // By such clocks its end comes so much earlier or later, with five minutes of grace, and it comes.
    for off in [-6_i64, 0, 6] {
        let by_it = |minutes: i64| {
            let now = end.saturating_add_signed((minutes + off) * MINUTE as i64);
            ask("web", None, None, now)
        };
        let last = 5 - off;
        assert_eq!(by_it(last), Ok(()), "{off} minutes off");
        assert!(matches!(by_it(last + 1), Err(Distrust::Expired { .. })), "{off} minutes off");
    }
}

#[test]
fn what_a_revoked_key_has_signed_is_started_again_and_goes_no_further() {
    let limits = Limits { bytes: 1, entries: 1 };
    let approval = |by: &[KeyId]| {
        signed(Approval { release: release(1), service: "web".parse().unwrap(), limits }, by).to_text()
    };
    let (keys, service) = (keys(1), "web".parse().unwrap());
    let judge = Judge { keys: &keys, service: &service, verify: &verify };
    let by = |key| signed(warrant(12, 1, Some(2)), &[key]);
    let launch = |of, approved: KeyId, signed_by| {
        judge.launch(release(of), &approval(&[approved]), Some(&by(signed_by).to_text()))
    };
    assert_eq!(launch(1, EVE, EVE), Ok(()));
    assert_eq!(launch(1, CI, LEFT), Ok(()), "a key whose time is over has signed what it has signed");
    assert!(launch(1, GRACE, ADA).is_err(), "grace may not vouch for releases");
    assert!(
        launch(1, CI, STRANGER).is_err(),
        "who takes the key out of the list takes back all that it signed"
    );
    assert!(launch(3, CI, ADA).is_err(), "the warrant is for another release");
    assert!(judge.launch(release(1), &approval(&[CI]), None).is_err());
    assert!(judge.launch(release(1), "", Some(&by(ADA).to_text())).is_err());
    assert!(judge.release(release(1), [approval(&[EVE]).as_str()], Moment::New(NOW)).is_err());
    let known = Some(by(EVE));
    let said_again = judged(1, wish(12, Purpose::Rollout, 1, None), known.as_ref(), known.as_ref());
    assert!(matches!(said_again, Err(Distrust::TooFew { .. })), "{said_again:?}");
}

#[test]
fn f97_f99_approvals_by_strangers_and_junk_do_no_harm() {
    let approval = |limits, by: &[KeyId]| {
        signed(Approval { release: release(1), service: "web".parse().unwrap(), limits }, by).to_text()
    };
    let (right, wrong) = (Limits { bytes: 1, entries: 1 }, Limits { bytes: 2, entries: 1 });
    let mut texts = vec!["junk".to_string(), approval(wrong, &[STRANGER])];
    for number in 10..200 {
        texts.push(approval(right, &[KeyId::from_bytes([number; 32])]));
    }
    let keys = TrustedKeys::parse(&alloc::format!(
        "baton-trusted-keys 1\nthreshold releases 2\nthreshold deploys 0\n\
         key ada {ADA} releases *\nkey ci {CI} releases *\n"
    ))
    .unwrap();
    let service = "web".parse().unwrap();
    let judge = Judge { keys: &keys, service: &service, verify: &verify };
    let enough = |texts: &[String]| {
        judge.release(release(1), texts.iter().map(String::as_str), Moment::New(NOW)).is_ok()
    };
    assert!(!enough(&texts));
    texts.push(approval(right, &[ADA]));
    assert!(!enough(&texts));
    texts.push(approval(wrong, &[CI]));
    assert!(!enough(&texts), "they signed different things");
    texts.push(approval(right, &[CI]));
    assert!(enough(&texts), "from two files");
    let free = judge.wish(wish(1, Purpose::Rollout, 1, None), None, None, None, NOW);
    assert!(free.is_ok(), "nobody has to sign deploys here");
}

/// What is wrong with a warrant that a control in other hands has got hold of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    Forged,
    Unsigned,
    Stranger,
    OtherRole,
    Revoked,
    OtherService,
    Late,
}

fn any_flaw() -> impl Strategy<Value = Flaw> {
    use Flaw::{Forged, Late, None, OtherRole, OtherService, Revoked, Stranger, Unsigned};
    prop_oneof![
        8 => Just(None),
        1 => prop::sample::select(vec![Forged, Unsigned, Stranger, OtherRole, Revoked, OtherService, Late])
    ]
}

fn any_warrant() -> impl Strategy<Value = (Flaw, Signed<Warrant>)> {
    (any_flaw(), 0u64..8, 0u8..5, prop::option::of(0u8..5)).prop_map(|(flaw, epoch, of, fallback)| {
        let mut warrant = warrant(epoch, of, fallback);
        match flaw {
            Flaw::OtherService => warrant.service = "mail".parse().unwrap(),
            Flaw::Late => warrant.expires = NOW - HOUR,
            _ => {}
        }
        let by: &[KeyId] = match flaw {
            Flaw::Unsigned => &[],
            Flaw::Stranger => &[STRANGER],
            Flaw::OtherRole => &[CI],
            Flaw::Revoked => &[EVE],
            _ => &[ADA],
        };
        let mut signed = signed(warrant, by);
        if flaw == Flaw::Forged {
            signed.add(Signature { key: ADA, bytes: SignatureBytes::from_bytes([0; 64]) });
        }
        (flaw, signed)
    })
}

/// What a control in other hands may say.
#[derive(Debug, Clone)]
enum Said {
    Wish {
        wish: Wish,
        warrant: Option<usize>,
    },
    Grant(u64),
    HandBack(u64),
    /// The member is started again, with what it has on its disk.
    Restart,
}

fn any_word() -> impl Strategy<Value = Said> {
    use Purpose::{Halt, Rollback, Rollout};
    let purpose = prop::sample::select(vec![Rollout, Halt, Rollback]);
    let wishes = (0u64..10, purpose, 0u8..5, prop::option::of(0u8..5), prop::option::of(0usize..6));
    prop_oneof![
        6 => wishes.prop_map(|(epoch, purpose, of, base, warrant)| {
            Said::Wish { wish: wish(epoch, purpose, of, base), warrant }
        }),
        3 => (0u64..10).prop_map(Said::Grant),
        2 => (0u64..10).prop_map(Said::HandBack),
        1 => Just(Said::Restart),
    ]
}

/// A member, its disk, and all that it has started.
struct Scene {
    keys: TrustedKeys,
    service: ServiceName,
    member: Member,
    kept: Option<Signed<Warrant>>,
    seen: Option<Seen>,
    committed: Option<(ReleaseId, Epoch)>,
    status: Status,
    started: Vec<(ReleaseId, Ticket, Millis)>,
}

impl Scene {
    fn new() -> Self {
        let member = Member::new("m".parse().unwrap(), None, None);
        let (keys, service) = (keys(1), "web".parse().unwrap());
        let (status, started) = (Status::default(), Vec::new());
        Self { keys, service, member, kept: None, seen: None, committed: None, status, started }
    }

    /// As a bootloader does: a wish is judged before the member hears of it, and everything else is not.
    fn hear(&mut self, said: &Said, warrants: &[(Flaw, Signed<Warrant>)]) {
        let deploy = |epoch: u64| DeployId::from_bytes([epoch as u8; 16]);
        match said {
            Said::Wish { wish, warrant } => {
                let offered = warrant.and_then(|at| warrants.get(at)).map(|(_, signed)| signed.to_text());
                let judge = Judge { keys: &self.keys, service: &self.service, verify: &verify };
                match judge.wish(*wish, offered.as_deref(), self.kept.as_ref(), self.seen, NOW) {
                    Ok(allowed) => {
                        self.kept = allowed.keep.or(self.kept.take());
                        self.feed(Input::Wish(allowed.wish));
                    }
                    Err(why) => {
                        let refusal = Refusal { cause: Cause::Untrusted, detail: why.to_string() };
                        self.feed(Input::Untrusted(wish.seen, refusal));
                    }
                }
            }
            Said::Grant(epoch) => self.feed(Input::Grant { deploy: deploy(*epoch), bake: Millis(1).into() }),
            Said::HandBack(epoch) => self.feed(Input::HandBack { deploy: deploy(*epoch) }),
            Said::Restart => {
                self.member = Member::new("m".parse().unwrap(), self.seen, self.committed);
                self.status = Status {
                    serving: self.committed.map(|(release, _)| Running::Release(release)),
                    healthy: true,
                    ..Status::default()
                };
                self.feed(Input::Stands(self.status.clone()));
            }
        }
    }

    /// Everything that the member asks for works, at once.
    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.member.step(Millis(0), input) {
                match action {
                    Action::Remember(seen) => {
                        self.seen = Some(seen);
                        inputs.push_back(Input::Remembered(seen));
                    }
                    Action::Stage(release) => inputs.push_back(Input::Staged(release)),
                    Action::Try { release, ticket, bake } => {
                        self.start(release, ticket, bake.time);
                        inputs.push_back(Input::Stands(self.status.clone()));
                        if let Ticket::Deploy { epoch, .. } = ticket {
                            self.committed = Some((release, epoch));
                            inputs.push_back(Input::Committed(release, epoch));
                        }
                    }
                    Action::GoBack { release, ticket } => {
                        self.start(release, ticket, Millis::ZERO);
                        inputs.push_back(Input::Stands(self.status.clone()));
                    }
                    Action::HandBack => {}
                }
            }
        }
    }

    fn start(&mut self, release: ReleaseId, ticket: Ticket, bake: Millis) {
        self.started.push((release, ticket, bake));
        self.status = Status {
            serving: Some(Running::Release(release)),
            standby: self.status.serving,
            healthy: true,
            trial: Some((ticket, TrialState::Proven)),
            ..Status::default()
        };
    }
}

proptest! {
    /// The promise in one test: whatever control says, with whichever warrants it has ever seen, in whichever order.
    #[test]
    fn p38_f67_whoever_owns_control_never_chooses_what_runs(
        warrants in prop::collection::vec(any_warrant(), 1..6),
        said in prop::collection::vec(any_word(), 1..60),
    ) {
        let mut scene = Scene::new();
        let mut newest: Option<Signed<Warrant>> = None;
        for said in said {
            let before = scene.started.len();
            scene.hear(&said, &warrants);
            if scene.kept != newest {
                let kept = scene.kept.clone().unwrap();
                prop_assert!(warrants.contains(&(Flaw::None, kept.clone())), "{kept:?} is not to be trusted");
                prop_assert!(newest.is_none_or(|newest| newest.of.epoch < kept.of.epoch), "it went back to {kept:?}");
                newest = Some(kept);
            }
            for (started, ticket, _) in &scene.started[before..] {
                let allowed = &newest.as_ref().unwrap().of;
                let signed_for = match ticket {
                    Ticket::Deploy { epoch, .. } if *epoch == allowed.epoch => *started == allowed.release,
                    Ticket::Deploy { epoch, .. } => *epoch > allowed.epoch && Some(*started) == allowed.fallback,
                    // Without a slot, by a member that has nothing.
                    Ticket::Restore => allowed.names(*started),
                    Ticket::Replace | Ticket::Reload => false,
                };
                prop_assert!(signed_for, "{started:?} was started by {ticket:?}, and {allowed:?} was signed");
            }
        }
    }

    /// And it is still possible to deploy: an honest control is obeyed, whatever the other one said before.
    #[test]
    fn p38_after_all_that_a_deploy_that_is_signed_anew_is_obeyed(
        warrants in prop::collection::vec(any_warrant(), 1..6),
        said in prop::collection::vec(any_word(), 0..40),
    ) {
        let mut scene = Scene::new();
        for said in said {
            scene.hear(&said, &warrants);
        }
        let warrants = [(Flaw::None, signed(warrant(20, 7, None), &[ADA]))];
        let again = wish(20, Purpose::Rollout, 7, None);
        scene.hear(&Said::Wish { wish: again, warrant: Some(0) }, &warrants);
        scene.hear(&Said::Grant(20), &warrants);
        prop_assert_eq!(scene.status.serving, Some(Running::Release(release(7))));
    }
}
