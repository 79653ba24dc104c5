//! What goes out in a session, and whether all of it has been taken.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_wire::session::{Farewell, ToMember};
use baton_wire::v1;
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, timeout_at};

/// Where a session's orders go.
pub(crate) type Outgoing = Sender<Order>;

/// What goes there: something to say, or the last word.
#[derive(Debug)]
pub(crate) struct Order {
    what: Result<v1::ToMember, Farewell>,
    /// None where nobody waits for it.
    _on_its_way: Option<OnItsWay>,
}

impl Order {
    /// Something to say that nobody waits for.
    pub(crate) fn say(order: &ToMember) -> Self {
        Self { what: Ok(order.to_wire()), _on_its_way: None }
    }

    fn end(farewell: Farewell) -> Self {
        Self { what: Err(farewell), _on_its_way: None }
    }

    /// Takes it, to be said now.
    pub(crate) fn take(self) -> Result<v1::ToMember, Farewell> {
        self.what
    }
}

/// How many orders there are that no session has taken. What there is to tell goes before what there is to hear: where thousands
/// answer at once, the last of them would be told late.
#[derive(Debug, Clone, Default)]
pub(crate) struct Untaken(Arc<Way>);

#[derive(Debug, Default)]
struct Way {
    count: AtomicUsize,
    /// When the last one was sent.
    sent: Mutex<Option<Instant>>,
    none: Notify,
}

impl Untaken {
    /// Says something in a session. False when that does not listen: its queue is full.
    pub(crate) fn send(&self, out: &Outgoing, order: &ToMember) -> bool {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        let said = Order { what: Ok(order.to_wire()), _on_its_way: Some(OnItsWay(self.clone())) };
        let is_sent = out.try_send(said).is_ok();
        if is_sent {
            *self.0.sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        is_sent
    }

    /// Returns once there is none, or this long after the last one was sent: one that does not take its order delays the others no
    /// longer.
    pub(crate) async fn none(&self, limit: Duration) {
        let Some(sent) = *self.0.sent.lock().unwrap_or_else(PoisonError::into_inner) else { return };
        let none = async {
            loop {
                let fewer = self.0.none.notified();
                if self.0.count.load(Ordering::Relaxed) == 0 {
                    return;
                }
                fewer.await;
            }
        };
        let _ = timeout_at(sent + limit, none).await;
    }
}

/// One of those.
#[derive(Debug)]
struct OnItsWay(Untaken);

impl Drop for OnItsWay {
    fn drop(&mut self) {
        let way = &*self.0.0;
        if way.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            way.none.notify_one();
        }
    }
}

/// Ends a session with the reason. When the queue is full, nobody is there to read it.
pub(crate) fn end(out: &Outgoing, farewell: Farewell) {
    let _ = out.try_send(Order::end(farewell));
}

#[cfg(test)]
mod tests {
    use baton_core::ids::DeployId;
    use tokio::sync::mpsc::channel;
    use tokio::time::{advance, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    #[tokio::test(start_paused = true)]
    async fn it_is_known_when_all_have_taken_what_they_are_told_or_are_gone() {
        let untaken = Untaken::default();
        let order = ToMember::HandBack { deploy: DeployId::from_bytes([1; 16]) };
        let is_none = async || timeout(Duration::ZERO, untaken.none(LIMIT)).await.is_ok();
        let (out, mut heard) = channel(1);
        assert!(is_none().await, "nobody was told anything");
        assert!(untaken.send(&out, &order));
        assert!(!is_none().await);
        assert!(heard.try_recv().unwrap().take().is_ok());
        assert!(is_none().await);
        assert!(untaken.send(&out, &order));
        assert!(!untaken.send(&out, &order), "its queue is full");
        assert!(!is_none().await);
        drop(heard);
        assert!(is_none().await, "nobody will take it any more");
        let (out, _slow) = channel(1);
        assert!(untaken.send(&out, &order));
        assert!(!is_none().await);
        advance(LIMIT).await;
        assert!(is_none().await, "nobody waits for one that takes nothing");
    }
}
