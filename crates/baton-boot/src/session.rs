//! The session with control: kept up as long as the member lives, never waited for.

mod lending;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use baton_core::member::Input;
use baton_core::report::{Report, Stamp};
use baton_release::control::{ControlError, Hindrance};
use baton_release::peers::{Key, Keyring, Shelf};
use baton_wire::session::{
    CallError, Carrier, Farewell, FromMember, Hello, InvalidMessage, Reason, Socket, SocketError, ToMember,
};
use baton_wire::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use self::lending::Lending;
use crate::address::Address;
use crate::identity::{Identity, IdentityError};
use crate::link::Link;
use crate::log;
use crate::names::Names;
use crate::outlive::{caught, fault};
use crate::remedy::remedy;
use crate::secrets::Ask;
use crate::trust::{Gate, Offer};

/// How often control hears of a member that has nothing to say: four times in a lease, so that one lost
/// message does not make it silent.
pub const HEARTBEAT: Duration = Duration::from_millis(2500);
/// How long it may take to begin a session: to connect, to agree on a key, and to be let in.
const BEGIN_MAX: Duration = Duration::from_secs(8);
/// The longest wait before the next attempt. Each is drawn at random from zero to a limit that doubles: after
/// a restart of control its members must not all come in the same moment.
const WAIT_MAX: Duration = Duration::from_secs(5);
const WAIT_MIN: Duration = Duration::from_millis(100);
/// A session that lasted this long was one: the next failure is a new story.
const CALM: Duration = Duration::from_secs(10);
/// What the member has to say: the newest only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saying {
    /// How it stands.
    Report(Box<Report>),
    /// It ends; what it had to say last may not have been said yet, and tells why.
    Goodbye(Box<Report>),
}

/// The waits between attempts.
struct Waits {
    limit: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { limit: WAIT_MIN }
    }
}

impl Waits {
    /// The next one, by a number drawn from 0 to 1.
    fn next(&mut self, drawn: f64) -> Duration {
        let wait = self.limit.mul_f64(drawn);
        self.limit = (self.limit * 2).min(WAIT_MAX);
        wait
    }
}

/// One member's session.
pub struct Session {
    hello: Hello,
    saying: watch::Receiver<Saying>,
    asks: mpsc::UnboundedReceiver<Ask>,
    /// What was asked and is not answered.
    asked: Vec<Ask>,
    heard: mpsc::UnboundedSender<Input>,
    gate: Arc<Gate>,
    keys: Option<Arc<Keyring>>,
    lending: Lending,
    identity: Arc<Identity>,
    link: Arc<Link>,
    /// Getting the next credential, while that takes.
    renewing: Option<JoinHandle<()>>,
    /// The servers, any of which will do, and which is tried next.
    servers: Vec<Address>,
    next: usize,
    names: Names,
    sequence: u64,
}

/// The session, as it is carried.
type Conversation = Socket<Box<dyn Carrier>>;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("control does not know this member")]
    Unknown(#[from] IdentityError),
    #[error("control ended the session: {0}")]
    Refused(String),
    #[error("control does not take this member's credential: {0}")]
    Unauthenticated(String),
    #[error("control said something that cannot be understood")]
    Invalid(#[from] InvalidMessage),
    #[error("control closed the session")]
    Closed,
    #[error("the session is broken")]
    Broken(#[source] SocketError),
    #[error("control does not begin a session")]
    Call(#[source] CallError),
    #[error("control does not begin a session within {} s", BEGIN_MAX.as_secs())]
    Late,
    #[error("a fault of the bootloader has ended the session")]
    Fault,
}

impl Ended {
    /// What keeps the server from answering, where that is what has happened.
    fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Connect(error) => Some(Hindrance::of_io(error)),
            Self::Call(error) => error.is_not_http().then_some(Hindrance::NotHttp),
            Self::Unknown(IdentityError::Control(error)) => match error {
                ControlError::Unreachable { source, .. } => Some(Hindrance::of_io(source)),
                // Whether its certificate is that of the token it says itself.
                ControlError::Stranger { source, .. } => {
                    Some(Hindrance::of_io(source)).filter(|found| *found == Hindrance::NotTls)
                }
                ControlError::Address(_) | ControlError::InPlain(_) | ControlError::Authority { .. } => None,
            },
            Self::Unknown(_)
            | Self::Refused(_)
            | Self::Unauthenticated(_)
            | Self::Invalid(_)
            | Self::Closed
            | Self::Broken(_)
            | Self::Late
            | Self::Fault => None,
        }
    }

    /// What has happened, and what to do about it.
    fn told(&self, has_authority: bool) -> String {
        let what = log::chain(self);
        match self.hindrance().and_then(|hindrance| remedy(hindrance, has_authority)) {
            Some(remedy) => format!("{what}; {remedy}"),
            None => what,
        }
    }
}

impl From<CallError> for Ended {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused { unknown: true, message } => Self::Unauthenticated(message),
            CallError::Refused { unknown: false, message } => Self::Refused(message),
            CallError::Broken(_) => Self::Call(error),
        }
    }
}

impl From<SocketError> for Ended {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Farewell(Farewell { reason: Reason::UNAUTHORIZED, text }) => {
                Self::Unauthenticated(text)
            }
            SocketError::Farewell(farewell) => Self::Refused(farewell.to_string()),
            SocketError::Ended => Self::Closed,
            SocketError::Silent(_)
            | SocketError::Message(_)
            | SocketError::TooMuch
            | SocketError::Broken(_) => Self::Broken(error),
        }
    }
}

impl Session {
    /// A session with the control of this identity, not begun yet.
    pub fn new(
        identity: Arc<Identity>,
        hello: Hello,
        saying: watch::Receiver<Saying>,
        asks: mpsc::UnboundedReceiver<Ask>,
        heard: mpsc::UnboundedSender<Input>,
        gate: Arc<Gate>,
        (keys, shelf): (Option<Arc<Keyring>>, Arc<Shelf>),
    ) -> Result<Self, ControlError> {
        let control = identity.server();
        let servers =
            control.bases().iter().map(|base| Address::parse(base)).collect::<Result<Vec<_>, _>>()?;
        // The members of a fleet begin with different ones.
        let next = fastrand::usize(..servers.len().max(1));
        Ok(Self {
            hello,
            saying,
            asks,
            asked: Vec::new(),
            heard,
            gate,
            keys,
            lending: Lending::of(shelf),
            identity,
            link: Arc::default(),
            renewing: None,
            servers,
            next,
            names: Names::default(),
            sequence: 0,
        })
    }

    /// How the session stands from now on.
    pub fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    /// Keeps the session up until the member says goodbye.
    pub async fn run(mut self) {
        let mut waits = Waits::default();
        // A long outage is told once, not at every attempt.
        let mut told = false;
        loop {
            let begun = Instant::now();
            let ended = match caught(self.once()).await {
                Some(Ok(())) => return,
                Some(Err(ended)) => ended,
                None => Ended::Fault,
            };
            if let Ended::Unauthenticated(_) = &ended {
                self.identity.doubt();
            }
            // The next control may be another one, and has not said what was refused.
            self.gate.forget_refused();
            self.tell(Some(Input::Parted));
            let why = ended.told(self.identity.server().authority().is_some());
            self.link.ends(why.clone());
            // One that control closes at once, as for a second member of this name, is no success.
            if begun.elapsed() >= CALM {
                (waits, told) = (Waits::default(), false);
            }
            if !told {
                log::say(format_args!("without control: {why}"));
                told = true;
            }
            tokio::time::sleep(waits.next(fastrand::f64())).await;
        }
    }

    /// One connection, until it ends: `Ok` after a goodbye.
    async fn once(&mut self) -> Result<(), Ended> {
        let identity = Arc::clone(&self.identity);
        // Files are read for it, and control asked. It ends early only with the member.
        let believed = spawn_blocking(move || identity.ready()).await.map_err(|_| Ended::Closed)??;
        let server = self.servers.get(self.next % self.servers.len().max(1));
        let server = server.cloned().ok_or(Ended::Closed)?;
        // Whatever ends the session, another server may be better off.
        self.next += 1;
        self.link.tries(server.as_str());
        let begun = async {
            let stream = server.connect(&self.names, &believed).await.map_err(Ended::Connect)?;
            Ok::<_, Ended>(Socket::call(stream, server.place(), self.identity.bearer()).await?)
        };
        let socket = timeout(BEGIN_MAX, begun).await.map_err(|_| Ended::Late)??;
        self.names.works(server.host());
        self.talk(socket).await
    }

    /// Has somebody get the next credential, when it is time for that. This session goes on with the one that it has.
    fn renew(&mut self) {
        if self.identity.is_due() && self.renewing.as_ref().is_none_or(JoinHandle::is_finished) {
            let identity = Arc::clone(&self.identity);
            self.renewing = Some(spawn_blocking(move || {
                if let Err(error) = identity.renew() {
                    log::say(format_args!("this member's credential is not renewed: {}", log::chain(&error)));
                }
            }));
        }
    }

    async fn talk(&mut self, mut socket: Conversation) -> Result<(), Ended> {
        say(&mut socket, FromMember::Hello(self.hello.clone())).await?;
        self.link.begins();
        fault("session");
        // What is said first is a report: a sign of life alone is nobody's.
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Control knows nothing of this member yet: whatever there is to say is news.
        self.saying.mark_changed();
        self.forget_late();
        // What was asked in another session is not answered in this one.
        self.lending.forget();
        for ask in &self.asked {
            say(&mut socket, FromMember::SecretsWanted(ask.release)).await?;
        }
        loop {
            tokio::select! {
                message = socket.hear() => self.hear(message?).await?,
                changed = self.saying.changed() => {
                    let saying = self.saying.borrow_and_update().clone();
                    match saying {
                        Saying::Report(report) if changed.is_ok() => {
                            let report = Report { stamp: self.stamp(), ..*report };
                            say(&mut socket, FromMember::Report(report.into())).await?;
                        }
                        Saying::Report(report) | Saying::Goodbye(report) => {
                            let report = Report { stamp: self.stamp(), ..*report };
                            say(&mut socket, FromMember::Report(report.into())).await?;
                            say(&mut socket, FromMember::Goodbye).await?;
                            // Control closes its side when it has heard. One that was about to end may not have.
                            let done = Farewell::new(Reason::DONE, "");
                            return match socket.part(&done).await {
                                Some(farewell) if farewell != done => Err(SocketError::Farewell(farewell).into()),
                                Some(_) | None => Ok(()),
                            };
                        }
                    }
                },
                Some(ask) = self.asks.recv() => {
                    let release = ask.release;
                    self.asked.push(ask);
                    // It may have waited for control to be back for longer than anybody wants the answer.
                    self.forget_late();
                    if self.asked.iter().any(|ask| ask.release == release) {
                        say(&mut socket, FromMember::SecretsWanted(release)).await?;
                    }
                }
                lent = self.lending.next() => say(&mut socket, FromMember::ContentLent(lent)).await?,
                _ = heartbeat.tick() => {
                    let stamp = self.stamp();
                    say(&mut socket, FromMember::Heartbeat(stamp)).await?;
                    self.renew();
                    self.lending.rest();
                    // Somebody may have changed whom this member trusts.
                    if self.gate.has_refused() {
                        let input = self.judged(None).await;
                        self.tell(input);
                    }
                }
            }
        }
    }

    /// Nobody waits for these any more.
    fn forget_late(&mut self) {
        self.asked.retain(|ask| ask.until > Instant::now().into_std());
    }

    async fn hear(&mut self, message: v1::ToMember) -> Result<(), Ended> {
        let input = match ToMember::from_wire(message)? {
            // A newer control may say more than this version knows.
            None => None,
            Some(ToMember::Wish(wish, warrant)) => self.judged(Some(Offer::Wish { wish, warrant })).await,
            Some(ToMember::Grant { deploy, bake }) => self.judged(Some(Offer::Grant { deploy, bake })).await,
            Some(ToMember::HandBack { deploy }) => Some(Input::HandBack { deploy }),
            Some(ToMember::SecretsTold { release, told }) => {
                for ask in self.asked.extract_if(.., |ask| ask.release == release) {
                    // Whoever waits no longer has said so already.
                    let _ = ask.reply.try_send(told.clone());
                }
                None
            }
            Some(ToMember::ContentWanted(wanted)) => {
                self.lending.ask(wanted);
                None
            }
            Some(ToMember::PeerKey(key)) => {
                if let Some(keys) = &self.keys {
                    keys.learn(Key::from_bytes(key));
                }
                None
            }
        };
        self.tell(input);
        Ok(())
    }

    /// What the member makes of an offer, or of the last one once more where it was refused: files are read for it.
    async fn judged(&self, offer: Option<Offer>) -> Option<Input> {
        let gate = self.gate.clone();
        // It ends early only with the member.
        spawn_blocking(move || gate.judge(offer)).await.ok().flatten()
    }

    fn tell(&self, input: Option<Input>) {
        if let Some(input) = input {
            // The receiver lives as long as the member.
            let _ = self.heard.send(input);
        }
    }

    fn stamp(&mut self) -> Stamp {
        self.sequence += 1;
        Stamp { life: self.hello.life, sequence: self.sequence }
    }
}

async fn say(socket: &mut Conversation, message: FromMember) -> Result<(), Ended> {
    Ok(socket.say(&message.to_wire()).await?)
}

#[cfg(test)]
mod tests {
    use baton_release::control::Believed;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Somebody at a port who answers everybody so.
    async fn answering(with: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(with).await;
            }
        });
        port
    }

    /// How a session with control at this address ends.
    async fn ends(base: &str) -> String {
        let server = Address::parse(base).unwrap();
        let ended = match server.connect(&Names::default(), &Believed::Public).await {
            Err(error) => Ended::Connect(error),
            Ok(stream) => match Socket::call(stream, server.place(), None).await {
                Ok(_) => panic!("somebody answers {base}"),
                Err(error) => Ended::from(error),
            },
        };
        ended.told(false)
    }

    #[tokio::test]
    async fn who_has_another_kind_of_address_is_told_which_to_write() {
        // An alert of TLS, fatal, for a message that is not understood.
        let tls = answering(b"\x15\x03\x03\0\x02\x02\x32").await;
        let told = ends(&format!("http://127.0.0.1:{tls}")).await;
        assert!(told.ends_with("write https:// in BATON_SERVER"), "{told}");
        let plain = answering(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        let told = ends(&format!("https://127.0.0.1:{plain}")).await;
        assert!(told.ends_with("write http:// in BATON_SERVER"), "{told}");
        let told = ends(&format!("http://127.0.0.1:{plain}")).await;
        assert!(!told.contains("BATON_SERVER"), "{told}");
    }

    #[test]
    fn who_believes_nobody_is_told_how_to() {
        use tokio_rustls::rustls::{CertificateError, Error, InvalidMessage};
        let io = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let unknown = || io(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let told = Ended::Connect(unknown()).told(false);
        let what =
            "cannot connect: invalid peer certificate: UnknownIssuer; nobody who is known here vouches";
        assert!(told.starts_with(what) && told.contains("BATON_TOKEN_FILE"), "{told}");
        let told = Ended::Connect(unknown()).told(true);
        assert!(told.contains("; the file of BATON_CA"), "{told}");
        let base = || "https://control".to_owned();
        let joining = |error| Ended::Unknown(IdentityError::Control(error));
        let told = joining(ControlError::Unreachable { base: base(), source: unknown() }).told(false);
        assert!(told.contains("BATON_CA"), "{told}");
        // It is said already that the token is of another one.
        let told = joining(ControlError::Stranger { base: base(), source: unknown() }).told(false);
        assert!(!told.contains("BATON_CA"), "{told}");
        let plain = io(Error::InvalidMessage(InvalidMessage::InvalidContentType));
        let told = joining(ControlError::Stranger { base: base(), source: plain }).told(false);
        assert!(told.ends_with("write http:// in BATON_SERVER"), "{told}");
    }

    /// After an outage of any length the members of a fleet come evenly over the whole wait, and each within it.
    #[test]
    fn p34_f57_waits_are_drawn_from_nothing_to_a_limit_that_doubles_up_to_5_s() {
        let limit = |attempt: u32| (WAIT_MIN * 2_u32.pow(attempt)).min(WAIT_MAX);
        for drawn in [0.0, 0.25, 0.5, 1.0] {
            let mut waits = Waits::default();
            for attempt in 0..10 {
                assert_eq!(waits.next(drawn), limit(attempt).mul_f64(drawn), "{drawn}, attempt {attempt}");
            }
        }
        assert_eq!(limit(9), WAIT_MAX);
    }
}
