//! Docker: an image with a layer of dependencies and one of the application, through a registry.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Way;
use super::cost::Cost;
use super::server::Server;
use super::tree::Tree;
use crate::docker::Engine;

/// What changes least comes first, as the documentation has it.
const DOCKERFILE: &str =
    "FROM scratch\nCOPY node_modules /node_modules\nCOPY baton.toml app /app/\nCMD [\"/app\"]\n";

/// One engine that builds, one that runs, and a registry between them.
pub struct Docker {
    builder: Engine,
    member: Engine,
    registry: Server,
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
        let registry = Server::start(Command::new("docker-registry").arg("serve").arg(config), address)?;
        let (builder, member) = (Engine::start()?, Engine::start()?);
        Ok(Self { builder, member, registry, image: format!("{address}/tree:latest") })
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
        let servers = [self.registry.pid(), self.builder.pid()?];
        Cost::of(&servers, || {
            self.builder.docker(&["build", "--quiet", "--tag", &self.image, "--file", &file, &dir])?;
            self.builder.docker(&["push", "--quiet", &self.image]).map(drop)
        })
        .map(Some)
    }

    fn fetch(&mut self) -> anyhow::Result<Cost> {
        let servers = [self.registry.pid(), self.member.pid()?];
        Cost::of(&servers, || self.member.docker(&["pull", "--quiet", &self.image]).map(drop))
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        self.member.docker(&["image", "rm", "--force", &self.image]).map(drop)
    }
}
