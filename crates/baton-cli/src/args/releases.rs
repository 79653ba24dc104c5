//! What is typed behind `baton releases`.

use std::path::PathBuf;

use baton_core::history::TagName;
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
    /// Give a release a name: it is found by that, and stays
    Tag(ReleasesTag),
    /// Take a name away
    Untag(ReleasesUntag),
    /// List the names that releases have
    Tags(ReleasesTags),
    /// Give the server back what it has lost, from members' disks
    Repair(ReleasesRepair),
}

/// `baton releases tag`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton releases tag master.5 9f3a6c2e
  baton releases tag production staging      what is tagged staging
  baton deploy production

A tag is one release's; given to another one, it is that one's. What has a tag
is not removed by `baton releases prune`.")]
pub struct ReleasesTag {
    /// The tag: letters, digits, '.', '_' and '-', and not only 0-9 and a-f
    #[arg(value_name = "TAG")]
    pub tag: TagName,
    /// The release: its id, at least 4 digits of it, or another tag
    #[arg(value_name = "RELEASE")]
    pub release: String,
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
}

/// `baton releases untag`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton releases untag master.5")]
pub struct ReleasesUntag {
    /// The tag
    #[arg(value_name = "TAG")]
    pub tag: TagName,
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
}

/// `baton releases tags`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton releases tags --service web")]
pub struct ReleasesTags {
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
}

/// `baton releases repair`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton releases repair --dry-run             what is lost, and who has it
  baton releases repair                       the server asks its members
  baton releases repair member-1 member-2     copies of two members' directories

Without DIR, the server asks the members that are connected to it for what it
lacks of any release. With DIR, it gets what it lacks of the releases in these
directories; members may be running: the directories are only read. What counts
has the hash of something missing, so a damaged disk cannot damage the server.
Exit code 0 if the server has all of these releases now, 1 if not.")]
pub struct ReleasesRepair {
    /// State directories of members that hold the releases [default: the server asks its members]
    #[arg(value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Give nothing back; only tell what is lost, and which members say that they have it
    #[arg(long, conflicts_with = "dirs")]
    pub dry_run: bool,
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

What is in force, what was before it, where a service goes back to, what has a
tag and what a member has always stays, and so does what build steps have made.")]
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
