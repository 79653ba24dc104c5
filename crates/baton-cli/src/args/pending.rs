//! What was typed behind `baton pending`.

use baton_core::ids::ServiceName;
use clap::{Args, Subcommand};

/// `baton pending`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton pending protect --service web     its deploys wait for a second person
  baton pending                           what waits
  baton pending approve 3f2a9c1d5e7b      let it begin

Who has asked for a deploy cannot let it begin. Halting, and going back to the release
before, wait for nobody.")]
pub struct Pending {
    /// What to do; a list when nothing is said
    #[command(subcommand)]
    pub action: Option<PendingAction>,
}

/// What to do with deploys that wait.
#[derive(Debug, Subcommand)]
pub enum PendingAction {
    /// Let somebody else's deploy begin
    Approve(PendingOne),
    /// Let a deploy wait no more
    Reject(PendingOne),
    /// Let deploys of a service wait for a second person
    Protect(PendingProtect),
}

/// One that waits.
#[derive(Debug, Args)]
pub struct PendingOne {
    /// Which one, or the first digits of it
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `baton pending protect`
#[derive(Debug, Args)]
pub struct PendingProtect {
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// Let them wait no more
    #[arg(long)]
    pub off: bool,
}
