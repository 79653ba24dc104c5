//! What earlier versions of either side have said, as it was on the wire: every later control reads it.
//!
//! `fixtures/session-VERSION` has one message in each line: who says it, its name and its bytes in hexadecimal. What was
//! recorded is never changed; a version that says more gets a file of its own.

use super::*;

const V0_1: &str = include_str!("../../fixtures/session-0.1");

const RELEASE: ReleaseId = ReleaseId::from_bytes([7; 32]);
const DEPLOY: DeployId = DeployId::from_bytes([1; 16]);

fn member() -> MemberId {
    "web-1".parse().unwrap()
}

fn report(standing: Standing) -> FromMember {
    let full = standing != Standing::Behind;
    FromMember::Report(Box::new(Report {
        member: member(),
        stamp: Stamp { life: 3, sequence: 9 },
        seen: full.then_some(Seen { epoch: Epoch(4), deploy: DEPLOY }),
        committed: full.then_some((RELEASE, Epoch(3))),
        running: full.then_some(RELEASE),
        healthy: full,
        standing,
        fetching: full.then_some(Fetching { fetched: Bytes(1 << 40), total: Bytes(2 << 40) }),
        attempts: u32::from(full) * 2,
        relapses: u32::from(full),
        standby: full.then_some(RELEASE),
        drained: !full,
        bake_connections: u64::from(full) * 77,
        costs: if full {
            Costs {
                startup: Some(Millis(5)),
                startup_before: Some(Millis(4)),
                memory: Some(Bytes(3)),
                memory_before: Some(Bytes(2)),
                fetched: Some(Bytes(1)),
                // Not said before.
                handover: None,
            }
        } else {
            Costs::default()
        },
        labels: if full { vec!["zone=eu-1".parse().unwrap()] } else { Vec::new() },
    }))
}

/// All that version 0.1 says, by name.
fn said_by_members() -> Vec<(&'static str, FromMember)> {
    let refusal = Refusal { cause: Cause::Exit, detail: "exit 1\nlast line".to_owned() };
    let hello = |listens: Vec<String>, peer: Option<&str>| {
        FromMember::Hello(Hello {
            member: member(),
            service: "web".parse().unwrap(),
            version: "0.1.0".to_owned(),
            listens,
            life: 3,
            peer: peer.map(|peer| peer.parse().unwrap()),
        })
    };
    vec![
        ("hello", hello(vec!["http=127.0.0.1:80".to_owned()], Some("10.0.0.7:7401"))),
        ("hello-worker", hello(Vec::new(), None)),
        ("behind", report(Standing::Behind)),
        ("staged", report(Standing::Staged)),
        ("granted", report(Standing::Granted)),
        ("trying", report(Standing::Trying)),
        ("proving", report(Standing::Proving)),
        ("proven", report(Standing::Proven)),
        ("refused", report(Standing::Refused(refusal))),
        ("heartbeat", FromMember::Heartbeat(Stamp { life: 3, sequence: 10 })),
        ("goodbye", FromMember::Goodbye),
        ("secrets-wanted", FromMember::SecretsWanted(RELEASE)),
    ]
}

fn said_by_control() -> Vec<(&'static str, ToMember)> {
    let wish = |purpose, base, warrant: Option<&str>| {
        let seen = Seen { epoch: Epoch(9), deploy: DEPLOY };
        ToMember::Wish(Wish { seen, purpose, release: RELEASE, base }, warrant.map(str::to_owned))
    };
    let secret = ("aws-ssm:/db".parse().unwrap(), Secret::new("value".to_owned()));
    vec![
        ("rollout", wish(Purpose::Rollout, Some(RELEASE), None)),
        ("halt", wish(Purpose::Halt, None, Some("baton-warrant 1\n"))),
        ("rollback", wish(Purpose::Rollback, None, None)),
        ("grant", ToMember::Grant { deploy: DEPLOY, bake: Millis(500).into() }),
        ("hand-back", ToMember::HandBack { deploy: DEPLOY }),
        ("secrets", ToMember::SecretsTold { release: RELEASE, told: Ok(vec![secret]) }),
        ("no-secrets", ToMember::SecretsTold { release: RELEASE, told: Err("no aws-ssm:/db".to_owned()) }),
        ("peer-key", ToMember::PeerKey([9; 32])),
    ]
}

/// The lines of a record: what of `who` is called so.
fn recorded(record: &str, who: &str) -> Vec<(String, Vec<u8>)> {
    let of_whom = |line: &str| {
        let [by, name, digits] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (by == who).then(|| (name.to_owned(), (0..digits.len()).step_by(2).map(byte).collect()))
    };
    record.lines().filter_map(of_whom).collect()
}

#[test]
fn p35_f61_what_bootloaders_of_version_0_1_say_is_understood() {
    let recorded = recorded(V0_1, "member");
    assert_eq!(recorded.len(), said_by_members().len());
    for ((name, bytes), (expected, message)) in recorded.into_iter().zip(said_by_members()) {
        assert_eq!(name, expected);
        assert_eq!(from_bytes(&bytes, &member()), Ok(Some(message)), "{name}");
    }
}

/// A bootloader is older than control or as old; what it says must stay as it is, so that the one before understands it too
/// when control is put back.
#[test]
fn p35_f61_what_control_of_version_0_1_says_is_understood() {
    let recorded = recorded(V0_1, "control");
    assert_eq!(recorded.len(), said_by_control().len());
    for ((name, bytes), (expected, message)) in recorded.into_iter().zip(said_by_control()) {
        assert_eq!(name, expected);
        let read = v1::ToMember::decode(bytes.as_slice()).unwrap();
        assert_eq!(ToMember::from_wire(read), Ok(Some(message)), "{name}");
    }
}

/// What a later version adds: a field that nobody knows here, at the end of the message and within it.
#[test]
fn p35_f61_fields_and_messages_of_later_versions_are_passed_over() {
    // Field 1000 with the value 1, and field 1001 with three bytes.
    const LATER: [u8; 9] = [0xc0, 0x3e, 0x01, 0xca, 0x3e, 0x03, b'n', b'e', b'w'];
    for (name, message) in said_by_members() {
        let inner = |bytes: Vec<u8>| {
            // A message is one field: its key, the length of what is in it, and that.
            let (key, rest) = bytes.split_first().unwrap();
            let length = rest.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
            let content = [&rest[length..], &LATER].concat();
            let mut grown = vec![*key];
            prost::encoding::encode_varint(content.len() as u64, &mut grown);
            [grown, content].concat()
        };
        let grown = [inner(to_bytes(&message)), LATER.to_vec()].concat();
        assert_eq!(from_bytes(&grown, &member()), Ok(Some(message)), "{name}");
    }
    // A message of a kind that nobody knows here is none.
    assert_eq!(from_bytes(&LATER, &member()), Ok(None));
    let order = v1::ToMember::decode(LATER.as_slice()).unwrap();
    assert_eq!(ToMember::from_wire(order), Ok(None));
}

/// A value that must be understood and is not ends the session with the name of the field: nothing is guessed.
#[test]
fn p35_f61_values_of_later_versions_are_named_and_not_guessed() {
    let FromMember::Report(said) = report(Standing::Staged) else { unreachable!() };
    let mut later = report_to_wire(&said);
    later.standing = 99;
    let refused = report_from_wire(&later, &member()).unwrap_err();
    assert_eq!(refused.to_string(), "Report.standing is not valid: it is not known");
    let (_, wish) = said_by_control().swap_remove(0);
    let Some(v1::to_member::Message::Wish(mut later)) = wish.to_wire().message else { unreachable!() };
    later.kind = 99;
    let refused = wish_from_wire(&later).unwrap_err();
    assert_eq!(refused.to_string(), "Wish.kind is not valid: it is not known");
}
