//! What the copies of a program say together.
//!
//! A generation is ready when each of its copies is, idle when each is, and alive as long as each says so: one that
//! hangs is missed, whatever the others say.

use alloc::collections::BTreeSet;

use crate::notice::Notice;

/// Who of the copies has said what. Each speaks for itself, from one process.
#[derive(Debug, Clone)]
pub struct Chorus {
    copies: usize,
    ready: BTreeSet<i32>,
    idle: BTreeSet<i32>,
    /// Since the last time that all were heard.
    alive: BTreeSet<i32>,
}

impl Chorus {
    /// Nobody has said anything.
    pub fn new(copies: u32) -> Self {
        Self {
            copies: copies as usize,
            ready: BTreeSet::new(),
            idle: BTreeSet::new(),
            alive: BTreeSet::new(),
        }
    }

    /// Whether what this process says is now true of the whole generation.
    pub fn says(&mut self, pid: i32, notice: &Notice) -> bool {
        if self.copies <= 1 {
            return true;
        }
        match notice {
            Notice::Ready => heard(&mut self.ready, pid, self.copies),
            Notice::Idle => heard(&mut self.idle, pid, self.copies),
            Notice::Alive => {
                let all = heard(&mut self.alive, pid, self.copies);
                if all {
                    self.alive.clear();
                }
                all
            }
            // That one copy ends or wants to be another process says nothing of the others.
            Notice::Stopping | Notice::MainPid(_) => false,
            Notice::Hangs | Notice::Reloading | Notice::Status(_) | Notice::Extend(_) => true,
        }
    }
}

fn heard(said: &mut BTreeSet<i32>, pid: i32, copies: usize) -> bool {
    // One that was launched again has another pid; whose it was before is not known here.
    if said.len() < copies {
        said.insert(pid);
    }
    said.len() >= copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_ready_when_each_copy_is() {
        let mut chorus = Chorus::new(3);
        let said = [7, 7, 8, 9, 9].map(|pid| chorus.says(pid, &Notice::Ready));
        assert_eq!(said, [false, false, false, true, true]);
        assert!(Chorus::new(1).says(7, &Notice::Ready));
    }

    #[test]
    fn it_is_alive_when_each_was_heard_since_the_last_time() {
        let mut chorus = Chorus::new(2);
        let said = [7, 7, 8, 8, 8, 7].map(|pid| chorus.says(pid, &Notice::Alive));
        assert_eq!(said, [false, false, true, false, false, true]);
    }

    #[test]
    fn one_that_hangs_is_enough_and_one_that_leaves_is_not() {
        let mut chorus = Chorus::new(2);
        assert!(chorus.says(7, &Notice::Hangs));
        assert!(!chorus.says(7, &Notice::Stopping));
        assert!(!chorus.says(7, &Notice::Idle));
        assert!(chorus.says(8, &Notice::Idle));
    }
}
