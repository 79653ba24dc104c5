//! A small fleet, as it would run: servers of control over Redis and a bucket, and members, each on a host of its own.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use baton_core::signal::Signal;
use baton_sys::process::{self, Process};

use super::Places;
use super::guest::{Guest, until};
use super::ill::TOLD;
use super::net::{self, Host, control};
use super::redis::{NODES, Redis};
use super::schedule::Size;

/// The service.
pub const SERVICE: &str = "web";
/// Where each member listens for clients.
const PORT: u16 = 8080;
/// Where the bucket listens.
const STORE_PORT: u16 = 9000;
/// What a member's processes can be told by.
const MEMBER: &str = "BATON_MEMBER";

/// Everything that runs.
#[derive(Debug)]
pub struct Fleet {
    /// The servers of control.
    pub servers: Vec<Guest>,
    /// The state store.
    pub redis: Redis,
    store: Guest,
    members: Vec<Guest>,
    folder: PathBuf,
}

impl Fleet {
    /// Builds the network and starts everything on it; what is written goes to this folder.
    ///
    /// # Errors
    /// If anything does not start.
    pub fn start(places: &Places, folder: &Path, size: Size) -> anyhow::Result<Self> {
        let hosts: Vec<Host> = (0..size.servers)
            .map(Host::Server)
            .chain((0..NODES).map(Host::Redis))
            .chain([Host::Sentinel, Host::Store])
            .chain((0..size.members).map(Host::Member))
            .collect();
        net::build(&hosts, size.servers)?;
        let redis = Redis::start(folder)?;
        let store = start_store(places, folder)?;
        let servers = (0..size.servers).map(|server| start_server(places, folder, server));
        let servers = servers.collect::<anyhow::Result<Vec<_>>>()?;
        for server in 0..size.servers {
            until("the servers to listen", || TcpStream::connect(control(server)).is_ok())?;
        }
        let members = (0..size.members).map(|member| start_member(places, folder, member, size.servers));
        let members = members.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { servers, redis, store, members, folder: folder.to_owned() })
    }

    /// Where clients reach a member.
    pub fn address(member: usize) -> String {
        format!("{}:{PORT}", Host::Member(member).address())
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The file in which a member's programs tell what they do.
    pub fn told(folder: &Path, member: usize) -> PathBuf {
        folder.join(format!("{}.told", Host::Member(member)))
    }

    /// Where a member keeps its records.
    pub fn state(folder: &Path, member: usize) -> PathBuf {
        folder.join(Host::Member(member).to_string()).join("state")
    }

    /// Kills a member's bootloader and all that runs under it, and waits until nothing of it is left.
    ///
    /// # Errors
    /// If that cannot be.
    pub fn kill_member(&mut self, member: usize) -> anyhow::Result<()> {
        self.members[member].kill()?;
        let name = Host::Member(member).to_string();
        until(&format!("nothing of {name} to be left"), || {
            let left = programs_of(&name);
            for program in &left {
                // What has ended meanwhile is what is wanted.
                let _ = process::signal(*program, Signal::KILL);
            }
            left.is_empty()
        })
    }

    /// Starts a member again where it was.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_member(&mut self, member: usize) -> anyhow::Result<()> {
        self.members[member].start_again()
    }

    /// Stops everything in order, members first.
    ///
    /// # Errors
    /// If anything does not stop when it is asked to.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let stop = |guests: &mut dyn Iterator<Item = &mut Guest>| -> anyhow::Result<()> {
            let mut guests: Vec<_> = guests.collect();
            guests.iter().try_for_each(|guest| guest.ask_to_stop())?;
            guests.iter_mut().try_for_each(|guest| guest.stopped())
        };
        stop(&mut self.members.iter_mut())?;
        stop(&mut self.servers.iter_mut())?;
        stop(&mut self.redis.all())?;
        self.store.kill()
    }

    /// What something wrote last.
    pub fn last_words(&self, host: Host, lines: usize) -> String {
        let text =
            std::fs::read_to_string(self.folder.join(host.to_string()).join("log")).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The members whose bootloader has ended by itself.
    pub fn fallen_members(&mut self) -> Vec<usize> {
        let ended = self.members.iter_mut().map(Guest::has_ended);
        ended.enumerate().filter(|(_, ended)| *ended).map(|(member, _)| member).collect()
    }

    /// Starts servers again that have ended by themselves, as their service manager would: one does that when it is started
    /// and its state store is not there. Returns how many.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn revive_servers(&mut self) -> anyhow::Result<usize> {
        let mut ended = self.servers.iter_mut().filter_map(|server| server.has_ended().then_some(server));
        ended.try_fold(0, |count, server| server.start_again().map(|()| count + 1))
    }
}

/// The processes that were started with a member's name, this fleet's only: no other can be seen here.
fn programs_of(member: &str) -> Vec<Process> {
    let all = process::all().unwrap_or_default().into_iter();
    all.filter(|process| !process.zombie)
        .filter(|process| process::started_with(process.pid, MEMBER).as_deref() == Some(member))
        .collect()
}

/// moto, which answers as S3 does.
fn start_store(places: &Places, folder: &Path) -> anyhow::Result<Guest> {
    let address = Host::Store.address().to_string();
    let script = places.moto_script.to_str().context("the path of serve.py")?;
    let arguments = [script, &address, &STORE_PORT.to_string()];
    let store = Guest::start(Host::Store, &places.python, &arguments, &[], &folder.join("store"))?;
    until("the bucket to be there", || {
        let asked = ureq::get(format!("http://{address}:{STORE_PORT}/bucket")).call();
        asked.is_ok_and(|answer| answer.status().is_success())
    })?;
    Ok(store)
}

fn start_server(places: &Places, folder: &Path, server: usize) -> anyhow::Result<Guest> {
    let host = Host::Server(server);
    let endpoint = format!("http://{}:{STORE_PORT}", Host::Store.address());
    let variables = [
        ("AWS_ENDPOINT_URL", &endpoint[..]),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("BATON_STORE", "s3://bucket/web"),
        ("BATON_STATE", &Redis::address()),
    ];
    let at = folder.join(host.to_string());
    let arguments = ["server", "--dev", "--listen", &control(server), "--data", "data"];
    Guest::start(host, &places.baton, &arguments, &variables, &at)
}

fn start_member(places: &Places, folder: &Path, member: usize, servers: usize) -> anyhow::Result<Guest> {
    let host = Host::Member(member);
    let name = host.to_string();
    let all: Vec<String> = (0..servers).map(|server| format!("http://{}", control(server))).collect();
    let (all, state, told) = (all.join(","), Fleet::state(folder, member), Fleet::told(folder, member));
    let variables = [
        ("BATON_SERVER", &all[..]),
        ("BATON_SERVICE", SERVICE),
        (MEMBER, &name),
        ("BATON_STATE_DIR", state.to_str().context("the path of the state directory")?),
        (TOLD, told.to_str().context("the path of what is told")?),
    ];
    Guest::start(host, &places.boot, &[], &variables, &folder.join(&name))
}

/// The release that a member's program says it is.
pub fn answer_of(member: usize) -> Option<String> {
    let agent = agent(Duration::from_secs(2));
    let mut answer = agent.get(format!("http://{}/", Fleet::address(member))).call().ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    let body: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
    body["release"].as_str().map(str::to_owned)
}

/// Whoever asks with this waits no longer than so.
pub fn agent(limit: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(limit)).build().into()
}
