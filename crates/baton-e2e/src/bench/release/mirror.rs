//! What brings a folder up to date: rsync and casync.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Way;
use super::cost::{Cost, run};
use super::server::Server;
use super::tree::Tree;
use crate::ports::free_address;

/// `rsync -a --delete` to a daemon, and from there to the member, in place.
pub struct Rsync {
    server: Server,
    url: String,
    member: PathBuf,
}

impl Rsync {
    /// Starts the daemon.
    ///
    /// # Errors
    /// When it is not there.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let (address, config, store) = (free_address(), folder.join("conf"), folder.join("store"));
        fs::create_dir_all(&store)?;
        let text = format!(
            "use chroot = no\nuid = 0\ngid = 0\n[tree]\npath = {}\nread only = no\naddress = {}\n",
            store.display(),
            address.ip()
        );
        fs::write(&config, text)?;
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", "--address", &address.ip().to_string()]);
        command.args(["--port", &address.port().to_string(), "--config"]).arg(config);
        let url = format!("rsync://{address}/tree/");
        Ok(Self { server: Server::start(&mut command, address)?, url, member: folder.join("member") })
    }
}

impl Way for Rsync {
    fn name(&self) -> &'static str {
        "rsync, in place"
    }

    fn push(&mut self, tree: &Tree) -> anyhow::Result<Option<Cost>> {
        let mut command = Command::new("rsync");
        command.args(["-a", "--delete"]).arg(tree.dir().join("")).arg(&self.url);
        Cost::of(&[self.server.pid()], || run(&mut command).map(drop)).map(Some)
    }

    fn fetch(&mut self) -> anyhow::Result<Cost> {
        let mut command = Command::new("rsync");
        command.args(["-a", "--delete", &self.url]).arg(&self.member);
        Cost::of(&[self.server.pid()], || run(&mut command).map(drop))
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(&self.member)?)
    }
}

/// casync: chunks in a folder that nginx serves, seeded from the tree that the member has, in place.
pub struct Casync {
    server: Server,
    url: String,
    store: PathBuf,
    member: PathBuf,
}

impl Casync {
    /// Starts the server.
    ///
    /// # Errors
    /// When it is not there.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let (address, config, store) = (free_address(), folder.join("conf"), folder.join("store"));
        fs::create_dir_all(&store)?;
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 2;\npid {pid};\nerror_log /dev/null;\nevents {{}}\n\
             http {{ access_log off; server {{ listen {address}; root {store}; }} }}\n",
            pid = folder.join("pid").display(),
            store = store.display(),
        );
        fs::write(&config, text)?;
        let server = Server::start(Command::new("nginx").arg("-c").arg(config), address)?;
        Ok(Self { server, url: format!("http://{address}"), store, member: folder.join("member") })
    }
}

impl Way for Casync {
    fn name(&self) -> &'static str {
        "casync over HTTP, in place"
    }

    fn push(&mut self, tree: &Tree) -> anyhow::Result<Option<Cost>> {
        let mut command = Command::new("casync");
        command.arg("make").arg("--store").arg(self.store.join("default.castr"));
        command.arg(self.store.join("tree.caidx")).arg(tree.dir());
        Cost::of(&[], || run(&mut command).map(drop)).map(Some)
    }

    fn fetch(&mut self) -> anyhow::Result<Cost> {
        let mut command = Command::new("casync");
        command.arg("extract").arg("--store").arg(format!("{}/default.castr", self.url));
        command.arg(format!("{}/tree.caidx", self.url)).arg(&self.member);
        Cost::of(&[self.server.pid()], || run(&mut command).map(drop))
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(&self.member)?)
    }
}
