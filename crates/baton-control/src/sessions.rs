//! The members that are connected, and what they were told last.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use baton_core::ids::{MemberId, ServiceName};
use baton_core::units::Millis;
use baton_wire::session::{Farewell, Hello, Reason, ToMember};
use rpds::RedBlackTreeMapSync;

use crate::outgoing::{Order, Outgoing, Untaken, end};

/// When an order is said again to a member whose reports do not show it yet: well above what a report takes,
/// well below what a person notices.
const REPEAT: Millis = Millis::from_secs(2);

/// What the members of each service know each other by, in this life of the server.
#[derive(Clone)]
pub(crate) struct PeerKey([u8; blake3::KEY_LEN]);

impl PeerKey {
    /// One that nobody else has.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; blake3::KEY_LEN];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    fn of(&self, service: &ServiceName) -> [u8; blake3::OUT_LEN] {
        *blake3::keyed_hash(&self.0, service.as_str().as_bytes()).as_bytes()
    }
}

/// Who said hello, by name. A copy costs nothing.
pub(crate) type Hellos = RedBlackTreeMapSync<MemberId, Arc<Hello>>;

/// The connected members of one service.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<MemberId, Session>,
    hellos: Hellos,
    untaken: Untaken,
}

#[derive(Debug)]
struct Session {
    /// Which life of the member it is.
    life: u64,
    out: Outgoing,
    told: Option<(ToMember, Millis)>,
}

impl Session {
    fn tell(&mut self, now: Millis, order: Option<ToMember>, untaken: &Untaken) {
        let Some(order) = order else { return };
        let just_said = |(told, at): &(ToMember, Millis)| *told == order && now.since(*at) < REPEAT;
        if self.told.as_ref().is_some_and(just_said) {
            return;
        }
        // A full queue is a member that does not listen; it is told again later.
        if untaken.send(&self.out, &order) {
            self.told = Some((order, now));
        }
    }
}

impl Sessions {
    /// A member has connected. An earlier session of it ends: the member has given it up, or soon will. Of two
    /// processes with one name the one that started last is the member, as after a restart.
    ///
    /// One that gives others what it has is told the key by which the members of its service know each other.
    pub(crate) fn open(&mut self, hello: Hello, out: Outgoing, key: &PeerKey) {
        let (member, life) = (hello.member.clone(), hello.life);
        let known = self.open.get(&member).filter(|session| !session.out.is_closed());
        match known.map(|session| (session.life.cmp(&life), &session.out)) {
            Some((Ordering::Greater, _)) => return end(&out, twin(&member)),
            Some((Ordering::Less, earlier)) => end(earlier, twin(&member)),
            Some((Ordering::Equal, _)) | None => {}
        }
        if hello.peer.is_some() {
            // Nothing was said yet: there is room.
            let _ = out.try_send(Order::say(&ToMember::PeerKey(key.of(&hello.service))));
        }
        self.hellos.insert_mut(member.clone(), Arc::new(hello));
        self.open.insert(member, Session { life, out, told: None });
    }

    /// Ends the session of a member whose word does not count, so that it begins anew: `later`, because a later life
    /// of it was heard, else because nothing is known of it any more.
    pub(crate) fn end(&mut self, member: &MemberId, life: u64, later: bool) {
        if self.open.get(member).is_some_and(|session| session.life == life)
            && let Some(session) = self.open.remove(member)
        {
            let unknown =
                || Farewell::new(Reason::ANEW, "this member is not known any more: it has to report anew");
            end(&session.out, if later { twin(member) } else { unknown() });
        }
    }

    /// Forgets sessions that have ended. That alone says nothing about the members.
    pub(crate) fn sweep(&mut self) {
        self.open.retain(|_, session| !session.out.is_closed());
    }

    /// Forgets what members said of themselves that the fleet does not know any more.
    pub(crate) fn keep_hellos(&mut self, known: impl Fn(&MemberId) -> bool) {
        let stale = |id: &&MemberId| !self.open.contains_key(id) && !known(id);
        for id in self.hellos.keys().filter(stale).cloned().collect::<Vec<_>>() {
            self.hellos.remove_mut(&id);
        }
    }

    /// Tells everybody what there is to tell, unless it was just said.
    pub(crate) fn tell(&mut self, now: Millis, order: impl Fn(&MemberId) -> Option<ToMember>) {
        for (id, session) in &mut self.open {
            session.tell(now, order(id), &self.untaken);
        }
    }

    /// Tells these what there is to tell them.
    pub(crate) fn tell_some<'a>(
        &mut self,
        whom: impl IntoIterator<Item = &'a MemberId>,
        now: Millis,
        order: impl Fn(&MemberId) -> Option<ToMember>,
    ) {
        for id in whom {
            if let Some(session) = self.open.get_mut(id) {
                session.tell(now, order(id), &self.untaken);
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn hellos(&self) -> Hellos {
        self.hellos.clone()
    }
}

fn twin(member: &MemberId) -> Farewell {
    Farewell::new(
        Reason::TWIN,
        format!(
            "another process calls itself {member}, and was started later: each needs its own BATON_MEMBER"
        ),
    )
}

/// The sessions of all services.
#[derive(Debug, Default)]
pub(crate) struct AllSessions {
    sessions: BTreeMap<ServiceName, Sessions>,
    untaken: Untaken,
}

impl AllSessions {
    pub(crate) fn of(&mut self, service: &ServiceName) -> &mut Sessions {
        let new = || Sessions { untaken: self.untaken.clone(), ..Sessions::default() };
        self.sessions.entry(service.clone()).or_insert_with(new)
    }

    pub(crate) fn knows(&self, service: &ServiceName) -> bool {
        self.sessions.get(service).is_some_and(|sessions| sessions.count() > 0)
    }

    pub(crate) fn sweep(&mut self) {
        self.sessions.values_mut().for_each(Sessions::sweep);
    }

    /// What no session has taken.
    pub(crate) fn untaken(&self) -> Untaken {
        self.untaken.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use baton_core::ids::DeployId;
    use tokio::sync::mpsc::{Receiver, channel};
    use tokio::time::timeout;

    type Heard = Receiver<Order>;

    fn open(sessions: &mut Sessions, life: u64) -> Heard {
        open_peer(sessions, "web", life, None, &PeerKey([0; blake3::KEY_LEN]))
    }

    fn open_peer(
        sessions: &mut Sessions,
        service: &str,
        life: u64,
        peer: Option<&str>,
        key: &PeerKey,
    ) -> Heard {
        let (out, heard) = channel(4);
        let hello = Hello {
            member: "web-1".parse().unwrap(),
            service: service.parse().unwrap(),
            version: String::new(),
            listens: Vec::new(),
            life,
            peer: peer.map(|peer| peer.parse().unwrap()),
        };
        sessions.open(hello, out, key);
        heard
    }

    #[test]
    fn members_that_give_others_what_they_have_are_told_the_key_of_their_service_and_no_others_are() {
        let keys = [(); 2].map(|()| PeerKey::new().unwrap());
        let told = |service, peer, key| {
            let mut heard = open_peer(&mut Sessions::default(), service, 1, peer, key);
            heard.try_recv().ok().map(|order| ToMember::from_wire(order.take().unwrap()).unwrap().unwrap())
        };
        let here = Some("10.0.0.7:7401");
        assert_eq!(told("web", None, &keys[0]), None);
        let key = told("web", here, &keys[0]);
        assert!(matches!(key, Some(ToMember::PeerKey(_))), "{key:?}");
        assert_eq!(key, told("web", here, &keys[0]));
        assert_ne!(key, told("api", here, &keys[0]), "another service has another one");
        assert_ne!(key, told("web", here, &keys[1]), "and so has another life of control");
    }

    /// Whether the session has ended, and with which reason.
    fn ended(heard: &mut Heard) -> Option<Option<Reason>> {
        let reason =
            heard.try_recv().ok().and_then(|order| order.take().err()).map(|farewell| farewell.reason);
        heard.is_closed().then_some(reason)
    }

    #[test]
    fn of_two_processes_with_one_name_the_later_one_is_the_member_and_the_other_is_told() {
        let mut sessions = Sessions::default();
        let (mut first, mut second) = (open(&mut sessions, 1), open(&mut sessions, 2));
        assert_eq!(ended(&mut first), Some(Some(Reason::TWIN)));
        let mut first = open(&mut sessions, 1);
        assert_eq!(ended(&mut first), Some(Some(Reason::TWIN)));
        assert_eq!(ended(&mut second), None);
        let mut again = open(&mut sessions, 2);
        assert_eq!(ended(&mut second), Some(None), "its own next session is no other process");
        again.close();
        sessions.sweep();
        let mut first = open(&mut sessions, 1);
        assert_eq!(ended(&mut first), None);
    }

    #[test]
    fn a_session_whose_word_does_not_count_is_ended_and_its_successor_is_not() {
        let mut sessions = Sessions::default();
        let (_, mut second) = (open(&mut sessions, 1), open(&mut sessions, 2));
        let member = "web-1".parse().unwrap();
        sessions.end(&member, 1, true);
        assert_eq!(ended(&mut second), None);
        sessions.end(&member, 2, false);
        assert_eq!(ended(&mut second), Some(Some(Reason::ANEW)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_members_of_any_service_are_told_is_waited_for() {
        let mut all = AllSessions::default();
        let sessions = all.of(&"web".parse().unwrap());
        let mut heard = open(sessions, 1);
        let deploy = DeployId::from_bytes([1; 16]);
        sessions.tell(Millis::ZERO, |_| Some(ToMember::HandBack { deploy }));
        let untaken = all.untaken();
        let is_none = async || timeout(Duration::ZERO, untaken.none(Duration::from_secs(60))).await.is_ok();
        assert!(!is_none().await);
        assert!(heard.try_recv().unwrap().take().is_ok());
        assert!(is_none().await);
    }
}
