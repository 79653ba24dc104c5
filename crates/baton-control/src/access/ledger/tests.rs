//! Several servers, each with a data directory, over one store.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use baton_core::access::{Role, Scope, Shown, TOKEN_BYTES, Token};
use baton_core::ids::{MemberId, PendingId, ServiceName, TokenHash, TokenId};
use baton_core::units::Millis;
use baton_store::state::{Fault, MemoryStore};
use tempfile::TempDir;

use super::super::{Access, Caller, Held, Pending};
use super::*;
use crate::small_disk;

/// A file with a key that nobody else may read. In its place, so that it is written on a disk that is full.
fn write_key(file: &Path, key: &str) {
    fs::write(file, key).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

/// Servers that have never met.
struct Servers {
    store: Arc<MemoryStore>,
    dirs: Vec<TempDir>,
}

impl Servers {
    fn new(number: usize) -> Self {
        Self::within(&std::env::temp_dir(), number)
    }

    /// With their data in this directory.
    fn within(dir: &Path, number: usize) -> Self {
        let store = Arc::new(MemoryStore::new(Millis::ZERO));
        Self { store, dirs: (0..number).map(|_| TempDir::new_in(dir).unwrap()).collect() }
    }

    fn try_open(&self, server: usize, key: &str) -> Result<Access, AccessError> {
        let file = self.dirs[server].path().join("seal.key");
        write_key(&file, key);
        let key = SealKey::read(&file).unwrap();
        let store = Arc::<MemoryStore>::clone(&self.store);
        Access::open(self.dirs[server].path(), Place::Store { store, key }, true)
    }

    fn open(&self, server: usize) -> Access {
        self.try_open(server, KEY).unwrap()
    }

    /// What lies in the store.
    fn stored(&self) -> Vec<u8> {
        self.store.access().unwrap().unwrap()
    }

    /// The store has this again.
    fn put_back(&self, old: &[u8]) {
        assert!(self.store.set_access(Some(&self.stored()), old).unwrap());
    }
}

const KEY: &str = "rW3JbOtmCWl2ql0xmLZqRg==\n";
const OTHER_KEY: &str = "0tKZuC1Jqg0c3cH7dyYQ9A==\n";

fn token(seed: u8, role: Role) -> Token {
    Token {
        hash: TokenHash::of(&[seed; TOKEN_BYTES]),
        holder: "ada".parse().unwrap(),
        role,
        scope: Scope::Every,
        created: 1,
        expires: None,
        member: None,
        reusable: false,
    }
}

fn knows(access: &Access, seed: u8) -> bool {
    let shown = Shown::token(&[seed; TOKEN_BYTES], None);
    access.caller(shown.secret.reveal(), unix_ms()).is_ok()
}

fn web() -> (ServiceName, MemberId) {
    ("web".parse().unwrap(), "web-1".parse().unwrap())
}

fn hold(access: &Access) -> Result<PendingId, Refusal> {
    let id = PendingId::of(&web().0, TokenId::from_bytes([0; 6]), None, 1);
    let asked = serde_json::from_str(r#"{"wanted":"rollout"}"#).unwrap();
    let ends = unix_ms() + 60_000;
    let pending = Pending {
        service: web().0,
        asked_by: "ada".into(),
        at: 1,
        ends,
        approved_by: None,
        decided: 0,
        asked,
    };
    access.hold(id, &pending).map(|_| id)
}

#[test]
fn p37_what_one_server_gives_out_and_takes_back_counts_on_all() {
    let servers = Servers::new(3);
    let [a, b, c] = [0, 1, 2].map(|server| servers.open(server));
    assert!(first_token(servers.dirs[0].path()).exists(), "whoever begins has the first token");
    assert!(!first_token(servers.dirs[1].path()).exists());
    assert_eq!(a.fingerprint(), c.fingerprint(), "one authority vouches for all");
    a.make(&token(1, Role::Viewer)).unwrap();
    b.refresh().unwrap();
    assert!(knows(&b, 1) && !knows(&c, 1), "who has not looked yet knows nothing of it");
    b.revoke(token(1, Role::Viewer).id()).unwrap();
    for access in [&a, &c] {
        access.refresh().unwrap();
        assert!(!knows(access, 1));
    }
    // Whoever has not looked changes what the others have made of it, and undoes nothing.
    a.make(&token(2, Role::Viewer)).unwrap();
    c.protect(&web().0, true).unwrap();
    a.refresh().unwrap();
    assert!(a.protected_by(&web().0).is_some() && knows(&a, 2) && knows(&c, 2));
}

#[test]
fn p37_a_join_token_is_used_once_over_all_servers() {
    let servers = Servers::new(2);
    let (a, b) = (servers.open(0), servers.open(1));
    let join = a.make(&token(1, Role::Join)).unwrap();
    let (service, member) = web();
    let (credential, _) = a.join(&join, &service, &member, "key").unwrap();
    let other = b.join(&join, &service, &"web-2".parse().unwrap(), "other").unwrap_err();
    assert_eq!(other.code, "token-used");
    assert!(b.join(&join, &service, &member, "key").is_ok(), "the same one, whose answer was lost");
    let known = b.caller(credential.reveal(), unix_ms()).unwrap();
    assert!(known.is(&service, &member), "p39: its credential is good at every server");
}

#[test]
fn p39_a_member_that_is_revoked_at_one_server_is_shut_out_of_the_others_and_can_come_again() {
    let servers = Servers::new(2);
    let (a, b) = (servers.open(0), servers.open(1));
    let (service, member) = web();
    let credential = b.credential(&service, &member);
    let inside = b.caller(credential.reveal(), unix_ms()).unwrap();
    a.revoke_member(&service, &member).unwrap();
    b.refresh().unwrap();
    assert!(b.caller(credential.reveal(), unix_ms()).is_err() && !b.still_knows(&inside, unix_ms()));
    let Caller::Member(old) = inside else { panic!() };
    assert!(b.renew(&old).is_err());
    let join = a.make(&token(1, Role::Join)).unwrap();
    let (anew, _) = b.join(&join, &service, &member, "key").unwrap();
    assert!(a.caller(anew.reveal(), unix_ms()).is_ok(), "also while clocks may still differ");
}

#[test]
fn p40_of_two_servers_one_lets_a_deploy_begin_and_the_other_rejects_it_no_more() {
    let servers = Servers::new(2);
    let (a, b) = (servers.open(0), servers.open(1));
    let id = hold(&a).unwrap();
    b.refresh().unwrap();
    assert_eq!(b.pending().len(), 1, "who has asked at one server is let begin at another");
    assert_eq!(b.approve(id, "grace").unwrap().approved_by.as_deref(), Some("grace"));
    assert_eq!(a.reject(id).unwrap_err().code, "conflict");
    // The answer was lost, and somebody else asks: it is begun by who was first.
    assert_eq!(a.approve(id, "linus").unwrap().approved_by.as_deref(), Some("grace"));
    // It could not begin where the one was asked, and may have where the other was: that is not taken back with it.
    let [one, other] = [&a, &b].map(|server| server.approve(id, "linus").unwrap().decided);
    a.take_back(id, one).unwrap();
    assert_eq!(a.reject(id).unwrap_err().code, "conflict");
    b.take_back(id, other).unwrap();
    let anew = a.approve(id, "linus").unwrap();
    assert_eq!(anew.approved_by.as_deref(), Some("linus"), "nobody has let it begin any more");
    b.take_back(id, other).unwrap();
    assert_eq!(a.reject(id).unwrap_err().code, "conflict", "p40: what came late is of the one before");
    b.settle(id).unwrap();
    assert!(a.approve(id, "linus").is_err());
    assert_eq!(hold(&a).unwrap_err().code, "conflict", "what was settled does not wait again");
}

#[test]
fn p38_f64_a_store_that_goes_back_does_not_bring_back_what_was_revoked() {
    let servers = Servers::new(2);
    let (a, b) = (servers.open(0), servers.open(1));
    a.make(&token(1, Role::Admin)).unwrap();
    let old = servers.stored();
    a.revoke(token(1, Role::Admin).id()).unwrap();
    a.make(&token(2, Role::Viewer)).unwrap();
    servers.put_back(&old);
    b.refresh().unwrap();
    assert!(knows(&b, 1), "who knows no better believes it, for as long as nobody looks who does");
    a.refresh().unwrap();
    b.refresh().unwrap();
    for access in [&a, &b] {
        assert!(!knows(access, 1) && knows(access, 2));
    }
    // Also where the one that knew better was restarted meanwhile.
    drop(a);
    servers.put_back(&old);
    let a = servers.open(0);
    assert!(!knows(&a, 1) && knows(&a, 2));
    b.refresh().unwrap();
    assert!(!knows(&b, 1) && knows(&b, 2));
}

#[test]
fn f64_a_store_that_is_empty_is_told_what_a_server_knows() {
    let mut servers = Servers::new(1);
    let first = servers.open(0);
    first.make(&token(1, Role::Viewer)).unwrap();
    let fingerprint = first.fingerprint();
    drop(first);
    servers.store = Arc::new(MemoryStore::new(Millis::ZERO));
    let again = servers.open(0);
    assert!(knows(&again, 1));
    assert_eq!(again.fingerprint(), fingerprint);
    servers.dirs.push(TempDir::new().unwrap());
    assert!(knows(&servers.open(1), 1), "and so does whoever comes later");
}

#[test]
fn f65_a_server_that_has_seen_the_list_starts_while_the_store_is_away_and_another_one_waits() {
    let mut servers = Servers::new(2);
    let first = servers.open(0);
    let fingerprint = first.fingerprint();
    first.make(&token(1, Role::Viewer)).unwrap();
    drop(first);
    let store = Arc::new(MemoryStore::new(Millis::ZERO));
    assert!(store.set_access(None, &servers.stored()).unwrap());
    let away = |calls| (1..=calls).for_each(|call| store.fail_call(call, Fault::Unreached));
    servers.store = Arc::<MemoryStore>::clone(&store);

    away(100);
    let again = servers.open(0);
    assert!(knows(&again, 1));
    assert_eq!(again.fingerprint(), fingerprint, "and who knows its authority knows it");
    assert!(again.make(&token(2, Role::Viewer)).is_err(), "nothing of it is changed meanwhile");
    let never = servers.try_open(1, KEY).err().unwrap();
    assert!(crate::ServerError::from(never).may_heal());
    assert!(!first_token(servers.dirs[1].path()).exists(), "it begins no list of its own");

    while store.access().is_err() {}
    again.make(&token(2, Role::Viewer)).unwrap();
    let late = servers.open(1);
    assert!(knows(&late, 1) && knows(&late, 2));
}

#[test]
fn p38_whoever_owns_the_store_reads_and_changes_nothing() {
    let servers = Servers::new(1);
    let access = servers.open(0);
    access.make(&token(1, Role::Viewer)).unwrap();
    let stored = servers.stored();
    let secret = access.authority().unwrap().key.reveal().to_owned();
    for readable in ["viewer", "ada", "PRIVATE KEY", &secret[40..80]] {
        assert!(!contains(&stored, readable.as_bytes()), "{readable}");
    }
    for forged in [&b"{}"[..], b"", &stored[1..], &[&stored[..], b"x"].concat()] {
        servers.put_back(forged);
        let why = access.refresh().unwrap_err();
        assert!(why.contains("changed by somebody"), "{why}");
        assert!(knows(&access, 1), "what was known counts");
        let refusal = access.make(&token(2, Role::Viewer)).unwrap_err();
        assert_eq!(refusal.status, axum::http::StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(servers.stored(), forged, "it is left for who looks for the cause");
        servers.put_back(&stored);
        access.refresh().unwrap();
    }
    let other = servers.try_open(0, OTHER_KEY).err().unwrap();
    assert!(chain(&other).contains("another key"), "{}", chain(&other));
}

#[test]
fn p38_what_an_older_version_has_sealed_is_sealed_anew_once_and_not_believed_again() {
    let servers = Servers::new(2);
    let a = servers.open(0);
    a.make(&token(1, Role::Viewer)).unwrap();
    let key = SealKey::read(&servers.dirs[0].path().join("seal.key")).unwrap();
    let old = key.seal_old(&a.book().to_text().unwrap());
    drop(a);
    // As that version has left it, also in the data directory.
    servers.put_back(&old);
    fs::write(servers.dirs[0].path().join(COPY), &old).unwrap();
    let (a, b) = (servers.open(0), servers.open(1));
    assert!(is_bound(&servers.stored()) && knows(&a, 1) && knows(&b, 1));
    a.revoke(token(1, Role::Viewer).id()).unwrap();
    // Who has kept it gives it to nobody any more.
    servers.put_back(&old);
    let why = b.refresh().unwrap_err();
    assert!(why.contains("older version"), "{why}");
    drop(a);
    assert!(servers.try_open(0, KEY).is_err());
    assert_eq!(servers.stored(), old, "it is left for who looks for the cause");
}

#[test]
fn the_key_is_replaced_at_one_server_after_the_other_while_nothing_else_is_changed() {
    let servers = Servers::new(2);
    let mut running: Vec<Access> = (0..2).map(|server| servers.open(server)).collect();
    running[0].make(&token(1, Role::Viewer)).unwrap();
    let steps = [[KEY, OTHER_KEY].concat(), [OTHER_KEY, KEY].concat(), OTHER_KEY.to_owned()];
    for keys in steps {
        for server in 0..2 {
            running[server] = servers.try_open(server, &keys).unwrap_or_else(|error| {
                panic!("server {server} with {} keys: {}", keys.lines().count(), chain(&error))
            });
            let stored = servers.stored();
            for access in running.iter().cycle().take(4) {
                access.refresh().unwrap();
                assert!(knows(access, 1));
            }
            assert_eq!(servers.stored(), stored, "they do not seal it against each other");
        }
    }
    // Whoever has the old one alone has nothing any more, neither there nor here.
    drop(running);
    assert!(servers.try_open(0, KEY).is_err());
}

#[test]
fn a_server_that_started_while_the_store_was_away_seals_the_list_with_its_first_key_later() {
    let servers = Servers::new(1);
    drop(servers.open(0));
    (1..=100).for_each(|call| servers.store.fail_call(call, Fault::Unreached));
    let access = servers.try_open(0, &[OTHER_KEY, KEY].concat()).unwrap();
    while servers.store.access().is_err() {}
    access.refresh().unwrap();
    let file = servers.dirs[0].path().join("new.key");
    write_key(&file, OTHER_KEY);
    let new = SealKey::read(&file).unwrap();
    let stored = servers.stored();
    assert!(open(&new, &servers.store.fleet(), &stored).is_ok());
    access.refresh().unwrap();
    assert_eq!(servers.stored(), stored, "and once");
}

#[test]
fn space_for_what_is_taken_back_is_kept_again_without_a_change() {
    let servers = Servers::new(2);
    let shared = servers.open(0);
    let alone = Access::open(servers.dirs[1].path(), Place::File, true).unwrap();
    for (access, server) in [(&shared, 0), (&alone, 1)] {
        let reserve = servers.dirs[server].path().join("access.reserve");
        fs::remove_file(&reserve).unwrap();
        access.refresh().unwrap();
        assert!(reserve.exists());
    }
}

#[test]
fn what_cannot_be_used_is_told_with_what_to_do_about_it() {
    let dir = TempDir::new().unwrap();
    let key = |text: &str| {
        let file = dir.path().join("seal.key");
        write_key(&file, text);
        SealKey::read(&file).unwrap()
    };
    let (key, other) = (key(KEY), key(OTHER_KEY));
    for (sealed, says, says_not) in [
        (key.seal("staging", "{}").unwrap(), "of its own", "same key"),
        (other.seal("shop", "{}").unwrap(), "same key", "of its own"),
        (key.seal_old("{}"), "delete it there", "same key"),
        (key.seal("shop", "{}").unwrap(), "delete it there", "same key"),
    ] {
        let why = chain(&LedgerError::from(open(&key, "shop", &sealed).unwrap_err()));
        assert!(why.contains(says) && !why.contains(says_not), "{why}");
    }
}

#[test]
fn a_server_that_was_away_while_the_key_was_replaced_takes_what_the_store_has() {
    let servers = Servers::new(2);
    drop([servers.open(0), servers.open(1)]);
    let (both, copy) = ([OTHER_KEY, KEY].concat(), servers.dirs[1].path().join(COPY));
    servers.try_open(0, &both).unwrap().make(&token(1, Role::Viewer)).unwrap();
    let away = fs::read(&copy).unwrap();
    let back = servers.try_open(1, OTHER_KEY).unwrap();
    assert!(knows(&back, 1));
    assert_ne!(fs::read(&copy).unwrap(), away, "what it has seen last is sealed anew");
    let kept = servers.dirs[1].path().join("access.sealed.unreadable");
    assert_eq!(fs::read(kept).unwrap(), away, "for who has the key that it was sealed with");
    drop(back);

    // A copy that does not open is nothing to begin with, and is not thrown away.
    let empty = Servers { store: Arc::new(MemoryStore::new(Millis::ZERO)), ..servers };
    let before = fs::read(&copy).unwrap();
    let error = chain(&empty.try_open(1, KEY).err().unwrap());
    assert!(error.contains(COPY) && error.contains("another key"), "{error}");
    assert_eq!((empty.store.access().unwrap(), fs::read(&copy).unwrap()), (None, before));
}

#[test]
fn what_has_ended_is_not_brought_back_between_two_servers() {
    let servers = Servers::new(2);
    let (a, b) = (servers.open(0), servers.open(1));
    a.make(&Token { expires: Some(1), ..token(1, Role::Viewer) }).unwrap();
    b.refresh().unwrap();
    // Whoever changes something forgets what has ended; the other one still has it.
    a.make(&token(2, Role::Viewer)).unwrap();
    let stored = servers.stored();
    for _ in 0..3 {
        b.refresh().unwrap();
        a.refresh().unwrap();
        assert_eq!(servers.stored(), stored, "there is nothing to write");
    }
    assert!(knows(&b, 2));
    assert_eq!(a.book(), b.book());
    // Nor by who has still seen it.
    let mut book = (*b.book()).clone();
    let ended = Token { expires: Some(1), ..token(1, Role::Viewer) };
    book.tokens.insert(ended.hash, Held { token: Arc::new(ended), joined: None });
    b.ledger.put(&b.book(), &Arc::new(book));
    b.refresh().unwrap();
    assert_eq!((servers.stored(), a.book()), (stored.clone(), b.book()));
    // Nor after a restart of who has it in its data directory.
    drop(b);
    let b = servers.open(1);
    assert_eq!((servers.stored(), a.book()), (stored, b.book()));
}

#[test]
fn servers_that_have_begun_apart_agree_on_the_older_authority_and_tell_who_uses_another() {
    let mut servers = Servers::new(2);
    let older = servers.open(0);
    let first = servers.store;
    // The other one begins while nothing is known of the first, which comes back later.
    servers.store = Arc::new(MemoryStore::new(Millis::ZERO));
    let newer = servers.open(1);
    let agreed = older.fingerprint();
    assert_ne!(newer.fingerprint(), agreed);
    assert_eq!((older.other_authority(), newer.other_authority()), (None, None));
    servers.put_back(&first.access().unwrap().unwrap());
    newer.refresh().unwrap();
    let told = newer.other_authority().unwrap();
    assert!(told.contains(&agreed.unwrap().to_string()) && told.contains("restart it"), "{told}");
    drop(newer);
    let again = servers.open(1);
    assert_eq!((again.fingerprint(), again.other_authority()), (agreed, None));
}

#[test]
fn p38_garbage_in_the_store_keeps_nobody_from_revoking_on_the_server_that_is_asked() {
    let servers = Servers::new(2);
    let (a, b) = (servers.open(0), servers.open(1));
    a.make(&token(1, Role::Admin)).unwrap();
    let (service, member) = web();
    let credential = a.credential(&service, &member);
    b.refresh().unwrap();
    let stored = servers.stored();
    servers.put_back(b"garbage");
    let revoked = a.revoke(token(1, Role::Admin).id()).unwrap();
    let only_here = revoked.only_here.unwrap();
    assert_eq!(only_here.status, axum::http::StatusCode::SERVICE_UNAVAILABLE, "nobody takes it for done");
    for part in ["on this server", "the others may not know it yet", "delete it there"] {
        assert!(only_here.message.contains(part), "{}", only_here.message);
    }
    assert!(a.revoke_member(&service, &member).unwrap().only_here.is_some());
    assert!(!knows(&a, 1) && a.caller(credential.reveal(), unix_ms()).is_err());
    assert!(knows(&b, 1), "which is what the answer says");
    assert!(a.revoke(TokenId::from_bytes([7; 6])).is_err(), "what is not known here is not revoked");
    assert!(a.refresh().is_err() && servers.stored() == b"garbage", "it is left for who looks for the cause");
    // It is on the disk, and all know it once there is a list again, whichever that is.
    drop(a);
    assert!(servers.try_open(0, KEY).is_err(), "who starts cannot know what the others have revoked");
    servers.put_back(&stored);
    b.refresh().unwrap();
    assert!(knows(&b, 1));
    let a = servers.open(0);
    b.refresh().unwrap();
    for access in [&a, &b] {
        assert!(!knows(access, 1) && access.caller(credential.reveal(), unix_ms()).is_err());
    }
}

#[test]
fn what_is_revoked_while_the_store_is_away_counts_here_and_is_told_to_the_others_later() {
    let servers = Servers::new(2);
    let (a, b) = (servers.open(0), servers.open(1));
    a.make(&token(1, Role::Viewer)).unwrap();
    b.refresh().unwrap();
    // It cannot be read; or it was written, and nobody has said so.
    for (call, fault) in [(1, Fault::Unreached), (2, Fault::AnswerLost)] {
        servers.store.fail_call(call, fault);
        let revoked = a.revoke(token(1, Role::Viewer).id()).unwrap();
        assert!(revoked.only_here.is_some() && !knows(&a, 1));
    }
    assert!(a.revoke(token(1, Role::Viewer).id()).unwrap().only_here.is_none(), "asked again, it is done");
    b.refresh().unwrap();
    assert!(!knows(&b, 1));
}

#[test]
fn p38_f65_a_store_that_hangs_keeps_no_revocation_from_counting() {
    let servers = Servers::new(2);
    let (a, b) = (servers.open(0), servers.open(1));
    a.make(&token(1, Role::Admin)).unwrap();
    let (service, member) = web();
    let credential = a.credential(&service, &member);
    let is_in = || a.caller(credential.reveal(), unix_ms()).is_ok();
    let wait = |what: &dyn Fn() -> bool| {
        (0..1000).any(|_| {
            std::thread::park_timeout(Duration::from_millis(10));
            what()
        })
    };
    std::thread::scope(|scope| {
        servers.store.hang(|| {
            // It has begun, with what was known before.
            scope.spawn(|| a.refresh());
            assert!(wait(&|| a.ledger.changing.try_lock().is_err()));
            scope.spawn(|| a.revoke(token(1, Role::Admin).id()).unwrap());
            scope.spawn(|| a.revoke_member(&service, &member).unwrap());
            assert!(wait(&|| !knows(&a, 1) && !is_in()), "it waits for the store");
            // And is written down where the store is not needed.
            let key = SealKey::read(&servers.dirs[0].path().join("seal.key")).unwrap();
            let copy = || fs::read(servers.dirs[0].path().join(COPY)).unwrap();
            let is_kept = || open(&key, COPY, &copy()).unwrap().0.gone.len() == 1;
            assert!(wait(&is_kept));
        });
    });
    assert!(!knows(&a, 1) && !is_in(), "who has looked meanwhile undoes nothing");
    b.refresh().unwrap();
    assert!(!knows(&b, 1) && b.caller(credential.reveal(), unix_ms()).is_err());
}

#[test]
fn p29_p38_what_is_revoked_on_a_full_disk_while_the_store_is_away_stays_so_after_a_restart() {
    match small_disk::disk() {
        Some(disk) => on_full_disk(&disk),
        None => {
            let test = "access::ledger::tests::p29_p38_what_is_revoked_on_a_full_disk_while_the_store_is_away_stays_so_after_a_restart";
            small_disk::again(test, "size=8m");
        }
    }
}

fn on_full_disk(disk: &Path) {
    let servers = Servers::within(disk, 2);
    let (a, b) = (servers.open(0), servers.open(1));
    (1..=3).for_each(|seed| drop(a.make(&token(seed, Role::Admin)).unwrap()));
    let (service, member) = web();
    let credential = a.credential(&service, &member);
    b.refresh().unwrap();
    let mut filler = fs::File::create(disk.join("filler")).unwrap();
    while io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
    (1..=100).for_each(|call| servers.store.fail_call(call, Fault::Unreached));
    for seed in 1..=3 {
        let revoked = a.revoke(token(seed, Role::Admin).id()).unwrap();
        let only_here = revoked.only_here.unwrap().message;
        assert!(only_here.contains("wait until this one can tell them"), "it is written down: {only_here}");
    }
    assert!(a.revoke_member(&service, &member).unwrap().only_here.is_some());
    drop(a);
    let a = servers.open(0);
    assert!((1..=3).all(|seed| !knows(&a, seed)) && a.caller(credential.reveal(), unix_ms()).is_err());
    assert!((1..=3).all(|seed| knows(&b, seed)), "which is what the answer says");
    while servers.store.access().is_err() {}
    a.refresh().unwrap();
    b.refresh().unwrap();
    assert!((1..=3).all(|seed| !knows(&b, seed)) && b.caller(credential.reveal(), unix_ms()).is_err());
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_server_that_was_alone_brings_what_it_has_to_the_others() {
    let servers = Servers::new(2);
    let alone = Access::open(servers.dirs[0].path(), Place::File, true).unwrap();
    alone.make(&token(1, Role::Viewer)).unwrap();
    let (service, member) = web();
    let credential = alone.credential(&service, &member);
    let fingerprint = alone.fingerprint();
    drop(alone);
    let shared = servers.open(0);
    assert!(knows(&shared, 1) && shared.caller(credential.reveal(), unix_ms()).is_ok());
    assert_eq!(shared.fingerprint(), fingerprint, "clients that trust it do so again");
    assert!(!servers.dirs[0].path().join(FILE).exists());
    let second = servers.open(1);
    assert!(knows(&second, 1) && second.fingerprint() == fingerprint);
    drop(shared);
    assert!(knows(&servers.open(0), 1), "after a restart");
}

#[test]
fn a_server_that_shared_its_list_begins_no_new_one_without_being_told() {
    let servers = Servers::new(1);
    drop(servers.open(0));
    let alone = || Access::open(servers.dirs[0].path(), Place::File, true);
    let error = alone().err().unwrap();
    assert!(matches!(error, AccessError::Left { .. }), "{error}");
    assert!(error.to_string().contains("--seal-key-file"), "{error}");
    drop(servers.open(0));
    fs::remove_file(servers.dirs[0].path().join(COPY)).unwrap();
    assert!(alone().is_ok());
}

#[test]
fn a_list_of_another_servers_own_is_not_mixed_with_the_one_that_is_shared() {
    let servers = Servers::new(2);
    drop(servers.open(0));
    drop(Access::open(servers.dirs[1].path(), Place::File, true).unwrap());
    let error = servers.try_open(1, KEY).err().unwrap();
    assert!(matches!(error, AccessError::Apart { .. }), "{error}");
    fs::remove_file(servers.dirs[1].path().join(FILE)).unwrap();
    assert!(servers.try_open(1, KEY).is_ok());
}

#[test]
fn servers_that_have_each_revoked_what_the_other_one_had_left_let_an_admin_in_when_one_is_started() {
    let servers = Servers::new(2);
    let (a, b) = (servers.open(0), servers.open(1));
    let first = a.tokens()[0].token.id();
    a.make(&token(1, Role::Admin)).unwrap();
    b.refresh().unwrap();
    // While the store cannot be used each knows of another one.
    let stored = servers.stored();
    servers.put_back(b"garbage");
    assert!(a.revoke(first).unwrap().only_here.is_some());
    assert!(b.revoke(token(1, Role::Admin).id()).unwrap().only_here.is_some());
    servers.put_back(&stored);
    [&a, &b, &a].iter().for_each(|access| access.refresh().unwrap());
    assert!([&a, &b].iter().all(|access| access.tokens().is_empty()), "what was taken back stays so");

    let started = [0, 1].map(|server| servers.open(server).let_in(servers.dirs[server].path()).unwrap());
    let made = started[0].clone().unwrap();
    assert!((made.role, &started[1]) == (Role::Admin, &None), "{started:?}");
    a.refresh().unwrap();
    assert_eq!(a.tokens().iter().map(|held| held.token.hash).collect::<Vec<_>>(), [made.hash]);
}

#[test]
fn p16_of_many_changes_by_all_servers_at_once_none_is_lost() {
    let servers = Servers::new(3);
    let all: Vec<Access> = (0..3).map(|server| servers.open(server)).collect();
    std::thread::scope(|scope| {
        for (server, access) in all.iter().enumerate() {
            scope.spawn(move || {
                for number in 0..20 {
                    access.make(&token((server * 20 + number) as u8, Role::Viewer)).unwrap();
                }
            });
        }
    });
    for access in &all {
        access.refresh().unwrap();
        assert!((0..60).all(|seed| knows(access, seed)));
    }
}
