//! Everything that the demo starts, and takes away again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use baton_core::ids::{ReleaseId, ServiceName};
use baton_engine::local::{LocalMember, Spec};
use baton_release::push::{Source, push};
use baton_release::remote::Remote;
use baton_wire::api::{EventView, Propose, ServiceStatus};
use rustix::process::{Pid, Signal, kill_process};

use super::{DemoError, releases};
use crate::client::Client;
use crate::local::{LocalControl, LocalError, beside, free_address};

/// How long anything in the demo may take before it counts as failed.
const LIMIT: Duration = Duration::from_secs(60);
/// How long to wait for news of control at once: short, so that Ctrl-C is noticed.
const NEWS: Duration = Duration::from_millis(500);

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The bootloader.
    pub boot: PathBuf,
    /// The load generator.
    pub load: PathBuf,
}

impl Programs {
    /// Those that lie beside this program.
    pub fn find() -> Result<Self, LocalError> {
        Ok(Self { boot: beside("baton-boot")?, load: beside("baton-load")? })
    }
}

/// Control, members and a folder for all that they write. All of it goes with the value.
pub struct Stage {
    programs: Programs,
    service: ServiceName,
    server: Option<LocalControl>,
    address: SocketAddr,
    members: Vec<LocalMember>,
    addresses: Vec<SocketAddr>,
    client: Client,
    // Last, so that it is removed when nobody writes to it any more.
    folder: tempfile::TempDir,
}

impl Stage {
    /// Starts control.
    pub fn open(programs: &Programs) -> Result<Self, DemoError> {
        let folder = tempfile::Builder::new()
            .prefix("baton-demo-")
            .tempdir()
            .map_err(DemoError::io("make a temporary folder"))?;
        let address = free_address()?;
        let client = Client::new(&format!("http://{address}"))?;
        let service = "demo".parse().map_err(|error| DemoError::Unexpected(format!("{error}")))?;
        let mut stage = Self {
            programs: programs.clone(),
            service,
            server: None,
            address,
            members: Vec::new(),
            addresses: Vec::new(),
            client,
            folder,
        };
        stage.start_control()?;
        Ok(stage)
    }

    /// Where control is.
    pub fn control(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the members are.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Starts control, or starts it again with what it has kept, and waits until it answers.
    pub fn start_control(&mut self) -> Result<(), DemoError> {
        self.server = Some(LocalControl::start(self.address, self.folder.path())?);
        wait_for("control to answer", || Ok(self.client.services().ok().map(drop)))
    }

    /// Kills control, as a crash would.
    pub fn kill_control(&mut self) -> Result<(), DemoError> {
        Ok(self.server.take().map_or(Ok(()), LocalControl::kill)?)
    }

    /// Starts this many members.
    pub fn start_members(&mut self, count: usize) -> Result<(), DemoError> {
        for number in 1..=count {
            let address = free_address()?;
            let name = format!("demo-{number}");
            let member = name.parse().map_err(|error| DemoError::Unexpected(format!("{error}")))?;
            let spec = Spec {
                boot: self.programs.boot.clone(),
                server: self.control(),
                service: self.service.clone(),
                member,
                state_dir: self.folder.path().join(&name),
                listen: vec![("http".to_owned(), address)],
                env: Vec::new(),
                output: self.folder.path().join(format!("{name}.log")),
            };
            self.members
                .push(LocalMember::start(&spec).map_err(|error| DemoError::Unexpected(error.to_string()))?);
            self.addresses.push(address);
        }
        Ok(())
    }

    /// Waits until all members have reported.
    pub fn wait_for_members(&self) -> Result<(), DemoError> {
        let all = self.members.len();
        wait_for("the members to report", || {
            let live = self.client.service(&self.service).map(|status| status.counts.live as usize);
            Ok((live.unwrap_or(0) == all).then_some(()))
        })
    }

    /// Writes a release and pushes it.
    pub fn push(&self, number: u32, behaviour: Option<&str>) -> Result<ReleaseId, DemoError> {
        let folder = releases::write(self.folder.path(), number, behaviour)?;
        let settings = read_settings(&folder)?;
        let store = Remote::new(&self.control());
        let source =
            Source { dir: folder, service: settings.service, run: settings.run, builder: "demo".to_owned() };
        let pushed = push(&source, &store, &|_| {});
        pushed.map(|pushed| pushed.id).map_err(|error| DemoError::Unexpected(error.to_string()))
    }

    /// Proposes something and returns the deploy's id.
    pub fn propose(&self, proposal: &Propose) -> Result<String, DemoError> {
        Ok(self.client.propose(&self.service, proposal)?.id)
    }

    /// Waits until the service stands as asked for.
    pub fn wait_until(
        &self,
        what: &str,
        is: impl Fn(&ServiceStatus) -> bool,
    ) -> Result<ServiceStatus, DemoError> {
        let mut version = 0;
        let mut last = None;
        let found = wait_for(what, || {
            let Ok(status) = self.client.service_after(&self.service, version, NEWS) else { return Ok(None) };
            version = status.version;
            let found = is(&status).then(|| status.clone());
            last = Some(status);
            Ok(found)
        });
        found.map_err(|error| match (error, last) {
            (DemoError::Late(what), Some(last)) => DemoError::Unexpected(format!(
                "gave up waiting for {what}; it is {} ({:?})",
                last.state, last.counts
            )),
            (error, _) => error,
        })
    }

    /// The number of the last event so far.
    pub fn last_event(&self) -> Result<u64, DemoError> {
        Ok(self.events_after(0)?.last().map_or(0, |event| event.sequence))
    }

    /// All events after this one.
    pub fn events_after(&self, after: u64) -> Result<Vec<EventView>, DemoError> {
        let (mut all, mut after) = (Vec::new(), after);
        loop {
            let some = self.client.events(Some(&self.service), after, Duration::ZERO)?;
            let Some(last) = some.last() else { return Ok(all) };
            after = last.sequence;
            all.extend(some);
        }
    }

    /// Where a member is.
    pub fn address_of(&self, member: &str) -> Result<SocketAddr, DemoError> {
        let mut members = self.members.iter().zip(&self.addresses);
        let found = members.find(|(known, _)| known.member().as_str() == member);
        found
            .map(|(_, address)| *address)
            .ok_or_else(|| DemoError::Unexpected(format!("there is no member {member}")))
    }
}

/// The program that answers there.
pub fn program_at(address: SocketAddr) -> Result<Pid, DemoError> {
    pid_at(address).ok_or_else(|| DemoError::Unexpected(format!("{address} does not answer")))
}

/// Kills a program, as a crash would.
pub fn kill(program: Pid) -> Result<(), DemoError> {
    kill_process(program, Signal::KILL).map_err(|error| DemoError::io("kill a program")(error.into()))
}

/// Waits until another program answers there than this one.
pub fn wait_for_another(address: SocketAddr, program: Pid) -> Result<(), DemoError> {
    wait_for("the program to be launched again", || {
        Ok(pid_at(address).filter(|now| *now != program).map(drop))
    })
}

impl Drop for Stage {
    fn drop(&mut self) {
        // All are asked first, so that they end side by side.
        for member in &mut self.members {
            let _ = member.terminate();
        }
        self.members.clear();
        let _ = self.kill_control();
    }
}

/// Waits until there is a value, and notices Ctrl-C.
pub fn wait_for<T>(
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>, DemoError>,
) -> Result<T, DemoError> {
    let start = Instant::now();
    loop {
        DemoError::check_interrupted()?;
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > LIMIT {
            return Err(DemoError::Late(what.to_owned()));
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn read_settings(folder: &Path) -> Result<baton_core::settings::Settings, DemoError> {
    let path = folder.join("baton.toml");
    let text = std::fs::read_to_string(&path).map_err(DemoError::io(format!("read {}", path.display())))?;
    baton_core::settings::parse("baton.toml", &text)
        .map_err(|mistakes| DemoError::Unexpected(mistakes.to_string()))
}

/// The process that answers there now.
fn pid_at(address: SocketAddr) -> Option<Pid> {
    let mut answer = ureq::get(format!("http://{address}/"))
        .config()
        .timeout_global(Some(Duration::from_secs(2)))
        .build()
        .call()
        .ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
    answer["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
}
