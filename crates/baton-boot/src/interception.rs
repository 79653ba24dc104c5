//! Programs that bind their port themselves and get a generation's socket in its place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_core::ids::GenerationId;
use baton_core::passing::{Passing, Way};
use baton_core::run::{Handover, Listen};
use baton_core::supervisor::Plan;
use baton_sys::intercept::{self, Given, Interceptor, Listener, NotCopied, Refusal, Report, is_passing};
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

/// What is known of whether this system lets us do that, and of the programs for which it does not work.
///
/// For those the bootloader accepts, and relays to a private port.
#[derive(Debug, Default)]
pub struct Interception {
    /// Found out before it is needed for the first time.
    possible: Option<bool>,
    /// Shared with those who answer, each in a thread of its own.
    passing: Arc<Mutex<Passing>>,
    /// Generations whose binds are not answered any more, and why.
    lost: Arc<Mutex<BTreeMap<GenerationId, String>>>,
}

impl Interception {
    /// Why what a generation binds is not answered any more, if that is so.
    pub fn lost(&self, id: GenerationId) -> Option<String> {
        locked(&self.lost).get(&id).cloned()
    }

    /// A generation is gone.
    pub fn forget(&mut self, id: GenerationId) {
        locked(&self.lost).remove(&id);
    }

    /// Whether the bootloader has to accept for this plan's program, which is about to be launched, where its
    /// settings leave that open.
    pub fn must_relay(&mut self, plan: &Arc<Plan>) -> bool {
        if !plan.settings.listen.iter().any(is_answered) {
            return false;
        }
        let answered = self.is_possible();
        match locked(&self.passing).launch(plan, answered) {
            Way::Passed => false,
            Way::Relayed { new } => {
                if new {
                    let release = plan.release;
                    log::say(format_args!(
                        "release {release} does not take its socket: its connections are relayed to $PORT"
                    ));
                }
                true
            }
        }
    }

    /// A generation of this release serves with what it was given.
    pub fn serves(&mut self, plan: &Arc<Plan>) {
        locked(&self.passing).serves(plan);
    }

    /// Starts a program, and answers what it binds if any of its listeners wants that.
    pub fn start(
        &mut self,
        id: GenerationId,
        plan: &Arc<Plan>,
        passed: &[Passed],
        moved: &[(Listen, SocketAddr)],
        what: &Spawn<'_>,
    ) -> Result<i32, SpawnError> {
        let passed = passed.iter().map(|passed| (&passed.listen, Given::Socket(passed.socket.clone())));
        let moved = moved.iter().map(|(listen, to)| (listen, Given::Address(*to)));
        let wanted: Vec<(&Listen, Given)> =
            passed.chain(moved).filter(|(listen, _)| is_answered(listen)).collect();
        if wanted.is_empty() || !self.is_possible() {
            return spawn::spawn(what);
        }
        let (pid, notify) = match spawn::spawn_intercepted(what) {
            Err(SpawnError::CannotIntercept { source, .. }) if is_passing(&source) => {
                say_not_this_time(&source);
                return spawn::spawn(what);
            }
            Err(refused @ SpawnError::CannotIntercept { .. }) => {
                self.give_up(&refused);
                return spawn::spawn(what);
            }
            started => started?,
        };
        let names: Vec<String> = wanted.iter().map(|(listen, _)| listen.name.clone()).collect();
        let listeners = wanted
            .into_iter()
            .filter_map(|(listen, given)| {
                Some(Listener { address: listen.address.tcp()?, given, options: listen.options })
            })
            .collect();
        let (plan, passing, lost) = (plan.clone(), self.passing.clone(), self.lost.clone());
        let teller = Teller { id, names, plan, passing, lost };
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
                Err(error) if is_passing(&error.source) => say_not_this_time(&error),
                Err(error) => self.give_up(&error),
            }
        }
        self.possible == Some(true)
    }

    fn give_up(&mut self, why: &dyn std::error::Error) {
        self.possible = Some(false);
        log::say(format_args!(
            "this system does not let a bind be answered ({}): a program that does not take its socket from \
             LISTEN_FDS is relayed to, and must listen on $PORT",
            log::chain(why)
        ));
    }
}

/// Whether a program may bind this listener's address itself.
fn is_answered(listen: &Listen) -> bool {
    listen.handover == Handover::Auto && listen.address.tcp().is_some()
}

fn say_not_this_time(why: &dyn std::error::Error) {
    log::say(format_args!(
        "a bind cannot be answered this time ({}): the program must take its socket from LISTEN_FDS",
        log::chain(why)
    ));
}

/// Says what happens to the binds of one generation.
struct Teller {
    id: GenerationId,
    names: Vec<String>,
    plan: Arc<Plan>,
    passing: Arc<Mutex<Passing>>,
    lost: Arc<Mutex<BTreeMap<GenerationId, String>>>,
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Teller {
    fn tell(&self, report: &Report) {
        let name = |index: &usize| self.names.get(*index).map_or("?", String::as_str);
        let id = self.id;
        match report {
            Report::Substituted { listener, asked } => {
                log::say(format_args!("generation {id} bound {asked} and got listener {:?}", name(listener)));
            }
            Report::Moved { listener, asked } => {
                log::say(format_args!(
                    "generation {id} bound {asked} and is relayed to, for listener {:?}",
                    name(listener)
                ));
            }
            Report::OptionsNotCopied { listener, why: NotCopied::Forbidden(options) } => {
                let options = options.join(", ");
                log::say(format_args!(
                    "generation {id} set options that listener {:?} cannot have: {options}",
                    name(listener)
                ));
            }
            Report::Refused { listener, asked, why } => {
                if matches!(why, Refusal::RegisteredBeforeBind) {
                    locked(&self.passing).is_unfit(&self.plan);
                }
                log::say(format_args!(
                    "generation {id} cannot have listener {:?} for {asked}: {}",
                    name(listener),
                    refusal(why)
                ));
            }
            Report::Unjudged(error) => {
                log::say(format_args!("generation {id} bound something that cannot be seen: {error}"));
            }
            Report::Lost(error) => {
                locked(&self.lost).insert(id, error.to_string());
                log::say(format_args!(
                    "what generation {id} binds cannot be answered any more ({error}): whatever it binds from now on \
                     fails; reload to replace it"
                ));
            }
            // Containers mostly refuse it, and programs that need none never notice; or it is what they hear anyway.
            Report::OptionsNotCopied { why: NotCopied::Unreadable(_), .. }
            | Report::AlreadyOurs { .. }
            | Report::InUse { .. }
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
            "it registered its socket with epoll before it bound it; the next one is relayed to".into()
        }
        Refusal::NotMoved(error) => {
            format!("its socket cannot be bound to $PORT ({error}); let it bind $PORT itself")
        }
        Refusal::NotGiven(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use baton_core::run::RunSettings;
    use baton_core::supervisor::Running;

    use super::*;

    #[test]
    fn a_generation_whose_binds_nobody_answers_any_more_is_known_until_it_is_gone() {
        let mut interception = Interception::default();
        let settings = RunSettings::for_command(vec!["web".into()]);
        let teller = Teller {
            id: GenerationId(7),
            names: Vec::new(),
            plan: Arc::new(Plan::new(Running::Image, settings)),
            passing: interception.passing.clone(),
            lost: interception.lost.clone(),
        };
        // What answers finds a descriptor that is none to answer on.
        let (told, reports) = std::sync::mpsc::channel();
        let broken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        broken.send_to(b"a call", broken.local_addr().unwrap()).unwrap();
        Interceptor::start(broken.into(), Vec::new(), move |report| drop(told.send(report))).unwrap();
        teller.tell(&reports.recv().unwrap());
        assert!(interception.lost(GenerationId(7)).is_some() && interception.lost(GenerationId(8)).is_none());
        interception.forget(GenerationId(7));
        assert_eq!(interception.lost(GenerationId(7)), None);
    }
}
