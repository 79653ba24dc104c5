//! Waiting for the end of a rollout: `baton wait`, and what all commands that wait have in common.

use baton_core::ids::ServiceName;
use baton_core::units::Millis;
use clap::{Args, ValueEnum};

/// Whether to wait for the end of a rollout, and how long.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wait {
    /// What to wait for
    #[arg(long = "wait", value_enum, value_name = "WHAT", default_value = "switched")]
    pub until: Until,
    /// Return as soon as it is accepted
    #[arg(long, conflicts_with = "until")]
    pub detach: bool,
    /// How long to wait before giving up waiting
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub timeout: Millis,
}

/// The two ends of a rollout that goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Until {
    /// Every member that shall have the release has proven it
    Switched,
    /// No old generation is left either
    Drained,
}

/// `baton wait`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton wait                          for what is in force
  baton wait 7c1d5e9f --timeout 1h    for this deploy, as `baton deploys` has it
  baton wait --for drained            until no old generation is left either

For what began with --detach, took longer than --timeout, or was approved. Ends as
`baton deploy` does, with the same exit codes; Ctrl-C ends the waiting only.")]
pub struct Await {
    /// The deploy: its id or the first digits of it [default: what is in force]
    #[arg(value_name = "DEPLOY")]
    pub deploy: Option<String>,
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// What to wait for
    #[arg(long = "for", value_enum, value_name = "WHAT", default_value = "switched")]
    pub until: Until,
    /// How long to wait before giving up waiting
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub timeout: Millis,
}
