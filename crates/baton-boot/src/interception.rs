//! Programs that bind their port themselves and get a generation's socket in its place.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use baton_core::ids::GenerationId;
use baton_core::run::{Handover, Listen};
use baton_sys::intercept::{self, Interceptor, Listener, NotCopied, Refusal, Report};
use baton_sys::spawn::{self, Spawn, SpawnError};

use crate::log;

/// A socket that a program is given.
#[derive(Debug, Clone)]
pub struct Passed {
    /// Whose it is.
    pub listen: Listen,
    /// The socket of the program's slot.
    pub socket: Arc<OwnedFd>,
}

/// What is known of whether this system lets us do that.
#[derive(Debug, Default)]
pub struct Interception {
    /// Found out before it is needed for the first time.
    possible: Option<bool>,
}

impl Interception {
    /// Starts a program, and answers what it binds if any of its listeners wants that.
    pub fn start(
        &mut self,
        id: GenerationId,
        passed: &[Passed],
        what: &Spawn<'_>,
    ) -> Result<i32, SpawnError> {
        let wanted: Vec<Passed> =
            passed.iter().filter(|passed| passed.listen.handover == Handover::Auto).cloned().collect();
        if wanted.is_empty() || !self.is_possible() {
            return spawn::spawn(what);
        }
        let (pid, notify) = match spawn::spawn_intercepted(what) {
            Err(refused @ SpawnError::CannotIntercept { .. }) => {
                self.give_up(&refused);
                return spawn::spawn(what);
            }
            started => started?,
        };
        let names: Vec<String> = wanted.iter().map(|passed| passed.listen.name.clone()).collect();
        let listeners = wanted
            .into_iter()
            .map(|passed| Listener { address: passed.listen.address, socket: passed.socket })
            .collect();
        let teller = Teller { id, names };
        match Interceptor::start(notify, listeners, move |report| teller.tell(&report)) {
            // It goes on by itself until the last process of the program has ended.
            Ok(_) => {}
            // Its next bind fails, and so does the program: that is seen like any other failure.
            Err(error) => log::say(format_args!("cannot answer what generation {id} binds: {error}")),
        }
        Ok(pid)
    }

    fn is_possible(&mut self) -> bool {
        if self.possible.is_none() {
            match intercept::probe() {
                Ok(()) => self.possible = Some(true),
                Err(error) => self.give_up(&error),
            }
        }
        self.possible == Some(true)
    }

    fn give_up(&mut self, why: &dyn std::error::Error) {
        self.possible = Some(false);
        log::say(format_args!(
            "this system does not let a bind be answered ({}): the program must take its socket from LISTEN_FDS, \
             or be proxied (handover = \"proxy\", and listen on $PORT)",
            log::chain(why)
        ));
    }
}

/// Says what happens to the binds of one generation.
struct Teller {
    id: GenerationId,
    names: Vec<String>,
}

impl Teller {
    fn tell(&self, report: &Report) {
        let name = |index: &usize| self.names.get(*index).map_or("?", String::as_str);
        let id = self.id;
        match report {
            Report::Substituted { listener, asked } => {
                log::say(format_args!("generation {id} bound {asked} and got listener {:?}", name(listener)));
            }
            Report::OptionsNotCopied { listener, why: NotCopied::Forbidden(options) } => {
                let options = options.join(", ");
                log::say(format_args!(
                    "generation {id} set options that listener {:?} cannot have: {options}",
                    name(listener)
                ));
            }
            Report::Refused { listener, asked, why } => log::say(format_args!(
                "generation {id} cannot have listener {:?} for {asked}: {}",
                name(listener),
                refusal(why)
            )),
            Report::Unjudged(error) => {
                log::say(format_args!("generation {id} bound something that cannot be seen: {error}"));
            }
            Report::Lost(error) => log::say(format_args!(
                "what generation {id} binds cannot be answered any more ({error}); it should be replaced"
            )),
            // Containers mostly refuse it, and programs that need none never notice.
            Report::OptionsNotCopied { why: NotCopied::Unreadable(_), .. }
            | Report::AlreadyOurs { .. }
            | Report::Gone => {}
        }
    }
}

fn refusal(why: &Refusal) -> String {
    match why {
        Refusal::OtherFamily => {
            "it opened an IPv4 socket, and the listener is an IPv6 one; write an IPv4 address for the listener".into()
        }
        Refusal::RegisteredBeforeBind => {
            "it registered its socket with epoll before it bound it; write handover = \"proxy\"".into()
        }
        Refusal::NotGiven(error) => error.to_string(),
    }
}
