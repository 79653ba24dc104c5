//! Where the keeper is asked: operators and the server itself go before the members, of whom thousands may speak at once.

use std::iter;

use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{self, Receiver, Sender, WeakSender};

use super::Ask;

/// What of the members may wait to be taken in. Above it, senders wait, and with them their members' streams.
pub(super) const MEMBERS_MAX: usize = 4096;
/// What of all others may wait.
const OTHERS_MAX: usize = 256;

/// Where the keeper is asked.
#[derive(Clone)]
pub(crate) struct Inbox {
    members: Sender<Ask>,
    others: Sender<Ask>,
}

/// An inbox that is not kept open by this.
pub(crate) struct WeakInbox {
    others: WeakSender<Ask>,
}

/// What was asked.
pub(crate) struct Asked {
    members: Receiver<Ask>,
    others: Receiver<Ask>,
}

/// A way to ask, and where it comes out.
pub(crate) fn inbox() -> (Inbox, Asked) {
    let ((members, of_members), (others, of_others)) =
        (mpsc::channel(MEMBERS_MAX), mpsc::channel(OTHERS_MAX));
    (Inbox { members, others }, Asked { members: of_members, others: of_others })
}

impl Inbox {
    /// Asks, once there is room.
    ///
    /// # Errors
    /// The server is stopping.
    pub(crate) async fn send(&self, ask: Ask) -> Result<(), SendError<Ask>> {
        let lane = if ask.is_of_member() { &self.members } else { &self.others };
        lane.send(ask).await
    }

    /// Whether nobody is asked any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.others.is_closed()
    }

    /// Returns when nobody is asked any more.
    pub(crate) async fn closed(&self) {
        self.others.closed().await;
    }

    pub(crate) fn downgrade(&self) -> WeakInbox {
        WeakInbox { others: self.others.downgrade() }
    }
}

impl WeakInbox {
    /// Has everything looked at again, and says whether there is still somebody to do so. Blocks until there is room.
    pub(crate) fn look_again(&self) -> bool {
        self.others.upgrade().is_some_and(|others| others.blocking_send(Ask::LookAgain).is_ok())
    }

    /// Whether anybody is asked still.
    pub(crate) fn is_open(&self) -> bool {
        self.others.upgrade().is_some_and(|others| !others.is_closed())
    }
}

impl Asked {
    /// Waits until something was asked, and takes so much of it in, members last, and not before they were `told` what there is to
    /// tell. Nothing when nobody can ask any more.
    pub(crate) async fn recv_many(
        &mut self,
        asks: &mut Vec<Ask>,
        most: usize,
        told: impl Future<Output = ()>,
    ) -> usize {
        // Where so many wait, those who are to be told are among them, and would be waited for in vain.
        let is_crowded = self.members.len() > MEMBERS_MAX / 2;
        let of_member = async {
            if !is_crowded {
                told.await;
            }
            self.members.recv().await
        };
        let first = tokio::select! {
            biased;
            Some(ask) = self.others.recv() => ask,
            Some(ask) = of_member => ask,
            else => return 0,
        };
        asks.push(first);
        asks.extend(iter::from_fn(|| self.try_recv()).take(most.saturating_sub(1)));
        asks.len()
    }

    /// The next of what was asked already, members last.
    pub(crate) fn try_recv(&mut self) -> Option<Ask> {
        self.others.try_recv().or_else(|_| self.members.try_recv()).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use baton_core::report::Standing;
    use tokio::time::timeout;

    use super::*;
    use crate::sample::report;

    #[tokio::test]
    async fn p34_an_operator_goes_before_all_members_who_have_spoken_before() {
        let (inbox, mut asked) = inbox();
        for sequence in 0..MEMBERS_MAX as u64 {
            let news = report("web-1", sequence, None, Standing::Behind);
            inbox.send(Ask::News { service: "web".parse().unwrap(), news }).await.unwrap();
        }
        let crowd =
            Ask::News { service: "web".parse().unwrap(), news: report("web-2", 1, None, Standing::Behind) };
        assert!(timeout(Duration::ZERO, inbox.send(crowd)).await.is_err(), "there is no room for members");
        timeout(Duration::from_secs(60), inbox.send(Ask::LookAgain)).await.unwrap().unwrap();
        let mut asks = Vec::new();
        assert_eq!(asked.recv_many(&mut asks, 3, ready(())).await, 3);
        assert!(matches!(asks[..], [Ask::LookAgain, Ask::News { .. }, Ask::News { .. }]));
        drop(inbox);
        let mut rest = Vec::new();
        assert_eq!(
            asked.recv_many(&mut rest, usize::MAX, ready(())).await,
            MEMBERS_MAX - 2,
            "nothing is lost"
        );
        assert_eq!(asked.recv_many(&mut rest, 1, ready(())).await, 0, "it is over");
    }

    #[tokio::test]
    async fn p34_members_are_not_heard_before_they_were_told_and_an_operator_is() {
        let (inbox, mut asked) = inbox();
        let news = || report("web-1", 1, None, Standing::Behind);
        inbox.send(Ask::News { service: "web".parse().unwrap(), news: news() }).await.unwrap();
        let mut asks = Vec::new();
        let heard = timeout(Duration::ZERO, asked.recv_many(&mut asks, 3, pending())).await;
        assert!(heard.is_err() && asks.is_empty());
        inbox.send(Ask::LookAgain).await.unwrap();
        assert_eq!(asked.recv_many(&mut asks, 3, pending()).await, 2);
        inbox.send(Ask::News { service: "web".parse().unwrap(), news: news() }).await.unwrap();
        assert_eq!(asked.recv_many(&mut Vec::new(), 3, ready(())).await, 1);
    }
}
