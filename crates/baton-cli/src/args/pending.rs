//! What was typed behind `baton pending`.

use baton_core::ids::ServiceName;
use baton_core::units::Millis;
use clap::{Args, Subcommand};

use super::{Keys, Until};

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
    Approve(PendingApprove),
    /// Let a deploy wait no more: somebody else's, or what you have asked for yourself
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

/// `baton pending approve`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton pending approve 3f2a9c1d5e7b
  baton pending approve 3f2a9c1d5e7b --key grace.key --release 9f3a2b

With --release and a key it is signed as well, where members want the signatures of
two: with the key of who has asked for it, and with yours. What fewer keys have signed
than the deploy in force waits on, unless --as-signed says that they are enough.")]
pub struct PendingApprove {
    /// Which one.
    #[command(flatten)]
    pub one: PendingOne,
    /// Which keys sign.
    #[command(flatten)]
    pub keys: Keys,
    /// Sign it too, if this is the release that it brings
    #[arg(long, value_name = "RELEASE")]
    pub release: Option<String>,
    /// Let it begin with the signatures that it has, though the deploy in force has more
    #[arg(long, conflicts_with = "release")]
    pub as_signed: bool,
    /// Wait for its end, as `baton deploy` does; until it is switched if nothing else is said
    #[arg(long, value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "switched")]
    pub wait: Option<Until>,
    /// How long to wait before giving up waiting
    #[arg(long, value_name = "DURATION", default_value = "15m", requires = "wait")]
    pub timeout: Millis,
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
