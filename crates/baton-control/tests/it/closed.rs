//! A server that asks who is there, over TLS, as those who have something to show meet it, and those who have not.

mod pending;

use std::sync::Arc;

use baton_core::access::{Chain, Fingerprint, Role, Shown, TOKEN_BYTES};
use baton_core::ids::{MemberId, ReleaseId, ServiceName, TokenHash};
use baton_core::run::secrets::Secret;
use baton_release::control::{Control, ControlError};
use baton_release::remote::Remote;
use baton_release::store::{ArtefactStore, Kind};
use baton_wire::access::{AuditPage, GuardView, Join, Joined, MakeToken, PendingView, Protection, TokenView};
use baton_wire::api::{DeployView, EventView, PhaseView, Refused, ReleaseView, ServiceStatus, Wanted};
use baton_wire::session::{CallError, FromMember, Hello, Reason, Socket, SocketError};
use baton_wire::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use ureq::Agent;
use ureq::http;

use crate::running::{Answer, LIMIT, Running, rollout, wanted};

/// Somebody who asks the server.
#[derive(Clone)]
pub struct Asker {
    control: Arc<Control>,
}

impl Asker {
    pub fn new(server: &Running, shown: Option<Shown>) -> Self {
        let authority = server.data_dir().join("ca.pem");
        Self { control: Arc::new(Control::new(&server.url, shown, Some(authority)).unwrap()) }
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Answer {
        let (control, url) = (Arc::clone(&self.control), format!("{}{path}", self.control.base()));
        let request =
            http::Request::builder().method(method).uri(url).header("content-type", "application/json");
        let answer = move || {
            let tls = control.believed().unwrap().tls();
            let config = Agent::config_builder().http_status_as_error(false).proxy(None).tls_config(tls);
            let agent = Agent::new_with_config(config.build());
            let request = match control.bearer() {
                Some(bearer) => request.header("authorization", bearer.reveal()),
                None => request,
            };
            let mut answer = match body {
                Some(body) => agent.run(request.body(body).unwrap()),
                None => agent.run(request.body(()).unwrap()),
            }
            .unwrap();
            Answer { status: answer.status().as_u16(), body: answer.body_mut().read_to_vec().unwrap() }
        };
        timeout(LIMIT, spawn_blocking(answer)).await.expect("an answer").unwrap()
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.call("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    async fn post<T: Serialize>(&self, path: &str, body: &T) -> Answer {
        self.call("POST", path, Some(serde_json::to_vec(body).unwrap())).await
    }

    /// Makes a token, as the command does, and somebody who has it.
    async fn give(&self, server: &Running, seed: u8, role: Role, services: &[&str]) -> Self {
        let random = [seed; TOKEN_BYTES];
        let services = Some(services).filter(|services| !services.is_empty());
        let asked = MakeToken {
            hash: TokenHash::of(&random).to_string(),
            holder: format!("{role}-{seed}"),
            role: role.to_string(),
            services: services.map(|services| services.iter().map(|name| (*name).to_owned()).collect()),
            ttl_ms: None,
            member: None,
            reusable: false,
        };
        let made = self.post("/v1/tokens", &asked).await;
        assert_eq!(made.status, 201, "{}", made.text());
        Self::new(server, Some(Shown::token(&random, None)))
    }

    /// Becomes a member by its token.
    async fn join(&self, service: &str, member: &str, key: &str) -> Answer {
        let asked = Join { service: service.to_owned(), member: member.to_owned(), key: key.to_owned() };
        self.post("/v1/join", &asked).await
    }

    /// Who shows this instead.
    fn showing(&self, server: &Running, secret: &str) -> Self {
        let shown = Shown { secret: Secret::new(secret.to_owned()), fingerprint: None };
        Self::new(server, Some(shown))
    }

    /// The same one, before another life of the server.
    fn again(&self, server: &Running) -> Self {
        Self::new(server, self.control.shown())
    }

    /// What it shows, without the authority that it knows the server by.
    pub fn shown_without_authority(&self) -> Option<Shown> {
        self.control.shown().map(|shown| Shown { fingerprint: None, ..shown })
    }

    /// Pushes a release without files.
    async fn push(&self, service: &str) -> Result<ReleaseId, baton_release::store::StoreError> {
        use baton_core::release::outline::Outlined;
        use baton_core::release::{Manifest, Provenance, Tree};
        let manifest = Manifest {
            service: service.parse().unwrap(),
            provenance: Provenance { created: 1, builder: "test".into(), commit: None },
            run: baton_core::run::RunSettings::for_command(vec!["true".into()]),
            tree: Tree::of(Vec::new()).unwrap(),
        };
        let (id, text) = (manifest.id(), manifest.to_text());
        let outline = baton_release::manifest::pack_outline(&Outlined::of(&text).top).unwrap();
        let pack = baton_release::pack::of(text.as_bytes()).unwrap();
        let remote = Remote::of(Arc::clone(&self.control));
        spawn_blocking(move || remote.put(&pack).and_then(|()| remote.publish(id, &outline)).map(|()| id))
            .await
            .unwrap()
    }

    /// Opens a session as a member, and says hello.
    async fn session(&self, service: &str, member: &str) -> Result<Socket<TlsStream<TcpStream>>, CallError> {
        let place = self.control.base().strip_prefix("https://").unwrap();
        let stream = TcpStream::connect(place).await.unwrap();
        let config = self.control.believed().unwrap().client().unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap();
        let bearer = self.control.bearer().map(|bearer| bearer.reveal().parse().unwrap());
        let mut socket = Socket::call(stream, place, bearer).await?;
        let hello = Hello {
            member: member.parse().unwrap(),
            service: service.parse().unwrap(),
            version: "test".into(),
            listens: Vec::new(),
            life: 1,
            peer: None,
        };
        socket.say(&FromMember::Hello(hello).to_wire()).await.unwrap();
        Ok(socket)
    }
}

fn start() -> Running {
    Running::start_closed(Arc::new(TempDir::new().unwrap()))
}

/// How a session ends.
async fn end(mut socket: Socket<TlsStream<TcpStream>>) -> Reason {
    let ended = async {
        loop {
            match socket.hear::<v1::ToMember>().await {
                Ok(_) => {}
                Err(SocketError::Farewell(farewell)) => return farewell.reason,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(LIMIT, ended).await.expect("the session ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn p37_over_tls_who_has_a_token_is_served_and_nobody_else() {
    let server = start();
    let nobody = Asker::new(&server, None);
    assert_eq!(nobody.call("GET", "/healthz", None).await.status, 200);
    for path in ["/v1/services", "/v1/tokens", "/metrics", "/v1/audit", "/nothing"] {
        let refused: Refused = nobody.call("GET", path, None).await.json();
        assert_eq!(refused.code, "no-credentials", "{path}");
    }
    let admin = Asker::new(&server, Some(server.first_token()));
    let _: Vec<ServiceStatus> = admin.get("/v1/services").await;
    let tokens: Vec<TokenView> = admin.get("/v1/tokens").await;
    assert_eq!(tokens.iter().map(|token| &*token.role).collect::<Vec<_>>(), ["admin"]);

    // Without TLS nothing is answered at all.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    // A reset is no answer either.
    let _ = timeout(LIMIT, stream.read_to_end(&mut said)).await.expect("it is closed");
    assert!(!String::from_utf8_lossy(&said).contains("HTTP"), "{said:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fingerprint_in_a_token_tells_control_from_others() {
    let server = start();
    let first = server.first_token();
    assert!(first.fingerprint.is_some());
    let known = Control::new(&server.url, Some(first.clone()), None).unwrap();
    let known = spawn_blocking(move || known.post("/v1/renew", b"")).await.unwrap().unwrap();
    assert_eq!(known.0, 403, "it is an admin that is known there, and no member");

    let other = Shown { fingerprint: Some(Fingerprint::of(b"another")), ..first.clone() };
    let stranger = Control::new(&server.url, Some(other), None).unwrap();
    let error = spawn_blocking(move || stranger.believed()).await.unwrap().unwrap_err();
    assert!(matches!(error, ControlError::Stranger { .. }), "{error}");

    // Nor is it believed by who believes others only.
    let public = Control::new(&server.url, Some(Shown { fingerprint: None, ..first }), None).unwrap();
    assert!(spawn_blocking(move || public.post("/v1/renew", b"")).await.unwrap().is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f102_a_token_for_one_service_neither_sees_nor_changes_another() {
    let server = start();
    let admin = Asker::new(&server, Some(server.first_token()));
    let web = admin.give(&server, 1, Role::Deployer, &["web"]).await;
    let release = web.push("web").await.unwrap();
    let proposal = rollout(release, 0);
    assert_eq!(web.post("/v1/services/web/deploys", &proposal).await.status, 201);
    let denied = web.push("api").await.unwrap_err();
    assert_eq!(denied.kind, Kind::Denied, "{denied}");

    let api = admin.give(&server, 2, Role::Deployer, &["api"]).await;
    assert_eq!(api.post("/v1/services/web/deploys", &proposal).await.status, 403);
    assert_eq!(
        api.post("/v1/services/api/deploys", &proposal).await.status,
        404,
        "a release that it cannot know"
    );
    assert_eq!(api.get::<Vec<ServiceStatus>>("/v1/services").await, []);
    assert_eq!(api.get::<Vec<ReleaseView>>("/v1/releases").await, []);
    assert_eq!(api.get::<Vec<EventView>>("/v1/events?service=api").await, []);
    for path in ["/v1/events", "/v1/events?service=web", "/v1/services/web", "/metrics"] {
        assert_eq!(api.call("GET", path, None).await.status, 403, "{path}");
    }
    for path in [format!("/v1/releases/{release}/outline"), format!("/v1/releases/{release}/approvals")] {
        assert_eq!(api.call("GET", &path, None).await.status, 404, "{path}");
        assert_eq!(web.call("GET", &path, None).await.status, 200, "{path}");
    }
    assert_eq!(api.call("GET", "/v1/manifests", None).await.text(), "");
    assert_eq!(web.call("GET", "/v1/manifests", None).await.text(), format!("{release}\n"));
    assert_eq!(web.get::<Vec<ServiceStatus>>("/v1/services").await.len(), 1);
    let deploys: serde_json::Value = web.get("/v1/services/web/deploys").await;
    assert_eq!(deploys[0]["actor"], "deployer-1", "who asks is who has the token, whatever the body says");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p40_a_token_of_a_build_server_pushes_and_no_other_role_deploys() {
    let server = start();
    let admin = Asker::new(&server, Some(server.first_token()));
    let deployer = admin.give(&server, 1, Role::Deployer, &[]).await;
    let release = deployer.push("web").await.unwrap();
    for (seed, role) in [(2, Role::Viewer), (3, Role::Approver)] {
        let other = admin.give(&server, seed, role, &[]).await;
        assert_eq!(other.post("/v1/services/web/deploys", &rollout(release, 0)).await.status, 403, "{role}");
        assert_eq!(other.push("web").await.unwrap_err().kind, Kind::Denied, "{role}");
    }
    assert_eq!(admin.call("GET", "/v1/services/web", None).await.status, 404, "nothing was deployed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_only_an_operator_sends_a_release_everywhere_at_once() {
    let server = start();
    let admin = Asker::new(&server, Some(server.first_token()));
    let deployer = admin.give(&server, 1, Role::Deployer, &[]).await;
    let operator = admin.give(&server, 2, Role::Operator, &[]).await;
    let mut asked = rollout(deployer.push("web").await.unwrap(), 0);
    let policy = asked.policy.as_mut().unwrap();
    policy.all_at_once = true;
    policy.max_unhealthy_ppm = 1_000_000;
    policy.phases = vec![PhaseView { size_ppm: Some(1_000_000), bake_ms: 0 }];
    let deploys = "/v1/services/web/deploys";
    let refused = deployer.post(deploys, &asked).await;
    assert_eq!((refused.status, refused.json::<Refused>().code.as_str()), (403, "not-allowed"));
    let accepted = operator.post(deploys, &asked).await;
    assert_eq!(accepted.status, 201, "{}", accepted.text());
    // Nor by going on with one that was stopped.
    assert_eq!(deployer.post(deploys, &wanted(Wanted::Halt)).await.status, 201);
    assert_eq!(deployer.post(deploys, &wanted(Wanted::Resume)).await.status, 403);
    assert_eq!(operator.post(deploys, &wanted(Wanted::Resume)).await.status, 201);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p40_what_waits_for_a_second_person_is_exactly_what_was_asked_for() {
    let dir = Arc::new(TempDir::new().unwrap());
    let server = Running::start_closed(dir);
    let admin = Asker::new(&server, Some(server.first_token()));
    let deployer = admin.give(&server, 1, Role::Deployer, &["web"]).await;
    let approver = admin.give(&server, 2, Role::Approver, &["web"]).await;
    let foreign = admin.give(&server, 3, Role::Approver, &["api"]).await;
    let release = deployer.push("web").await.unwrap();
    let protect = |protected| async move { Protection { protected } };
    let path = "/v1/services/web/protection";
    let body = |protection: &Protection| Some(serde_json::to_vec(protection).unwrap());
    assert_eq!(deployer.call("PUT", path, body(&protect(false).await)).await.status, 403);
    assert_eq!(admin.call("PUT", path, body(&protect(true).await)).await.status, 200);

    let deploys = "/v1/services/web/deploys";
    let mut asked = rollout(release, 0);
    asked.idempotency_key = Some("build-1".to_owned());
    // What its beginning means later is another matter.
    asked.release = Some(release.to_string()[..8].to_owned());
    for _ in 0..2 {
        let held: Refused = deployer.post(deploys, &asked).await.json();
        assert_eq!(held.code, "needs-approval", "{held:?}");
    }
    let own: Refused = admin.post(deploys, &rollout(release, 0)).await.json();
    assert_eq!(own.code, "needs-approval", "an admin is no second person to itself");
    let waits: Vec<PendingView> = approver.get("/v1/pending").await;
    assert_eq!(waits.len(), 2, "what was asked twice with one key waits once: {waits:#?}");
    assert_eq!(foreign.get::<Vec<PendingView>>("/v1/pending").await, []);
    let of = |who: &str| waits.iter().find(|pending| pending.asked_by.starts_with(who)).unwrap();
    assert_eq!(of("deployer").asked.release, Some(release.to_string()));
    let one = |pending: &PendingView| format!("/v1/services/web/pending/{}", pending.id);
    let (by_deployer, by_admin) = (one(of("deployer")), one(of("first-admin")));

    assert_eq!(foreign.call("POST", &by_deployer, None).await.status, 403);
    assert_eq!(deployer.call("POST", &by_deployer, None).await.status, 403);
    let second: Refused = admin.call("POST", &by_admin, None).await.json();
    assert_eq!(second.code, "second-person");
    let dir = server.stop().await;

    // Control may be restarted meanwhile, and nothing has begun.
    let server = Running::start_closed(dir);
    let [admin, approver] = [&admin, &approver].map(|asker| asker.again(&server));
    assert_eq!(admin.call("GET", "/v1/services/web", None).await.status, 404);
    let begun = approver.call("POST", &by_deployer, None).await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    let deploy: DeployView = begun.json();
    assert_eq!((&*deploy.actor, deploy.release), ("deployer-1, approved by approver-2", release.to_string()));
    // The other one was asked for when nothing was in force: it is not what it was any more.
    let late: Refused = approver.call("POST", &by_admin, None).await.json();
    assert_eq!(late.code, "conflict", "{late:?}");
    assert_eq!(approver.get::<Vec<PendingView>>("/v1/pending").await, []);
    let halted = admin.post(deploys, &wanted(Wanted::Halt)).await;
    assert_eq!(halted.status, 201, "a halt waits for nobody: {}", halted.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p40_a_deploy_that_was_approved_and_could_not_begin_waits_on() {
    let server = start();
    let admin = Asker::new(&server, Some(server.first_token()));
    let deployer = admin.give(&server, 1, Role::Deployer, &["web"]).await;
    let approver = admin.give(&server, 2, Role::Approver, &["web"]).await;
    let other = admin.give(&server, 3, Role::Approver, &["web"]).await;
    let deploys = "/v1/services/web/deploys";
    let mut asked = rollout(deployer.push("web").await.unwrap(), 0);
    assert_eq!(deployer.post(deploys, &asked).await.status, 201);
    let protection = serde_json::to_vec(&Protection { protected: true }).unwrap();
    assert_eq!(admin.call("PUT", "/v1/services/web/protection", Some(protection)).await.status, 200);
    for reason in ["one", "one", "another"] {
        asked.reason = reason.to_owned();
        assert_eq!(deployer.post(deploys, &asked).await.status, 403);
    }
    let said = serde_json::json!({ "reason": "freeze" });
    assert_eq!(deployer.post("/v1/services/web/lock", &said).await.status, 200);

    let waits: Vec<PendingView> = approver.get("/v1/pending").await;
    let [one, another] = &waits[..] else { panic!("{waits:#?}") };
    let path = |pending: &PendingView| format!("/v1/services/web/pending/{}", pending.id);
    for pending in [one, another] {
        let refused: Refused = approver.call("POST", &path(pending), None).await.json();
        assert_eq!(refused.code, "locked", "{refused:?}");
        assert!(refused.message.contains("it waits on"), "{refused:?}");
    }
    let metrics = admin.call("GET", "/metrics", None).await.text();
    for sample in [r#"baton_pending_deploys{service="web"} 2"#, r#"baton_service_locked{service="web"} 1"#] {
        assert!(metrics.contains(sample), "{sample}: {metrics}");
    }
    let waits: Vec<PendingView> = approver.get("/v1/pending").await;
    assert!(waits.len() == 2 && waits.iter().all(|pending| pending.approved_by.is_none()), "{waits:#?}");
    // Either may happen to it now.
    let rejected = approver.call("DELETE", &path(one), None).await;
    assert_eq!(rejected.status, 200, "{}", rejected.text());
    assert_eq!(deployer.post("/v1/services/web/unlock", &said).await.status, 200);
    let begun = other.call("POST", &path(another), None).await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    assert_eq!(begun.json::<DeployView>().actor, "deployer-1, approved by approver-3");
    assert_eq!(approver.get::<Vec<PendingView>>("/v1/pending").await, []);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p47_a_guard_that_is_switched_off_is_in_the_metrics() {
    let server = start();
    let admin = Asker::new(&server, Some(server.first_token()));
    let release = admin.push("web").await.unwrap();
    let off = |asker: Asker| async move {
        let text = asker.call("GET", "/metrics", None).await.text();
        text.lines()
            .filter(|line| line.starts_with("baton_guards_off{"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(admin.post("/v1/services/web/deploys", &rollout(release, 0)).await.status, 201);
    assert_eq!(off(admin.clone()).await, [""; 0]);
    let mut unsafe_one = rollout(release, 0);
    unsafe_one.policy.as_mut().unwrap().auto_rollback = false;
    assert_eq!(admin.post("/v1/services/web/deploys", &unsafe_one).await.status, 201);
    assert_eq!(off(admin.clone()).await, [r#"baton_guards_off{guard="auto-rollback",service="web"} 1"#]);
    let api = admin.give(&server, 1, Role::Viewer, &["api"]).await;
    assert_eq!(api.get::<Vec<GuardView>>("/v1/guards").await, [], "of another service");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p39_a_member_joins_once_and_is_that_member_and_nothing_more() {
    let server = start();
    let admin = Asker::new(&server, Some(server.first_token()));
    let wrong: Refused = admin.join("web", "web-1", "k").await.json();
    assert_eq!(wrong.code, "not-allowed");
    assert!(wrong.message.ends_with("a token from `baton token join`"), "{wrong:?}");
    let join = admin.give(&server, 1, Role::Join, &["web"]).await;
    assert_eq!(join.join("api", "api-1", "k").await.status, 403);
    let joined: Joined = join.join("web", "web-1", "k").await.json();
    assert_eq!(join.join("web", "web-1", "k").await.status, 200, "the answer was lost");
    let refused: Refused = join.join("web", "web-2", "other").await.json();
    assert_eq!(refused.code, "token-used");

    let member = join.showing(&server, &joined.credential);
    for (service, name) in [("web", "web-2"), ("api", "web-1")] {
        let socket = member.session(service, name).await.unwrap();
        assert_eq!(end(socket).await, Reason::FORBIDDEN, "{service}/{name}");
    }
    let release = ReleaseId::from_bytes([1; 32]);
    for (method, path) in [
        ("GET", "/v1/services".to_owned()),
        ("POST", "/v1/services/web/deploys".to_owned()),
        ("GET", format!("/v1/releases/{release}/peers?service=web&member=web-2")),
        ("GET", format!("/v1/releases/{release}/peers?service=api&member=web-1")),
        ("POST", "/v1/tokens".to_owned()),
    ] {
        assert_eq!(member.call(method, &path, None).await.status, 403, "{path}");
    }
    // The token that made it is no member, nor is who has none.
    for stranger in [&join, &Asker::new(&server, None)] {
        let refused = stranger.session("web", "web-1").await;
        assert!(matches!(refused, Err(CallError::Refused { .. })), "{refused:?}");
    }

    let next: Joined = member.call("POST", "/v1/renew", None).await.json();
    let member = member.showing(&server, &next.credential);
    let silent = member.session("web", "web-1").await.unwrap();
    let (service, name): (ServiceName, MemberId) = ("web".parse().unwrap(), "web-1".parse().unwrap());
    let path = format!("/v1/services/{service}/members/{name}/credential");
    assert_eq!(admin.call("DELETE", &path, None).await.status, 200);
    assert_eq!(end(silent).await, Reason::UNAUTHORIZED, "also what was open already, and says nothing");
    assert_eq!(member.call("POST", "/v1/renew", None).await.status, 401);
    server.stop().await;
}

/// Sessions of a member of each service, by which a server that asks nobody knows that there are these services.
async fn introduce(server: &Running, services: &[String]) -> Vec<Socket<TcpStream>> {
    let mut sessions = Vec::new();
    for service in services {
        let hello = Hello {
            member: "only".parse().unwrap(),
            service: service.parse().unwrap(),
            version: "test".into(),
            listens: Vec::new(),
            life: 1,
            peer: None,
        };
        let stream = TcpStream::connect(server.address).await.unwrap();
        let mut socket = Socket::call(stream, &server.address.to_string(), None).await.unwrap();
        socket.say(&FromMember::Hello(hello).to_wire()).await.unwrap();
        sessions.push(socket);
    }
    wait_for(server, "known", |known| known.len() == services.len()).await;
    sessions
}

/// Waits until services stand so.
async fn wait_for(server: &Running, what: &str, are_so: impl Fn(&[ServiceStatus]) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !are_so(&server.get::<Vec<ServiceStatus>>("/v1/services").await) {
        assert!(Instant::now() < deadline, "never {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p42_who_hangs_up_does_not_take_along_the_record_of_what_was_changed() {
    let server = Running::start();
    let services: Vec<String> = (0..100).map(|number| format!("s-{number}")).collect();
    let _sessions = introduce(&server, &services).await;
    let (last, others) = services.split_last().unwrap();
    let mut clients = Vec::new();
    for service in others {
        let body = r#"{"reason":"because"}"#;
        let request = format!(
            "POST /v1/services/{service}/lock HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            server.address,
            body.len()
        );
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(&request.as_bytes()[..request.len() - 1]).await.unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        client.write_all(b"}").await.unwrap();
    }
    // It has come to who asked after them, and writes each lock to its disk: most of them wait for that, and hang up.
    let _: Vec<ServiceStatus> = server.get("/v1/services").await;
    drop(clients);
    wait_for(&server, "locked", |known| known.iter().any(|service| service.lock.is_some())).await;
    // Whatever waited for the keeper comes before what is asked now.
    let path = format!("/v1/services/{last}/lock");
    assert_eq!(server.post(&path, &serde_json::json!({ "reason": "last" })).await.status, 200);
    let known: Vec<ServiceStatus> = server.get("/v1/services").await;
    let locked = known.iter().filter(|service| service.lock.is_some()).map(|service| &service.service);
    let dir = server.stop().await;
    let log = std::fs::read_to_string(dir.path().join("data/audit.log")).unwrap();
    let is_recorded = |service: &&String| log.contains(&format!("/v1/services/{service}/lock\t200"));
    let (recorded, lost): (Vec<_>, Vec<_>) = locked.partition(is_recorded);
    assert!(recorded.len() > 1 && lost.is_empty(), "{} were recorded, and not {lost:?}", recorded.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn p42_a_start_that_lets_an_admin_in_is_in_the_log() {
    let server = start();
    let (lost, file) = (server.first_token(), server.data_dir().join("admin.token"));
    let dir = server.stop().await;
    std::fs::write(file, "").unwrap();
    let server = Running::start_closed(dir);
    let found = server.first_token();
    assert_ne!(found.secret.reveal(), lost.secret.reveal());
    let id = Shown::hash(lost.secret.reveal()).unwrap().id();
    let admin = Asker::new(&server, Some(found));
    let page: AuditPage = admin.get("/v1/audit").await;
    let record = Chain::default().read(&page.lines[0]).unwrap();
    assert_eq!((&*record.who, &*record.what), ("control", "start that lets an admin in"));
    assert!(record.detail.ends_with("of first-admin with role admin for all services"), "{record:?}");
    assert_eq!(admin.call("DELETE", &format!("/v1/tokens/{id}"), None).await.status, 200, "the lost one");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p42_what_was_changed_and_what_was_refused_is_in_the_log() {
    let dir = Arc::new(TempDir::new().unwrap());
    let server = Running::start_closed(dir);
    let admin = Asker::new(&server, Some(server.first_token()));
    let web = admin.give(&server, 1, Role::Deployer, &["web"]).await;
    let release = web.push("web").await.unwrap();
    assert_eq!(web.post("/v1/services/web/deploys", &rollout(release, 0)).await.status, 201);
    assert_eq!(web.post("/v1/services/api/deploys", &wanted(Wanted::Halt)).await.status, 403);
    let nobody = Asker::new(&server, None);
    assert_eq!(nobody.post("/v1/tokens", &wanted(Wanted::Halt)).await.status, 401);
    let _: Vec<ServiceStatus> = web.get("/v1/services").await;
    // Nobody waits until a stranger's refusal is written down, and a change waits for all that is.
    admin.give(&server, 2, Role::Viewer, &[]).await;

    let page: AuditPage = admin.get("/v1/audit").await;
    let mut chain = Chain::default();
    let records: Vec<_> = page.lines.iter().map(|line| chain.read(line).unwrap()).collect();
    assert_eq!((chain.head().hash.to_string(), chain.head().number), (page.head, page.records));
    let told = |what: &str, outcome: &str| {
        let found = records.iter().find(|record| record.what.starts_with(what) && record.outcome == outcome);
        found.unwrap_or_else(|| panic!("no {what} {outcome} in {records:#?}")).clone()
    };
    assert!(told("POST /v1/tokens", "201").who.starts_with("first-admin/"));
    assert!(told("POST /v1/tokens", "201").detail.contains("of deployer-1 with role deployer for web"));
    assert!(told("PUT /v1/packs/", "200").who.starts_with("deployer-1/"));
    assert!(told("PUT /v1/releases/", "200").detail.contains(&release.to_string()));
    assert!(told("POST /v1/services/web/deploys", "201").detail.contains("deploy 1 "));
    assert!(told("POST /v1/services/api/deploys", "403 not-allowed").who.starts_with("deployer-1/"));
    assert_eq!(told("POST /v1/tokens", "401 no-credentials").who, "nobody");
    assert!(records.iter().all(|record| !record.what.starts_with("GET")));
    let text = page.lines.join("\n");
    let secrets = [server.first_token().secret, Shown::token(&[1; TOKEN_BYTES], None).secret];
    assert!(secrets.iter().all(|secret| !text.contains(&secret.reveal()[6..])), "p43");

    let dir = server.stop().await;
    let server = Running::start_closed(dir);
    let admin = Asker::new(&server, Some(server.first_token()));
    let again: AuditPage = admin.get(&format!("/v1/audit?after={}", page.records - 1)).await;
    assert_eq!(again.lines, page.lines[page.lines.len() - 1..], "after a restart");
    server.stop().await;
}
