//! The side of the admin socket that asks: `baton-boot status`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Request, address, prefix};

/// How long an answer takes at the most that the bootloader has at hand, on the busiest machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No bootloader runs here.
    #[error("no baton-boot runs in this pid and network namespace; ask inside its container")]
    Nobody,
    /// More than one does.
    #[error("several run here: {0}; name one, as in: baton-boot {1} {2}")]
    Several(String, &'static str, u32),
    /// The one that was named does not.
    #[error("process {0} is no baton-boot that can be reached from here")]
    NotThere(u32, #[source] io::Error),
    /// It did not answer.
    #[error("baton-boot did not answer")]
    Lost(#[source] io::Error),
    /// It takes longer than it should.
    #[error(
        "process {0} has not answered for {time} s; it may be stopped (kill -CONT {0} lets it go on), or its machine busy",
        time = ANSWER_LIMIT.as_secs()
    )]
    Silent(u32),
    /// It is gone.
    #[error("baton-boot ended before it answered")]
    Ended,
    /// What it answered cannot be printed.
    #[error("cannot print what was answered")]
    Unprinted(#[source] io::Error),
    /// It refused.
    #[error("{0}")]
    Refused(String),
}

/// Asks the bootloader with this pid, or the only one there is, and returns its answer: a JSON document.
pub fn ask(request: Request, pid: Option<u32>) -> Result<serde_json::Value, AskError> {
    let mut text = String::new();
    let (pid, mut stream) = said(request, pid)?;
    if request.is_answered_at_once() {
        stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(AskError::Lost)?;
    }
    stream.read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::Silent(pid),
        _ => AskError::Lost(error),
    })?;
    if text.is_empty() {
        return Err(AskError::Ended);
    }
    document(&text)
}

/// The same for what is answered piece by piece, until the bootloader ends; each piece goes to `take`.
pub fn follow(
    request: Request,
    pid: Option<u32>,
    take: &mut impl FnMut(&serde_json::Value) -> io::Result<()>,
) -> Result<(), AskError> {
    let (_, stream) = said(request, pid)?;
    for text in BufReader::new(stream).lines() {
        let answer = document(&text.map_err(AskError::Lost)?)?;
        take(&answer).map_err(AskError::Unprinted)?;
    }
    Ok(())
}

/// A connection on which this was asked, and whom.
fn said(request: Request, pid: Option<u32>) -> Result<(u32, UnixStream), AskError> {
    let pid = match pid {
        Some(pid) => pid,
        None => only_one(request)?,
    };
    let mut stream = reach(pid).map_err(|error| AskError::NotThere(pid, error))?;
    stream.write_all(format!("{}\n", request.line()).as_bytes()).map_err(AskError::Lost)?;
    Ok((pid, stream))
}

fn document(text: &str) -> Result<serde_json::Value, AskError> {
    let answer: serde_json::Value =
        serde_json::from_str(text).map_err(|error| AskError::Lost(error.into()))?;
    match answer.get("error").and_then(|why| why.as_str()) {
        Some(why) => Err(AskError::Refused(why.to_owned())),
        None => Ok(answer),
    }
}

/// A connection to the bootloader with this pid. Anybody can take a name, but not a pid.
fn reach(pid: u32) -> io::Result<UnixStream> {
    let stream = UnixStream::connect_addr(&address(pid)?)?;
    let peer = rustix::net::sockopt::socket_peercred(&stream)?.pid.as_raw_nonzero().get();
    if u32::try_from(peer) == Ok(pid) {
        return Ok(stream);
    }
    Err(io::Error::other(format!("its socket belongs to process {peer}")))
}

/// The only bootloader here; where there are several, the one that is the container's first process.
fn only_one(request: Request) -> Result<u32, AskError> {
    let table = std::fs::read_to_string("/proc/net/unix").map_err(AskError::Lost)?;
    let mut pids = pids(&table, &prefix().map_err(AskError::Lost)?);
    pids.retain(|pid| reach(*pid).is_ok());
    match pids.as_slice() {
        [] => Err(AskError::Nobody),
        [pid] => Ok(*pid),
        _ if pids.contains(&1) => Ok(1),
        [first, ..] => {
            let all: Vec<String> = pids.iter().map(u32::to_string).collect();
            Err(AskError::Several(all.join(", "), request.word(), *first))
        }
    }
}

/// The pids of all that listen under this prefix, from a table like `/proc/net/unix`.
fn pids(table: &str, prefix: &str) -> Vec<u32> {
    let name = |line: &str| line.rsplit_once('@').map(|(_, name)| name.to_owned());
    let mut pids: Vec<u32> =
        table.lines().filter_map(|line| name(line)?.strip_prefix(prefix)?.parse().ok()).collect();
    pids.sort_unstable();
    // One line for the listener and one for each connection.
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootloaders_are_found_in_the_kernels_table() {
        let table = "Num RefCount Protocol Flags Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 1 @baton-boot/40265/77\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 2 @baton-boot/40265/77\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 3 @baton-boot/999/1\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 4 /run/user@1000/bus\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 5 @baton-boot/40265/9\n";
        assert_eq!(pids(table, "baton-boot/40265/"), [9, 77]);
    }
}
