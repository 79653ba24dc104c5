//! The members' end of the server: one gRPC stream each way, opened by the member.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ConnectInfo;
use baton_core::access::{Bucket, Rate};
use baton_core::ids::ReleaseId;
use baton_store::state::News;
use baton_wire::session::{FromMember, Hello, InvalidMessage, ToMember};
use baton_wire::v1;
use baton_wire::v1::members_server::{Members, MembersServer};
use tokio::sync::mpsc::{self, WeakSender};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::access::{Access, Book, Caller};
use crate::clock::{Clock, unix_ms};
use crate::heartbeats::Heartbeats;
use crate::keeper::{Ask, Inbox};
use crate::listen::CallerAddress;
use crate::secrets::Desk;
use crate::sessions::{Order, Outgoing, end};

/// Largest message of a member in bytes: a report with a refusal and the last lines of a program.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Orders that wait for a member to take them. There are never more than a few, and lost ones are said again.
const ORDERS_MAX: usize = 16;
/// How long a stream may be without a message before it is given up: three leases, so that the lease decides
/// about the member long before, and a dead connection does not stay for ever.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// For how many releases a member may wait for secrets: the one that it tries, and the one that it goes back to.
const SECRETS_WANTED_MAX: usize = 2;

/// What one member may say: reports come when something changes, and a heartbeat every few seconds. One that says more would
/// keep the server from hearing the others.
const MESSAGES: Rate = Rate { per_second: 50, burst: 500 };

/// The gRPC service.
pub(crate) struct SessionService {
    inbox: Inbox,
    heartbeats: Heartbeats,
    secrets: Desk,
    /// None on a server that asks nobody who they are.
    access: Option<Arc<Access>>,
    clock: Clock,
}

impl SessionService {
    pub(crate) fn new(
        inbox: Inbox,
        heartbeats: Heartbeats,
        secrets: Desk,
        access: Option<Arc<Access>>,
        clock: Clock,
    ) -> MembersServer<Self> {
        let service = Self { inbox, heartbeats, secrets, access, clock };
        MembersServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Members for SessionService {
    type SessionStream = Orders;

    async fn session(&self, request: Request<Streaming<v1::FromMember>>) -> Result<Response<Orders>, Status> {
        let (out, orders) = mpsc::channel(ORDERS_MAX);
        if let Some(ConnectInfo(from)) = request.extensions().get::<ConnectInfo<CallerAddress>>() {
            from.visit.is_session();
        }
        // Whoever looks at every request has put it there.
        let caller = request.extensions().get::<Caller>().cloned();
        let reader = Reader {
            inbox: self.inbox.clone(),
            heartbeats: self.heartbeats.clone(),
            secrets: self.secrets.clone(),
            telling: JoinSet::new(),
            caller: caller.ok_or_else(|| Status::unauthenticated("nobody has said who this is"))?,
            access: self.access.clone().map(Watched::new),
            clock: self.clock,
            bucket: Bucket::full(MESSAGES, self.clock.now()),
            from: request.into_inner(),
        };
        let reader = tokio::spawn(reader.run(out));
        Ok(Response::new(Orders { orders, reader }))
    }
}

/// What a member is told. The stream ends when the keeper gives the session up, and with it what reads.
pub(crate) struct Orders {
    orders: mpsc::Receiver<Result<v1::ToMember, Status>>,
    reader: JoinHandle<()>,
}

impl Stream for Orders {
    type Item = Result<v1::ToMember, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.orders.poll_recv(context)
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Who may do what, and where it is told that this has changed.
struct Watched {
    access: Arc<Access>,
    changes: watch::Receiver<Arc<Book>>,
}

impl Watched {
    fn new(access: Arc<Access>) -> Self {
        Self { changes: access.changes(), access }
    }

    /// Returns when it may have changed whether somebody is known: to people, who was revoked is gone at once. Never on a server
    /// that asks nobody who they are.
    async fn changed(watched: &mut Option<Self>, caller: &Caller) {
        let Some(Self { changes, .. }) = watched else { return pending().await };
        let left = caller.ends().map(|ends| Duration::from_millis(ends.saturating_sub(unix_ms())));
        let ended = async {
            match left {
                Some(left) => sleep(left).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // It is told for as long as `access` is there.
            _ = changes.changed() => {}
            () = ended => {}
        }
    }
}

/// Reads what a member says.
struct Reader {
    inbox: Inbox,
    heartbeats: Heartbeats,
    secrets: Desk,
    /// Who gets secrets for this member. They end with the session.
    telling: JoinSet<()>,
    caller: Caller,
    access: Option<Watched>,
    clock: Clock,
    /// How much it may still say.
    bucket: Bucket,
    from: Streaming<v1::FromMember>,
}

impl Reader {
    async fn run(mut self, out: Outgoing) {
        match self.hello().await {
            Ok(Some(hello)) => {
                // The keeper alone holds the stream open from now on, so that it can end it.
                let weak = out.downgrade();
                if let Err(status) = self.listen(hello, out).await
                    && let Some(out) = weak.upgrade()
                {
                    end(&out, status);
                }
            }
            Ok(None) => {}
            Err(status) => end(&out, status),
        }
    }

    async fn hello(&mut self) -> Result<Option<Hello>, Status> {
        match self.next(None).await? {
            Some(FromMember::Hello(hello)) if self.caller.is(&hello.service, &hello.member) => {
                Ok(Some(hello))
            }
            Some(FromMember::Hello(hello)) => Err(Status::permission_denied(format!(
                "this credential is not that of member {} of {}",
                hello.member, hello.service
            ))),
            Some(
                FromMember::Report(_)
                | FromMember::Heartbeat(_)
                | FromMember::Goodbye
                | FromMember::SecretsWanted(_),
            ) => Err(Status::invalid_argument("a session starts with a hello")),
            None => Ok(None),
        }
    }

    async fn listen(&mut self, hello: Hello, out: Outgoing) -> Result<(), Status> {
        let weak = out.downgrade();
        self.ask(Ask::Hello { hello: hello.clone(), out }).await?;
        while let Some(message) = self.next(Some(&hello)).await? {
            let news = match message {
                FromMember::Hello(_) => return Err(Status::invalid_argument("a session has one hello")),
                FromMember::Report(report) => News::Report(report),
                FromMember::Heartbeat(stamp) => {
                    self.heartbeats.add(&hello.service, &hello.member, stamp, self.clock.now());
                    continue;
                }
                FromMember::Goodbye => News::Left(hello.member.clone()),
                FromMember::SecretsWanted(release) => {
                    self.tell_secrets(&hello, release, weak.clone());
                    continue;
                }
            };
            self.ask(Ask::News { service: hello.service.clone(), news }).await?;
        }
        Ok(())
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
                let _ = out.send(Ok(ToMember::SecretsTold { release, told }.to_wire())).await;
            }
        });
    }

    /// The next message of a kind that is known; none at the end.
    async fn next(&mut self, hello: Option<&Hello>) -> Result<Option<FromMember>, Status> {
        loop {
            let Some(message) = self.hear().await? else { return Ok(None) };
            if !self.bucket.take(MESSAGES, self.clock.now()) {
                return Err(Status::resource_exhausted("this member says too much"));
            }
            self.check_known()?;
            let invalid = |error: InvalidMessage| Status::invalid_argument(error.to_string());
            let message =
                FromMember::from_wire(message, hello.map(|hello| &hello.member)).map_err(invalid)?;
            if message.is_some() {
                return Ok(message);
            }
        }
    }

    /// What is said next; nothing at the end. Who may not say anything any more is not waited for.
    async fn hear(&mut self) -> Result<Option<v1::FromMember>, Status> {
        let quiet_until = Instant::now() + QUIET_MAX;
        loop {
            tokio::select! {
                // What has come of a message stays in the stream for the next look.
                message = self.from.message() => return message,
                () = sleep_until(quiet_until) => {
                    return Err(Status::deadline_exceeded("nothing was said for too long"));
                }
                () = Watched::changed(&mut self.access, &self.caller) => self.check_known()?,
            }
        }
    }

    /// Whether who speaks would still be let in.
    fn check_known(&self) -> Result<(), Status> {
        if self.access.as_ref().is_some_and(|watched| !watched.access.still_knows(&self.caller, unix_ms())) {
            return Err(Status::unauthenticated("this credential has ended: come again with the next one"));
        }
        Ok(())
    }

    async fn ask(&self, ask: Ask) -> Result<(), Status> {
        self.inbox.send(ask).await.map_err(|_| Status::unavailable("the server is stopping"))
    }
}
