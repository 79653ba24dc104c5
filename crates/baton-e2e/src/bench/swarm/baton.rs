//! The same containers with a bootloader in each, and control beside them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use baton_core::deploy::Policy;
use baton_wire::api::{PhaseView, PolicyView, Propose, ServiceStatus, Wanted};
use serde::de::DeserializeOwned;

use super::{LIMIT, Places, Updated, image, until};
use crate::bench::release::server::Server;
use crate::docker::Engine;
use crate::load::Target;
use crate::ports::free_address;

/// Who updates.
pub const NAME: &str = "`baton deploy`, four phases of a quarter, each probed, bake 0";
/// How often it is looked whether members have come.
const LOOK: Duration = Duration::from_millis(50);
/// A quarter of the fleet at a time.
const QUARTER_PPM: u32 = 250_000;
const SERVICE: &str = "web";

/// Members in containers, and control. They end with the value.
pub struct Members<'a> {
    engine: &'a Engine,
    _control: Server,
    url: String,
    agent: ureq::Agent,
    baton: PathBuf,
    release: PathBuf,
    addresses: Vec<SocketAddr>,
    version: usize,
}

impl<'a> Members<'a> {
    /// Starts them, and deploys a first version.
    ///
    /// # Errors
    /// When anything does not start.
    pub fn start(
        engine: &'a Engine,
        places: &Places,
        folder: &Path,
        containers: usize,
    ) -> anyhow::Result<Self> {
        let address = free_address();
        fs::create_dir_all(folder)?;
        let mut command = Command::new(&places.baton);
        command
            .args(["server", "--dev", "--listen", &address.to_string(), "--data"])
            .arg(folder.join("control"));
        let control = Server::start(&mut command, address)?;
        let release = folder.join("release");
        fs::create_dir_all(&release)?;
        fs::copy(&places.web, release.join("baton-web")).context("cannot copy baton-web")?;
        let agent = ureq::Agent::config_builder().timeout_global(Some(LIMIT)).build().into();
        let url = format!("http://{address}");
        let mut members = Self {
            engine,
            _control: control,
            url,
            agent,
            baton: places.baton.clone(),
            release,
            addresses: Vec::new(),
            version: 0,
        };
        for number in 0..containers {
            members.run(number)?;
        }
        until("the members to be live", LOOK, || {
            Ok(members.status().is_ok_and(|status| status.counts.live as usize == containers))
        })?;
        members.update()?;
        Ok(members)
    }

    fn run(&mut self, number: usize) -> anyhow::Result<()> {
        let address = free_address();
        let (name, server) = (container(number), format!("BATON_SERVER={}", self.url));
        let (member, listen) = (format!("BATON_MEMBER={name}"), format!("BATON_LISTEN=http={address}"));
        let mut arguments = vec!["run", "--detach", "--network=host", "--name", &name, "--env", &server];
        arguments.extend(["--env", "BATON_SERVICE=web", "--env", &member, "--env", &listen, image::BOOT]);
        self.engine.docker(&arguments)?;
        self.addresses.push(address);
        Ok(())
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.agent.get(format!("{}/v1/services/{SERVICE}{path}", self.url)).call()?;
        Ok(serde_json::from_reader(answer.into_body().into_reader())?)
    }

    fn status(&self) -> anyhow::Result<ServiceStatus> {
        self.get("")
    }

    /// Makes a release of the next version and pushes it.
    fn push(&mut self) -> anyhow::Result<String> {
        self.version += 1;
        fs::write(self.release.join("baton.toml"), settings(self.version))?;
        let output = Command::new(&self.baton)
            .args(["push", "--output", "json"])
            .current_dir(&self.release)
            .env("BATON_SERVER", &self.url)
            .output()
            .context("cannot run baton")?;
        ensure!(output.status.success(), "baton push: {}", String::from_utf8_lossy(&output.stderr));
        let pushed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        pushed["id"].as_str().map(str::to_owned).context("a push tells no release")
    }

    /// The one write.
    fn propose(&self, release: &str) -> anyhow::Result<()> {
        let proposal = Propose {
            wanted: Wanted::Rollout,
            release: Some(release.to_owned()),
            policy: Some(quarters()),
            again: false,
            parent: None,
            reason: String::new(),
            actor: "bench".to_owned(),
            idempotency_key: None,
            dry_run: false,
            warrant: None,
            unsigned: false,
        };
        let request = self.agent.post(format!("{}/v1/services/{SERVICE}/deploys", self.url));
        request.content_type("application/json").send(serde_json::to_vec(&proposal)?)?;
        Ok(())
    }
}

impl Updated for Members<'_> {
    fn targets(&self) -> Vec<Target> {
        // What is an address of a socket is one of a target.
        self.addresses.iter().filter_map(|address| address.to_string().parse().ok()).collect()
    }

    fn update(&mut self) -> anyhow::Result<Duration> {
        let release = self.push()?;
        let start = Instant::now();
        self.propose(&release)?;
        let mut version = 0;
        loop {
            let status: ServiceStatus = self.get(&format!("?after={version}&wait_ms=1000"))?;
            version = status.version;
            let ours = status.deploy.as_ref().is_some_and(|deploy| deploy.release == release);
            if ours && matches!(status.state.as_str(), "switched" | "drained") {
                return Ok(start.elapsed());
            }
            if !ours && status.deploy.is_some_and(|deploy| deploy.kind == "rollback")
                || start.elapsed() > LIMIT
            {
                bail!("release {release} does not get everywhere: {:#?}", status.failure);
            }
        }
    }
}

impl Drop for Members<'_> {
    fn drop(&mut self) {
        let names: Vec<String> = (0..self.addresses.len()).map(container).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let _ = self.engine.docker(&[&["rm", "--force", "--volumes"], &names[..]].concat());
    }
}

fn container(number: usize) -> String {
    format!("member-{number}")
}

fn settings(version: usize) -> String {
    format!(
        "service = \"{SERVICE}\"\n[run]\ncommand = [\"./baton-web\"]\n\
         [[run.listen]]\nname = \"http\"\naddress = \"127.0.0.1:8080\"\n\
         [run.health]\nhttp = \"/health\"\n[env]\nANSWERS_BY = \"BATON_RELEASE\"\nVERSION = \"{version}\"\n"
    )
}

/// Four waves, none of which waits after its last probe.
fn quarters() -> PolicyView {
    let phases = vec![PhaseView { size_ppm: Some(QUARTER_PPM), bake_ms: 0 }];
    PolicyView { max_unhealthy_ppm: QUARTER_PPM, phases, ..PolicyView::of(&Policy::safe()) }
}
