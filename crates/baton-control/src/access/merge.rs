//! Two states of one book that have gone apart, made one.
//!
//! Servers that share a book write it by compare-and-set, so they go apart only where the store that they share goes back: it
//! was flushed, restored, or has failed over to a node that had less. What was taken back stays taken back then, whatever the
//! other state says, and what neither has taken back is there. The result is the same in whichever order states are put
//! together, so servers that meet in any order come to have the same one.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use baton_wire::access::{StoredJoin, StoredToken};

use super::book::{Book, Held, Pending, Was};
use crate::tls::Authority;

/// Both of them in one, at this time in milliseconds since 1970.
pub(super) fn merge(mut a: Book, b: &Book, now: u64) -> Book {
    if (b.made, b.key.reveal()) < (a.made, a.key.reveal()) {
        (a.made, a.key) = (b.made, b.key.clone());
    }
    a.authority = older(a.authority.take(), b.authority.as_ref());
    let mut lost = strays(&a, b);
    lost.extend(strays(b, &a));
    for (hash, theirs) in &b.gone {
        let ours = a.gone.entry(*hash).or_insert_with(|| theirs.clone());
        ours.until = ours.until.max(theirs.until);
        // What is told of it is the same for all, too: when it was revoked first.
        let key = |was: &&Was| (was.at, serde_json::to_string(&was.held.stored()).unwrap_or_default());
        ours.was = [&ours.was, &theirs.was].into_iter().flatten().min_by_key(key).cloned();
    }
    raise(&mut a.settled, &b.settled);
    raise(&mut a.revoked, &b.revoked);
    for (service, theirs) in &b.protection {
        let ours = a.protection.entry(service.clone()).or_insert(*theirs);
        // Said at the same moment, they wait.
        *ours = (*ours).max(*theirs);
    }
    lost.extend(merge_tokens(&mut a, b));
    for joined in lost {
        shut_out(&mut a, &joined, now);
    }
    for (id, theirs) in &b.pending {
        match a.pending.entry(*id) {
            Entry::Vacant(entry) => {
                entry.insert(theirs.clone());
            }
            Entry::Occupied(mut entry) => {
                let both = one_of(entry.get(), theirs);
                entry.insert(both);
            }
        }
    }
    let Book { tokens, gone, pending, settled, .. } = &mut a;
    tokens.retain(|hash, _| !gone.contains_key(hash));
    pending.retain(|id, _| !settled.contains_key(id));
    a
}

/// Two books in one, and whether that is what was found.
///
/// What has ended is left out of both by one clock: a server that has forgotten it and one that has not would else write it
/// out and in again for ever. It is left out last: a token that has ended still tells who has used it as the second one.
pub(super) fn together(known: Book, mut found: Book, now: u64) -> (Book, bool) {
    let mut book = merge(known, &found, now);
    book.forget_ended(now);
    found.forget_ended(now);
    let is_all = found == book;
    (book, is_all)
}

/// As with the key: there is one authority, that which clients have believed for longest. One that an older version has made has
/// no time: it was there before any that has.
fn older(ours: Option<Authority>, theirs: Option<&Authority>) -> Option<Authority> {
    let key = |authority: &Authority| {
        (authority.made, authority.certificate.clone(), authority.key.reveal().to_owned())
    };
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if key(theirs) < key(&ours) => Some(theirs.clone()),
        (ours, theirs) => ours.or_else(|| theirs.cloned()),
    }
}

/// The later of two times for each.
fn raise<K: Ord + Clone>(ours: &mut BTreeMap<K, u64>, theirs: &BTreeMap<K, u64>) {
    for (key, time) in theirs {
        let known = ours.entry(key.clone()).or_default();
        *known = (*known).max(*time);
    }
}

/// Whom tokens have made members that are known to be revoked: those of `b` who have used one after that, or one that somebody
/// else had used before.
fn strays(a: &Book, b: &Book) -> Vec<StoredJoin> {
    let used = |hash| {
        let gone = || b.gone.get(hash).and_then(|gone| gone.was.as_ref()).map(|was| &was.held);
        b.tokens.get(hash).or_else(gone).and_then(|held| held.joined.as_ref())
    };
    let mut lost = Vec::new();
    for (hash, gone) in &a.gone {
        let (Some(was), Some(used)) = (&gone.was, used(hash)) else { continue };
        let known = was.held.joined.as_ref();
        if known.is_some_and(|known| who(known) == who(used)) {
            continue;
        }
        lost.extend(known.map(|known| if order(known, used) == Ordering::Greater { known } else { used }));
        lost.extend((used.at_ms >= was.at).then_some(used));
    }
    lost.into_iter().cloned().collect()
}

/// Makes worth nothing what a member has that should not have become one.
fn shut_out(book: &mut Book, StoredJoin { service, member, at_ms, .. }: &StoredJoin, now: u64) {
    // They were names when they were written down.
    if let (Ok(service), Ok(member)) = (service.parse(), member.parse()) {
        // Whoever was revoked since may have come anew: an old copy does not shut it out again.
        if !book.was_revoked_since(&service, &member, *at_ms) {
            book.revoke(service, member, now);
        }
    }
}

/// Puts the tokens together. What comes back is who has used one as the second.
fn merge_tokens(a: &mut Book, b: &Book) -> Vec<StoredJoin> {
    let mut lost = Vec::new();
    for (hash, theirs) in &b.tokens {
        let Some(ours) = a.tokens.get_mut(hash) else {
            a.tokens.insert(*hash, theirs.clone());
            continue;
        };
        let joined = match (ours.joined.take(), theirs.joined.clone()) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                // Used twice while neither could be known to the other: who was first is the member.
                let (first, second) =
                    if order(&ours, &theirs) == Ordering::Greater { (theirs, ours) } else { (ours, theirs) };
                // Credentials name their member alone: where both have one name, the first has to come again as well.
                if who(&first) != who(&second) {
                    lost.push(second);
                }
                Some(first)
            }
            (ours, theirs) => ours.or(theirs),
        };
        let token = if text(theirs) < text(ours) { &theirs.token } else { &ours.token };
        *ours = Held { token: Arc::clone(token), joined };
    }
    lost
}

/// By which of two tokens with one hash is chosen: the older one, and of one moment any, as long as all choose the same.
fn text(held: &Held) -> (u64, String) {
    let stored = StoredToken::of(&held.token, None);
    (held.token.created, serde_json::to_string(&stored).unwrap_or_default())
}

/// Which process has joined, as which member.
fn who(join: &StoredJoin) -> (&str, &str, &str) {
    (&join.service, &join.member, &join.key)
}

fn order(a: &StoredJoin, b: &StoredJoin) -> Ordering {
    (a.at_ms, who(a)).cmp(&(b.at_ms, who(b)))
}

/// One of two deploys that wait under one name: what was asked for first, approved or not as was decided last.
fn one_of(a: &Pending, b: &Pending) -> Pending {
    let key = |pending: &Pending| {
        let asked = serde_json::to_string(&pending.asked).unwrap_or_default();
        (pending.at, pending.ends, pending.asked_by.clone(), asked)
    };
    let mut first = if key(b) < key(a) { b.clone() } else { a.clone() };
    // Decided at the same moment, it is approved.
    let last = [a, b].into_iter().max_by_key(|pending| (pending.decided, &pending.approved_by));
    if let Some(Pending { approved_by, decided, .. }) = last {
        (first.approved_by, first.decided) = (approved_by.clone(), *decided);
    }
    first
}

#[cfg(test)]
mod tests;
