//! How `baton` ends.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | failed |
//! | 2 | usage: what was typed, or what `baton.toml` says, makes no sense |
//! | 3 | the rollout was halted or rolled back; of `baton status`: control has stopped one, and a person has to decide |
//! | 4 | timed out waiting; the rollout goes on |
//! | 5 | conflict: somebody else was faster, or the service is locked |
//! | 6 | not allowed |
//! | 7 | control is unreachable, or cannot work now |
//! | 8 | a guard is switched off: only of `baton guards` |
//! | 9 | kept: the service is protected, and the deploy begins when somebody else approves it |
//! | 130 | interrupted by Ctrl-C; what was accepted goes on |

/// How `baton` ends; the numbers are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything that was asked for has happened.
    Done = 0,
    /// It did not work.
    Failed = 1,
    /// What was typed, or what `baton.toml` says, makes no sense.
    Usage = 2,
    /// The rollout was halted or rolled back, or has been, and waits for a person.
    Halted = 3,
    /// It takes longer than `--timeout`.
    TimedOut = 4,
    /// Somebody else was faster, or the service is locked.
    Conflict = 5,
    /// Control does not let the caller do this.
    NotAllowed = 6,
    /// Control cannot be reached, or cannot work now.
    Unreachable = 7,
    /// A guard is switched off.
    Unguarded = 8,
    /// What was asked for waits until somebody else approves it.
    Kept = 9,
    /// Ctrl-C, as shells have it: 128 and the number of SIGINT.
    Interrupted = 130,
}

impl Exit {
    /// What an answer of the API with this status means for the caller.
    pub const fn of_status(status: u16) -> Self {
        match status {
            400 | 413 => Self::Usage,
            401 | 403 => Self::NotAllowed,
            409 | 412 | 423 => Self::Conflict,
            502..=504 => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_row_in_the_reference() {
        let page = include_str!("../../../docs/reference/exit-codes.md");
        let rows = |text: &str| -> Vec<String> {
            text.lines()
                .map(|line| line.trim_start_matches("//! "))
                .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit())
                .map(str::to_owned)
                .collect()
        };
        let here = rows(include_str!("exit.rs"));
        assert_eq!(here.len(), 11);
        assert_eq!(rows(page), here, "docs/reference/exit-codes.md and exit.rs differ");
    }

    #[test]
    fn a_refusal_of_the_api_has_an_exit_code() {
        for (status, exit) in [
            (400, Exit::Usage),
            (403, Exit::NotAllowed),
            (404, Exit::Failed),
            (409, Exit::Conflict),
            (423, Exit::Conflict),
            (422, Exit::Failed),
            (500, Exit::Failed),
            (503, Exit::Unreachable),
        ] {
            assert_eq!(Exit::of_status(status), exit, "{status}");
        }
    }
}
