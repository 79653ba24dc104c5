//! The members' end of the server: a WebSocket for each, opened by the member.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use baton_core::access::{Bucket, Rate};
use baton_core::ids::ReleaseId;
use baton_store::state::News;
use baton_wire::session::{Farewell, FromMember, Hello, Reason, Socket, SocketError, ToMember, answer};
use baton_wire::v1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::{self, WeakSender};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::access::{Access, Book, Caller};
use crate::api::{Refusal, Shared};
use crate::clock::{Clock, unix_ms};
use crate::heartbeats::Heartbeats;
use crate::keeper::{Ask, Inbox};
use crate::lenders::{Lenders, Lending};
use crate::listen::CallerAddress;
use crate::outgoing::Order;
use crate::secrets::Desk;

/// Orders that wait for a member to take them. There are never more than a few, and lost ones are said again.
const ORDERS_MAX: usize = 16;

/// For how many releases a member may wait for secrets: the one that it tries, and the one that it goes back to.
const SECRETS_WANTED_MAX: usize = 2;

/// What one member may say: reports come when something changes, and a heartbeat every few seconds. One that says more would
/// keep the server from hearing the others.
const MESSAGES: Rate = Rate { per_second: 50, burst: 500 };

/// Begins a session with who asks, whom the doorman has let through.
pub(crate) async fn begin(State(shared): State<Shared>, mut request: Request) -> Response {
    let Some(response) = answer(&request) else {
        return Refusal::invalid("a session is a WebSocket, by HTTP/1.1: a member's bootloader asks for one")
            .into_response();
    };
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        return Refusal::unavailable("nobody has said who this is").into_response();
    };
    if let Some(ConnectInfo(from)) = request.extensions().get::<ConnectInfo<CallerAddress>>() {
        from.visit.is_session();
    }
    let session = Session {
        inbox: shared.inbox,
        heartbeats: shared.heartbeats,
        secrets: shared.secrets,
        lenders: shared.lenders,
        telling: JoinSet::new(),
        caller,
        access: shared.access,
        bucket: Bucket::full(MESSAGES, shared.clock.now()),
        clock: shared.clock,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    shared.attending.spawn(async move {
        // Whoever has hung up meanwhile has none.
        if let Ok(stream) = upgrade.await {
            session.run(Socket::answered(TokioIo::new(stream)).await).await;
        }
    });
    response
}

/// Why a session ends.
enum End {
    /// Control ends it, and says why.
    Part(Farewell),
    /// It has ended.
    Over,
}

impl From<Farewell> for End {
    fn from(farewell: Farewell) -> Self {
        Self::Part(farewell)
    }
}

impl From<SocketError> for End {
    fn from(error: SocketError) -> Self {
        let (reason, text) = match &error {
            SocketError::Silent(_) => (Reason::SILENT, "nothing was said for too long".to_owned()),
            SocketError::Message(_) => (Reason::INVALID, error.to_string()),
            SocketError::TooMuch => (Reason::TOO_MUCH, error.to_string()),
            SocketError::Farewell(_) | SocketError::Ended | SocketError::Broken(_) => return Self::Over,
        };
        Self::Part(Farewell::new(reason, text))
    }
}

/// How long a member may take to say hello.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// One session.
struct Session {
    inbox: Inbox,
    heartbeats: Heartbeats,
    secrets: Desk,
    lenders: Lenders,
    /// Who gets secrets for this member. They end with the session.
    telling: JoinSet<()>,
    caller: Caller,
    /// None on a server that asks nobody who they are.
    access: Option<Arc<Access>>,
    clock: Clock,
    /// How much the member may still say.
    bucket: Bucket,
}

impl Session {
    async fn run(mut self, mut socket: Socket<TokioIo<Upgraded>>) {
        let ended = ended(self.access.take(), self.caller.clone());
        let end = tokio::select! {
            biased;
            farewell = ended => End::Part(farewell),
            end = self.talk(&mut socket) => end,
        };
        if let End::Part(farewell) = end {
            drop(socket.part(&farewell).await);
        }
    }

    /// Hears the member and tells it what there is to tell, until the session ends.
    async fn talk(&mut self, socket: &mut Socket<TokioIo<Upgraded>>) -> End {
        let (out, mut orders) = mpsc::channel(ORDERS_MAX);
        // The keeper alone holds the session open once it has said hello, so that it can end it.
        let weak = out.downgrade();
        let hello = match timeout(HELLO_MAX, self.hello(socket)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(end)) => return end,
            Err(_) => return Farewell::new(Reason::SILENT, "no hello was said").into(),
        };
        if let Err(farewell) = self.ask(Ask::Hello { hello: hello.clone(), out }).await {
            return farewell.into();
        }
        let mut lending = self.lenders.join(&hello);
        loop {
            let done = tokio::select! {
                biased;
                order = orders.recv() => match order.map(Order::take) {
                    Some(Ok(order)) => socket.say(&order).await.map_err(End::from),
                    Some(Err(farewell)) => Err(farewell.into()),
                    None if self.inbox.is_closed() => Err(stopping().into()),
                    None => Err(Farewell::new(Reason::DONE, "control has ended the session").into()),
                },
                question = lending.next() => socket.say(&question.to_wire()).await.map_err(End::from),
                message = socket.hear() => match message {
                    Ok(message) => self.take(&hello, message, &weak, &mut lending).await.map_err(End::from),
                    Err(error) => Err(error.into()),
                },
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn hello(&mut self, socket: &mut Socket<TokioIo<Upgraded>>) -> Result<Hello, End> {
        loop {
            let message = socket.hear().await?;
            match self.known(message, None, false)? {
                Some(FromMember::Hello(hello)) if self.caller.is(&hello.service, &hello.member) => {
                    return Ok(hello);
                }
                Some(FromMember::Hello(Hello { member, service, .. })) => {
                    let text = format!("this credential is not that of member {member} of {service}");
                    return Err(Farewell::new(Reason::FORBIDDEN, text).into());
                }
                Some(
                    FromMember::Report(_)
                    | FromMember::Heartbeat(_)
                    | FromMember::Goodbye
                    | FromMember::SecretsWanted(_)
                    | FromMember::ContentLent(_),
                ) => return Err(Farewell::new(Reason::INVALID, "a session starts with a hello").into()),
                None => {}
            }
        }
    }

    /// Takes in what the member says.
    async fn take(
        &mut self,
        hello: &Hello,
        message: v1::FromMember,
        out: &WeakSender<Order>,
        lending: &mut Lending,
    ) -> Result<(), Farewell> {
        let is_awaited = lending.awaits(&message);
        let news = match self.known(message, Some(hello), is_awaited)? {
            Some(FromMember::Heartbeat(stamp)) => {
                self.heartbeats.add(&hello.service, &hello.member, stamp, self.clock.now());
                return Ok(());
            }
            Some(FromMember::Report(report)) => News::Report(*report),
            Some(FromMember::Goodbye) => News::Left(hello.member.clone()),
            Some(FromMember::SecretsWanted(release)) => {
                self.tell_secrets(hello, release, out.clone());
                return Ok(());
            }
            Some(FromMember::ContentLent(lent)) => {
                lending.take(lent);
                return Ok(());
            }
            Some(FromMember::Hello(_)) => {
                return Err(Farewell::new(Reason::INVALID, "a session has one hello"));
            }
            None => return Ok(()),
        };
        self.ask(Ask::News { service: hello.service.clone(), news }).await
    }

    /// A message, if it is of a kind that is known. What the member was asked for does not count as too much.
    fn known(
        &mut self,
        message: v1::FromMember,
        hello: Option<&Hello>,
        is_awaited: bool,
    ) -> Result<Option<FromMember>, Farewell> {
        if !is_awaited && !self.bucket.take(MESSAGES, self.clock.now()) {
            return Err(Farewell::new(Reason::TOO_MUCH, "this member says too much"));
        }
        FromMember::from_wire(message, hello.map(|hello| &hello.member))
            .map_err(|error| Farewell::new(Reason::INVALID, error.to_string()))
    }

    /// Has somebody answer: it is nothing to decide about, and others' services are waited for. One question too many is
    /// not answered: a member that gets no answer asks again when it tries again.
    fn tell_secrets(&mut self, hello: &Hello, release: ReleaseId, out: WeakSender<Order>) {
        while self.telling.try_join_next().is_some() {}
        if self.telling.len() >= SECRETS_WANTED_MAX {
            return;
        }
        let (secrets, service) = (self.secrets.clone(), hello.service.clone());
        self.telling.spawn(async move {
            let told = secrets.values(&service, release).await;
            // Whoever has gone meanwhile asks again when it is back.
            if let Some(out) = out.upgrade() {
                let _ = out.send(Order::say(&ToMember::SecretsTold { release, told })).await;
            }
        });
    }

    async fn ask(&self, ask: Ask) -> Result<(), Farewell> {
        self.inbox.send(ask).await.map_err(|_| stopping())
    }
}

fn stopping() -> Farewell {
    Farewell::new(Reason::STOPPING, "the server is stopping")
}

/// Returns once who speaks would not be let in any more: to people, who was revoked is gone at once. Never on a server that asks
/// nobody who they are.
async fn ended(access: Option<Arc<Access>>, caller: Caller) -> Farewell {
    let Some(access) = access else { return pending().await };
    let mut changes: watch::Receiver<Arc<Book>> = access.changes();
    while access.still_knows(&caller, unix_ms()) {
        let left = caller.ends().map(|ends| Duration::from_millis(ends.saturating_sub(unix_ms())));
        let out_of_date = async {
            match left {
                Some(left) => sleep(left).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // It is told for as long as `access` is there.
            _ = changes.changed() => {}
            () = out_of_date => {}
        }
    }
    Farewell::new(Reason::UNAUTHORIZED, "this credential has ended: come again with the next one")
}
