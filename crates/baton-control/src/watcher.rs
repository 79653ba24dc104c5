//! Whoever watches a state store that other servers write to, and tells the keeper to look again.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use baton_store::state::StateStore;
use tokio::sync::oneshot;

use crate::access::Access;
use crate::keeper::WeakInbox;

/// How long one wait takes at most: after it, it is seen whether the server has stopped.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long it waits after a failure. The keeper says what failed.
const RETRY: Duration = Duration::from_millis(500);

/// A watch that has not begun.
pub(crate) struct Watcher {
    store: Arc<dyn StateStore>,
    /// Who may do what, where that is in the store too.
    access: Option<Arc<Access>>,
}

/// What was told last.
#[derive(Default)]
struct Told {
    /// Why the list of tokens cannot be used.
    list: Option<String>,
    /// Which authority the servers have agreed on.
    authority: Option<String>,
}

impl Watcher {
    pub(crate) const fn new(store: Arc<dyn StateStore>, access: Option<Arc<Access>>) -> Self {
        Self { store, access }
    }

    /// Begins. It ends when the keeper has ended, or, where this server asks nobody who they are, as soon as the others do:
    /// `closes` tells that.
    pub(crate) fn start(self, inbox: WeakInbox, closes: oneshot::Sender<()>) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("watcher".to_owned()).spawn(move || self.run(&inbox, closes))
    }

    fn run(self, inbox: &WeakInbox, closes: oneshot::Sender<()>) {
        let (mut seen, mut told) = (0, Told::default());
        while inbox.is_open() {
            let changed = self.store.changed(seen, WAIT_MAX);
            // Also where nothing is told to have changed: what is known here may not be there any more.
            if changed.is_ok() {
                self.refresh(&mut told);
                if self.access.is_none() && self.store.access().is_ok_and(|list| list.is_some()) {
                    // Whoever does not listen any more stops anyway.
                    let _ = closes.send(());
                    return;
                }
            }
            match changed {
                Ok(version) if version == seen => {}
                Ok(version) => {
                    seen = version;
                    if !inbox.look_again() {
                        return;
                    }
                }
                Err(_) => thread::park_timeout(RETRY),
            }
        }
    }

    /// Takes in who may do what. Each trouble is told once.
    fn refresh(&self, told: &mut Told) {
        let Some(access) = &self.access else { return };
        let found = access.refresh().err();
        if told.list != found {
            match &found {
                Some(why) => eprintln!("baton server: {why}; what was known of tokens counts meanwhile"),
                None => eprintln!("baton server: the list of tokens can be used again"),
            }
            told.list = found;
        }
        let other = access.other_authority();
        if told.authority != other {
            if let Some(what) = &other {
                eprintln!("baton server: {what}");
            }
            told.authority = other;
        }
    }
}
