//! The notify socket of a generation: `sd_notify(3)`, received.
//!
//! Anybody on the machine can write to it, as often as they like. Only processes of the generation are believed,
//! who they are is found out once and not for each message, and nothing piles up: what cannot be handled yet
//! waits in the kernel's queue, and there its writer.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::path::Path;
use std::time::Duration;

use baton_core::chorus::Chorus;
use baton_core::exit::Exit;
use baton_core::ids::GenerationId;
use baton_core::notice::{self, Notice};
use baton_core::supervisor::Event;
use baton_sys::process;
use rustix::net::sockopt::set_socket_passcred;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::log;
use crate::outlive::{caught, fault, rest};
use crate::tree::{self, Main, Root};

/// The longest message that is read; systemd's own limit is a page.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How many messages of one generation are heard in a [`BURST`]; the others wait. A program that says more says
/// nothing new.
const MESSAGES_MAX: u32 = 100;
/// See [`MESSAGES_MAX`].
const BURST: Duration = Duration::from_secs(1);
/// How many messages may wait in the kernel's queue (`net.unix.max_dgram_qlen`: 10, or 512 where systemd has set it), as far as
/// they are heard before the end that follows them is told.
const QUEUED_MAX: usize = 64;
/// How long that may take: looking for senders that nobody knows takes most of it, and anybody can send. What is left then is
/// heard after the end; a program that has ended is launched again no later than that, and one look.
const QUEUED_WITHIN: Duration = Duration::from_millis(200);
/// How often another main process is followed at the most. Of those that are named meanwhile the last one is.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// How often all processes are looked at for a sender that is not known, at the most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many senders are remembered that do not belong to the generation.
const STRANGERS_MAX: usize = 64;

/// What is heard of a generation, in the order in which it was: one queue for all of it.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// Something that its processes have said.
    Said(Event),
    /// A main process has ended, who had said all that came before.
    Ended(Ended),
}

/// The end of a main process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whose.
    pub generation: GenerationId,
    /// Which, by its start too: its number may be another one's by now.
    pub main: Main,
    /// How.
    pub exit: Exit,
}

/// The socket that one generation's processes write to.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    address: String,
}

impl NotifySocket {
    /// Opens one in this folder, which goes with the generation and is nobody else's yet. Not every program knows what to do with an
    /// abstract name (Ruby's take it for a path), so that is only for want of a folder, or one with a long name.
    pub fn open(folder: Option<&Path>) -> io::Result<Self> {
        let path = folder.map(|folder| folder.join(".notify"));
        let bound = path.and_then(|path| Some((StdDatagram::bind(&path).ok()?, path)));
        let (socket, address) = match bound {
            Some((socket, path)) => {
                // Whoever the program runs as may write; who is believed is decided for each message.
                std::fs::set_permissions(&path, Permissions::from_mode(0o666))?;
                (socket, path.display().to_string())
            }
            None => {
                let name = format!("baton/{:016x}", fastrand::u64(..));
                (StdDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?, format!("@{name}"))
            }
        };
        socket.set_nonblocking(true)?;
        set_socket_passcred(&socket, true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)?, address })
    }

    /// What `NOTIFY_SOCKET` must be.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Passes on what the generation's processes say, until there is nobody to tell; and their ends, each `after` all that was
    /// said before it.
    pub async fn listen(
        self,
        root: Root,
        copies: u32,
        events: mpsc::Sender<News>,
        mut after: mpsc::UnboundedReceiver<Ended>,
    ) {
        let mut heard = Heard::of(root, copies, events);
        while caught(self.hear(&mut heard, &mut after)).await.is_none() {
            rest().await;
        }
    }

    async fn hear(&self, heard: &mut Heard, after: &mut mpsc::UnboundedReceiver<Ended>) {
        fault("notify");
        loop {
            let rests_until = heard.rests_until();
            let goes_on = tokio::select! {
                said = self.next(), if rests_until.is_none() => match said {
                    Ok((sender, notices)) => heard.passes_on(sender, notices).await,
                    // Deaf for good it must never be: an end would wait for ever.
                    Err(_) => {
                        rest().await;
                        true
                    }
                },
                () = tokio::time::sleep_until(rests_until.unwrap_or(heard.follows_at)), if rests_until.is_some() => {
                    true
                }
                () = tokio::time::sleep_until(heard.follows_at), if heard.next.is_some() => heard.follow().await,
                Some(ended) = after.recv() => self.tell_end(heard, ended).await,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Passes on what was said before an end, and that; `false` when there is nobody to tell. What was said waits already; who
    /// goes on talking is not waited for.
    async fn tell_end(&self, heard: &mut Heard, ended: Ended) -> bool {
        let until = Instant::now() + QUEUED_WITHIN;
        for _ in 0..QUEUED_MAX {
            let Ok((sender, notices)) = self.next_now() else { break };
            if !heard.passes_on(sender, notices).await {
                return false;
            }
            if Instant::now() >= until {
                break;
            }
        }
        // Who was named before may be who goes on.
        heard.follow().await && heard.events.send(News::Ended(ended)).await.is_ok()
    }

    /// Waits for the next message and tells what of it is known, with the pid that the kernel says sent it.
    async fn next(&self) -> io::Result<(i32, Vec<Notice>)> {
        self.socket.async_io(tokio::io::Interest::READABLE, || self.next_now()).await
    }

    /// The same, if there is one.
    fn next_now(&self) -> io::Result<(i32, Vec<Notice>)> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let (sender, length) = receive(&self.socket, &mut buffer)?;
        Ok((sender, notice::read(&buffer[..length])))
    }
}

/// What was heard of a generation, and who is told.
struct Heard {
    root: Root,
    chorus: Chorus,
    senders: Senders,
    /// The main process that was named last.
    named: Option<Main>,
    /// The same, as long as nobody was told.
    next: Option<Main>,
    /// When that may be told at the earliest.
    follows_at: Instant,
    /// See [`MESSAGES_MAX`].
    burst: (Instant, u32),
    events: mpsc::Sender<News>,
}

impl Heard {
    fn of(root: Root, copies: u32, events: mpsc::Sender<News>) -> Self {
        Self {
            chorus: Chorus::new(copies),
            senders: Senders::of(root.clone()),
            named: None,
            next: None,
            follows_at: Instant::now(),
            burst: (Instant::now(), 0),
            root,
            events,
        }
    }

    /// Until when nothing more is heard, because there was too much. An end does not wait for that.
    fn rests_until(&self) -> Option<Instant> {
        let (since, heard) = self.burst;
        (heard >= MESSAGES_MAX).then_some(since + BURST).filter(|until| *until > Instant::now())
    }

    /// Passes on a message, if the sender is believed; `false` when there is nobody to tell.
    async fn passes_on(&mut self, sender: i32, notices: Vec<Notice>) -> bool {
        let (since, heard) = &mut self.burst;
        if since.elapsed() >= BURST {
            (*since, *heard) = (Instant::now(), 0);
        }
        *heard += 1;
        for notice in last_main_only(notices) {
            if let Notice::MainPid(pid) = notice {
                let named = self.chorus.says(sender, &notice) && self.names(sender, pid).await;
                if named && !self.follow_in_time().await {
                    return false;
                }
                continue;
            }
            if !self.senders.includes(sender).await || !self.chorus.says(sender, &notice) {
                continue;
            }
            if self.events.send(News::Said(Event::Said(self.root.generation, notice))).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Whether another process is to be followed from now on, because somebody names it who is believed.
    async fn names(&mut self, sender: i32, pid: i32) -> bool {
        // Who names its successor may have ended since. It can name only one of its own.
        if !(self.was_main(sender) || self.senders.includes(sender).await) {
            return false;
        }
        let own = self.senders.find(pid).await;
        let Some(started) = own else {
            if self.named.is_none_or(|named| named.pid != pid) && !self.root.is_main(pid) {
                let generation = self.root.generation;
                log::say(format_args!(
                    "generation {generation} names process {pid} as its main one, which is none of its own: it is not followed"
                ));
            }
            return false;
        };
        let main = Main { pid, started: Some(started) };
        // Naming the process that is the main one anyway says nothing.
        let known = self.named.map_or_else(|| self.root.mains.contains(&main), |named| named == main);
        if !known {
            self.named = Some(main);
            self.next = Some(main);
        }
        !known
    }

    /// Whether this is the pid of a process that was the main one, by its start or by name, and has ended.
    fn was_main(&self, pid: i32) -> bool {
        let was = self.root.is_main(pid) || self.named.is_some_and(|named| named.pid == pid);
        was && process::started(pid).is_none()
    }

    /// Tells who is to be followed, if that may be told already; `false` when there is nobody to tell.
    async fn follow_in_time(&mut self) -> bool {
        self.follows_at > Instant::now() || self.follow().await
    }

    /// Tells who is to be followed, if nobody knows yet; `false` when there is nobody to tell.
    async fn follow(&mut self) -> bool {
        let Some(Main { pid, started: Some(started) }) = self.next.take() else { return true };
        self.follows_at = Instant::now() + FOLLOW_EVERY;
        let generation = self.root.generation;
        self.events.send(News::Said(Event::Named { generation, pid, started })).await.is_ok()
    }
}

/// The notices without those that name a main process, but for the last one: who names several means that.
fn last_main_only(notices: Vec<Notice>) -> impl Iterator<Item = Notice> {
    let names = |notice: &Notice| matches!(notice, Notice::MainPid(_));
    let last = notices.iter().rposition(names);
    notices
        .into_iter()
        .enumerate()
        .filter(move |(at, one)| !names(one) || Some(*at) == last)
        .map(|(_, one)| one)
}

/// One message and the pid of its sender.
fn receive(socket: &UnixDatagram, buffer: &mut [u8]) -> io::Result<(i32, usize)> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [io::IoSliceMut::new(buffer)],
        &mut control,
        // Descriptors that somebody sends along are closed with the message.
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid.as_raw_nonzero().get()),
        _ => None,
    });
    // One that is too long says nothing: its last line may have been cut in the middle of a number.
    let length = if received.flags.contains(ReturnFlags::TRUNC) { 0 } else { received.bytes };
    Ok((sender.unwrap_or(0), length))
}

/// Who has written, and whether they belong to the generation.
struct Senders {
    root: Root,
    known: Known,
    looked: Option<Instant>,
}

impl Senders {
    fn of(root: Root) -> Self {
        Self { root, known: Known::default(), looked: None }
    }

    /// Whether the process with this pid belongs to the generation.
    async fn includes(&mut self, pid: i32) -> bool {
        self.find(pid).await.is_some()
    }

    /// When the process with this pid was started, if it belongs to the generation.
    async fn find(&mut self, pid: i32) -> Option<u64> {
        let started = process::started(pid)?;
        let own = match self.root.mains.iter().find(|main| main.pid == pid) {
            Some(main) if Some(started) == main.started => Some(true),
            _ => self.known.get(pid, started),
        };
        let own = match own {
            Some(own) => own,
            None => self.look(pid, started).await,
        };
        own.then_some(started)
    }

    /// Looks at all processes, and whether this one is among those of the generation.
    async fn look(&mut self, pid: i32, started: u64) -> bool {
        if let Some(looked) = self.looked {
            tokio::time::sleep_until(looked + LOOK_EVERY).await;
        }
        let root = self.root.clone();
        let members = spawn_blocking(move || tree::of(&root)).await;
        self.looked = Some(Instant::now());
        let members = members.ok().and_then(Result::ok).unwrap_or_default();
        self.known.learn(members.iter().map(|member| (member.pid, member.started)), (pid, started))
    }
}

/// Processes by pid, each with its start and whether it is one of ours: a pid may be somebody else's later.
#[derive(Default)]
struct Known(BTreeMap<i32, (u64, bool)>);

impl Known {
    fn get(&self, pid: i32, started: u64) -> Option<bool> {
        self.0.get(&pid).filter(|(known, _)| *known == started).map(|(_, own)| *own)
    }

    /// Takes in who belongs to the generation now, and tells whether `sender` does.
    fn learn(&mut self, members: impl Iterator<Item = (i32, u64)>, sender: (i32, u64)) -> bool {
        self.0.retain(|_, (_, own)| !*own);
        if self.0.len() >= STRANGERS_MAX {
            self.0.clear();
        }
        self.0.insert(sender.0, (sender.1, false));
        self.0.extend(members.map(|(pid, started)| (pid, (started, true))));
        self.get(sender.0, sender.1) == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Longer than anything takes here: reaching it is a failure.
    const LIMIT: Duration = Duration::from_secs(60);

    /// What is heard of a generation whose main process is the one of this test.
    fn heard() -> (Heard, mpsc::Receiver<News>) {
        let (events, told) = mpsc::channel(9);
        let pid = std::process::id().cast_signed();
        let root = Root {
            generation: GenerationId(1),
            mains: vec![Main { pid, started: process::started(pid) }],
            former: Vec::new(),
            sockets: Vec::new(),
            notify: std::ffi::OsString::new(),
            user: 0,
        };
        (Heard::of(root, 1, events), told)
    }

    #[expect(clippy::disallowed_methods, reason = "nobody reaps this child but the test")]
    fn child() -> (Child, i32) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        (child, pid)
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn named(pid: i32) -> News {
        let started = process::started(pid).unwrap();
        News::Said(Event::Named { generation: GenerationId(1), pid, started })
    }

    fn ready() -> News {
        News::Said(Event::Said(GenerationId(1), Notice::Ready))
    }

    fn end_of(pid: i32) -> Ended {
        let main = Main { pid, started: process::started(pid) };
        Ended { generation: GenerationId(1), main, exit: Exit::Code(0) }
    }

    #[tokio::test]
    async fn what_was_said_before_an_end_is_heard_before_it_and_a_flood_keeps_no_end_waiting() {
        let ((mut heard, mut told), own) = (heard(), std::process::id().cast_signed());
        let folder = tempfile::tempdir().unwrap();
        let socket = NotifySocket::open(Some(folder.path())).unwrap();
        let say = || StdDatagram::unbound().unwrap().send_to(b"READY=1", socket.address()).unwrap();
        let (ends, mut after) = mpsc::unbounded_channel();
        // So much was said that nothing more is heard for an hour.
        heard.burst = (Instant::now() + Duration::from_secs(3600), MESSAGES_MAX);
        for _ in 0..3 {
            say();
        }
        ends.send(end_of(own)).unwrap();
        say();
        let hears = async {
            tokio::select! {
                () = socket.hear(&mut heard, &mut after) => panic!("somebody listens"),
                news = async {
                    let mut news = Vec::new();
                    while !matches!(news.last(), Some(News::Ended(_))) {
                        news.extend(told.recv().await);
                    }
                    news
                } => news,
            }
        };
        let news = tokio::time::timeout(LIMIT, hears).await.unwrap();
        assert_eq!(news, [ready(), ready(), ready(), ready(), News::Ended(end_of(own))]);
    }

    /// One that says that it is ready and lives on, until its input ends.
    #[expect(clippy::disallowed_methods, reason = "nobody reaps this child but the test")]
    fn talker(address: &str) -> Child {
        let script = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
                      s.sendto(b'READY=1', sys.argv[1]); print(flush=True); sys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", script, address]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut output = io::BufReader::new(child.stdout.take().unwrap());
        io::BufRead::read_line(&mut output, &mut line).unwrap();
        child
    }

    #[tokio::test]
    async fn an_end_does_not_wait_until_everybody_has_been_looked_for() {
        let ((mut heard, mut told), own) = (heard(), std::process::id().cast_signed());
        let folder = tempfile::tempdir().unwrap();
        let socket = NotifySocket::open(Some(folder.path())).unwrap();
        // Who is not known is looked for, and not too often.
        let child = talker(&socket.address());
        StdDatagram::unbound().unwrap().send_to(b"STATUS=one more", socket.address()).unwrap();
        heard.senders.looked = Some(Instant::now() + QUEUED_WITHIN);
        assert!(socket.tell_end(&mut heard, end_of(own)).await);
        assert_eq!((told.try_recv(), told.try_recv()), (Ok(ready()), Ok(News::Ended(end_of(own)))));
        assert!(told.try_recv().is_err());
        end(child);
    }

    #[tokio::test]
    async fn of_many_that_are_named_in_a_moment_the_last_one_is_followed() {
        let ((mut heard, mut told), own) = (heard(), std::process::id().cast_signed());
        let ((one, first), (other, second)) = (child(), child());
        assert!(heard.passes_on(own, vec![Notice::MainPid(second), Notice::MainPid(first)]).await);
        assert_eq!(told.try_recv(), Ok(named(first)), "one of a message");
        heard.follows_at += Duration::from_secs(3600);
        for pid in [second, first, second] {
            assert!(heard.passes_on(own, vec![Notice::MainPid(pid), Notice::Ready]).await);
            assert_eq!(told.try_recv(), Ok(ready()), "{pid}");
        }
        assert!(heard.follow().await && heard.follow().await);
        assert_eq!(told.try_recv(), Ok(named(second)));
        assert!(told.try_recv().is_err());
        [one, other].into_iter().for_each(end);
    }

    #[tokio::test]
    async fn one_that_was_named_and_has_ended_may_have_named_the_next() {
        let ((mut heard, mut told), own) = (heard(), std::process::id().cast_signed());
        let ((one, first), (other, second)) = (child(), child());
        assert!(heard.passes_on(own, vec![Notice::MainPid(first)]).await);
        assert_eq!(told.try_recv(), Ok(named(first)));
        end(one);
        heard.follows_at = Instant::now();
        assert!(heard.passes_on(first, vec![Notice::MainPid(second)]).await);
        assert_eq!(told.try_recv(), Ok(named(second)));
        assert!(heard.passes_on(own, vec![Notice::MainPid(first)]).await);
        assert!(told.try_recv().is_err(), "it is gone");
        end(other);
    }

    #[test]
    fn a_sender_is_known_by_pid_and_start() {
        let mut known = Known::default();
        assert_eq!(known.get(7, 1), None);
        assert!(known.learn([(5, 1), (7, 1)].into_iter(), (7, 1)));
        assert_eq!((known.get(7, 1), known.get(5, 1)), (Some(true), Some(true)));
        assert_eq!(known.get(7, 2), None, "the pid is somebody else's now");
        assert!(!known.learn([(5, 1)].into_iter(), (9, 3)));
        assert_eq!((known.get(9, 3), known.get(7, 1)), (Some(false), None));
    }

    #[test]
    fn strangers_do_not_pile_up() {
        let mut known = Known::default();
        for pid in 1..10_000 {
            assert!(!known.learn(std::iter::once((100_000, 1)), (pid, 1)));
            assert!(known.0.len() <= STRANGERS_MAX + 2);
        }
    }
}
