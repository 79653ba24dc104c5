//! What crosses the session and what lies in the state store: any bytes are refused, or are a value that comes back.

#![no_main]

use std::fmt::Debug;

use baton_core::event::Event;
use baton_core::ids::MemberId;
use baton_wire::session::{FromMember, ToMember};
use baton_wire::stored::{LoggedDeploy, MemberRecord, Record, ServiceRecord};
use baton_wire::v1;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|input: &[u8]| {
    let [kind, bytes @ ..] = input else { return };
    match kind % 6 {
        0 => stored::<LoggedDeploy>(bytes),
        1 => stored::<Event>(bytes),
        2 => stored::<MemberRecord>(bytes),
        3 => stored::<ServiceRecord>(bytes),
        4 => to_member(bytes),
        _ => from_member(bytes),
    }
});

fn stored<T: Record + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(record) = T::from_bytes(bytes) {
        assert_eq!(T::from_bytes(&record.to_bytes()).unwrap(), record);
    }
}

fn to_member(bytes: &[u8]) {
    let Ok(message) = v1::ToMember::decode(bytes) else { return };
    if let Ok(Some(said)) = ToMember::from_wire(message) {
        assert_eq!(ToMember::from_wire(said.to_wire()).unwrap(), Some(said));
    }
}

fn from_member(bytes: &[u8]) {
    let Ok(message) = v1::FromMember::decode(bytes) else { return };
    let member: MemberId = "m-1".parse().unwrap();
    // Before somebody said hello, nobody has a report.
    let stranger = FromMember::from_wire(message.clone(), None);
    assert!(!matches!(stranger, Ok(Some(FromMember::Report(_) | FromMember::Heartbeat(_)))));
    if let Ok(Some(said)) = FromMember::from_wire(message, Some(&member)) {
        assert_eq!(FromMember::from_wire(said.to_wire(), Some(&member)).unwrap(), Some(said));
    }
}
