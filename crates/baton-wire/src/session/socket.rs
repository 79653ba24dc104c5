//! What carries a session: a WebSocket (RFC 6455), in which each binary message is one message of `session.proto`.
//!
//! Load balancers and proxies let it through, and to what it carries it adds a few bytes and one call of the system: control has
//! thousands of them, and most of what they say is that they are there.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use prost::DecodeError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::farewell::Farewell;
use crate::api::Refused;

/// Where control takes sessions.
pub const PATH: &str = "/v1/session";

/// Largest message of a member in bytes: a report with a refusal and the last lines of a program.
const OF_MEMBER_BYTES_MAX: usize = 64 << 10;
/// Largest message of control in bytes: the secrets of a release.
const OF_CONTROL_BYTES_MAX: usize = 4 << 20;
/// What is read at once: most messages are shorter than a tenth of it, and there is one such buffer for each member.
const READ_BYTES: usize = 1024;
/// When a member asks whether control is still there, after so long without a word, and how long it waits for any. An end that is
/// gone with its machine or its network is noticed sooner, by TCP.
const OF_CONTROL_QUIET: Quiet = Quiet { ask: Duration::from_secs(10), lost: Duration::from_secs(15) };
/// When control gives a member up of which it hears nothing: three leases, so that the lease decides about the member long before,
/// and a dead connection does not stay for ever. Members say that they are there without being asked.
const OF_MEMBER_QUIET: Quiet = Quiet { ask: Duration::MAX, lost: Duration::from_secs(30) };
/// How long the other end may take to hear the last word.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// What may wait to be sent, beside the largest message: answers to questions whether this end is there. Who asks and reads no answer
/// would fill the memory.
const ANSWERS_BYTES_MAX: usize = 64 << 10;
/// How often the other end may ask that, or answer, between two messages. Members ask every 10 s, and say something more often.
const ASIDES_MAX: u32 = 16;

/// Why nothing more is heard, or said.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The other end has said why it ended the session.
    #[error("{0}")]
    Farewell(Farewell),
    /// The other end has said nothing for too long.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection has ended without a word.
    #[error("the connection has ended")]
    Ended,
    /// What was said is no message of a session.
    #[error("what was said is no message of a session")]
    Message(#[source] Option<DecodeError>),
    /// The other end asks too often whether this one is there.
    #[error("the other end asks too often whether this one is there")]
    TooMuch,
    /// The connection does not work.
    #[error("the connection is broken")]
    Broken(#[source] Error),
}

impl From<Error> for SocketError {
    fn from(error: Error) -> Self {
        match error {
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Ended,
            error => Self::Broken(error),
        }
    }
}

/// Why control does not begin a session.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It has said why not.
    #[error("{message}")]
    Refused {
        /// Whether it does not know who calls: 401.
        unknown: bool,
        /// What it says.
        message: String,
    },
    /// It does not speak as control does, or not any more.
    #[error("no session can be begun there")]
    Broken(#[source] Error),
}

impl CallError {
    /// Whether whoever answers does not speak HTTP, or within TLS only.
    pub const fn is_not_http(&self) -> bool {
        matches!(self, Self::Broken(Error::Protocol(ProtocolError::HttparseError(_))))
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        let Error::Http(response) = error else { return Self::Broken(error) };
        let refused = response.body().as_deref().map(serde_json::from_slice::<Refused>);
        let message = match refused {
            Some(Ok(refused)) => refused.message,
            Some(Err(_)) | None => format!("the answer is {}", response.status()),
        };
        Self::Refused { unknown: response.status() == StatusCode::UNAUTHORIZED, message }
    }
}

/// One end of a session.
#[derive(Debug)]
pub struct Socket<S> {
    stream: WebSocketStream<S>,
    quiet: Quiet,
    heard: Instant,
    /// Whether the other end was asked whether it is there since it was heard.
    asked: bool,
    /// How often it has asked or answered since it has said something.
    asides: u32,
    /// When to look at the time. It is not moved by what is heard: most of that comes long before.
    alarm: Pin<Box<Sleep>>,
}

/// How long the other end may say nothing.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    /// Then it is asked whether it is there.
    ask: Duration,
    /// Then it is not.
    lost: Duration,
}

/// What follows from a silence.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Ask,
    Lost,
    Wait(Duration),
}

impl Quiet {
    /// What is due after a silence of so long.
    fn due(self, silence: Duration, asked: bool) -> Due {
        if silence >= self.lost {
            Due::Lost
        } else if silence >= self.ask && !asked {
            Due::Ask
        } else {
            let next = if asked { self.lost } else { self.ask.min(self.lost) };
            Due::Wait(next.saturating_sub(silence))
        }
    }
}

/// What control answers to who wants a session; none where that is no WebSocket.
pub fn answer<B, T: Default>(request: &Request<B>) -> Option<Response<T>> {
    create_response_with_body(request, T::default).ok()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// The end of a member: asks control for a session, as `host` with its port is called, and shows who asks by `bearer`.
    ///
    /// # Errors
    /// Control refuses, or it is none.
    pub async fn call(stream: S, host: &str, bearer: Option<HeaderValue>) -> Result<Self, CallError> {
        let mut request = format!("ws://{host}{PATH}").into_client_request()?;
        if let Some(bearer) = bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let config = config(OF_CONTROL_BYTES_MAX);
        let (stream, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(Self::new(stream, OF_CONTROL_QUIET))
    }

    /// The end of control, once it has given its [`answer`].
    pub async fn answered(stream: S) -> Self {
        let config = config(OF_MEMBER_BYTES_MAX);
        let stream = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        Self::new(stream, OF_MEMBER_QUIET)
    }

    fn new(stream: WebSocketStream<S>, quiet: Quiet) -> Self {
        let alarm = Box::pin(sleep(quiet.ask.min(quiet.lost)));
        Self { stream, quiet, heard: Instant::now(), asked: false, asides: 0, alarm }
    }

    /// Says this. It is on its way when this returns.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn say(&mut self, message: &impl prost::Message) -> Result<(), SocketError> {
        Ok(self.stream.send(Message::binary(message.encode_to_vec())).await?)
    }

    /// What is heard next. Nothing is lost where this is given up before it returns.
    ///
    /// # Errors
    /// When nothing more will be heard.
    pub async fn hear<M: prost::Message + Default>(&mut self) -> Result<M, SocketError> {
        loop {
            tokio::select! {
                biased;
                frame = self.stream.next() => {
                    (self.heard, self.asked) = (Instant::now(), false);
                    match frame.ok_or(SocketError::Ended)?? {
                        Message::Binary(bytes) => {
                            self.asides = 0;
                            return M::decode(bytes).map_err(|error| SocketError::Message(Some(error)));
                        }
                        Message::Text(_) => return Err(SocketError::Message(None)),
                        Message::Close(frame) => return Err(self.parted(frame.as_ref().map(Farewell::from_frame)).await),
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) if self.asides == ASIDES_MAX => {
                            return Err(SocketError::TooMuch);
                        }
                        // What asks for an answer gets it when it is looked for what comes next.
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => self.asides += 1,
                    }
                }
                () = &mut self.alarm => self.look().await?,
            }
        }
    }

    /// Looks at the time.
    async fn look(&mut self) -> Result<(), SocketError> {
        let now = Instant::now();
        loop {
            match self.quiet.due(now.duration_since(self.heard), self.asked) {
                Due::Lost => return Err(SocketError::Silent(self.quiet.lost)),
                Due::Wait(left) => {
                    self.alarm.as_mut().reset(now + left);
                    return Ok(());
                }
                Due::Ask => {
                    self.asked = true;
                    self.stream.send(Message::Ping(Bytes::new())).await?;
                }
            }
        }
    }

    /// The other end has said its last word, which is answered.
    async fn parted(&mut self, farewell: Option<Farewell>) -> SocketError {
        self.drain().await;
        farewell.map_or(SocketError::Ended, SocketError::Farewell)
    }

    /// Ends the session, and gives the other end the time to hear why. Returns its last word, which is the same where it had said
    /// none before.
    pub async fn part(mut self, farewell: &Farewell) -> Option<Farewell> {
        // Whoever is gone does not hear it.
        let said = timeout(FAREWELL_MAX, self.stream.close(Some(farewell.to_frame()))).await;
        if matches!(said, Ok(Ok(()))) { self.drain().await } else { None }
    }

    /// Takes in what is still on its way: a connection that is closed before that is reset, and with it what was said last. Returns
    /// the last word, if that is among it.
    async fn drain(&mut self) -> Option<Farewell> {
        let mut last = None;
        let rest = async {
            while let Some(Ok(frame)) = self.stream.next().await {
                if let Message::Close(Some(frame)) = frame {
                    last = Some(Farewell::from_frame(&frame));
                }
            }
        };
        let _ = timeout(FAREWELL_MAX, rest).await;
        last
    }
}

/// Each message is written at once.
fn config(message_bytes_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(OF_CONTROL_BYTES_MAX + ANSWERS_BYTES_MAX)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::farewell::Reason;
    use super::*;
    use crate::v1;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn f53_after_a_silence_the_other_end_is_asked_once_and_then_given_up() {
        let (ask, lost) = (10 * SECOND, 15 * SECOND);
        let members = Quiet { ask, lost };
        for (silence, asked, due) in [
            (0, false, Due::Wait(ask)),
            (9, false, Due::Wait(SECOND)),
            (10, false, Due::Ask),
            (10, true, Due::Wait(5 * SECOND)),
            (14, true, Due::Wait(SECOND)),
            (15, true, Due::Lost),
            (99, false, Due::Lost),
        ] {
            assert_eq!(members.due(silence * SECOND, asked), due, "{silence} {asked}");
        }
        assert_eq!(OF_MEMBER_QUIET.due(Duration::ZERO, false), Due::Wait(30 * SECOND));
        assert_eq!(OF_MEMBER_QUIET.due(30 * SECOND, false), Due::Lost);
    }

    /// The ends of a member and of control.
    async fn pair() -> (Socket<DuplexStream>, Socket<DuplexStream>) {
        let (ours, theirs) = duplex(1 << 20);
        let control = async {
            let (mut theirs, mut head) = (theirs, Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                head.push(theirs.read_u8().await.unwrap());
            }
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut parsed = httparse::Request::new(&mut headers);
            assert!(parsed.parse(&head).unwrap().is_complete());
            let mut request = Request::builder().uri(parsed.path.unwrap());
            for header in parsed.headers.iter() {
                request = request.header(header.name, header.value);
            }
            let response: Response<()> = answer(&request.body(()).unwrap()).unwrap();
            let mut text = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
            for (name, value) in response.headers() {
                text += &format!("{name}: {}\r\n", value.to_str().unwrap());
            }
            theirs.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
            Socket::answered(theirs).await
        };
        let (member, control) = tokio::join!(Socket::call(ours, "control:7400", None), control);
        (member.unwrap(), control)
    }

    fn wish() -> v1::ToMember {
        let wish = v1::Wish { release: vec![7; 32], ..v1::Wish::default() };
        v1::ToMember { message: Some(v1::to_member::Message::Wish(wish)) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_end_says_the_other_hears_until_one_says_why_it_ends() {
        let (mut member, mut control) = pair().await;
        let goodbye = v1::FromMember { message: Some(v1::from_member::Message::Goodbye(v1::Goodbye {})) };
        member.say(&goodbye).await.unwrap();
        control.say(&wish()).await.unwrap();
        assert_eq!(control.hear::<v1::FromMember>().await.unwrap(), goodbye);
        assert_eq!(member.hear::<v1::ToMember>().await.unwrap(), wish());
        let twin = Farewell::new(Reason::TWIN, "another one");
        // What the member has said meanwhile does not keep it from hearing why.
        member.say(&goodbye).await.unwrap();
        let (_, heard) = tokio::join!(control.part(&twin), member.hear::<v1::ToMember>());
        assert!(matches!(heard, Err(SocketError::Farewell(said)) if said == twin));
    }

    #[tokio::test(start_paused = true)]
    async fn f53_control_that_answers_is_there_and_control_that_does_not_is_given_up() {
        let (mut member, mut control) = pair().await;
        // It answers questions while it hears what there is.
        let both = async { tokio::join!(member.hear::<v1::ToMember>(), control.hear::<v1::FromMember>()) };
        assert!(timeout(60 * SECOND, both).await.is_err(), "both are there, though nothing is said");
        let (mut member, _deaf) = pair().await;
        let begun = Instant::now();
        let heard = member.hear::<v1::ToMember>().await;
        assert!(matches!(heard, Err(SocketError::Silent(_))), "{heard:?}");
        assert!(begun.elapsed() >= OF_CONTROL_QUIET.lost);
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_session_and_what_is_too_long_is_not_taken() {
        let (mut member, mut control) = pair().await;
        member.stream.send(Message::text("{}")).await.unwrap();
        assert!(matches!(control.hear::<v1::FromMember>().await, Err(SocketError::Message(None))));
        member.stream.send(Message::binary(vec![0xff; 3])).await.unwrap();
        assert!(matches!(control.hear::<v1::FromMember>().await, Err(SocketError::Message(Some(_)))));
        member.stream.send(Message::binary(vec![0; OF_MEMBER_BYTES_MAX + 1])).await.unwrap();
        assert!(matches!(control.hear::<v1::FromMember>().await, Err(SocketError::Broken(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn f58_who_asks_for_ever_and_says_nothing_is_not_heard() {
        let (mut member, mut control) = pair().await;
        let ask = async |member: &mut Socket<DuplexStream>| {
            member.stream.send(Message::Ping(Bytes::new())).await.unwrap();
        };
        let goodbye = v1::FromMember { message: Some(v1::from_member::Message::Goodbye(v1::Goodbye {})) };
        for _ in 0..3 {
            for _ in 0..ASIDES_MAX {
                ask(&mut member).await;
            }
            member.say(&goodbye).await.unwrap();
            assert_eq!(control.hear::<v1::FromMember>().await.unwrap(), goodbye);
        }
        for _ in 0..=ASIDES_MAX {
            ask(&mut member).await;
        }
        assert!(matches!(control.hear::<v1::FromMember>().await, Err(SocketError::TooMuch)));
    }

    #[tokio::test]
    async fn who_ends_a_session_hears_whether_the_other_end_was_about_to() {
        let (member, control) = pair().await;
        let done = Farewell::new(Reason::DONE, "");
        let (heard, ended) = tokio::join!(member.part(&done), async {
            let mut control = control;
            control.hear::<v1::FromMember>().await
        });
        assert_eq!(heard, Some(done.clone()));
        assert!(matches!(ended, Err(SocketError::Farewell(said)) if said == done));
        let (member, control) = pair().await;
        let stopping = Farewell::new(Reason::STOPPING, "the server is stopping");
        let (heard, _) = tokio::join!(member.part(&done), control.part(&stopping));
        assert_eq!(heard, Some(stopping), "what was said to it last may not have been heard");
    }

    #[tokio::test]
    async fn who_answers_in_another_protocol_does_not_speak_http() {
        let refused = async |answer: &[u8]| {
            let (ours, mut theirs) = duplex(1 << 16);
            theirs.write_all(answer).await.unwrap();
            Socket::call(ours, "control:7400", None).await.unwrap_err()
        };
        // What a server says within TLS only: an alert, fatal, for a message that it does not decode.
        assert!(refused(b"\x15\x03\x03\0\x02\x02\x32").await.is_not_http());
        assert!(refused(b"SSH-2.0-x\r\n").await.is_not_http());
        let unwilling = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        assert!(!refused(unwilling).await.is_not_http());
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_words_of_control() {
        let refused = async |answer: &str| {
            let (ours, mut theirs) = duplex(1 << 16);
            theirs.write_all(answer.as_bytes()).await.unwrap();
            match Socket::call(ours, "control:7400", None).await {
                Err(CallError::Refused { unknown, message }) => (unknown, message),
                other => panic!("{other:?}"),
            }
        };
        let body = r#"{"code":"not-known","message":"who are you?"}"#;
        let answer = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(refused(&answer).await, (true, "who are you?".to_owned()));
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(refused(answer).await, (false, "the answer is 503 Service Unavailable".to_owned()));
    }
}
