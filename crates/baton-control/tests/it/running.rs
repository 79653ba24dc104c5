//! A server in this process, and what is asked of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baton_control::{Artefacts, Callers, Certificates, Config, Server, ServerError, State};
use baton_core::access::Shown;
use baton_core::deploy::Policy;
use baton_core::ids::ReleaseId;
use baton_core::release::outline::Outlined;
use baton_core::release::{Manifest, Provenance, Tree};
use baton_core::run::RunSettings;
use baton_release::manifest::pack_outline;
use baton_release::pack;
use baton_release::remote::Remote;
use baton_release::store::{ArtefactStore, StoreError};
use baton_wire::api::{DeployView, EventView, PhaseView, PolicyView, Propose, ServiceStatus, Wanted};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};
use ureq::http::Request;

/// How long a condition may take on a machine that does other things too.
pub const LIMIT: Duration = Duration::from_secs(120);

pub struct Running {
    pub address: SocketAddr,
    /// As clients write it.
    pub url: String,
    dir: Arc<TempDir>,
    stop: oneshot::Sender<()>,
    run: JoinHandle<Result<(), ServerError>>,
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Running {
    pub fn start() -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), "127.0.0.1:0".parse().unwrap())
    }

    pub fn start_in(dir: Arc<TempDir>, listen: SocketAddr) -> Self {
        Self::start_with(dir, listen, Vec::new())
    }

    /// One that reads secrets as these variables say.
    pub fn start_with(dir: Arc<TempDir>, listen: SocketAddr, secrets: Vec<(String, String)>) -> Self {
        Self::start_over(State::File, dir, listen, secrets)
    }

    /// One that keeps deploys and members there.
    pub fn start_over(
        state: State,
        dir: Arc<TempDir>,
        listen: SocketAddr,
        secrets: Vec<(String, String)>,
    ) -> Self {
        Self::start_for(state, dir, listen, secrets, Callers::Anybody)
    }

    /// One that asks who is there, over TLS.
    pub fn start_closed(dir: Arc<TempDir>) -> Self {
        let own = Callers::Known(Certificates::Own { names: Vec::new() });
        Self::start_for(State::File, dir, "127.0.0.1:0".parse().unwrap(), Vec::new(), own)
    }

    /// The same, with these certificates.
    pub fn start_known(dir: Arc<TempDir>, certificates: Certificates) -> Self {
        let callers = Callers::Known(certificates);
        Self::start_for(State::File, dir, "127.0.0.1:0".parse().unwrap(), Vec::new(), callers)
    }

    fn start_for(
        state: State,
        dir: Arc<TempDir>,
        listen: SocketAddr,
        secrets: Vec<(String, String)>,
        callers: Callers,
    ) -> Self {
        Self::start_so(dir, |config| Config { listen, callers, state, secrets, ..config })
    }

    /// One that asks nobody who they are, but for what it is told otherwise.
    pub fn start_so(dir: Arc<TempDir>, told: impl FnOnce(Config) -> Config) -> Self {
        let server = Server::bind(told(config(dir.path()))).unwrap();
        let (address, url) = (server.address(), server.url());
        let (stop, stopped) = oneshot::channel();
        let run = tokio::spawn(server.run(async { drop(stopped.await) }));
        Self { address, url, dir, stop, run }
    }

    /// The first token of one that asks who is there.
    pub fn first_token(&self) -> Shown {
        std::fs::read_to_string(self.data_dir().join("admin.token")).unwrap().parse().unwrap()
    }

    /// Stops it; what it leaves is in the directory.
    pub async fn stop(self) -> Arc<TempDir> {
        self.stop.send(()).unwrap();
        timeout(LIMIT, self.run).await.expect("it stops").unwrap().unwrap();
        self.dir
    }

    pub fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Answer {
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build(),
        );
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json");
        let answer = move || {
            let mut answer = match body {
                Some(body) => agent.run(request.body(body).unwrap()),
                None => agent.run(request.body(()).unwrap()),
            }
            .unwrap();
            Answer { status: answer.status().as_u16(), body: answer.body_mut().read_to_vec().unwrap() }
        };
        timeout(LIMIT, spawn_blocking(answer)).await.expect("an answer").unwrap()
    }

    /// What is answered to a request with these headers and no body, whatever they say of one.
    pub async fn raw(&self, method: &str, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        answer
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.call("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub async fn post<T: Serialize>(&self, path: &str, body: &T) -> Answer {
        self.call("POST", path, Some(serde_json::to_vec(body).unwrap())).await
    }

    pub async fn propose(&self, asked: &Propose) -> Answer {
        self.post("/v1/services/web/deploys", asked).await
    }

    /// Makes a proposal that is accepted.
    pub async fn deploy(&self, asked: &Propose) -> DeployView {
        let answer = self.propose(asked).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()
    }

    pub async fn events(&self) -> Vec<EventView> {
        self.get("/v1/events?service=web").await
    }

    /// Waits until the service stands so, by long polls.
    pub async fn wait_for(&self, what: &str, is_so: impl Fn(&ServiceStatus) -> bool) -> ServiceStatus {
        let deadline = Instant::now() + LIMIT;
        // Somebody must have been heard of before there is a service.
        let mut status: Option<ServiceStatus> = None;
        loop {
            let after = status.as_ref().map_or(0, |status| status.version);
            let path = format!("/v1/services/web?after={after}&wait_ms=1000");
            let answer = self.call("GET", &path, None).await;
            if answer.status == 200 {
                let found: ServiceStatus = answer.json();
                if is_so(&found) {
                    return found;
                }
                status = Some(found);
            } else {
                let _: Vec<EventView> = self.get("/v1/events?wait_ms=1000").await;
            }
            assert!(Instant::now() < deadline, "never {what}: {status:#?} {:#?}", self.events().await);
        }
    }

    pub async fn wait_until_switched(&self, release: ReleaseId) -> ServiceStatus {
        let release = release.to_string();
        self.wait_for("switched", |status| {
            let right = status.deploy.as_ref().is_some_and(|deploy| deploy.release == release);
            right && (status.state == "switched" || status.state == "drained")
        })
        .await
    }

    /// Brings a release without files to the server.
    pub async fn push(&self, number: u64) -> ReleaseId {
        self.push_run(number, RunSettings::for_command(vec!["true".into()])).await
    }

    /// The same of one with these settings.
    pub async fn push_run(&self, number: u64, run: RunSettings) -> ReleaseId {
        self.try_push(number, run).await.unwrap()
    }

    /// The same, where the store may refuse it.
    pub async fn try_push(&self, number: u64, run: RunSettings) -> Result<ReleaseId, StoreError> {
        let manifest = Manifest {
            service: "web".parse().unwrap(),
            provenance: Provenance { created: number, builder: "test".into(), commit: None },
            run,
            tree: Tree::of(Vec::new()).unwrap(),
        };
        let remote = Remote::new(&self.url);
        let (id, text) = (manifest.id(), manifest.to_text());
        let outline = pack_outline(&Outlined::of(&text).top).unwrap();
        let part = pack::of(text.as_bytes()).unwrap();
        let push = move || remote.put(&part).and_then(|()| remote.publish(id, &outline));
        spawn_blocking(push).await.unwrap().map(|()| id)
    }
}

/// That of a server that asks nobody who they are, with its data in this directory.
pub fn config(dir: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        callers: Callers::Anybody,
        data_dir: dir.join("data"),
        state: State::File,
        artefacts: Artefacts::Folder,
        seal_key: None,
        prometheus: None,
        prometheus_login: None,
        secrets: Vec::new(),
        allowed_secrets: None,
    }
}

/// A proposal without anything that is optional.
pub fn wanted(wanted: Wanted) -> Propose {
    Propose {
        wanted,
        release: None,
        policy: None,
        again: false,
        parent: None,
        reason: String::new(),
        actor: "alice".into(),
        idempotency_key: None,
        dry_run: false,
        warrant: None,
        unsigned: false,
    }
}

/// A rollout with one slot, then with two of five members at a time.
pub fn rollout(release: ReleaseId, bake_ms: u64) -> Propose {
    let phases = vec![PhaseView { size_ppm: None, bake_ms }, PhaseView { size_ppm: Some(400_000), bake_ms }];
    let policy = PolicyView { max_unhealthy_ppm: 400_000, phases, ..PolicyView::of(&Policy::safe()) };
    Propose { release: Some(release.to_string()), policy: Some(policy), ..wanted(Wanted::Rollout) }
}
