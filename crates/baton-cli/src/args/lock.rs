//! `baton lock` and `baton unlock`.

use baton_core::ids::ServiceName;
use clap::Args;

/// `baton lock`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton lock --reason \"frozen until Monday\"

Deploys are refused (exit code 5) until somebody unlocks the service. Halting,
aborting and rolling back are not.")]
pub struct Lock {
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// Why: whoever is refused reads it
    #[arg(long, value_name = "WHY")]
    pub reason: String,
}

/// `baton unlock`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton unlock")]
pub struct Unlock {
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
}
