//! Memory, watched: how much there is, how much is used, and whom the kernel killed for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_core::exit::Exit;
use baton_core::run::runs_out;
use baton_core::signal::Signal;
use baton_core::supervisor::Event;
use baton_core::units::Bytes;
use baton_sys::memory::{self, Account, Usage};
use tokio::sync::mpsc;

use crate::log;
use crate::outlive::{caught, fault, rest};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How many looks are kept for the report of an end: the last minute.
const KEPT: usize = 60;
/// How long after the kernel's kill the end of a program is put down to it: a tick may see it first.
const SOON: Duration = Duration::from_secs(2);
const MIB: u64 = 1024 * 1024;

/// The memory account (cgroup) that the member is charged to; nothing, where none is kept.
///
/// In a container that is the member's own. Elsewhere others may be charged to it too: all that runs in the same
/// systemd unit or login session. What each generation takes up by itself tells
/// [`Watching`](crate::watching::Watching).
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    account: Option<Account>,
    last: Usage,
    /// When it was seen that the kernel had killed somebody.
    killed_at: Option<Instant>,
    /// What was used at each look, the newest at the end.
    used: VecDeque<u64>,
}

impl Memory {
    /// Starts to look; `events` hears when memory is about to run out.
    pub fn watch(events: mpsc::UnboundedSender<Event>) -> Self {
        let memory = Self::default();
        memory.lock().account = Account::find();
        let watching = memory.clone();
        tokio::spawn(async move {
            while caught(watching.look_again_and_again(&events)).await.is_none() {
                rest().await;
            }
        });
        memory
    }

    async fn look_again_and_again(&self, events: &mpsc::UnboundedSender<Event>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            fault("memory");
            // Somebody was killed whose end nobody waits for: a program's own child.
            if let Some(report) = self.lock().look() {
                log::say(report);
            }
            let usage = self.usage();
            if let Some((used, limit)) = usage.and_then(|usage| Some((usage.used, usage.limit?)))
                && runs_out(Bytes(used), Bytes(limit))
            {
                // The receiver lives as long as the member.
                let _ = events.send(Event::NoMemoryLeft);
            }
        }
    }

    /// The last look, where an account is kept.
    pub fn usage(&self) -> Option<Usage> {
        let watched = self.lock();
        watched.account.is_some().then_some(watched.last)
    }

    /// How much all that runs here may use, in bytes: the account's limit, or the machine's memory where there is
    /// none.
    pub fn most(&self) -> u64 {
        let machine = rustix::system::sysinfo();
        let all = machine.totalram.saturating_mul(machine.mem_unit.into());
        self.usage().and_then(|usage| usage.limit).map_or(all, |limit| limit.min(all))
    }

    /// How much there is now, and of how much: of the account's limit or of the machine's memory, whichever leaves
    /// less. Nothing, where neither can be read. Blocks.
    pub fn held(&self) -> Option<(Bytes, Bytes)> {
        let account = self.lock().account.clone();
        let usage = account.and_then(|account| account.usage().ok());
        let limited = usage.and_then(|usage| Some((usage.held, usage.limit?)));
        let machine =
            memory::machine().ok().map(|(total, available)| (total.saturating_sub(available), total));
        let left = |(held, limit): &(u64, u64)| limit.saturating_sub(*held);
        let least = [limited, machine].into_iter().flatten().min_by_key(left);
        least.map(|(held, limit)| (Bytes(held), Bytes(limit)))
    }

    /// What an exit means: the kernel's kill for want of memory looks like any other.
    pub fn explain(&self, exit: Exit) -> Exit {
        if exit != Exit::Signal(Signal::KILL) {
            return exit;
        }
        let mut watched = self.lock();
        if let Some(report) = watched.look() {
            log::say(report);
        }
        match watched.killed_at {
            Some(at) if at.elapsed() < SOON => {
                Exit::OutOfMemory { peak: watched.last.peak, limit: watched.last.limit }
            }
            _ => exit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Looks once; tells when somebody was killed since the last time.
    fn look(&mut self) -> Option<String> {
        let now = self.account.as_ref()?.usage().ok()?;
        let killed = now.kills.saturating_sub(self.last.kills);
        let whole = now.group_kills > self.last.group_kills;
        // What was killed before the first look is not ours.
        let first = self.used.is_empty();
        self.last = now;
        self.used.push_back(now.used);
        let surplus = self.used.len().saturating_sub(KEPT);
        self.used.drain(..surplus);
        if killed == 0 || first {
            return None;
        }
        self.killed_at = Some(Instant::now());
        let whom = match (whole, killed) {
            (true, _) => "all the processes of a group at once (memory.oom.group)",
            (false, 1) => "a process",
            (false, _) => "processes",
        };
        Some(report(whom, now, &self.used))
    }
}

fn report(killed: &str, usage: Usage, used: &VecDeque<u64>) -> String {
    let mib = |bytes: u64| (bytes / MIB).to_string();
    let limit = usage.limit.map_or_else(|| "the machine's".to_owned(), |limit| format!("{} MiB", mib(limit)));
    let history: Vec<String> = used.iter().map(|bytes| mib(*bytes)).collect();
    format!(
        "memory ran out, limit {limit}: the kernel killed {killed}; used in the last seconds, in MiB: {}",
        history.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_tells_whom_the_limit_and_the_way_there() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("memory.max", &(64 * MIB).to_string());
        let account = Account::version_2_at(folder.path());
        let mut watched = Watched { account: Some(account), ..Watched::default() };
        let mut look = |mib: u64, kills: u64, group_kills: u64| {
            write("memory.current", &(mib * MIB).to_string());
            write("memory.events", &format!("oom_kill {kills}\noom_group_kill {group_kills}\n"));
            watched.look()
        };
        let told = |whom: &str, used: &str| {
            Some(format!(
                "memory ran out, limit 64 MiB: the kernel killed {whom}; used in the last seconds, in MiB: {used}"
            ))
        };
        assert_eq!(look(10, 7, 1), None, "what was before is not ours");
        assert_eq!(look(40, 7, 1), None);
        assert_eq!(look(63, 8, 1), told("a process", "10 40 63"));
        assert_eq!(look(20, 8, 1), None);
        assert_eq!(look(62, 11, 1), told("processes", "10 40 63 20 62"));
        let whole = "all the processes of a group at once (memory.oom.group)";
        assert_eq!(look(5, 14, 2), told(whole, "10 40 63 20 62 5"));
    }
}
