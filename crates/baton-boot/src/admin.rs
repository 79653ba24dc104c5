//! The admin socket: what `baton-boot status`, `reload` and `logs` talk to.
//!
//! It has a name in the abstract namespace, made of the pid namespace and the pid, so that it needs no folder that
//! can be written, leaves nothing behind, and is found without being told where. Who may ask is decided by the
//! kernel's word on who asks: root, and the user that the bootloader runs as.

mod ask;
mod follow;
mod request;
mod serve;
mod show;
mod status;

use std::error::Error;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::SocketAddr;

pub use follow::Followers;
pub use request::{LINES_DEFAULT, Request};
pub use serve::{Asked, serve};
pub use status::{Around, Outside, logs, standing, state, status};

/// What somebody at a terminal asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// What.
    pub request: Request,
    /// Which bootloader; the only one, if none is named.
    pub pid: Option<u32>,
    /// The answer as it is.
    pub json: bool,
}

/// The exit code when nothing was answered, or a reload was not kept.
const EXIT_FAILED: u8 = 1;

/// Asks, prints the answer, and returns the exit code.
pub fn run(question: Question) -> Result<u8, Box<dyn Error>> {
    if let Request::Logs { follow: true, .. } = question.request {
        return follow(question);
    }
    let answer = match ask::ask(question.request, question.pid) {
        Ok(answer) => answer,
        Err(error) => {
            crate::log::say(crate::log::chain(&error));
            return Ok(EXIT_FAILED);
        }
    };
    let text = match question.request {
        _ if question.json => format!("{answer}\n"),
        Request::Status => show::status(&answer),
        Request::Reload => show::reload(&answer),
        Request::Logs { .. } => show::logs(&answer),
    };
    io::stdout().write_all(text.as_bytes())?;
    let kept = question.request != Request::Reload || answer["state"] == "proven";
    Ok(if kept { 0 } else { EXIT_FAILED })
}

/// Writes the status where the bootloader writes everything else that it says.
pub fn say_status(answer: &serde_json::Value) {
    show::status(answer).lines().for_each(crate::log::say);
}

/// Prints what is written, until the bootloader ends.
fn follow(question: Question) -> Result<u8, Box<dyn Error>> {
    let mut out = io::stdout();
    let mut print = |answer: &serde_json::Value| {
        let text = if question.json { format!("{answer}\n") } else { show::logs(answer) };
        out.write_all(text.as_bytes())
    };
    match ask::follow(question.request, question.pid, &mut print) {
        Ok(()) => Ok(0),
        Err(error) => {
            crate::log::say(crate::log::chain(&error));
            Ok(EXIT_FAILED)
        }
    }
}

/// What every admin socket's name begins with in this pid namespace.
fn prefix() -> io::Result<String> {
    // Several containers may share a network namespace, and each has a process 1.
    Ok(format!("baton-boot/{}/", std::fs::metadata("/proc/self/ns/pid")?.ino()))
}

fn address(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{}{pid}", prefix()?))
}
