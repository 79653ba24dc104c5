//! The service manager that has started the bootloader, mostly systemd: what it is told.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use baton_core::service_manager::{Announcer, Line, Standing};
use baton_core::supervisor::Supervisor;
use baton_core::units::Millis;

use crate::log;

/// When to try again to say what a busy manager had no room for.
const SAY_AGAIN: Millis = Millis(100);

/// What the environment says of the manager.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// `NOTIFY_SOCKET`: a path, or `@` and a name.
    pub socket: String,
    /// `WATCHDOG_USEC`, where it is meant for this process: how often it wants a sign of life at the least.
    pub watchdog: Option<Millis>,
}

/// The way to the manager.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
    announcer: Announcer,
    /// What there was no room for, and when to try again.
    unsaid: Option<(String, Millis)>,
}

impl ServiceManager {
    /// The way to the manager that is told of; none, and that is said, where its socket cannot be one.
    pub fn find(told: &Told) -> Option<Self> {
        let open = || {
            let address = address(&told.socket)?;
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>((socket, address))
        };
        match open() {
            Ok((socket, address)) => {
                Some(Self { socket, address, announcer: Announcer::new(told.watchdog), unsaid: None })
            }
            Err(error) => {
                log::say(format_args!(
                    "NOTIFY_SOCKET is {:?}, and nobody can be told there: {error}",
                    told.socket
                ));
                None
            }
        }
    }

    /// Tells what is new in how the member stands.
    pub fn tell(&mut self, now: Millis, machine: &Supervisor) {
        let lines = self.announcer.tell(now, &Standing::of(machine));
        self.say(now, &lines);
    }

    /// A reload was asked for, and there is none.
    pub fn not_reloaded(&mut self, now: Millis, why: &str) {
        // Two messages: of one the manager would take the last word only.
        for line in self.announcer.not_reloaded(why) {
            self.say(now, &[line]);
        }
    }

    /// When to call [`ServiceManager::tell`] though nothing has happened.
    pub fn deadline(&self) -> Option<Millis> {
        let again = self.unsaid.as_ref().map(|(_, at)| *at);
        [self.announcer.deadline(), again].into_iter().flatten().min()
    }

    fn say(&mut self, now: Millis, lines: &[Line]) {
        let mut message = match self.unsaid.take() {
            // What is old and what is new make one message: the manager goes by the last word.
            Some((unsaid, at)) if lines.is_empty() && at > now => return self.unsaid = Some((unsaid, at)),
            Some((unsaid, _)) => unsaid,
            None => String::new(),
        };
        message.extend(lines.iter().map(spelled));
        if message.is_empty() {
            return;
        }
        match self.socket.send_to_addr(message.as_bytes(), &self.address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.unsaid = Some((message, now + SAY_AGAIN));
            }
            // A manager that is gone is no reason to stop.
            Ok(_) | Err(_) => {}
        }
    }
}

fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None if name.starts_with('/') => SocketAddr::from_pathname(name),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// The words of `sd_notify(3)`.
///
/// `MAINPID` is not among them: the manager knows whom it has started, and in a container the number is another one.
fn spelled(line: &Line) -> String {
    match line {
        Line::Ready => "READY=1\n".to_owned(),
        Line::Reloading => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let now =
                Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default());
            format!("RELOADING=1\nMONOTONIC_USEC={}\n", now.as_micros())
        }
        Line::Stopping => "STOPPING=1\n".to_owned(),
        Line::Status(text) => format!("STATUS={}\n", text.replace('\n', " ")),
        Line::Extend(time) => format!("EXTEND_TIMEOUT_USEC={}\n", time.0.saturating_mul(1000)),
        Line::Alive => "WATCHDOG=1\n".to_owned(),
    }
}
