//! Servers that reload themselves, and PM2, each in the way that its documentation gives.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use baton_sys::process;
use rustix::process::{Pid, Signal, kill_process};

use super::{Pace, Places, Round, busy_since, plain};
use crate::bench::sample::Sample;
use crate::load::Driven;
use crate::ports::free_address;
use crate::process::Processors;

/// How many workers each has.
const WORKERS: usize = 2;
/// How long a peer is reloaded at the most: some take seconds for one.
const LONGEST: Duration = Duration::from_secs(100);
/// How long the load goes on between two reloads, to be compared with that during them.
const REST: Duration = Duration::from_millis(200);
/// How long one reload, or a start, may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether a reload has ended.
const GLANCE: Duration = Duration::from_millis(2);

/// Who reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// `pm2 reload`, of two workers in cluster mode.
    Pm2,
    /// gunicorn's HUP, with two workers.
    Gunicorn,
    /// Puma's phased restart, with two workers.
    Puma,
    /// nginx's reload, as a reverse proxy with two workers.
    Nginx,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pm2, Self::Gunicorn, Self::Puma, Self::Nginx];

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pm2 => "`pm2 reload`",
            Self::Gunicorn => "gunicorn, HUP",
            Self::Puma => "Puma, phased restart",
            Self::Nginx => "nginx, reload",
        }
    }

    /// The signal that makes it reload; none where a command does.
    fn signal(self) -> Option<Signal> {
        match self {
            Self::Pm2 => None,
            Self::Gunicorn | Self::Nginx => Some(Signal::HUP),
            Self::Puma => Some(Signal::USR1),
        }
    }
}

/// Reloads a peer so often, or for as long as there is time.
///
/// # Errors
/// If it does not start, or a reload does not end.
pub fn round(places: &Places, peer: Peer, pace: Pace, reloads: u64) -> anyhow::Result<Round> {
    let folder = tempfile::tempdir()?;
    let address = free_address();
    let running = Running::start(places, peer, folder.path(), address)?;
    let plan = plain(&address.to_string(), pace)?;
    let clients = plan.clients();
    let load = Driven::start(plan)?;
    let then = Processors::now()?;
    let start = Instant::now();
    let mut reload_ms = Sample::default();
    while (reload_ms.count() as u64) < reloads && start.elapsed() < LONGEST {
        let start = Instant::now();
        load.say("handover begin")?;
        running.reload(places, peer, folder.path())?;
        load.say("handover end")?;
        reload_ms.add(start.elapsed().as_secs_f64() * 1000.0);
        std::thread::park_timeout(REST);
    }
    let busy = busy_since(then)?;
    let report = load.stop()?;
    let reloads = reload_ms.count() as u64;
    Ok(Round { name: peer.name().into(), reloads, reload_ms, report, clients, busy, looks: Vec::new() })
}

/// A running peer, with what it needs beside it. They end with the value.
struct Running {
    /// The main process first.
    processes: Vec<Child>,
}

impl Running {
    fn start(places: &Places, peer: Peer, folder: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let mut running = Self { processes: Vec::new() };
        let port = address.port().to_string();
        let mut command = match peer {
            Peer::Pm2 => {
                copy(&places.apps.join("pm2"), folder)?;
                let app = serde_json::json!({ "apps": [{
                    "name": "app", "script": "server.js", "instances": WORKERS, "exec_mode": "cluster",
                }]});
                fs::write(folder.join("app.json"), app.to_string())?;
                let mut command = Command::new(places.pm2.join("pm2-runtime"));
                command.args(["start", "app.json"]);
                command
            }
            Peer::Gunicorn => {
                copy(&places.apps.join("gunicorn"), folder)?;
                let mut command = Command::new(places.python.join("gunicorn"));
                command.args(["--worker-class", "gthread", "--threads", "8"]);
                command.args(["--workers", &WORKERS.to_string()]);
                command.args(["--no-control-socket", "--bind", &address.to_string(), "app:app"]);
                command
            }
            Peer::Puma => {
                copy(&places.apps.join("puma"), folder)?;
                let mut command = Command::new("puma");
                command.args(["--config", "puma.rb", "--workers", &WORKERS.to_string()]);
                command
            }
            Peer::Nginx => {
                copy(&places.apps.join("nginx"), folder)?;
                let behind = free_address();
                let conf = fs::read_to_string(folder.join("nginx.conf"))?;
                let conf = conf.replace("127.0.0.1:8080", &address.to_string());
                fs::write(folder.join("nginx.conf"), conf.replace("127.0.0.1:8081", &behind.to_string()))?;
                let mut backend = Command::new(&places.web);
                backend.env("PORT", behind.port().to_string());
                running.add(&mut backend, folder)?;
                running.listens(behind)?;
                let mut command = Command::new("nginx");
                command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
                command
            }
        };
        running.add(command.env("PORT", port).env("PM2_HOME", folder.join("pm2")), folder)?;
        // The main process first, as that one is reloaded and asked to end before its backend.
        running.processes.reverse();
        running.listens(address)?;
        Ok(running)
    }

    fn add(&mut self, command: &mut Command, folder: &Path) -> anyhow::Result<()> {
        let log = fs::File::options().create(true).append(true).open(folder.join("log"))?;
        command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        self.processes.push(child);
        Ok(())
    }

    fn listens(&self, address: SocketAddr) -> anyhow::Result<()> {
        until("it to listen", || Ok(TcpStream::connect(address).is_ok()))
    }

    fn main(&self) -> anyhow::Result<&Child> {
        self.processes.first().context("nothing runs")
    }

    /// Reloads, and waits until none is left of the processes that were there before.
    fn reload(&self, places: &Places, peer: Peer, folder: &Path) -> anyhow::Result<()> {
        let main = self.main()?;
        let Some(signal) = peer.signal() else {
            let mut command = Command::new(places.pm2.join("pm2"));
            command.args(["reload", "app"]).env("PM2_HOME", folder.join("pm2"));
            let output = command.stdin(Stdio::null()).output()?;
            ensure!(output.status.success(), "pm2: {}", String::from_utf8_lossy(&output.stdout));
            return Ok(());
        };
        let workers = || -> anyhow::Result<Vec<i32>> {
            let parent = i32::try_from(main.id())?;
            let all = process::all()?.into_iter();
            Ok(all.filter(|one| one.parent == parent && !one.zombie).map(|one| one.pid).collect())
        };
        let before = workers()?;
        kill_process(Pid::from_child(main), signal)?;
        until("the workers to be others", || {
            let now = workers()?;
            Ok(now.len() >= WORKERS && !now.iter().any(|pid| before.contains(pid)))
        })
        .with_context(|| format!("{} does not end", peer.name()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = kill_process(Pid::from_child(process), Signal::TERM);
            let _ = process.wait();
        }
    }
}

/// The files of a folder.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for file in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

fn until(what: &str, mut condition: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    while !condition()? {
        ensure!(start.elapsed() < LIMIT, "gave up waiting for {what}");
        std::thread::park_timeout(GLANCE);
    }
    Ok(())
}
