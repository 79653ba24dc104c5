//! Control and members as processes of this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use baton_core::ids::ServiceName;
use baton_core::run::Listen;
use baton_engine::local::{LocalMember, Spec};
use tempfile::TempDir;

use super::output::Output;
use crate::failure::Failure;
use crate::local::{LocalControl, LocalError, beside, free_address};
use crate::project::Project;
use crate::ui::Ui;

/// Control and members. All of it ends with the value.
pub struct Fleet {
    service: ServiceName,
    // Fields are dropped in this order: members first, the folder when nobody writes to it any more.
    members: Vec<LocalMember>,
    /// Where each of them listens, by the name of the listener.
    addresses: Vec<Vec<(String, SocketAddr)>>,
    control: Option<LocalControl>,
    address: SocketAddr,
    folder: TempDir,
}

impl Fleet {
    /// One of which nothing runs yet.
    pub fn open(project: &Project) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("baton-dev-").tempdir();
        Ok(Self {
            service: project.settings.service.clone(),
            members: Vec::new(),
            addresses: Vec::new(),
            control: None,
            address: free_address()?,
            folder: folder.map_err(LocalError::io("make a temporary folder"))?,
        })
    }

    /// Starts control and members; their lines go where `ui` writes.
    pub fn start(&mut self, project: &Project, members: u16, ui: &Ui) -> Result<(), Failure> {
        let boot = beside("baton-boot")?;
        self.control = Some(LocalControl::start(self.address, self.folder.path())?);
        for number in 1..=members {
            let name = format!("{}-{number}", self.service);
            let listen = addresses(&project.settings.run.listen, number, members)?;
            let output = self.folder.path().join(format!("{name}.output"));
            Output::open(&output, &name, *ui)?;
            let spec = Spec {
                boot: boot.clone(),
                server: self.control(),
                service: self.service.clone(),
                member: name.parse().map_err(|error| Failure::Usage(format!("{error}")))?,
                state_dir: self.folder.path().join(&name),
                listen: listen.clone(),
                env: Vec::new(),
                output,
            };
            self.members.push(LocalMember::start(&spec).map_err(LocalError::from)?);
            self.addresses.push(listen);
        }
        Ok(())
    }

    /// The service that they are members of.
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// How many members there are.
    pub const fn size(&self) -> usize {
        self.members.len()
    }

    /// Where control is.
    pub fn control(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Fails once control has ended by itself.
    pub fn check(&mut self) -> Result<(), LocalError> {
        self.control.as_mut().map_or(Ok(()), LocalControl::check)
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
    }
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
