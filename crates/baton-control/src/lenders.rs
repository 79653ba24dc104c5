//! The members that are connected here, as those who may have on their disks what the artefact store has lost.
//!
//! Each is asked for one thing at a time, in its session, and answers in parts, between which all else is said.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::ids::{ChunkId, MemberId, ReleaseId, ServiceName};
use baton_release::lending::LENT_BYTES_MAX;
use baton_wire::session::{ContentLent, ContentWanted, Hello, ToMember};
use baton_wire::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long an answer may take: the longest that members give comes in it at 100 kB/s.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// In how many parts an answer may come: in several times as many as it takes.
const PARTS_MAX: u32 = 512;

/// A member, and of which service it is.
pub(crate) type Who = (ServiceName, MemberId);

/// Those who are connected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lenders(Arc<Mutex<BTreeMap<Who, mpsc::Sender<Question>>>>);

/// What a member is asked for.
#[derive(Debug)]
struct Question {
    release: ReleaseId,
    /// None where it is asked how the release begins.
    chunks: Vec<ChunkId>,
    answer: oneshot::Sender<Vec<u8>>,
}

impl Lenders {
    /// A member has connected. It can be asked as long as what is returned lives.
    pub(crate) fn join(&self, hello: &Hello) -> Lending {
        let who = (hello.service.clone(), hello.member.clone());
        let (ask, questions) = mpsc::channel(1);
        self.lock().insert(who.clone(), ask.clone());
        Lending { all: self.clone(), who, ask, questions, asked: 0, open: None }
    }

    /// Whether a member is connected.
    pub(crate) fn has(&self, who: &Who) -> bool {
        self.lock().contains_key(who)
    }

    /// Asks a member for these chunks of a release, or how it begins; else why there is no answer.
    pub(crate) async fn ask(
        &self,
        who: &Who,
        release: ReleaseId,
        chunks: Vec<ChunkId>,
    ) -> Result<Vec<u8>, String> {
        let gone = || "it is not connected any more".to_owned();
        let ask = self.lock().get(who).cloned().ok_or_else(gone)?;
        let (answer, answered) = oneshot::channel();
        let asked = async {
            ask.send(Question { release, chunks, answer }).await.map_err(|_| gone())?;
            answered.await.map_err(|_| "its session has ended, or it says more than it may".to_owned())
        };
        let late = |_| {
            let limit = ANSWER_MAX.as_secs();
            Err(format!(
                "it gives no answer within {limit} s: it is slow, or its bootloader is older than this server"
            ))
        };
        timeout(ANSWER_MAX, asked).await.unwrap_or_else(late)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Who, mpsc::Sender<Question>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's part in it.
pub(crate) struct Lending {
    all: Lenders,
    who: Who,
    /// One end is here, so that there always is one.
    ask: mpsc::Sender<Question>,
    questions: mpsc::Receiver<Question>,
    /// How many questions there were.
    asked: u64,
    open: Option<Open>,
}

/// A question that is being answered.
struct Open {
    question: u64,
    heard: Vec<u8>,
    parts_left: u32,
    answer: oneshot::Sender<Vec<u8>>,
}

impl Lending {
    /// What the member is to be asked next; never, where nobody wants anything. Nothing is lost where this is given up before it
    /// returns.
    pub(crate) async fn next(&mut self) -> ToMember {
        loop {
            let Some(Question { release, chunks, answer }) = self.questions.recv().await else {
                pending::<()>().await;
                continue;
            };
            // Whoever has waited for long enough does not hear the answer.
            if !answer.is_closed() {
                self.asked += 1;
                let question = self.asked;
                self.open = Some(Open { question, heard: Vec::new(), parts_left: PARTS_MAX, answer });
                return ToMember::ContentWanted(ContentWanted { question, release, chunks });
            }
        }
    }

    /// Whether a message is a part of the answer that somebody waits for: the member says it because it was asked.
    pub(crate) fn awaits(&self, message: &v1::FromMember) -> bool {
        let Some(v1::from_member::Message::ContentLent(lent)) = &message.message else { return false };
        self.open.as_ref().is_some_and(|open| open.question == lent.question)
    }

    /// Takes in a part of an answer. One that nobody waits for any more is passed over, and so is the rest of one that is too long.
    pub(crate) fn take(&mut self, ContentLent { question, part, is_last }: ContentLent) {
        let Some(mut open) = self.open.take_if(|open| open.question == question) else { return };
        if open.heard.len() + part.len() > LENT_BYTES_MAX || open.parts_left == 0 {
            return;
        }
        open.heard.extend(part);
        open.parts_left -= 1;
        if is_last {
            // Nobody may wait any more.
            let _ = open.answer.send(open.heard);
        } else {
            self.open = Some(open);
        }
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        // A later session of the member may have taken its place.
        if all.get(&self.who).is_some_and(|ask| ask.same_channel(&self.ask)) {
            all.remove(&self.who);
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_wire::session::FromMember;
    use tokio::time::advance;

    use super::*;

    const RELEASE: ReleaseId = ReleaseId::from_bytes([7; 32]);

    fn hello() -> Hello {
        Hello {
            member: "web-1".parse().unwrap(),
            service: "web".parse().unwrap(),
            version: "1".to_owned(),
            listens: Vec::new(),
            life: 1,
            peer: None,
        }
    }

    fn who() -> Who {
        ("web".parse().unwrap(), "web-1".parse().unwrap())
    }

    fn lent(question: u64, part: &[u8], is_last: bool) -> ContentLent {
        ContentLent { question, part: part.to_vec(), is_last }
    }

    /// What is answered to a question, of which `say` makes the parts.
    async fn asked(
        lending: &mut Lending,
        say: impl FnOnce(u64) -> Vec<ContentLent>,
    ) -> Result<Vec<u8>, String> {
        let all = lending.all.clone();
        let answer = tokio::spawn(async move { all.ask(&who(), RELEASE, vec![ChunkId::of(b"one")]).await });
        let ToMember::ContentWanted(ContentWanted { question, release, chunks }) = lending.next().await
        else {
            panic!("something else is asked");
        };
        assert_eq!((release, chunks), (RELEASE, vec![ChunkId::of(b"one")]));
        for part in say(question) {
            let message = FromMember::ContentLent(part.clone()).to_wire();
            assert_eq!(lending.awaits(&message), part.question == question && lending.open.is_some());
            lending.take(part);
        }
        answer.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_put_together_from_its_parts_and_parts_of_others_are_passed_over() {
        let lenders = Lenders::default();
        let mut lending = lenders.join(&hello());
        let answer = asked(&mut lending, |question| {
            let part = |part, last| lent(question, part, last);
            vec![
                part(b"one ", false),
                lent(question + 1, b"else ", true),
                part(b"two", false),
                part(b"", true),
            ]
        });
        assert_eq!(answer.await.unwrap(), b"one two");
        let late = asked(&mut lending, |question| {
            vec![lent(question - 1, b"of before", true), lent(question, b"now", true)]
        });
        assert_eq!(late.await.unwrap(), b"now");
    }

    #[tokio::test(start_paused = true)]
    async fn p27_who_says_more_than_it_may_is_given_up_and_nothing_of_it_is_kept() {
        let lenders = Lenders::default();
        let mut lending = lenders.join(&hello());
        let half = vec![0; LENT_BYTES_MAX / 2 + 1];
        let long =
            asked(&mut lending, |question| vec![lent(question, &half, false), lent(question, &half, true)]);
        assert!(long.await.unwrap_err().contains("more than it may"));
        let parts = asked(&mut lending, |question| vec![lent(question, b"", false); PARTS_MAX as usize + 1]);
        assert!(parts.await.unwrap_err().contains("more than it may"));
        assert!(lending.open.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_or_is_gone_is_told_apart() {
        let lenders = Lenders::default();
        let mut lending = lenders.join(&hello());
        let all = lenders.clone();
        let silent = tokio::spawn(async move { all.ask(&who(), RELEASE, Vec::new()).await });
        lending.next().await;
        advance(ANSWER_MAX).await;
        assert!(silent.await.unwrap().unwrap_err().contains("no answer within 30 s"));
        // A later session of the member takes the place of this one, and keeps it.
        let later = lenders.join(&hello());
        drop(lending);
        assert!(lenders.has(&who()));
        drop(later);
        assert!(!lenders.has(&who()));
        let gone = lenders.ask(&who(), RELEASE, Vec::new()).await;
        assert_eq!(gone.unwrap_err(), "it is not connected any more");
    }
}
