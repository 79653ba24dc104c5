//! What the documentation of some inits says about them.

use std::time::Duration;

use baton_core::signal::Signal;

/// How an init is asked to run a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The program's command follows its own: `tini -- PROGRAM`.
    Prefix,
    /// The same, and a settings file where a stop limit is wanted.
    BatonBoot,
    /// A folder of services, of which the program is one.
    S6,
    /// A configuration file, in which the program is a section.
    Supervisord,
}

/// What is known about an init from its documentation.
#[derive(Debug)]
pub struct Known {
    /// The name of its program.
    pub name: &'static str,
    /// How it is asked to run a program.
    pub kind: Kind,
    /// What it is called with before the program's command.
    pub arguments: &'static [&'static str],
    /// A command that prints its version.
    pub version: &'static [&'static str],
    /// Signals that it does not pass on, each group with the reason that is given for it.
    pub keeps: &'static [(&'static str, &'static str)],
    /// Signals at which it ends, beside TERM.
    pub ends_by: &'static str,
    /// Checks that it does not pass because it is documented to do something else.
    pub does_otherwise: &'static [(&'static str, &'static str)],
    /// It can be told when to kill a program that does not stop.
    pub has_limit: bool,
}

/// The stop limit that inits are told to have; whole seconds, as supervisord knows no others.
pub const LIMIT: Duration = Duration::from_secs(1);
/// The checks that are about a stop limit.
pub const OF_LIMITS: [&str; 2] = ["ignores-term", "stopped"];
const NO_TERMINAL: &str = "runs services, which have no terminal";

/// baton-boot and those that it is compared with.
pub const KNOWN: [Known; 5] = [
    Known {
        name: "baton-boot",
        kind: Kind::BatonBoot,
        arguments: &["--"],
        version: &["baton-boot", "--version"],
        keeps: &[
            ("HUP", "reloads the program through a handover"),
            ("INT", "stops, as TERM"),
            ("ILL TRAP BUS FPE SEGV SYS", "left alone, a fault of the bootloader itself"),
            ("PIPE", "ignored, a closed log must not end the bootloader"),
            ("34", "the C library's own in the static program"),
        ],
        ends_by: "INT",
        does_otherwise: &[],
        has_limit: true,
    },
    Known {
        name: "tini",
        kind: Kind::Prefix,
        arguments: &["--"],
        version: &["tini", "--version"],
        keeps: &[
            ("FPE ILL SEGV BUS ABRT TRAP SYS", "left alone, a fault of tini itself (tini.c)"),
            ("TTIN TTOU", "ignored, as it may be in the background (tini.c)"),
        ],
        ends_by: "",
        does_otherwise: &[],
        has_limit: false,
    },
    Known {
        name: "dumb-init",
        kind: Kind::Prefix,
        arguments: &["--"],
        version: &["dumb-init", "--version"],
        keeps: &[("TSTP TTIN TTOU", "sent on as STOP (dumb-init.c)")],
        ends_by: "",
        does_otherwise: &[],
        has_limit: false,
    },
    Known {
        name: "s6-svscan",
        kind: Kind::S6,
        arguments: &[],
        version: &["dpkg-query", "--show", "--showformat=s6 ${Version}", "s6"],
        keeps: &[
            ("ALRM", "looks for new services (s6-svscan)"),
            ("ABRT", "ends without stopping services (s6-svscan)"),
        ],
        ends_by: "ABRT",
        does_otherwise: &[("terminal", NO_TERMINAL)],
        has_limit: true,
    },
    Known {
        name: "supervisord",
        kind: Kind::Supervisord,
        arguments: &[],
        version: &["supervisord", "--version"],
        keeps: &[
            ("INT QUIT", "stops, as TERM (Running Supervisor, Signals)"),
            ("HUP", "starts everything anew (Running Supervisor, Signals)"),
            ("USR2", "opens its logs anew (Running Supervisor, Signals)"),
        ],
        ends_by: "INT QUIT",
        does_otherwise: &[
            ("terminal", NO_TERMINAL),
            ("stdin", "standard input is a pipe for supervisorctl (Events, sendProcessStdin)"),
        ],
        has_limit: true,
    },
];

impl Known {
    /// The signals that it does not pass on, with the reasons.
    pub fn keeps(&self) -> Vec<(Vec<Signal>, &'static str)> {
        self.keeps.iter().map(|(names, why)| (signals(names), *why)).collect()
    }

    /// The signals at which it ends, beside TERM.
    pub fn ends_by(&self) -> Vec<Signal> {
        signals(self.ends_by)
    }

    /// Why it does something else than a check wants.
    pub fn does_otherwise(&self, check: &str) -> Option<&'static str> {
        self.does_otherwise.iter().find(|(name, _)| *name == check).map(|(_, why)| *why)
    }
}

fn signals(names: &str) -> Vec<Signal> {
    names.split_whitespace().filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::checks::CHECKS;

    #[test]
    fn what_is_known_about_inits_names_signals_and_checks_that_exist() {
        for known in &KNOWN {
            let names = known.keeps.iter().map(|(names, _)| *names).chain([known.ends_by]);
            for name in names.flat_map(str::split_whitespace) {
                assert!(name.parse::<Signal>().is_ok(), "{name}");
            }
            for check in known.does_otherwise.iter().map(|(check, _)| *check).chain(OF_LIMITS) {
                assert!(CHECKS.iter().any(|known| known.name == check), "{check}");
            }
        }
    }
}
