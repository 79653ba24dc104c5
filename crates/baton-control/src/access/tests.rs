//! Tokens and members, against a real file.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use axum::http::HeaderValue;
use baton_core::access::{Right, Scope};
use baton_wire::api::Propose;

use super::*;
use crate::small_disk;

fn open(dir: &tempfile::TempDir) -> Access {
    Access::open(dir.path(), Place::File, false).unwrap()
}

fn token(seed: u8, role: Role, services: &[&str]) -> Token {
    let only = services.iter().map(|service| service.parse().unwrap()).collect();
    Token {
        hash: TokenHash::of(&[seed; TOKEN_BYTES]),
        holder: "ada".parse().unwrap(),
        role,
        scope: if services.is_empty() { Scope::Every } else { Scope::Only(only) },
        created: 1,
        expires: None,
        member: None,
        reusable: false,
    }
}

fn shown(seed: u8) -> String {
    Shown::token(&[seed; TOKEN_BYTES], None).secret.reveal().to_owned()
}

fn web() -> (ServiceName, MemberId) {
    ("web".parse().unwrap(), "web-1".parse().unwrap())
}

#[test]
fn the_first_token_is_that_of_an_admin_and_only_its_hash_is_in_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let file = first_token(dir.path());
    let first: Shown = fs::read_to_string(&file).unwrap().parse().unwrap();
    let caller = access.caller(first.secret.reveal(), 0).unwrap();
    assert!(caller.may(Right::Administer) && caller.covers_all());
    for private in [file, dir.path().join("access.json")] {
        let mode = fs::metadata(&private).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", private.display());
    }
    let list = fs::read_to_string(dir.path().join("access.json")).unwrap();
    assert!(!list.contains(&first.secret.reveal()[6..]), "p43: {list}");
    drop(access);
    fs::remove_file(first_token(dir.path())).unwrap();
    let again = open(&dir);
    assert!(again.caller(first.secret.reveal(), 0).is_ok(), "after a restart");
    assert!(!first_token(dir.path()).exists(), "there is no second one");
}

#[test]
fn p37_only_what_was_given_out_and_not_taken_back_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let now = unix_ms();
    let known = |access: &Access, seed| access.caller(&shown(seed), now).is_ok();
    assert!(!known(&access, 1));
    access.make(&token(1, Role::Viewer, &[])).unwrap();
    let end = now + 60_000;
    access.make(&Token { expires: Some(end), ..token(2, Role::Viewer, &[]) }).unwrap();
    assert!(known(&access, 1) && known(&access, 2) && access.caller(&shown(2), end).is_err());
    let id = token(1, Role::Viewer, &[]).id();
    assert!(known(&open(&dir), 1), "after a restart");
    access.revoke(id).unwrap();
    assert!(!known(&access, 1) && !known(&open(&dir), 1));
    let unknown = TokenHash::of(b"nobody's").id();
    assert_eq!(access.revoke(unknown).unwrap_err().status, StatusCode::NOT_FOUND);
    for bad in ["", "Bearer", "Basic YTpi", "Bearer baton_x", "Bearer member_x", "bearer x"] {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(bad))]);
        assert_eq!(access.identify(&headers).unwrap_err().status, StatusCode::UNAUTHORIZED, "{bad}");
    }
    assert!(access.identify(&HeaderMap::new()).is_err());
}

#[test]
fn p32_a_token_that_is_asked_for_again_is_the_same_one() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let first = access.make(&token(1, Role::Viewer, &[])).unwrap();
    let again = access.make(&Token { created: 99, ..token(1, Role::Viewer, &[]) }).unwrap();
    assert_eq!((first, access.tokens().len()), (again, 2));
    let other = access.make(&token(1, Role::Admin, &[])).unwrap_err();
    assert_eq!(other.code, "key-taken");
    // Asked for again after somebody has revoked it, it stays revoked.
    access.revoke(token(1, Role::Viewer, &[]).id()).unwrap();
    let gone = access.make(&token(1, Role::Viewer, &[])).unwrap_err();
    assert!(gone.code == "key-taken" && gone.message.contains("was revoked"), "{gone:?}");
    assert_eq!(access.tokens().len(), 1);
}

#[test]
fn p32_a_token_that_is_revoked_again_is_told_as_it_was_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let made = access.make(&token(1, Role::Join, &["web"])).unwrap();
    let (service, member) = web();
    access.join(&made, &service, &member, "a").unwrap();
    let first = access.revoke(made.id()).unwrap().what;
    // The answer was lost, and control was restarted.
    let access = open(&dir);
    let again = access.revoke(made.id()).unwrap().what;
    assert_eq!((&first.held, &*first.held.token), (&again.held, &made));
    assert!(first.is_new && !again.is_new, "which nothing has changed by");
    assert!(again.held.joined.is_some() && access.tokens().len() == 1);
    let mut book = (*access.book()).clone();
    book.forget_ended(unix_ms() + Duration::from_secs(25 * 60 * 60).as_millis() as u64);
    assert_eq!(book.revoke_token(made.id(), unix_ms()), None);
    assert!(book.gone.contains_key(&made.hash), "but it stays revoked");
}

#[test]
fn the_last_token_with_which_tokens_can_be_made_is_told_from_all_others() {
    let now = 1000;
    let admin = |seed, expires| Token { expires, ..token(seed, Role::Admin, &[]) };
    let (one, other) = (admin(1, None), admin(2, None));
    let narrow = Token { scope: Scope::Only(["web".parse().unwrap()].into()), ..admin(3, None) };
    let operator = token(4, Role::Operator, &[]);
    for (held, expected) in [
        (vec![&one], true),
        (vec![&one, &other], false),
        (vec![&one, &admin(2, Some(now + 1))], false),
        (vec![&one, &admin(2, Some(now))], true),
        (vec![&one, &narrow, &operator], true),
        (vec![&other], false),
        // It is worth nothing anyway, and the other one stays, or there is none.
        (vec![&admin(1, Some(now)), &other], false),
        (vec![&admin(1, Some(now))], false),
        (vec![&operator], false),
        (vec![], false),
    ] {
        let mut book = Book::new(0, CredentialKey::new([0; 32]));
        for token in &held {
            book.tokens.insert(token.hash, Held { token: Arc::new((*token).clone()), joined: None });
        }
        assert_eq!(book.is_last_admin(one.id(), now), expected, "{held:?}");
    }
}

#[test]
fn the_last_admin_cannot_be_revoked_before_there_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let first = access.tokens()[0].token.id();
    access.make(&token(1, Role::Operator, &[])).unwrap();
    // One that has ended makes nothing any more.
    access.make(&Token { expires: Some(1), ..token(2, Role::Admin, &[]) }).unwrap();
    let refusal = access.revoke(first).unwrap_err();
    assert_eq!((refusal.status.as_u16(), refusal.code), (422, "last-admin"));
    assert!(refusal.message.contains("`baton token create NAME --role admin`"), "{refusal:?}");
    assert!(
        [&access, &open(&dir)]
            .iter()
            .all(|access| access.tokens().iter().any(|held| held.token.id() == first))
    );
    access.make(&token(3, Role::Admin, &[])).unwrap();
    assert!(access.revoke(first).unwrap().only_here.is_none());
    let refusal = access.revoke(token(3, Role::Admin, &[]).id()).unwrap_err();
    assert_eq!(refusal.code, "last-admin");
}

#[test]
fn a_start_makes_another_first_token_only_where_nobody_could_make_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let file = first_token(dir.path());
    fs::remove_file(&file).unwrap();
    assert_eq!(access.let_in(dir.path()).unwrap(), None);
    assert!(!file.exists(), "somebody has one");
    let viewer = access.make(&token(1, Role::Viewer, &[])).unwrap();
    let mut book = (*access.book()).clone();
    book.tokens.retain(|hash, _| *hash == viewer.hash);
    let ended = Token { expires: Some(1), ..token(2, Role::Admin, &[]) };
    book.tokens.insert(ended.hash, Held { token: Arc::new(ended), joined: None });
    access.ledger.put(&access.book(), &Arc::new(book));

    let made = access.let_in(dir.path()).unwrap().unwrap();
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "p43");
    let first: Shown = fs::read_to_string(&file).unwrap().parse().unwrap();
    for access in [&access, &open(&dir)] {
        let caller = access.caller(first.secret.reveal(), unix_ms()).unwrap();
        assert!(caller.may(Right::Administer) && caller.covers_all());
        assert!(access.caller(&shown(1), unix_ms()).is_ok(), "the others stay what they are");
    }
    assert_eq!(made.hash, Shown::hash(first.secret.reveal()).unwrap());
    assert_eq!(access.let_in(dir.path()).unwrap(), None, "one is enough");
}

#[test]
fn who_has_lost_the_token_of_an_admin_asks_for_another_one_by_an_empty_file() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let file = first_token(dir.path());
    fs::write(&file, "").unwrap();
    // What cannot be kept is asked for still.
    let (list, away) = (dir.path().join("access.json"), dir.path().join("away"));
    fs::rename(&list, &away).unwrap();
    fs::create_dir(&list).unwrap();
    assert!(access.let_in(dir.path()).is_err() && fs::read_to_string(&file).unwrap().is_empty());
    assert_eq!(access.tokens().len(), 1);
    fs::remove_dir(&list).unwrap();
    fs::rename(&away, &list).unwrap();

    let made = access.let_in(dir.path()).unwrap().unwrap();
    let shown: Shown = fs::read_to_string(&file).unwrap().parse().unwrap();
    assert_eq!(made.hash, Shown::hash(shown.secret.reveal()).unwrap());
    assert!(open(&dir).caller(shown.secret.reveal(), unix_ms()).unwrap().may(Right::Administer));
    assert_eq!((access.tokens().len(), access.let_in(dir.path()).unwrap()), (2, None), "once");
}

#[test]
fn a_token_that_was_revoked_stays_so_for_a_day_after_it_would_have_ended_and_one_without_an_end_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let day = Duration::from_secs(24 * 60 * 60).as_millis() as u64;
    let ends = unix_ms() + 60_000;
    let short = Token { expires: Some(ends), ..token(1, Role::Viewer, &[]) };
    let endless = token(2, Role::Viewer, &[]);
    for token in [&short, &endless] {
        access.make(token).unwrap();
        access.revoke(token.id()).unwrap();
    }
    let at = |time| {
        let mut book = (*access.book()).clone();
        book.forget_ended(time);
        [&short, &endless].map(|token| book.gone.contains_key(&token.hash))
    };
    // Who asks again, since the answer was lost, is told so; and who is late makes none of them anew.
    assert_eq!(at(ends + 60_000), [true, true]);
    assert_eq!(at(ends + day), [false, true]);
    assert_eq!(at(ends + 3650 * day), [false, true]);
}

#[test]
fn a_token_makes_one_member_once_and_the_same_one_again() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let join = access.make(&token(1, Role::Join, &["web"])).unwrap();
    let (service, member) = web();
    let joins = |access: &Access, service: &ServiceName, member: &MemberId, key: &str| {
        access.join(&join, service, member, key).map_err(|refusal| refusal.code)
    };
    assert_eq!(joins(&access, &"api".parse().unwrap(), &member, "a"), Err("not-allowed"));
    let (credential, _) = joins(&access, &service, &member, "a").unwrap();
    // The answer was lost, and control was restarted.
    let access = open(&dir);
    assert!(joins(&access, &service, &member, "a").is_ok());
    assert_eq!(joins(&access, &service, &member, "b"), Err("token-used"));
    assert_eq!(joins(&access, &service, &"web-2".parse().unwrap(), "a"), Err("token-used"));
    let caller = access.caller(credential.reveal(), unix_ms()).unwrap();
    assert!(caller.is(&service, &member) && caller.may(Right::Attend));
    assert!(!access.caller(&shown(1), 0).unwrap().may(Right::Attend), "the token itself is no member");
}

#[test]
fn a_token_for_one_member_makes_no_other_and_a_reusable_one_makes_several() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let (service, member) = web();
    let only = Token { member: Some(member.clone()), ..token(1, Role::Join, &["web"]) };
    let only = access.make(&only).unwrap();
    let other = "web-2".parse().unwrap();
    assert_eq!(access.join(&only, &service, &other, "a").unwrap_err().code, "not-allowed");
    assert!(access.join(&only, &service, &member, "a").is_ok());
    let many = access.make(&Token { reusable: true, ..token(2, Role::Join, &["web"]) }).unwrap();
    for (member, key) in [(&member, "a"), (&other, "b"), (&member, "c")] {
        assert!(access.join(&many, &service, member, key).is_ok());
    }
}

#[test]
fn p39_what_a_member_has_ends_and_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let (service, member) = web();
    let credential = access.credential(&service, &member);
    let now = unix_ms();
    let day = Duration::from_secs(24 * 60 * 60).as_millis() as u64;
    let caller = |access: &Access, now| access.caller(credential.reveal(), now);
    assert!(matches!(caller(&access, now), Ok(Caller::Member(_))));
    let late = caller(&access, now + 2 * day).unwrap();
    assert!(late.may(Right::Renew) && !late.may(Right::Attend) && !late.may(Right::Fetch));
    assert!(caller(&access, now + 9 * day).is_err());
    let inside = caller(&access, now).unwrap();
    assert!(access.still_knows(&inside, now) && !access.still_knows(&inside, now + 2 * day));

    let join = access.make(&token(1, Role::Join, &["web"])).unwrap();
    access.join(&join, &service, &member, "a").unwrap();
    access.revoke_member(&service, &member).unwrap();
    assert!(caller(&access, now).is_err() && !access.still_knows(&inside, now));
    assert!(caller(&open(&dir), now).is_err(), "after a restart");
    assert!(access.join(&join, &service, &member, "a").is_err(), "its token is gone too");
    let other = access.credential(&service, &"web-2".parse().unwrap());
    assert!(access.caller(other.reveal(), now).is_ok());
}

#[test]
fn p39_who_was_let_in_before_a_revocation_renews_nothing_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let (service, member) = web();
    let first = access.credential(&service, &member);
    let inside = access.book().key.open(first.reveal()).unwrap();
    let next = access.renew(&inside).unwrap();
    assert!(access.caller(next.reveal(), unix_ms()).is_ok());
    access.revoke_member(&service, &member).unwrap();
    assert_eq!(access.renew(&inside).unwrap_err().status, StatusCode::UNAUTHORIZED);
    assert!(access.caller(next.reveal(), unix_ms()).is_err(), "what it has got before is worth nothing too");
}

#[test]
fn p39_who_shows_a_credential_beside_which_another_one_was_renewed_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let (service, member) = web();
    let given = |hours: u64| unix_ms() - Duration::from_secs(hours * 60 * 60).as_millis() as u64;
    let shown = |hours| Credential { service: service.clone(), member: member.clone(), issued: given(hours) };
    access.lineage.shown(&shown(2));
    let refused = access.renew(&shown(9)).unwrap_err();
    assert_eq!((refused.status, refused.code), (StatusCode::FORBIDDEN, "credential-reused"));
    assert!(access.renew(&shown(0)).is_ok(), "the newest one goes on");
}

#[test]
fn p40_a_service_that_is_protected_is_so_with_its_flavors() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let is_protected = |name: &str| access.protected_by(&name.parse().unwrap()).is_some();
    access.protect(&web().0, true).unwrap();
    for (name, expected) in
        [("web", true), ("web.beat", true), ("web.beat.a", true), ("webs", false), ("api", false)]
    {
        assert_eq!(is_protected(name), expected, "{name}");
    }
    // Not even where somebody has said of the flavor that it is not.
    access.protect(&"web.beat".parse().unwrap(), true).unwrap();
    access.protect(&"web.beat".parse().unwrap(), false).unwrap();
    assert!(is_protected("web.beat"));
    access.protect(&web().0, false).unwrap();
    assert!(!is_protected("web.beat"));
}

fn waiting(number: usize) -> PendingId {
    PendingId::of(&web().0, TokenId::from_bytes([0; 6]), None, number as u64)
}

/// One that is like no other.
fn asked(number: usize, ends: u64) -> Pending {
    let Pending { asked, .. } = pending(ends);
    Pending { asked: Propose { reason: number.to_string(), ..asked }, ..pending(ends) }
}

fn pending(ends: u64) -> Pending {
    let asked = serde_json::from_str(r#"{"wanted":"rollout"}"#).unwrap();
    Pending {
        service: web().0,
        asked_by: "ada".to_owned(),
        at: 1,
        ends,
        approved_by: None,
        decided: 0,
        asked,
    }
}

#[test]
fn deploys_that_have_ended_take_no_room_and_one_that_waits_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let later = unix_ms() + 60_000;
    let fill = |ends| {
        let mut book = (*access.book()).clone();
        book.pending = (0..PENDING_MAX).map(|number| (waiting(number), pending(ends))).collect();
        access.ledger.put(&access.book(), &Arc::new(book));
    };
    fill(later);
    assert_eq!(access.hold(waiting(PENDING_MAX), &asked(PENDING_MAX, later)).unwrap_err().code, "too-many");
    assert!(access.hold(waiting(0), &pending(later)).is_ok(), "it waits already");
    fill(1);
    assert!(access.hold(waiting(0), &pending(later)).is_ok());
    let known: Vec<PendingId> = open(&dir).pending().into_iter().map(|(id, _)| id).collect();
    assert_eq!(known, [waiting(0)]);
    // Nobody alone keeps the others from it.
    let hold = |number, asked_by: &str| {
        let asked_by = asked_by.to_owned();
        access.hold(waiting(number), &Pending { asked_by, ..asked(number, later) })
    };
    (1..=PENDING_OF_ONE_MAX).for_each(|number| assert!(hold(number, "eve").unwrap().is_new));
    assert_eq!(hold(PENDING_MAX, "eve").unwrap_err().code, "too-many");
    assert!(hold(PENDING_MAX, "bob").is_ok());
}

#[test]
fn p32_what_somebody_asks_for_twice_waits_once_by_whichever_key() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let later = unix_ms() + 60_000;
    let key = |key: &str| Some(key.to_owned());
    let of = |change: &dyn Fn(&mut Pending)| {
        let mut pending = Pending {
            asked: Propose { idempotency_key: key("a"), ..asked(0, later).asked },
            ..pending(later)
        };
        change(&mut pending);
        pending
    };
    let first = of(&|_| {});
    let same: [&dyn Fn(&mut Pending); 3] =
        [&|_| {}, &|pending| pending.asked.idempotency_key = key("b"), &|pending| {
            (pending.at, pending.ends, pending.asked.idempotency_key) = (7, later + 1, None);
        }];
    assert_eq!(access.hold(waiting(0), &first).unwrap(), Waits { id: waiting(0), is_new: true });
    for (number, change) in (1..).zip(same) {
        assert_eq!(
            access.hold(waiting(number), &of(change)).unwrap(),
            Waits { id: waiting(0), is_new: false }
        );
    }
    let others: [&dyn Fn(&mut Pending); 5] = [
        &|pending| pending.asked_by = "grace".to_owned(),
        &|pending| pending.service = "api".parse().unwrap(),
        &|pending| pending.asked.release = Some("02".to_owned()),
        &|pending| pending.asked.parent = Some("another".to_owned()),
        &|pending| pending.asked.reason = "because".to_owned(),
    ];
    for (number, change) in (10..).zip(others) {
        assert!(access.hold(waiting(number), &of(change)).unwrap().is_new, "{number}");
    }
    // Once it waits no more, it is asked for anew.
    access.reject(waiting(0)).unwrap();
    assert_eq!(access.hold(waiting(1), &first).unwrap(), Waits { id: waiting(1), is_new: true });
}

#[test]
fn tokens_that_have_ended_take_no_room_and_are_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let fill = |expires| {
        let mut book = (*access.book()).clone();
        for number in 0..TOKENS_MAX {
            let hash = TokenHash::of(&number.to_le_bytes());
            let token = Arc::new(Token { hash, expires, ..token(0, Role::Viewer, &[]) });
            book.tokens.insert(hash, Held { token, joined: None });
        }
        access.ledger.put(&access.book(), &Arc::new(book));
    };
    fill(None);
    assert_eq!(access.make(&token(1, Role::Viewer, &[])).unwrap_err().code, "too-many");
    fill(Some(1));
    assert_eq!(access.tokens().len(), 1, "the first one");
    assert!(access.make(&token(1, Role::Viewer, &[])).is_ok());
    assert_eq!(access.book().tokens.len(), 2);
}

#[test]
fn a_list_that_was_spoiled_is_named_and_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let _ = open(&dir);
    let file = dir.path().join("access.json");
    fs::write(&file, "{").unwrap();
    let error = Access::open(dir.path(), Place::File, false).err().unwrap();
    assert!(error.to_string().contains("access.json"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "{");
}

#[test]
fn what_cannot_be_written_is_not_true_but_for_what_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let access = open(&dir);
    let known = access.make(&token(2, Role::Viewer, &[])).unwrap();
    let (lost, away) = (dir.path().join("access.json"), dir.path().join("away"));
    fs::rename(&lost, &away).unwrap();
    fs::create_dir(&lost).unwrap();
    let refusal = access.make(&token(1, Role::Viewer, &[])).unwrap_err();
    assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(access.caller(&shown(1), 0).is_err());
    let only_here = access.revoke(known.id()).unwrap().only_here.unwrap();
    assert!(only_here.message.contains("on this server until it is restarted"), "{only_here:?}");
    assert!(access.caller(&shown(2), 0).is_err());

    fs::remove_dir(&lost).unwrap();
    fs::rename(&away, &lost).unwrap();
    assert!(open(&dir).caller(&shown(2), 0).is_ok(), "nobody has written it down");
    assert!(access.revoke(known.id()).unwrap().only_here.is_none(), "who asks again is told that it is done");
    assert!(open(&dir).caller(&shown(2), 0).is_err());
}

#[test]
fn p29_a_token_is_revoked_on_a_disk_that_is_full() {
    match small_disk::disk() {
        Some(disk) => on_full_disk(&disk),
        None => {
            let test = "access::tests::p29_a_token_is_revoked_on_a_disk_that_is_full";
            small_disk::again(test, "size=8m");
        }
    }
}

fn on_full_disk(disk: &Path) {
    let dir = tempfile::tempdir_in(disk).unwrap();
    let access = open(&dir);
    let thieves: Vec<Token> =
        (1..=3).map(|seed| access.make(&token(seed, Role::Admin, &[])).unwrap()).collect();
    let (service, member) = web();
    let credential = access.credential(&service, &member);
    let mut filler = fs::File::create(disk.join("filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
    let refusal = access.make(&token(9, Role::Viewer, &[])).unwrap_err();
    assert!(refusal.message.contains("No space"), "{refusal:?}");
    for thief in &thieves {
        assert!(access.revoke(thief.id()).unwrap().only_here.is_none());
    }
    assert!(access.revoke_member(&service, &member).unwrap().only_here.is_none());
    let access = open(&dir);
    assert!((1..=3).all(|seed| access.caller(&shown(seed), unix_ms()).is_err()));
    assert!(access.caller(credential.reveal(), unix_ms()).is_err());
}
