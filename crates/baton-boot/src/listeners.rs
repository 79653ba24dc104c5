//! The listening sockets of this member: opened, selected and closed as [`Openings`] says.

use std::path::Path;
use std::time::Duration;

use baton_core::openings::{Openings, Refusal};
use baton_core::placeholder::asks_for_path;
use baton_core::run::{Address, Handover, InvalidPath, Listen, SocketPath};
use baton_core::supervisor::{Plan, Selection, Slot};
use baton_sys::attributes::User;

use crate::config::Config;
use crate::group::GroupError;
use crate::listener::{Listener, Tenant};
use crate::log;
use crate::rescue::Watched;
use crate::sharing::Sharing;
use crate::strangers::{Place, Strangers};
use crate::unix::Owner;

/// Why a release cannot listen here.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It does not go with what this member was told, or has open.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel refused.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The program is to listen at a path, and nothing can be written.
    #[error(
        "there is no folder for the path at which the program is to listen for listener {0:?}; set BATON_STATE_DIR \
         to one that can be written"
    )]
    NoFolder(String),
    /// The program is to listen at a path, and the one that there is for it cannot be that of a socket.
    #[error(
        "the program cannot listen at a path in {folder} for listener {name:?}; set BATON_STATE_DIR to a shorter one"
    )]
    Path {
        /// What the settings call the listener.
        name: String,
        /// The folder of the generation.
        folder: String,
        /// What is wrong with it.
        #[source]
        source: InvalidPath,
    },
}

/// A launch, as far as its listeners depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Launching<'a> {
    /// What is launched.
    pub plan: &'a Plan,
    /// Whose sockets it gets.
    pub slot: Slot,
    /// It cannot have the sockets of TCP listeners with `handover = "auto"`.
    pub relay: bool,
    /// Who it runs as, if not who we are.
    pub user: Option<&'a User>,
    /// A folder that it may write to, if there is one.
    pub scratch: Option<&'a Path>,
}

impl Launching<'_> {
    /// What it brings along for one of its listeners.
    fn tenant(&self, listen: &Listen) -> Result<Tenant, ListenError> {
        let owner = self.user.map(Owner::from);
        // What relays to a port accepts from one socket.
        let relayed = (self.relay && listen.handover == Handover::Auto).then_some(self.plan.settings.workers);
        let sockets = if relayed.is_some() { 1 } else { self.plan.settings.sockets(listen) };
        if !asks_for_path(&self.plan.settings, &listen.name) {
            return Ok(Tenant { owner, sockets, relayed, path: None });
        }
        let name = || listen.name.clone();
        let scratch = self.scratch.ok_or_else(|| ListenError::NoFolder(name()))?;
        let path = scratch.join(format!("{}.sock", listen.name));
        let path: Result<SocketPath, _> = path.to_string_lossy().parse();
        let failed =
            |source| ListenError::Path { name: name(), folder: scratch.display().to_string(), source };
        Ok(Tenant { owner, sockets, relayed, path: Some(path.map_err(failed)?) })
    }
}

/// The listeners of a member: those of every release that runs in it.
#[derive(Debug)]
pub struct Listeners {
    openings: Openings,
    sharing: Sharing,
    strangers: Strangers,
    /// As many as `openings` has open.
    open: Vec<Listener>,
    /// How many sockets there must be behind those that the selector names.
    pub spares: usize,
    /// What was wrong with the last selection, until one succeeds.
    failed: Option<String>,
    /// Whom clients do not find, and why: said already.
    nameless: Vec<String>,
}

impl Listeners {
    /// Nothing is open yet.
    pub fn new(config: &Config) -> Self {
        Self {
            openings: Openings::new(config.listen.clone()),
            sharing: Sharing::default(),
            strangers: Strangers::default(),
            open: Vec::new(),
            spares: 1,
            failed: None,
            nameless: Vec::new(),
        }
    }

    /// All that are open.
    pub fn all(&self) -> impl Iterator<Item = &Listener> {
        self.open.iter()
    }

    /// Why the bootloader forwards the connections of a listener whose generations would have a socket each, if it does.
    pub fn forwarded(&self, listener: &Listener) -> Option<&str> {
        let forwarded = matches!(listener, Listener::Proxy(_)) && Listener::is_shared(listener.listen());
        self.sharing.why().filter(|_| forwarded)
    }

    /// Looks now and then for sockets at its listeners that are not ours.
    pub fn look_for_strangers(&mut self) {
        if !self.strangers.is_due() {
            return;
        }
        let place = |listener: &Listener| match listener {
            Listener::Group(group, _) => Some(Place {
                name: group.listen().name.clone(),
                address: group.listen().address.tcp()?,
                ours: group.inodes(),
            }),
            Listener::Unix(_) | Listener::Proxy(_) => None,
        };
        self.strangers.look(self.open.iter().filter_map(place).collect());
    }

    /// Whose sockets there are at a listener that are not ours.
    pub fn strangers(&self, listener: &Listener) -> Vec<String> {
        listener.listen().address.tcp().map(|address| self.strangers.at(address)).unwrap_or_default()
    }

    /// Those of the program in a slot, with what its settings say of them, in their order.
    pub fn of(&self, slot: Slot) -> Vec<(&Listen, &Listener)> {
        let listens = self.openings.of(slot).iter();
        listens.filter_map(|listen| Some((listen, self.at(&listen.address)?))).collect()
    }

    /// The one that the program in a slot calls by this name.
    pub fn named(&mut self, slot: Slot, name: &str) -> Option<&mut Listener> {
        let address = self.openings.named(slot, name)?.address.clone();
        self.at_mut(&address)
    }

    fn at(&self, address: &Address) -> Option<&Listener> {
        self.open.iter().find(|listener| listener.listen().address == *address)
    }

    fn at_mut(&mut self, address: &Address) -> Option<&mut Listener> {
        self.open.iter_mut().find(|listener| listener.listen().address == *address)
    }

    /// Gives new connections to these slots; `false` when some listener did not.
    pub fn select(&mut self, selection: Selection) -> bool {
        self.failed = None;
        let spares = self.spares;
        for (address, selection) in self.openings.select(selection) {
            let Some(listener) = self.at_mut(&address) else { continue };
            // Should it fail, the selector stays as it was: whoever serves goes on serving.
            if let Err(error) = listener.select(selection, spares) {
                let error = log::chain(&error);
                log::say(&error);
                self.failed.get_or_insert(error);
            }
        }
        self.close_unused();
        self.failed.is_none()
    }

    /// What is wrong with the selection, if anything is: nothing may be launched that could not be told apart
    /// from what serves.
    pub fn fault(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Makes a slot fit for a launch, and opens what nobody has listened on yet.
    pub fn prepare(&mut self, launching: Launching<'_>) -> Result<(), ListenError> {
        let Launching { plan, slot, user, .. } = launching;
        let wanted = self.openings.wanted(&plan.settings)?;
        let owner = user.map(Owner::from);
        for listen in &wanted {
            if self.openings.is_open(&listen.address) {
                continue;
            }
            // Clients wait at the slot that serves until the candidate is healthy.
            let mut listener = match Listener::is_shared(listen) && self.sharing.refused().is_some() {
                true => Listener::forward(listen.clone(), owner)?,
                false => Listener::open(listen.clone(), owner)?,
            };
            let waiting = Selection::of(self.openings.serving());
            listener.select(Selection { private: slot, ..waiting }, self.spares)?;
            self.open.push(listener);
            self.openings.opened(listen.clone());
        }
        self.openings.launched(slot, wanted.clone());
        for listen in &wanted {
            let Some(listener) = self.at_mut(&listen.address) else { continue };
            listener.prepare(slot, listen, launching.tenant(listen)?)?;
        }
        Ok(())
    }

    /// The program in a slot is gone. What no other one listens on is closed.
    pub fn forget(&mut self, slot: Slot) {
        self.openings.left(slot);
        self.close_unused();
        self.keep_names();
    }

    /// Makes sure that clients find the listeners at paths: anybody may remove a name. What cannot be helped is said
    /// once.
    pub fn keep_names(&mut self) {
        let failed = |listener: &mut Listener| listener.keep_name().err().map(|error| log::chain(&error));
        let nameless: Vec<String> = self.open.iter_mut().filter_map(failed).collect();
        for error in nameless.iter().filter(|error| !self.nameless.contains(error)) {
            log::say(error);
        }
        self.nameless = nameless;
    }

    fn close_unused(&mut self) {
        for address in self.openings.close_unused() {
            self.open.retain(|listener| listener.listen().address != address);
        }
    }

    /// The end of forwarding to a slot, whose program is about to be asked to stop, where anything is forwarded at
    /// all: what was sent to it before has been accepted.
    pub fn settled(
        &mut self,
        slot: Slot,
        limit: Duration,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let settled: Vec<_> =
            self.open.iter_mut().filter_map(|listener| listener.settled(slot, limit)).collect();
        if settled.is_empty() {
            return None;
        }
        Some(async move {
            for settled in settled {
                settled.await;
            }
        })
    }

    /// The queues of a slot in which clients may wait for a program that does not come any more, as far as there
    /// is another one to send them to.
    pub fn queues(&self, slot: Slot) -> Vec<Watched> {
        let served = |listener: &&Listener| self.openings.serves_at(&listener.listen().address);
        self.open.iter().filter(served).flat_map(|listener| listener.queues(slot)).collect()
    }

    /// A copy of the program in a slot has ended: others get its connections. Tells the queues in which clients may
    /// wait for it alone.
    pub fn bypass(&mut self, slot: Slot, copy: u32) -> Vec<Watched> {
        let mut queues = Vec::new();
        for listener in &mut self.open {
            match listener.bypass(slot, copy) {
                Ok(queue) => queues.extend(queue),
                // They wait for it to be launched again.
                Err(error) => log::say(log::chain(&error)),
            }
        }
        queues
    }

    /// A copy is about to be launched again.
    pub fn take_back(&mut self, slot: Slot, copy: u32) -> Result<(), ListenError> {
        Ok(self.open.iter_mut().try_for_each(|listener| listener.take_back(slot, copy))?)
    }

    /// The queues of a slot whose copies the program that was just launched in it does not have.
    pub fn vacant(&self, slot: Slot) -> Vec<Watched> {
        self.open.iter().flat_map(|listener| listener.vacant(slot)).collect()
    }

    /// Stops listening: from now on clients are refused.
    pub fn close(&mut self) {
        self.openings.close();
        self.open.clear();
    }
}
