//! The members that are connected, and what they were told last.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_core::ids::{MemberId, ServiceName};
use baton_core::units::Millis;
use baton_wire::session::{Hello, ToMember};
use baton_wire::v1;
use tokio::sync::mpsc::Sender;
use tonic::Status;

/// When an order is said again to a member whose reports do not show it yet: well above what a report takes,
/// well below what a person notices.
const REPEAT: Millis = Millis::from_secs(2);

/// Where a session's orders go.
pub(crate) type Outgoing = Sender<Result<v1::ToMember, Status>>;

/// Who said hello, by name.
pub(crate) type Hellos = Arc<BTreeMap<MemberId, Arc<Hello>>>;

/// The connected members of one service.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<MemberId, Session>,
    hellos: Hellos,
}

#[derive(Debug)]
struct Session {
    out: Outgoing,
    told: Option<(ToMember, Millis)>,
}

impl Sessions {
    /// A member has connected. An earlier session of it ends: the member has given it up, or soon will.
    pub(crate) fn open(&mut self, hello: Hello, out: Outgoing) {
        let member = hello.member.clone();
        Arc::make_mut(&mut self.hellos).insert(member.clone(), Arc::new(hello));
        self.open.insert(member, Session { out, told: None });
    }

    /// Forgets sessions that have ended. That alone says nothing about the members.
    pub(crate) fn sweep(&mut self) {
        self.open.retain(|_, session| !session.out.is_closed());
    }

    /// Forgets what members said of themselves that the fleet does not know any more.
    pub(crate) fn keep_hellos(&mut self, known: impl Fn(&MemberId) -> bool) {
        let stale = |id: &MemberId| !self.open.contains_key(id) && !known(id);
        if self.hellos.keys().any(stale) {
            let open = &self.open;
            Arc::make_mut(&mut self.hellos).retain(|id, _| open.contains_key(id) || known(id));
        }
    }

    /// Tells everybody what there is to tell, unless it was just said.
    pub(crate) fn tell(&mut self, now: Millis, order: impl Fn(&MemberId) -> Option<ToMember>) {
        for (id, session) in &mut self.open {
            let Some(order) = order(id) else { continue };
            let just_said = |(told, at): &(ToMember, Millis)| *told == order && now.since(*at) < REPEAT;
            if session.told.as_ref().is_some_and(just_said) {
                continue;
            }
            // A full queue is a member that does not listen; it is told again later.
            if session.out.try_send(Ok(order.to_wire())).is_ok() {
                session.told = Some((order, now));
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn hellos(&self) -> Hellos {
        Arc::clone(&self.hellos)
    }
}

/// The sessions of all services.
#[derive(Debug, Default)]
pub(crate) struct AllSessions(BTreeMap<ServiceName, Sessions>);

impl AllSessions {
    pub(crate) fn of(&mut self, service: &ServiceName) -> &mut Sessions {
        self.0.entry(service.clone()).or_default()
    }

    pub(crate) fn knows(&self, service: &ServiceName) -> bool {
        self.0.get(service).is_some_and(|sessions| sessions.count() > 0)
    }

    pub(crate) fn sweep(&mut self) {
        self.0.values_mut().for_each(Sessions::sweep);
    }
}
