//! Docker: an image with a layer of dependencies and one of the application, through a registry.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Way;
use super::cost::Cost;
use super::tree::Tree;
use crate::docker::Engine;

const LIMIT: Duration = Duration::from_secs(30);

/// What changes least comes first, as the documentation has it.
const DOCKERFILE: &str =
    "FROM scratch\nCOPY node_modules /node_modules\nCOPY baton.toml app /app/\nCMD [\"/app\"]\n";

/// One engine that builds, one that runs, and a registry between them.
pub struct Docker {
    builder: Engine,
    member: Engine,
    registry: Child,
    image: String,
}

impl Docker {
    /// Starts them.
    ///
    /// # Errors
    /// When one of them is not installed, or does not start.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let address = crate::ports::free_address();
        let config = folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            folder.join("registry").display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null());
        let registry = command
            .stderr(File::create(folder.join("log"))?)
            .spawn()
            .context("cannot run docker-registry")?;
        let (builder, member) = (Engine::start()?, Engine::start()?);
        let docker = Self { builder, member, registry, image: format!("{address}/tree:latest") };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(start.elapsed() < LIMIT, "docker-registry does not listen");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(docker)
    }
}

impl Way for Docker {
    fn name(&self) -> &'static str {
        "`docker build`, `push` and `pull`"
    }

    fn push(&mut self, tree: &Tree) -> anyhow::Result<Option<Cost>> {
        let file = tree.dir().with_file_name("Dockerfile");
        fs::write(&file, DOCKERFILE)?;
        let (file, dir) = (file.display().to_string(), tree.dir().display().to_string());
        let servers = [self.registry.id(), self.builder.pid()?];
        Cost::of(&servers, || {
            self.builder.docker(&["build", "--quiet", "--tag", &self.image, "--file", &file, &dir])?;
            self.builder.docker(&["push", "--quiet", &self.image]).map(drop)
        })
        .map(Some)
    }

    fn fetch(&mut self) -> anyhow::Result<Cost> {
        let servers = [self.registry.id(), self.member.pid()?];
        Cost::of(&servers, || self.member.docker(&["pull", "--quiet", &self.image]).map(drop))
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        self.member.docker(&["image", "rm", "--force", &self.image]).map(drop)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.registry), Signal::TERM);
        let _ = self.registry.wait();
    }
}
