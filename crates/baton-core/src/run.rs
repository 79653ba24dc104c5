//! How a release wants to be run: what belongs to the program, not to the rollout.
//!
//! Parsed from `baton.toml` by [`crate::settings`], carried in the release's manifest, obeyed by the bootloader.

mod address;
pub mod environment;
mod memory;
mod options;
mod output;
mod probe;
mod process;
pub mod secrets;

use alloc::string::String;
use alloc::vec::Vec;

pub use self::address::{Address, InvalidAddress, InvalidPath, SOCKET_PATH_BYTES_MAX, SocketPath};
pub use self::environment::Inherited;
pub use self::memory::{Needs, NoRoom, Recycle, Room, runs_out};
pub use self::options::SocketOptions;
pub use self::output::{Format, Output};
pub use self::probe::{HttpProbe, InvalidStatus, Probe, StatusRange};
pub use self::process::{
    OOM_SERVING, Process, SizeLimit, Stdin, is_mount_point, nice_on_trial, oom_score_adj,
};
pub use self::secrets::Secrets;
use crate::signal::Signal;
use crate::units::{Bytes, Millis, Share};

/// Run settings of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSettings {
    /// The program and its arguments; never empty. A program with a `/` in its name is found in the release,
    /// any other in `PATH`.
    pub command: Vec<String>,
    /// How many copies of the program a generation has, on the same sockets: at least 1.
    pub workers: u32,
    /// Where it accepts connections. Empty for workers.
    pub listen: Vec<Listen>,
    /// For workers only (no `listen`): whether a generation may run beside another one. If not, the old one is
    /// stopped first, and the new one is launched when no process of it is left.
    pub overlap: bool,
    /// How a generation says that it can be judged.
    pub ready: Ready,
    /// How a generation is judged. Without it, one that listens must accept a connection, and for one that does
    /// not, being ready and alive is enough.
    pub health: Option<HealthCheck>,
    /// How long a generation may take from its start to its first success.
    pub startup_timeout: Millis,
    /// How long accepted work may finish after the stop signal.
    pub drain: Millis,
    /// How long the main process alone has before what is left of its tree gets the stop signal too;
    /// half of `drain` when not set.
    pub stop_tree_after: Option<Millis>,
    /// The signal that asks the program to finish.
    pub stop_signal: Signal,
    /// For workers only: the signal that asks the program to take no new work, sent when its successor is ready;
    /// `stop_signal` follows when it says that it is idle, or after `quiesce`.
    pub quiesce_signal: Option<Signal>,
    /// How long it may go on with the work that it has after `quiesce_signal`; as long as `drain` when not set.
    pub quiesce: Option<Millis>,
    /// How often the program says at the least that it is alive (`WATCHDOG=1`), once it is ready.
    pub watchdog: Option<Millis>,
    /// How long the generation before stands by once this one is proven, so that a way back to its release is one
    /// switch and no launch; both use memory meanwhile. Not at all, when not set.
    pub keep_warm: Option<Millis>,
    /// Which part of the new connections it gets while it bakes, the rest going to the generation that stands by; all,
    /// when not set.
    pub split: Option<Share>,
    /// What shows that the program gets on with its work, once it is ready.
    pub progress: Option<Progress>,
    /// What an exit of the serving generation leads to.
    pub on_exit: OnExit,
    /// How many relaunches within [`RESTART_WINDOW`] before the bootloader gives up.
    pub max_restarts: u32,
    /// The exit code by which a program asks to be relaunched at once.
    pub relaunch_exit_code: u8,
    /// From when on it is replaced for its memory.
    pub recycle: Option<Recycle>,
    /// How much memory it needs until it is proven. Where there is not so much, it is not launched beside another one.
    pub needs: Option<Bytes>,
    /// What of its process it is given.
    pub process: Process,
    /// What becomes of what it writes.
    pub output: Output,
    /// What of the bootloader's environment it inherits.
    pub inherited: Inherited,
    /// Added to the program's environment, sorted by name, each name once.
    pub env: Vec<(String, String)>,
    /// What it is given besides that no release has.
    pub secrets: Secrets,
}

/// More copies than this on one machine are a mistake: each has processes, memory and connections of its own.
pub const WORKERS_MAX: u32 = 256;

/// Restarts are counted over this time. Long enough that a program which dies every minute is noticed.
pub const RESTART_WINDOW: Millis = Millis::from_secs(600);

impl RunSettings {
    /// Settings for a command with every other value at its default.
    pub fn for_command(command: Vec<String>) -> Self {
        Self {
            command,
            workers: 1,
            listen: Vec::new(),
            overlap: true,
            ready: Ready::Probe,
            health: None,
            startup_timeout: Millis::from_secs(60),
            drain: Millis::from_secs(30),
            stop_tree_after: None,
            stop_signal: Signal::TERM,
            quiesce_signal: None,
            quiesce: None,
            watchdog: None,
            keep_warm: None,
            split: None,
            progress: None,
            on_exit: OnExit::Restart,
            max_restarts: 10,
            relaunch_exit_code: 86,
            recycle: None,
            needs: None,
            process: Process::default(),
            output: Output::default(),
            inherited: Inherited::default(),
            env: Vec::new(),
            secrets: Secrets::default(),
        }
    }
}

impl RunSettings {
    /// How many sockets a generation has for one of its listeners.
    pub fn sockets(&self, listen: &Listen) -> u32 {
        if listen.per_worker && listen.is_divisible() { self.workers } else { 1 }
    }
}

/// One place where a program accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// What the program calls it (`LISTEN_FDNAMES`).
    pub name: String,
    /// Where clients find it.
    pub address: Address,
    /// Who may connect to it, as the permissions of a file: for a Unix socket only.
    pub mode: u16,
    /// How new connections move from one generation to the next.
    pub handover: Handover,
    /// Length of the accept queue.
    pub backlog: u16,
    /// Of the sockets that programs get, where they have a port.
    pub options: SocketOptions,
    /// Each copy of the program has a socket of its own, and gets its part of the connections; for ports that programs
    /// get sockets for, and several workers.
    pub per_worker: bool,
}

/// Who may connect to a Unix socket where nothing else is said: its user and its group, as for the sockets of
/// other servers of application code.
pub const MODE_DEFAULT: u16 = 0o660;

impl Listen {
    /// Whether each copy can have a socket of its own here: several at one place are possible for ports only.
    pub fn is_divisible(&self) -> bool {
        self.handover.passes_socket() && self.address.tcp().is_some()
    }

    /// Whether clients can be sent to one generation at a time only: a path leads to one socket.
    pub fn is_one_place(&self) -> bool {
        self.handover.passes_socket() && self.address.path().is_some()
    }
}

/// The accept queue's length where nothing else is said: the kernel's own default limit (`net.core.somaxconn`).
pub const BACKLOG_DEFAULT: u16 = 4096;

/// How new connections move from one generation to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// The program binds its port as it always did and gets the generation's own socket in its place; one that
    /// takes an open socket, as for [`Handover::Inherit`], may do so.
    Auto,
    /// The program takes an open socket by systemd's `LISTEN_FDS` protocol.
    Inherit,
    /// The bootloader accepts and forwards each connection to a private port of the generation, `PORT`.
    Proxy(Proxy),
}

impl Handover {
    /// How settings and manifests write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Inherit => "inherit",
            Self::Proxy(_) => "proxy",
        }
    }

    /// Whether each generation has a socket of its own for the listener's clients.
    pub fn passes_socket(self) -> bool {
        match self {
            Self::Auto | Self::Inherit => true,
            Self::Proxy(_) => false,
        }
    }
}

/// How connections are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proxy {
    /// How many connections a generation has at most; others wait in the accept queue. No limit when not set.
    pub max_connections: Option<u32>,
    /// Each connection begins with a header that tells who the client is: the PROXY protocol, version 2
    /// (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
    pub proxy_protocol: bool,
    /// The connections of a generation that was replaced are told to end with their next answer, where they speak
    /// HTTP/1.1.
    pub close_hint: bool,
}

/// How a generation says that it can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The first successful probe is readiness; an early `READY=1` only starts probing sooner.
    Probe,
    /// The program sends `READY=1` to `NOTIFY_SOCKET`; it is not probed before.
    Notify,
}

/// What shows that a program gets on with its work: a file that it touches or writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which. A relative one is in the generation's scratch folder.
    pub file: String,
    /// How long it may stay as it is.
    pub within: Millis,
}

/// What an exit of the serving generation leads to, when nothing stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// Relaunch the same release on the same sockets, with back-off.
    Restart,
    /// The bootloader ends with the program's exit code, so that the engine sees it.
    Exit,
}

/// How a generation is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// The name of the listener that is asked; none where the probe does not connect.
    pub listener: Option<String>,
    /// Time from the end of one probe to the start of the next, once the start is over.
    pub interval: Millis,
    /// How long one probe may take.
    pub timeout: Millis,
    /// How many failures in a row make a healthy generation unhealthy.
    pub failures: u32,
    /// How many successes in a row make it healthy.
    pub successes: u32,
}
