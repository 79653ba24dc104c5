//! Every method, asked by everybody: the real router and its table, without a network.

use axum::body::Body;
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use baton_core::access::{Credential, CredentialKey, Role, Scope, Shown, TOKEN_BYTES, Token};
use baton_core::ids::TokenHash;
use baton_core::units::Millis;
use baton_store::artefact::FolderStore;
use baton_store::state::MemoryStore;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::access::Place;
use crate::access::doors::{Door, Doors};
use crate::clock::unix_ms;
use crate::keeper::{Asked, Keeper, inbox};
use crate::sessions::PeerKey;

mod effects;
mod flavors;

/// A server without a network, and mostly without a keeper: nothing that would be decided is.
struct Bare {
    shared: Shared,
    access: Arc<Access>,
    _asked: Option<Asked>,
    _dir: TempDir,
}

impl Bare {
    fn new() -> Self {
        Self::with(Board::default())
    }

    fn with(board: Board) -> Self {
        let (inbox, asked) = inbox();
        let (_, board) = watch::channel(Arc::new(board));
        let states = Arc::new(MemoryStore::new(Millis::ZERO));
        let dir = TempDir::new().unwrap();
        let shared = (inbox, Heartbeats::default(), board);
        Self { _asked: Some(asked), ..Self::over(dir, states, shared, Clock::start()) }
    }

    /// One with a keeper, which keeps what it has on the disk in this directory.
    fn deciding(dir: TempDir) -> Self {
        let (inbox, asked) = inbox();
        let (post, board) = watch::channel(Arc::new(Board::default()));
        let (clock, heartbeats) = (Clock::start(), Heartbeats::default());
        let states = Arc::new(MemoryStore::new(Millis::ZERO));
        let kept: Arc<dyn StateStore> = Arc::<MemoryStore>::clone(&states);
        let key = PeerKey::new().unwrap();
        let keeper = Keeper::new(kept, clock, asked, heartbeats.clone(), post, key).unwrap();
        let runtime = Handle::current();
        std::thread::spawn(move || keeper.run(&runtime));
        Self::over(dir, states, (inbox, heartbeats, board), clock)
    }

    fn over(
        dir: TempDir,
        states: Arc<MemoryStore>,
        (inbox, heartbeats, board): (Inbox, Heartbeats, watch::Receiver<Arc<Board>>),
        clock: Clock,
    ) -> Self {
        let access = Arc::new(Access::open(dir.path(), Place::File, false).unwrap());
        let (audit, writer) = Audit::open(dir.path(), true).unwrap();
        std::thread::spawn(move || writer.run());
        let kept = Kept {
            states,
            artefacts: Arc::new(FolderStore::open(&dir.path().join("artefacts")).unwrap()),
            access: Some(Arc::clone(&access)),
            has_tls: true,
            given: None,
            measures: false,
            allowed: None,
            audit,
            space: Space::of(dir.path()),
        };
        let secrets = SecretSource::new(Vec::new()).unwrap();
        let shared = Shared::new(inbox, heartbeats, board, kept, clock, secrets).unwrap();
        Self { shared, access, _asked: None, _dir: dir }
    }

    fn doors(&self) -> Doors {
        routes(&self.shared).doors
    }

    /// The token of somebody with a role, for these services, or all.
    fn token(&self, seed: u8, role: Role, services: &[&str], expires: Option<u64>) -> String {
        let only = services.iter().map(|service| service.parse().unwrap()).collect();
        let scope = if services.is_empty() { Scope::Every } else { Scope::Only(only) };
        let hash = TokenHash::of(&[seed; TOKEN_BYTES]);
        let holder = "ada".parse().unwrap();
        let token = Token { hash, holder, role, scope, created: 1, expires, member: None, reusable: false };
        self.access.make(&token).unwrap();
        Shown::token(&[seed; TOKEN_BYTES], None).secret.reveal().to_owned()
    }

    /// What somebody with a role shows.
    fn shown(&self, role: Role) -> String {
        match role {
            Role::Member => {
                let (service, member) = ("web".parse().unwrap(), "web-1".parse().unwrap());
                self.access.credential(&service, &member).reveal().to_owned()
            }
            Role::Join => self.token(100, role, &["web"], None),
            Role::Viewer | Role::Deployer | Role::Approver | Role::Operator | Role::Admin => {
                self.token(role as u8, role, &[], None)
            }
        }
    }

    /// How a request at a door ends, of who shows this and has not asked before.
    async fn ask(&self, door: &Door, shown: Option<&str>) -> StatusCode {
        ask(router(self.shared.clone()), door, shown).await
    }
}

/// How a request at a door ends, of who shows this.
async fn ask(router: Router, door: &Door, shown: Option<&str>) -> StatusCode {
    let path = door
        .path
        .replace("{service}", "web")
        .replace("{member}", "web-9")
        .replace("{tag}", "production")
        .replace("/packs/{id}", &format!("/packs/{}", "0".repeat(64)))
        .replace("/releases/{id}", &format!("/releases/{}", "0".repeat(64)))
        .replace("/pending/{id}", &format!("/pending/{}", "0".repeat(12)))
        .replace("/tokens/{id}", &format!("/tokens/{}", "0".repeat(12)))
        .replace("{key}", &"0".repeat(64));
    assert!(!path.contains('{'), "a parameter that is not known here: {path}");
    let mut request = Request::builder().method(door.method.clone()).uri(path);
    if let Some(shown) = shown {
        request = request.header(AUTHORIZATION, format!("Bearer {shown}"));
    }
    let request = request.body(Body::empty()).unwrap();
    router.oneshot(request).await.unwrap().status()
}

const REFUSED: [StatusCode; 2] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];

/// Whether a role may pass a door, as the table says.
fn may(role: Role, door: &Door) -> bool {
    match door.needs {
        Needs::Nothing => true,
        Needs::OfService(right) | Needs::Limited(right) | Needs::OfAny(right) | Needs::OfAll(right) => {
            role.may(right)
        }
    }
}

#[tokio::test]
async fn p37_f102_every_method_is_for_whom_the_table_says_and_nobody_else() {
    let bare = Bare::new();
    let revoked = bare.token(201, Role::Admin, &[], None);
    bare.access.revoke(TokenHash::of(&[201; TOKEN_BYTES]).id()).unwrap();
    let strange = CredentialKey::new([9; 32]);
    let (service, member) = ("web".parse().unwrap(), "web-1".parse().unwrap());
    let strange = strange.seal(&Credential { service, member, issued: unix_ms() });
    let strangers = [
        ("nobody", None),
        (
            "a token that nobody gave",
            Some(Shown::token(&[200; TOKEN_BYTES], None).secret.reveal().to_owned()),
        ),
        ("a revoked token", Some(revoked)),
        ("a token that has ended", Some(bare.token(202, Role::Admin, &[], Some(1)))),
        ("another server's member", Some(strange.reveal().to_owned())),
        ("something else", Some("x".to_owned())),
    ];
    let known: Vec<(Role, String)> = Role::ALL.map(|role| (role, bare.shown(role))).into();
    let mut checked = 0;
    for door in bare.doors().iter() {
        for (who, shown) in &strangers {
            let status = bare.ask(door, shown.as_deref()).await;
            let expected = match door.needs {
                Needs::Nothing => StatusCode::OK,
                Needs::OfService(_) | Needs::Limited(_) | Needs::OfAny(_) | Needs::OfAll(_) => {
                    StatusCode::UNAUTHORIZED
                }
            };
            assert_eq!(status, expected, "{door} for {who}");
        }
        for (role, shown) in &known {
            let status = bare.ask(door, Some(shown)).await;
            assert_eq!(!REFUSED.contains(&status), may(*role, door), "{door} for {role}: {status}");
            checked += 1;
        }
    }
    assert_eq!(checked, bare.doors().iter().count() * Role::ALL.len());
}

#[tokio::test]
async fn f102_a_token_for_other_services_opens_no_door_of_this_one() {
    let bare = Bare::new();
    for (seed, role) in [(1, Role::Viewer), (2, Role::Deployer), (3, Role::Approver), (4, Role::Operator)] {
        let other = bare.token(seed, role, &["api"], None);
        let own = bare.token(seed + 10, role, &["web"], None);
        for door in bare.doors().iter() {
            let (status, own) = (bare.ask(door, Some(&other)).await, bare.ask(door, Some(&own)).await);
            match door.needs {
                Needs::OfService(right) => {
                    assert_eq!(status, StatusCode::FORBIDDEN, "{door} for {role}");
                    assert_eq!(
                        own == StatusCode::FORBIDDEN,
                        !role.may(right),
                        "{door} for {role} of web: {own}"
                    );
                }
                Needs::OfAll(_) => assert_eq!(status, StatusCode::FORBIDDEN, "{door} for {role}"),
                // What is told there is limited behind the door.
                Needs::Nothing | Needs::Limited(_) | Needs::OfAny(_) => {}
            }
        }
    }
}

#[tokio::test]
async fn p37_what_is_not_there_is_told_only_to_who_is_known() {
    let bare = Bare::new();
    let admin = bare.shown(Role::Admin);
    for (method, path, known) in [
        (Method::GET, "/", StatusCode::NOT_FOUND),
        (Method::GET, "/v1/none", StatusCode::NOT_FOUND),
        (Method::PATCH, "/v1/services", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/healthz", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let (needs, leaves, path) = (Needs::Nothing, Leaves::Nothing, path.to_owned());
        let door = Door { method, path, needs, leaves, in_lines: false };
        assert_eq!(bare.ask(&door, None).await, StatusCode::UNAUTHORIZED, "{door}");
        assert_eq!(bare.ask(&door, Some(&admin)).await, known, "{door}");
    }
}

#[tokio::test]
async fn a_server_that_has_not_read_its_store_says_so_and_not_that_there_is_nothing() {
    let bare =
        Bare::with(Board { unread: true, trouble: Some("the store is away".to_owned()), ..Board::default() });
    let admin = bare.shown(Role::Admin);
    for (method, path) in [
        (Method::GET, "/metrics"),
        (Method::GET, "/v1/guards"),
        (Method::POST, "/v1/services/{service}/pending/{id}"),
    ] {
        let doors = bare.doors();
        let door = doors.find(&method, path).unwrap();
        assert_eq!(bare.ask(door, Some(&admin)).await, StatusCode::SERVICE_UNAVAILABLE, "{door}");
    }
}

#[tokio::test]
async fn f105_who_guesses_is_slowed_down_and_others_are_served() {
    let bare = Bare::new();
    let (guess, admin) = (Shown::token(&[200; TOKEN_BYTES], None), bare.shown(Role::Admin));
    let doors = bare.doors();
    let door = doors.find(&Method::GET, "/v1/services").unwrap();
    let router = router(bare.shared.clone());
    let mut limited = 0;
    for _ in 0..10_000 {
        let status = ask(router.clone(), door, Some(guess.secret.reveal())).await;
        assert!([StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS].contains(&status), "{status}");
        limited += usize::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(limited > 0, "nobody may guess for ever");
    assert_eq!(ask(router.clone(), door, Some(&admin)).await, StatusCode::OK, "from the same address");
    let mut limited = 0;
    for _ in 0..10_000 {
        let status = ask(router.clone(), door, Some(&admin)).await;
        limited += usize::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(limited > 0, "nor does who is known keep the server to itself");
    assert_eq!(ask(router, door, Some(&bare.shown(Role::Viewer))).await, StatusCode::OK);
}

#[test]
fn the_page_on_access_has_the_table_as_it_is() {
    let page = include_str!("../../../../docs/reference/access.md");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let doors = runtime.block_on(async { Bare::new().doors() });
    let row = |door: &Door| {
        let (right, reach) = match door.needs {
            Needs::Nothing => return format!("| `{door}` | | everybody | |"),
            Needs::OfService(right) => (right, "of the service"),
            Needs::Limited(right) => (right, "of what is the caller's"),
            Needs::OfAny(right) => (right, "of whatever service"),
            Needs::OfAll(right) => (right, "of all services"),
        };
        let roles = Role::ALL.into_iter().filter(|role| role.may(right)).map(Role::as_str);
        format!("| `{door}` | {right} | {} | {reach} |", roles.collect::<Vec<_>>().join(", "))
    };
    let rows: Vec<String> = doors.iter().map(row).collect();
    let written: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `") && line.contains(" /")).collect();
    assert_eq!(written, rows, "docs/reference/access.md and the table differ:\n{}", rows.join("\n"));
}
