//! Control, as an operator asks it: any of its servers will do.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use baton_core::deploy::Policy;
use baton_wire::api::{
    DeployView, EventView, MemberStatus, PhaseView, PolicyView, Propose, ServiceStatus, Wanted,
};
use serde::de::DeserializeOwned;

use super::fleet::{SERVICE, agent};
use super::ill::BAKE;
use super::net::control;

/// How long one server may take to answer; then the next one is asked.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a push to one server may take, in seconds.
const PUSH: &str = "5";

/// One server.
#[derive(Debug)]
pub struct Server {
    address: String,
    agent: ureq::Agent,
}

impl Server {
    /// The server with this number.
    pub fn of(server: usize) -> Self {
        Self { address: control(server), agent: agent(ANSWER) }
    }

    /// Every server.
    pub fn all(servers: usize) -> Vec<Self> {
        (0..servers).map(Self::of).collect()
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let text = self.agent.get(format!("http://{}/v1/{path}", self.address)).call()?;
        Ok(serde_json::from_reader(text.into_body().into_reader())?)
    }

    /// How the service stands.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> anyhow::Result<ServiceStatus> {
        self.get(&format!("services/{SERVICE}"))
    }

    /// How its members stand.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn members(&self) -> anyhow::Result<Vec<MemberStatus>> {
        self.get(&format!("services/{SERVICE}/members"))
    }

    /// Every deploy.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn deploys(&self) -> anyhow::Result<Vec<DeployView>> {
        self.get(&format!("services/{SERVICE}/deploys"))
    }

    /// What happened after that number.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn events(&self, after: u64) -> anyhow::Result<Vec<EventView>> {
        self.get(&format!("events?service={SERVICE}&after={after}"))
    }

    /// Proposes to bring a release to the fleet; said again with the same key, it is proposed once.
    ///
    /// # Errors
    /// If it is not accepted.
    pub fn propose(&self, release: &str, key: &str) -> anyhow::Result<DeployView> {
        let proposal = Propose {
            wanted: Wanted::Rollout,
            release: Some(release.to_owned()),
            policy: Some(policy()),
            again: false,
            parent: None,
            reason: String::new(),
            actor: "chaos".to_owned(),
            idempotency_key: Some(key.to_owned()),
            dry_run: false,
            warrant: None,
            unsigned: false,
        };
        let request = self
            .agent
            .post(format!("http://{}/v1/services/{SERVICE}/deploys", self.address))
            .config()
            .http_status_as_error(false)
            .build()
            .content_type("application/json");
        let answer = request.send(serde_json::to_vec(&proposal)?)?;
        let status = answer.status();
        let text = answer.into_body().read_to_string()?;
        if !status.is_success() {
            bail!("{status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Pushes a folder, and returns the release that it is.
    ///
    /// # Errors
    /// If it does not get there in time.
    pub fn push(&self, baton: &Path, folder: &Path) -> anyhow::Result<String> {
        let output = Command::new("timeout")
            .arg(PUSH)
            .arg(baton)
            .args(["push", "--output", "json"])
            .current_dir(folder)
            .env("BATON_SERVER", format!("http://{}", self.address))
            .env("XDG_CACHE_HOME", folder.with_file_name("cache"))
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!("push to {}: {}", self.address, String::from_utf8_lossy(&output.stderr).trim());
        }
        let pushed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        pushed["id"].as_str().map(str::to_owned).context("a push tells no release")
    }
}

/// What the releases' settings say, for deploys that are proposed without a push.
fn policy() -> PolicyView {
    let phase = |size_ppm| PhaseView { size_ppm, bake_ms: BAKE.0 };
    let phases = vec![phase(None), phase(Some(500_000))];
    PolicyView { max_unhealthy_ppm: 500_000, phases, ..PolicyView::of(&Policy::safe()) }
}
