//! Where this member listens.

use baton_core::run::Listen;
use baton_core::supervisor::{Plan, Slot};

use crate::config::Config;
use crate::group::GroupError;
use crate::listener::Listener;
use crate::log;

/// Why a release cannot listen here.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Sockets are opened once, and handed from one generation to the next.
    #[error("this release listens on {wanted}, and this member on {have}; start a new member for it")]
    Other {
        /// What the release asks for.
        wanted: String,
        /// What is open.
        have: String,
    },
    /// The member was told where to have a listener that the release does not know.
    #[error("BATON_LISTEN names a listener {0:?}, and this release has none of that name")]
    Unknown(String),
    /// The kernel refused.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// The listeners of a member, opened with its first launch.
#[derive(Debug)]
pub struct Listeners {
    /// Where this member listens instead of what its releases say, by name.
    moved: Vec<(String, std::net::SocketAddr)>,
    /// `None` until the first launch; a worker's are empty.
    all: Option<Vec<Listener>>,
    /// How many sockets there must be behind those that the selector names.
    pub spares: usize,
    /// What was wrong with the last selection, until one succeeds.
    failed: Option<String>,
}

impl Listeners {
    /// Nothing is open yet.
    pub fn new(config: &Config) -> Self {
        Self { moved: config.listen.clone(), all: None, spares: 1, failed: None }
    }

    /// Them, in the order of the settings.
    pub fn all(&self) -> &[Listener] {
        self.all.as_deref().unwrap_or_default()
    }

    /// The one with this name.
    pub fn named(&mut self, name: &str) -> Option<&mut Listener> {
        self.all.iter_mut().flatten().find(|listener| listener.listen().name == name)
    }

    /// Gives new connections to one slot and private ones to another; `false` when some listener did not.
    pub fn select(&mut self, serving: Slot, private: Slot) -> bool {
        let spares = self.spares;
        self.failed = None;
        for listener in self.all.iter_mut().flatten() {
            // The selector stays as it was: whoever serves goes on serving.
            if let Err(error) = listener.select(serving, private, spares) {
                let error = log::chain(&error);
                log::say(&error);
                self.failed.get_or_insert(error);
            }
        }
        self.failed.is_none()
    }

    /// What is wrong with the selection, if anything is: nothing may be launched that could not be told apart
    /// from what serves.
    pub fn fault(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Makes a slot fit for a launch of this plan. The first one opens the listeners; later ones must have
    /// the same.
    pub fn prepare(&mut self, plan: &Plan, slot: Slot) -> Result<(), ListenError> {
        let known = |name: &str| plan.settings.listen.iter().any(|listen| listen.name == name);
        if let Some((name, _)) = self.moved.iter().find(|(name, _)| !known(name)) {
            return Err(ListenError::Unknown(name.clone()));
        }
        let wanted: Vec<Listen> = plan.settings.listen.iter().map(|listen| self.here(listen)).collect();
        match &self.all {
            None => {
                let open = |listen| Listener::open(listen, slot, self.spares);
                self.all = Some(wanted.into_iter().map(open).collect::<Result<_, _>>()?);
            }
            Some(all) if all.iter().map(Listener::listen).eq(wanted.iter()) => {}
            Some(all) => {
                let have = names(all.iter().map(Listener::listen));
                return Err(ListenError::Other { wanted: names(wanted.iter()), have });
            }
        }
        for listener in self.all.iter_mut().flatten() {
            listener.prepare(slot)?;
        }
        Ok(())
    }

    /// A listener as this member has it.
    fn here(&self, listen: &Listen) -> Listen {
        let moved = self.moved.iter().find(|(name, _)| *name == listen.name);
        Listen { address: moved.map_or(listen.address, |(_, address)| *address), ..listen.clone() }
    }

    /// The end of forwarding to a slot, where anything is forwarded at all: what was sent to its program before
    /// has been accepted.
    pub fn settled(&self, slot: Slot) -> Option<impl Future<Output = ()> + Send + 'static> {
        let settled: Vec<_> = self.all().iter().filter_map(|listener| listener.settled(slot)).collect();
        let wait = || async move {
            for settled in settled {
                settled.await;
            }
        };
        (!self.all().iter().all(|listener| listener.listen().handover.passes_socket())).then(wait)
    }

    /// Stops listening: from now on clients are refused.
    pub fn close(&mut self) {
        self.all = Some(Vec::new());
    }
}

fn names<'a>(listens: impl Iterator<Item = &'a Listen>) -> String {
    let all: Vec<String> = listens.map(|listen| format!("{}={}", listen.name, listen.address)).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}
