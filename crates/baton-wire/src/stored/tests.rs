use baton_core::blame::Blame;
use baton_core::costs::{Cost, Learnt, Measured};
use baton_core::deploy::{Kind, Phase, PhaseSize, Policy};
use baton_core::event::{Event, What};
use baton_core::ids::{DeployId, KeyId, ReleaseId, SignatureBytes};
use baton_core::limits::{Connections, Limits};
use baton_core::metric::{Measure, MetricGate};
use baton_core::target::{Amount, Target};
use baton_core::trust::{Bounds, Signature, Signed, Warrant};
use baton_core::units::{Bytes, Micros, Millis, Share};
use proptest::prelude::*;

use super::*;

fn deploy() -> LoggedDeploy {
    let deploy = Deploy {
        id: DeployId::from_bytes([1; 16]),
        service: "web".parse().unwrap(),
        epoch: Epoch(7),
        kind: Kind::Halt { of: DeployId::from_bytes([2; 16]), hand_back: true },
        parent: Some(DeployId::from_bytes([2; 16])),
        release: ReleaseId::from_bytes([3; 32]),
        fallback: Some(ReleaseId::from_bytes([4; 32])),
        policy: Policy::safe(),
        reason: "too slow".into(),
        actor: "ada".into(),
        created: 1_700_000_000_000,
        warrant: Some(warrant()),
        blame: None,
    };
    let milestones = Milestones { switched: None, incomplete: Some(5), drained: None };
    LoggedDeploy { deploy, members_at_start: 8, milestones, learnt: None }
}

fn warrant() -> Signed<Warrant> {
    let mut signed = Signed::new(Warrant {
        service: "web".parse().unwrap(),
        epoch: Epoch(5),
        release: ReleaseId::from_bytes([3; 32]),
        fallback: Some(ReleaseId::from_bytes([4; 32])),
        bounds: Bounds::of(&Policy::safe()),
        expires: 1_800_000_000_000,
    });
    let (key, bytes) = (KeyId::from_bytes([5; 32]), SignatureBytes::from_bytes([6; 64]));
    signed.add(Signature { key, bytes });
    signed
}

fn service() -> ServiceRecord {
    let lock = Lock { reason: "freeze".into(), actor: "kim".into(), since: 1_700_000_000_000 };
    ServiceRecord { highest_epoch: Epoch(u64::MAX), lock: Some(lock), tags: Tags::new() }
}

/// A service with everything that the fifth version knows of.
fn tagged() -> ServiceRecord {
    let tag = |release| Tag {
        release: ReleaseId::from_bytes([release; 32]),
        actor: "kim".into(),
        since: 1_700_000_000_000,
    };
    let tags = [("master.5", tag(3)), ("production", tag(4))];
    let tags = tags.into_iter().map(|(name, tag)| (name.parse().unwrap(), tag)).collect();
    ServiceRecord { tags, ..service() }
}

fn event() -> Event {
    Event {
        at: 1_700_000_000_000,
        service: "web".parse().unwrap(),
        deploy: Some(DeployId::from_bytes([1; 16])),
        member: Some("m-1".parse().unwrap()),
        what: What::Refused,
        text: "m-1 refused: the candidate ended".into(),
    }
}

fn given(epoch: Option<Epoch>) -> MemberRecord {
    let grant = Grant { phase: 2, bake: Millis(5000), proven: true };
    MemberRecord { slot: Some(Slot::Given { epoch, grant }), gone: false }
}

/// What an error says, causes included.
fn says(error: &BadRecord) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[track_caller]
fn comes_back<T: Record + PartialEq + std::fmt::Debug>(record: &T) {
    assert_eq!(T::from_bytes(&record.to_bytes()).unwrap(), *record);
}

#[test]
fn records_come_back_as_they_were() {
    comes_back(&service());
    comes_back(&ServiceRecord { lock: None, ..service() });
    comes_back(&tagged());
    comes_back(&event());
    comes_back(&Event { deploy: None, member: None, text: String::new(), ..event() });
    for slot in [None, Some(Slot::Leftover), given(None).slot, given(Some(Epoch(7))).slot] {
        comes_back(&MemberRecord { slot, gone: false });
        comes_back(&MemberRecord { slot, gone: true });
    }
    let of = DeployId::from_bytes([2; 16]);
    for kind in [Kind::Rollout, Kind::Halt { of, hand_back: false }, Kind::Rollback { of }] {
        let logged = deploy();
        comes_back(&LoggedDeploy { deploy: Deploy { kind, ..logged.deploy }, ..logged });
    }
    for member in [Some("m-1".parse().unwrap()), None] {
        let (code, rule) = ("exited".into(), "first-member-failed".into());
        let blame = Some(Blame { member, code, rule, detail: "the candidate ended: exit code 3".into() });
        let logged = deploy();
        comes_back(&LoggedDeploy { deploy: Deploy { blame, ..logged.deploy }, ..logged });
    }
    let logged = deploy();
    let policy = Policy { target: Share::from_percent(1).into(), auto_rollback: false, ..Policy::careful() };
    let first = Deploy { parent: None, fallback: None, policy, reason: String::new(), ..logged.deploy };
    let milestones = Milestones { switched: Some(0), incomplete: None, drained: Some(u64::MAX) };
    let first = LoggedDeploy { deploy: first, members_at_start: 0, milestones, learnt: None };
    comes_back(&first);
    let startup = Measured { median: Millis(800), before: Some(Millis(500)), compared: 3, more: 2 };
    let memory = Measured { median: Bytes(1 << 30), before: None, compared: 0, more: 0 };
    let whole = Learnt {
        startup: Some(startup),
        memory: Some(memory),
        fetched: Bytes(u64::MAX),
        handover: Some(Micros(700)),
    };
    for learnt in [Learnt::default(), whole] {
        comes_back(&LoggedDeploy { learnt: Some(learnt), ..first.clone() });
    }
}

/// Written by the first version, which must be readable for ever.
#[test]
fn what_the_first_version_has_written_can_be_read() {
    read(
        include_str!("../../fixtures/stored/v1/service.hex"),
        &ServiceRecord { highest_epoch: Epoch(7), lock: None, tags: Tags::new() },
    );
    let logged = deploy();
    let unsigned = LoggedDeploy { deploy: Deploy { warrant: None, ..logged.deploy }, ..logged };
    read(include_str!("../../fixtures/stored/v1/logged-deploy.hex"), &unsigned);
    read(include_str!("../../fixtures/stored/v1/member-granted.hex"), &given(None));
    let leftover = MemberRecord { slot: Some(Slot::Leftover), gone: false };
    read(include_str!("../../fixtures/stored/v1/member-leftover.hex"), &leftover);
    read(include_str!("../../fixtures/stored/v1/event.hex"), &event());
}

#[test]
fn a_slot_ends_with_its_deploy_and_is_left_over_where_it_is_not_known_how() {
    let of = |epoch, proven| {
        let grant = Grant { phase: 0, bake: Millis(0), proven };
        MemberRecord { slot: Some(Slot::Given { epoch, grant }), gone: false }
    };
    let leftover = Some(Slot::Leftover);
    for (record, in_force, slot) in [
        (of(Some(Epoch(7)), false), Some(Epoch(7)), of(Some(Epoch(7)), false).slot),
        (of(Some(Epoch(7)), true), Some(Epoch(7)), of(Some(Epoch(7)), true).slot),
        (of(Some(Epoch(7)), false), Some(Epoch(9)), leftover),
        (of(Some(Epoch(7)), true), Some(Epoch(9)), None),
        (of(None, false), Some(Epoch(7)), leftover),
        (of(None, true), Some(Epoch(7)), None),
        (of(Some(Epoch(7)), false), None, leftover),
        (of(None, false), None, leftover),
        (MemberRecord { slot: leftover, gone: false }, Some(Epoch(9)), leftover),
        (MemberRecord { slot: None, gone: false }, Some(Epoch(9)), None),
    ] {
        assert_eq!(record.under(in_force).slot, slot, "{record:?} {in_force:?}");
    }
}

/// Written by the second, which knows of signatures.
#[test]
fn what_the_second_version_has_written_can_be_read() {
    read(include_str!("../../fixtures/stored/v2/logged-deploy.hex"), &deploy());
}

/// A deploy with everything that the third version knows of.
fn limited() -> LoggedDeploy {
    let logged = deploy();
    let policy = Policy {
        target: Target { amount: Amount::Members(3), label: Some("zone=eu-1".parse().unwrap()) },
        limits: Limits {
            singleton: true,
            never_more_than: Some(9),
            connections: Some(Connections { budget: 500, each: 20 }),
            min_available: Some(2),
        },
        gates: Cost::ALL.to_vec(),
        lock_after_rollback: true,
        ..Policy::safe().at_once()
    };
    LoggedDeploy { deploy: Deploy { policy, warrant: None, ..logged.deploy }, ..logged }
}

/// Written by the third, which knows of locks, limits, gates and members that are chosen.
#[test]
fn what_the_third_version_has_written_can_be_read() {
    read(include_str!("../../fixtures/stored/v3/logged-deploy.hex"), &limited());
    read(include_str!("../../fixtures/stored/v3/service.hex"), &service());
}

#[track_caller]
fn read<T: Record + PartialEq + std::fmt::Debug>(hex: &str, record: &T) {
    let digits = hex.trim().as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = digits.map(byte).collect();
    assert_eq!(T::from_bytes(&bytes).unwrap(), *record);
}

/// A deploy with everything that the fourth version knows of.
fn measured() -> LoggedDeploy {
    let logged = limited();
    let gate = MetricGate {
        query: "sum(rate(errors_total{release=\"$release\"}[1m]))".to_owned(),
        min: Some(Measure::of_millionths(-1)),
        max: Some(Measure::of_millionths(10_000)),
        interval: Millis::from_secs(30),
        failures: 2,
    };
    let policy = Policy { metric: Some(gate), ..logged.deploy.policy };
    LoggedDeploy { deploy: Deploy { policy, ..logged.deploy }, ..logged }
}

/// Written by the fourth, which knows of metrics.
#[test]
fn what_the_fourth_version_has_written_can_be_read() {
    read(include_str!("../../fixtures/stored/v4/logged-deploy.hex"), &measured());
}

/// Written by the fifth, which knows of tags.
#[test]
fn what_the_fifth_version_has_written_can_be_read() {
    read(include_str!("../../fixtures/stored/v5/service.hex"), &tagged());
    read(include_str!("../../fixtures/stored/v5/member-granted.hex"), &given(Some(Epoch(7))));
}

#[test]
fn p36_a_deploy_with_a_missing_field_is_an_error_that_names_it() {
    type Spoil = fn(&mut v1::Deploy);
    let spoiled: [(Spoil, &str); 18] = [
        (|deploy| deploy.id = None, "deploy.id is missing"),
        (|deploy| deploy.service = None, "deploy.service is missing"),
        (|deploy| deploy.epoch = None, "deploy.epoch is missing"),
        (|deploy| deploy.kind = None, "deploy.kind is missing"),
        (|deploy| deploy.kind = Some(v1::Kind { is: None }), "deploy.kind.is is missing"),
        (|deploy| deploy.release = None, "deploy.release is missing"),
        (|deploy| deploy.policy = None, "deploy.policy is missing"),
        (|deploy| deploy.reason = None, "deploy.reason is missing"),
        (|deploy| deploy.actor = None, "deploy.actor is missing"),
        (|deploy| deploy.created = None, "deploy.created is missing"),
        (|deploy| deploy.id = Some(vec![0; 15]), "deploy.id is not valid: it has 15 bytes instead of 16"),
        (|deploy| deploy.parent = Some(vec![]), "deploy.parent is not valid: it has 0 bytes instead of 16"),
        (
            |deploy| deploy.fallback = Some(vec![0; 33]),
            "deploy.fallback is not valid: it has 33 bytes instead of 32",
        ),
        (
            |deploy| deploy.service = Some("../x".into()),
            "deploy.service is not valid: service \"../x\" is not valid",
        ),
        (|deploy| policy(deploy).phases.clear(), "deploy.policy is not valid: the policy has no phases"),
        (
            |deploy| policy(deploy).target_ppm = Some(1_000_001),
            "deploy.policy.target_ppm is not valid: 1000001 parts per million are more than all",
        ),
        (|deploy| policy(deploy).phases[1].size = None, "deploy.policy.phases.size is missing"),
        (
            |deploy| deploy.warrant = Some("?".into()),
            "deploy.warrant is not valid: the warrant is refused at line 1",
        ),
    ];
    for (spoil, expected) in spoiled {
        let mut message = deploy().to_message();
        spoil(message.deploy.as_mut().unwrap());
        let error = LoggedDeploy::from_bytes(&message.encode_to_vec()).unwrap_err();
        assert!(says(&error).starts_with(&format!("its field {expected}")), "{}", says(&error));
    }
}

fn policy(deploy: &mut v1::Deploy) -> &mut v1::Policy {
    deploy.policy.as_mut().unwrap()
}

#[test]
fn p36_other_records_with_bad_fields_are_errors() {
    let error = ServiceRecord::from_bytes(b"").unwrap_err();
    assert_eq!(says(&error), "its field highest_epoch is missing");
    let error = Event::from_bytes(
        &v1::Event { what: Some("sunspots".into()), ..event().to_message() }.encode_to_vec(),
    );
    assert_eq!(says(&error.unwrap_err()), "its field what is not valid: \"sunspots\" is not known");
    let nameless =
        v1::Service { highest_epoch: Some(1), lock: Some(v1::Lock::default()), ..v1::Service::default() };
    let error = ServiceRecord::from_bytes(&nameless.encode_to_vec()).unwrap_err();
    assert_eq!(says(&error), "its field lock.reason is missing");
    let empty =
        v1::Member { slot: Some(v1::member::Slot::Grant(v1::Grant::default())), ..v1::Member::default() };
    let error = MemberRecord::from_bytes(&empty.encode_to_vec()).unwrap_err();
    assert_eq!(says(&error), "its field grant.phase is missing");
}

fn size() -> impl Strategy<Value = PhaseSize> {
    let share = (0..=1_000_000u32).prop_map(|ppm| PhaseSize::Share(Share::from_ppm(ppm).unwrap()));
    prop_oneof![Just(PhaseSize::One), share]
}

proptest! {
    #[test]
    fn every_policy_comes_back(
        phases in prop::collection::vec((size(), 0..=86_400_000_u64), 1..5),
        ppm in prop::array::uniform3(1..1_000_000u32),
        [auto_rollback, lock_after_rollback, singleton, all_at_once]: [bool; 4],
        members in prop::option::of(1..u32::MAX),
        label in prop::option::of("[a-z]{1,9}(=[a-z]{1,9})?"),
        [never_more_than, min_available] in prop::array::uniform2(prop::option::of(2..u32::MAX)),
        connections in prop::option::of((1..1000_u32, 2..1000_u32)),
        gates in 0..3_usize,
        bake_connections: u32,
        metric in prop::option::of((".{1,40}", any::<i64>(), 1000..3_600_000_u64, 1..100_u32)),
    ) {
        let [target, max_unhealthy, failure_limit] = ppm.map(|ppm| Share::from_ppm(ppm).unwrap());
        let phases = phases.into_iter().map(|(size, bake)| Phase { size, bake: Millis(bake) }).collect();
        let amount = members.map_or(Amount::Share(target), Amount::Members);
        let target = Target { amount, label: label.map(|label| label.parse().unwrap()) };
        let connections = connections.map(|(each, times)| Connections { budget: each * times, each });
        let limits = Limits { singleton, never_more_than, min_available, connections };
        let gates = Cost::ALL[..gates].to_vec();
        let metric = metric.map(|(query, max, interval, failures)| {
            let max = Some(Measure::of_millionths(max));
            MetricGate { query, min: None, max, interval: Millis(interval), failures }
        });
        let policy = Policy { bake_connections, metric, gates, all_at_once, target, max_unhealthy, phases, failure_limit, auto_rollback, lock_after_rollback, limits };
        let logged = deploy();
        comes_back(&LoggedDeploy { deploy: Deploy { policy, ..logged.deploy }, ..logged });
    }

    #[test]
    fn p36_damaged_bytes_are_read_or_refused_without_a_panic(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = deploy().to_bytes();
        *at.get_mut(&mut bytes) = byte;
        let _: Result<LoggedDeploy, BadRecord> = LoggedDeploy::from_bytes(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _: Result<LoggedDeploy, BadRecord> = LoggedDeploy::from_bytes(&bytes);
    }

    #[test]
    fn p36_any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
        let _: Result<LoggedDeploy, BadRecord> = LoggedDeploy::from_bytes(&bytes);
        let _: Result<Event, BadRecord> = Event::from_bytes(&bytes);
        let _: Result<MemberRecord, BadRecord> = MemberRecord::from_bytes(&bytes);
        let _: Result<ServiceRecord, BadRecord> = ServiceRecord::from_bytes(&bytes);
    }
}
