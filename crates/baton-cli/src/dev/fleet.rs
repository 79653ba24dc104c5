//! Control and members as processes of this machine.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton_core::ids::ServiceName;
use baton_core::run::Listen;
use baton_engine::local::{LocalMember, Spec, for_itself};
use baton_sys::parent::end_with_parent;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::output::Output;
use super::{beside, folder};
use crate::client::Client;
use crate::failure::Failure;
use crate::project::Project;
use crate::ui::Ui;

/// How long control and members may take to come.
const LIMIT: Duration = Duration::from_secs(30);
/// How long to wait between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Control and members. All of it ends with the value.
pub struct Fleet {
    service: ServiceName,
    control: Child,
    address: SocketAddr,
    members: Vec<LocalMember>,
    /// Where each of them listens, by the name of the listener.
    addresses: Vec<Vec<(String, SocketAddr)>>,
    // Last, so that it is removed when nobody writes to it any more.
    _folder: TempDir,
}

impl Fleet {
    /// Starts them; their lines go where `ui` writes.
    pub fn start(project: &Project, members: u16, ui: &Ui) -> Result<Self, Failure> {
        let service = project.settings.service.clone();
        let (boot, folder) = (beside("baton-boot")?, folder()?);
        let address = free_address()?;
        let control = start_control(address, &folder)?;
        let mut fleet =
            Self { service, control, address, members: Vec::new(), addresses: Vec::new(), _folder: folder };
        for number in 1..=members {
            let name = format!("{}-{number}", fleet.service);
            let listen = addresses(&project.settings.run.listen, number, members)?;
            let output = fleet._folder.path().join(format!("{name}.output"));
            Output::open(&output, &name, *ui)?;
            let spec = Spec {
                boot: boot.clone(),
                server: fleet.control(),
                service: fleet.service.clone(),
                member: name.parse().map_err(|error| Failure::Usage(format!("{error}")))?,
                state_dir: fleet._folder.path().join(&name),
                listen: listen.clone(),
                env: Vec::new(),
                output,
            };
            let started = LocalMember::start(&spec);
            fleet.members.push(started.map_err(|error| Failure::Usage(error.to_string()))?);
            fleet.addresses.push(listen);
        }
        Ok(fleet)
    }

    /// Where control is.
    pub fn control(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until all members have reported.
    pub fn wait_for_members(&self, client: &Client) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let live = client.service(&self.service).map(|status| status.counts.live as usize);
            if live.is_ok_and(|live| live == self.members.len()) {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                return Err(Failure::Usage(format!(
                    "the members did not report to control within {} s: their lines above say why",
                    LIMIT.as_secs()
                )));
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Where everything is, for people.
    pub fn told(&self) -> String {
        let control = self.control();
        let mut text =
            format!("control at {control}; in another terminal: BATON_SERVER={control} baton status\n");
        for (member, addresses) in self.members.iter().zip(&self.addresses) {
            let at: Vec<String> =
                addresses.iter().map(|(name, address)| format!("{name} {address}")).collect();
            let at = if at.is_empty() { "no listener of its own".to_owned() } else { at.join(", ") };
            text.push_str(&format!("{}: {at}\n", member.member()));
        }
        text
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // All are asked first, so that they end side by side.
        for member in &mut self.members {
            let _ = member.terminate();
        }
        self.members.clear();
        let _ = kill_process(Pid::from_child(&self.control), Signal::TERM);
        let _ = self.control.wait();
    }
}

fn start_control(address: SocketAddr, folder: &TempDir) -> Result<Child, Failure> {
    let system = |what| move |source| Failure::System { what, source };
    let this = std::env::current_exe().map_err(system("find this program"))?;
    let log = File::create(folder.path().join("control.log")).map_err(system("open a log"))?;
    let copy = log.try_clone().map_err(system("open a log"))?;
    let mut command = Command::new(this);
    for_itself(&mut command);
    command
        .args(["server", "--dev", "--listen", &address.to_string(), "--data"])
        .arg(folder.path().join("control"));
    // In a group of its own: Ctrl-C is for this program, which stops members first.
    command.stdin(Stdio::null()).stdout(log).stderr(copy).process_group(0);
    end_with_parent(&mut command).spawn().map_err(system("start control"))
}

/// Where a member listens: the first one where the settings say if that is free, the others anywhere.
fn addresses(listen: &[Listen], number: u16, members: u16) -> Result<Vec<(String, SocketAddr)>, Failure> {
    let mut addresses = Vec::new();
    for listen in listen {
        let Some(own) = listen.address.tcp() else {
            if members > 1 {
                return Err(Failure::Usage(format!(
                    "listener {} is at a path, which one member can have: say --members 1",
                    listen.name
                )));
            }
            continue;
        };
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, own.port()));
        let is_free = number == 1 && TcpListener::bind(own).is_ok();
        addresses.push((listen.name.clone(), if is_free { own } else { free_address()? }));
    }
    Ok(addresses)
}

fn free_address() -> Result<SocketAddr, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|free| free.local_addr())
        .map_err(|source| Failure::System { what: "find a free port", source })
}
