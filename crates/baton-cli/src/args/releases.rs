//! What is typed behind `baton releases`.

use std::path::PathBuf;

use baton_core::ids::ServiceName;
use baton_core::units::Millis;
use clap::{Args, Subcommand};

/// `baton releases`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  baton releases --service web
  baton releases prune --dry-run     what nobody needs any more
  baton releases verify              whether all is there, and undamaged"
)]
pub struct Releases {
    /// What to do with them; a list when nothing is said
    #[command(subcommand)]
    pub action: Option<ReleasesAction>,
    /// Only those of this service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
}

/// What to do with releases.
#[derive(Debug, Subcommand)]
pub enum ReleasesAction {
    /// Remove from the server what nobody needs any more
    Prune(ReleasesPrune),
    /// Read all that the server keeps, and tell what is damaged
    Verify(ReleasesVerify),
    /// Give the server back what it has lost, from a member's disk
    Repair(ReleasesRepair),
}

/// `baton releases repair`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton releases verify; baton releases repair /var/lib/baton
  baton releases repair member-1 member-2     copies of two members' directories

For every release in these directories, the server gets what it lacks of it. The
members may be running: the directories are only read. What travels is what has
the hash of something missing, so a damaged disk cannot damage the server.
Exit code 0 if the server has all of these releases now, 1 if not.")]
pub struct ReleasesRepair {
    /// The state directories of members that hold the releases
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
}

/// `baton releases verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton releases verify

What is damaged is set aside, so that the next push of it brings it again.
Exit code 0 if nothing is, 1 if something is.")]
pub struct ReleasesVerify {}

/// `baton releases prune`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton releases prune --dry-run
  baton releases prune --keep 3 --grace 168h

What is in force, what was before it, where a service goes back to and what a
member has always stays, and so does what build steps have made.")]
pub struct ReleasesPrune {
    /// Remove nothing; only tell what would go, and why the others stay
    #[arg(long)]
    pub dry_run: bool,
    /// How many releases of each service stay that nobody names [default: 10]
    #[arg(long, value_name = "N")]
    pub keep: Option<u32>,
    /// What was pushed or deployed within this time stays [default: 24h]
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<Millis>,
}
