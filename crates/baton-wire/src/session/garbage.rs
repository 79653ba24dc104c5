//! Whatever anybody says, it is understood or refused.

use proptest::prelude::*;

use super::tests::report;
use super::*;

proptest! {
    /// Whoever says anything at all is understood or told which field is wrong.
    #[test]
    fn p36_f103_any_bytes_are_a_message_or_refused_without_a_panic(bytes: Vec<u8>) {
        if let Ok(message) = v1::FromMember::decode(&*bytes) {
            let _ = FromMember::from_wire(message, None);
        }
        if let Ok(message) = v1::ToMember::decode(&*bytes) {
            let _ = ToMember::from_wire(message);
        }
    }

    #[test]
    fn p36_f103_a_message_with_other_bytes_in_it_is_read_or_refused_with_its_field(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        for message in [FromMember::Report(Box::new(report(Standing::Staged))), FromMember::Heartbeat(Stamp { life: 1, sequence: 2 })] {
            let mut bytes = message.to_wire().encode_to_vec();
            for (at, byte) in &changes {
                *at.get_mut(&mut bytes) = *byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Ok(message) = v1::FromMember::decode(&*bytes)
                && let Err(error) = FromMember::from_wire(message, None)
            {
                prop_assert!(!error.field.is_empty() && !error.to_string().is_empty());
            }
        }
    }
}

#[test]
fn f103_what_is_nested_without_end_or_longer_than_it_is_is_refused() {
    // The beginning of a group that nobody knows, within another one, and so on.
    let nested = [0x9b, 0x06].repeat(100_000);
    assert!(v1::FromMember::decode(&*nested).is_err());
    // A field of 4 GB, of which nothing comes.
    let long = [0x0a, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert!(v1::FromMember::decode(&long[..]).is_err());
}
