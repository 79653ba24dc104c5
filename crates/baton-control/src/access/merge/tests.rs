//! Whatever order states of one book are put together in, and whatever went before.

use std::sync::Arc;

use baton_core::access::{Credential, CredentialKey, Role, Scope, Token};
use baton_core::ids::{PendingId, ServiceName, TokenHash, TokenId};
use baton_core::run::secrets::Secret;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::book::Protected;
use super::*;

const NOW: u64 = 1_000_000;

/// What servers do to a book. The numbers are few, so that what two of them do is often about the same.
#[derive(Debug, Clone)]
enum Step {
    Make(u8),
    Revoke(u8),
    Join(u8, u8),
    RevokeMember(u8),
    Protect(u8, bool),
    Hold(u8, u8),
    Approve(u8, u8),
    TakeBack(u8),
    Settle(u8),
    Vouch(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..3_u8;
    prop_oneof![
        n.clone().prop_map(Step::Make),
        n.clone().prop_map(Step::Revoke),
        (n.clone(), n.clone()).prop_map(|(token, member)| Step::Join(token, member)),
        n.clone().prop_map(Step::RevokeMember),
        (n.clone(), any::<bool>()).prop_map(|(service, on)| Step::Protect(service, on)),
        (n.clone(), n.clone()).prop_map(|(id, by)| Step::Hold(id, by)),
        (n.clone(), n.clone()).prop_map(|(id, by)| Step::Approve(id, by)),
        n.clone().prop_map(Step::TakeBack),
        n.clone().prop_map(Step::Settle),
        n.prop_map(Step::Vouch),
    ]
}

fn hash(number: u8) -> TokenHash {
    TokenHash::of(&[number])
}

fn pending(number: u8) -> PendingId {
    PendingId::of(&service(0), TokenId::from_bytes([number; 6]), None, 0)
}

fn service(number: u8) -> ServiceName {
    format!("s{number}").parse().unwrap()
}

fn member(number: u8) -> baton_core::ids::MemberId {
    format!("m{number}").parse().unwrap()
}

/// One that was made then. Few have a certificate of their own, so that also what should not happen does.
fn authority(number: u8, made: u64) -> Authority {
    let (certificate, key) = (format!("certificate {}", number / 2), format!("key {number}"));
    Authority { certificate, key: Secret::new(key), made }
}

fn token(number: u8, created: u64) -> Token {
    Token {
        hash: hash(number),
        holder: "ada".parse().unwrap(),
        role: Role::Join,
        scope: Scope::Every,
        created,
        expires: None,
        member: None,
        reusable: false,
    }
}

/// Takes a step, at this time, as `Access` takes it.
fn take(book: &mut Book, step: &Step, at: u64) {
    match *step {
        Step::Make(n) => {
            if !book.gone.contains_key(&hash(n)) {
                let held = Held { token: Arc::new(token(n, at)), joined: None };
                book.tokens.entry(hash(n)).or_insert(held);
            }
        }
        Step::Revoke(n) => drop(book.end_token(hash(n), at)),
        Step::Join(n, by) => {
            if let Some(held) = book.tokens.get_mut(&hash(n)) {
                let (service, member) = (service(0).to_string(), member(by).to_string());
                let key = format!("key{by}");
                held.joined.get_or_insert(StoredJoin { service, member, key, at_ms: at });
            }
        }
        Step::RevokeMember(n) => book.revoke(service(0), member(n), at),
        Step::Protect(n, on) => {
            book.protection.insert(service(n), Protected { at, on });
        }
        Step::Hold(n, by) => {
            let asked = serde_json::from_str(r#"{"wanted":"rollout"}"#).unwrap();
            let asked_by = format!("by{by}");
            let held = Pending {
                service: service(0),
                asked_by,
                at,
                ends: at + 100,
                approved_by: None,
                decided: 0,
                asked,
            };
            if !book.settled.contains_key(&pending(n)) {
                book.pending.entry(pending(n)).or_insert(held);
            }
        }
        Step::Approve(n, by) => {
            if let Some(pending) = book.pending.get_mut(&pending(n)) {
                pending.approved_by.get_or_insert_with(|| format!("by{by}"));
                pending.decide(at);
            }
        }
        Step::TakeBack(n) => {
            if let Some(pending) = book.pending.get_mut(&pending(n)).filter(|it| it.approved_by.is_some()) {
                pending.approved_by = None;
                pending.decide(at);
            }
        }
        Step::Settle(n) => drop(book.settle(pending(n))),
        Step::Vouch(n) => {
            book.authority.get_or_insert_with(|| authority(n, at));
        }
    }
}

fn book(steps: &[(Step, u64)]) -> Book {
    let mut book = Book::new(1, CredentialKey::new([1; 32]));
    for (step, at) in steps {
        take(&mut book, step, *at);
    }
    book
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    vec((step(), 1..50_u64), 0..12)
}

fn both(a: &Book, b: &Book) -> Book {
    merge(a.clone(), b, NOW)
}

proptest! {
    /// Servers that meet in any order come to have the same book.
    #[test]
    fn p16_states_put_together_in_any_order_are_one(a in steps(), b in steps(), c in steps()) {
        let (a, b, c) = (book(&a), book(&b), book(&c));
        prop_assert_eq!(both(&a, &b), both(&b, &a));
        prop_assert_eq!(&both(&a, &a), &a);
        prop_assert_eq!(both(&both(&a, &b), &b), both(&a, &b));
        // Who looks like the second one with a token is shut out when that is seen, which depends on who meets first. All else
        // does not, and that is the same as well as soon as they have met again.
        let (left, right) = (both(&both(&a, &b), &c), both(&a, &both(&b, &c)));
        let met = both(&left, &right);
        prop_assert_eq!(&met, &both(&right, &left));
        let times = met.revoked.clone();
        prop_assert_eq!(Book { revoked: times.clone(), ..left }, Book { revoked: times.clone(), ..right.clone() });
        prop_assert_eq!(Book { revoked: times, ..right }, met);
    }

    /// A store that goes back brings back nothing, and loses nothing, as long as one server knows better.
    #[test]
    fn p38_an_older_state_changes_nothing(before in steps(), after in steps()) {
        let old = book(&before);
        let mut new = old.clone();
        for (number, (step, _)) in after.iter().enumerate() {
            // Later than anything before.
            take(&mut new, step, 100 + number as u64);
        }
        prop_assert_eq!(both(&new, &old), new.clone());
        prop_assert_eq!(both(&old, &new), new);
    }

    /// What one of them has taken back is taken back, whatever the other says.
    #[test]
    fn p38_what_was_taken_back_stays_taken_back(a in steps(), b in steps()) {
        let (a, b) = (book(&a), book(&b));
        let together = both(&a, &b);
        for gone in a.gone.keys().chain(b.gone.keys()) {
            prop_assert!(!together.tokens.contains_key(gone));
        }
        for settled in a.settled.keys().chain(b.settled.keys()) {
            prop_assert!(!together.pending.contains_key(settled));
        }
        for (whose, before) in a.revoked.iter().chain(&b.revoked) {
            prop_assert!(together.revoked[whose] >= *before);
        }
    }

    /// Who has used a token after it was revoked elsewhere, or as the second one, has nothing any more.
    #[test]
    fn p38_who_joins_with_a_token_that_was_revoked_elsewhere_is_shut_out(a in steps(), b in steps()) {
        let (a, b) = (book(&a), book(&b));
        let together = both(&a, &b);
        for (hash, gone) in &a.gone {
            let (Some(was), Some(held)) = (&gone.was, b.tokens.get(hash)) else { continue };
            let (Some(used), known) = (&held.joined, &was.held.joined) else { continue };
            if known.as_ref().is_some_and(|known| who(known) == who(used)) {
                continue;
            }
            let shut_out = |joined: &StoredJoin| {
                let (service, member) = (joined.service.parse().unwrap(), joined.member.parse().unwrap());
                together.was_revoked_since(&service, &member, joined.at_ms)
            };
            prop_assert!(used.at_ms < was.at || shut_out(used));
            let second = known.as_ref().map(|known| if order(known, used).is_gt() { known } else { used });
            prop_assert!(second.is_none_or(shut_out));
        }
    }

    /// Nobody stays a member because the token has ended by which it should not have become one.
    #[test]
    fn p38_who_is_shut_out_is_so_also_where_the_token_has_ended(a in steps(), b in steps()) {
        let (a, b) = (book(&a), book(&b));
        let ended = |book: &Book| {
            let mut book = book.clone();
            for held in book.tokens.values_mut() {
                held.token = Arc::new(Token { expires: Some(NOW - 1), ..(*held.token).clone() });
            }
            book.gone.values_mut().for_each(|gone| gone.until = NOW - 1);
            book
        };
        let (found, is_all) = together(ended(&a), ended(&b), NOW);
        prop_assert_eq!(&found.revoked, &both(&a, &b).revoked);
        prop_assert!(found.tokens.is_empty() && found.gone.is_empty());
        // Who has forgotten it and who has not do not write it out and in.
        prop_assert!(together(ended(&a), found.clone(), NOW) == (found.clone(), true));
        prop_assert!(!is_all || found.revoked == b.revoked);
    }

    /// The text has all of it.
    #[test]
    fn what_is_written_is_read_as_it_was(a in steps()) {
        let mut a = book(&a);
        a.authority = Some(Authority::make().unwrap());
        prop_assert_eq!(Book::parse(&a.to_text().unwrap()).unwrap(), a);
    }
}

#[test]
fn a_token_that_two_have_used_apart_is_the_firsts_and_the_other_one_has_to_come_again() {
    let make = (Step::Make(1), 1);
    let first = book(&[make.clone(), (Step::Join(1, 1), 5)]);
    let second = book(&[make, (Step::Join(1, 2), 6)]);
    let together = both(&second, &first);
    assert_eq!(together.tokens[&hash(1)].joined.as_ref().unwrap().member, "m1");
    assert!(together.revoked.contains_key(&(service(0), member(2))));
    assert!(!together.revoked.contains_key(&(service(0), member(1))));
}

/// A book in which somebody has joined as this member with the key of that number.
fn joined(by: u8, key: u8, at: u64) -> Book {
    let mut book = book(&[(Step::Make(1), 1), (Step::Join(1, by), at)]);
    let joined = book.tokens.get_mut(&hash(1)).unwrap().joined.as_mut().unwrap();
    joined.key = format!("key{key}");
    book
}

#[test]
fn of_two_that_have_used_a_token_as_one_member_neither_keeps_what_it_has_and_the_first_may_come_back() {
    let together = both(&joined(1, 2, 6), &joined(1, 1, 5));
    assert_eq!(together.tokens[&hash(1)].joined.as_ref().unwrap().key, "key1");
    // Nobody could tell their credentials apart.
    assert!(together.revoked.contains_key(&(service(0), member(1))));
    // One process that has asked two servers is one.
    let once = both(&joined(1, 1, 6), &joined(1, 1, 5));
    assert_eq!((once.revoked.len(), once.tokens[&hash(1)].joined.as_ref().unwrap().at_ms), (0, 5));
}

#[test]
fn who_was_second_is_shut_out_once_and_not_again_by_every_old_copy() {
    let (first, second) = (joined(1, 1, 5), joined(2, 2, 6));
    let together = merge(first.clone(), &second, NOW);
    let shut_out = together.revoked[&(service(0), member(2))];
    for later in [NOW, NOW + 1, 2 * NOW] {
        assert_eq!(merge(together.clone(), &second, later), together, "it has come anew by then");
        assert_eq!(merge(second.clone(), &together, later), together);
    }
    // Whoever was revoked after it had joined has nothing any more; who was before, has.
    let revoked = |at| {
        let mut book = first.clone();
        book.revoke(service(0), member(2), at);
        merge(book, &second, NOW).revoked[&(service(0), member(2))]
    };
    assert_eq!((revoked(5), revoked(6)), (shut_out, 6 + Credential::SKEW_MS));
}

#[test]
fn an_old_copy_does_not_shut_out_again_who_has_come_anew_also_long_after_the_revocation_has_ended() {
    let (first, second) = (joined(1, 1, 5), joined(2, 2, 6));
    let (mut known, _) = together(first, second.clone(), NOW);
    let shut_out = known.revoked.clone();
    assert!(shut_out.contains_key(&(service(0), member(2))));
    let month = 30 * 24 * 60 * 60 * 1000;
    for later in [NOW + month, NOW + 12 * month] {
        // As every change does.
        known.forget_ended(later);
        assert_eq!(together(known.clone(), second.clone(), later).0.revoked, shut_out);
        assert_eq!(together(second.clone(), known.clone(), later).0.revoked, shut_out);
    }
    // Once the token has ended, no copy tells of it any more.
    let held = known.tokens.get_mut(&hash(1)).unwrap();
    held.token = Arc::new(Token { expires: Some(NOW + 13 * month), ..(*held.token).clone() });
    known.forget_ended(NOW + 13 * month);
    assert!(known.revoked.is_empty());
    assert!(together(known, second, NOW + 13 * month).0.revoked.is_empty());
}

#[test]
fn whom_no_old_copy_can_shut_out_is_forgotten_and_the_others_are_not_without_end() {
    let longest = Credential::TTL_MS + Credential::RENEWABLE_MS;
    let mut late = joined(1, 1, NOW);
    late.revoke(service(0), member(2), NOW - Credential::SKEW_MS - 1);
    late.forget_ended(NOW + longest);
    assert!(late.revoked.is_empty(), "it was before anybody has used a token");
    let mut many = joined(1, 1, 5);
    for number in 0..20_000_u64 {
        many.revoke(service(0), format!("m{number}").parse().unwrap(), NOW + number);
    }
    many.forget_ended(NOW);
    assert_eq!(many.revoked.len(), 20_000, "what they have may be worth something");
    many.forget_ended(NOW + 20_000 + Credential::SKEW_MS + longest);
    assert_eq!(many.revoked.len(), 10_000);
    assert!(many.revoked.contains_key(&(service(0), "m19999".parse().unwrap())));
}

#[test]
fn of_two_books_that_were_begun_apart_the_older_ones_key_counts() {
    let (old, new) = (Book::new(1, CredentialKey::new([9; 32])), Book::new(2, CredentialKey::new([1; 32])));
    assert_eq!(both(&new, &old).key, old.key);
    assert_eq!(both(&old, &new).key, old.key);
}

#[test]
fn of_two_authorities_that_were_made_apart_the_older_one_counts_and_one_without_a_time_is_the_oldest() {
    let with = |authority| Book { authority: Some(authority), ..book(&[]) };
    for (older, newer) in [
        (authority(2, 5), authority(0, 6)),
        (authority(2, 0), authority(0, 1)),
        (authority(0, 5), authority(2, 5)),
    ] {
        let (a, b) = (with(older.clone()), with(newer));
        assert_eq!(both(&a, &b).authority, Some(older.clone()));
        assert_eq!(both(&b, &a).authority, Some(older.clone()));
        assert_eq!(both(&book(&[]), &a).authority, Some(older));
    }
}
