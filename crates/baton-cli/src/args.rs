//! What was typed. What it means is each command's business.

mod key;
mod lock;
mod pending;
mod reach;
mod releases;
mod server;
mod simulate;
mod token;
mod wait;

use std::ffi::OsString;
use std::path::PathBuf;

use baton_core::ids::{MemberId, ServiceName};
use baton_core::target::{Amount, Label};
use baton_core::units::{Millis, Share};
use clap::{ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use key::{Key, KeyGenerate, KeyList, KeyRevoke, KeyRotate, KeySign, Signs};
pub use lock::{Lock, Unlock};
pub use pending::{Pending, PendingAction, PendingApprove, PendingOne, PendingProtect};
pub use releases::{
    Releases, ReleasesAction, ReleasesPrune, ReleasesRepair, ReleasesTag, ReleasesTags, ReleasesUntag,
    ReleasesVerify,
};
pub use server::{LISTEN, Server, ServerAction};
pub use simulate::Simulate;
pub use token::{Audit, AuditAction, AuditVerify, Token, TokenCreate, TokenJoin, TokenRevoke};
pub use wait::{Await, Until, Wait};

/// Where control is, unless something else is said.
pub const SERVER: &str = "http://127.0.0.1:7400";

/// Ships code to running processes and takes it back, without losing a request.
///
/// Every command talks to one control server (`baton server`). Where a command needs a service, it is the one
/// that is named, or the one in the baton.toml of this directory, or the only one that the server knows.
#[derive(Debug, Parser)]
#[command(
    name = "baton",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Example, in a directory with a baton.toml:
  baton server --dev &    start control, for this machine only
  baton deploy            push this directory and roll it out
  baton status --watch    see how it goes
  baton rollback          take it back

Exit codes: 0 done, 1 failed, 2 usage, 3 halted or rolled back, 4 timed out,
5 conflict, 6 not allowed, 7 control unreachable, 8 a guard is off,
9 kept until somebody approves it, 130 Ctrl-C."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What was typed.
///
/// # Errors
/// It makes no sense, or asks for help.
pub fn parse(typed: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(typed)?;
    reach::check(&mut command, &matches)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The whole command line.
fn command() -> clap::Command {
    reach::hidden(Cli::command())
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Address of control
    #[arg(long, global = true, env = "BATON_SERVER", value_name = "URL", default_value = SERVER)]
    pub server: String,
    /// The file with the token that is shown to control [default: the text in BATON_TOKEN, else the file in BATON_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates in PEM, of which one must vouch for control [default: the authority that the token names]
    #[arg(long, global = true, env = "BATON_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Text for people, or one JSON document with the types of the API
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole product on this machine, in a minute and a half
    Demo(Demo),
    /// Run a directory on this machine as a fleet would; with --watch deploy it whenever a file is saved
    Dev(Dev),
    /// Tell what a rollout would do: how long it takes, and what a bad release would touch
    Simulate(Simulate),
    /// Write a baton.toml for a program, from what it does when it is run
    Init(Init),
    /// Run the program as Baton does, and tell what it does and what to set
    Doctor(Doctor),
    /// Run control: the server that members and operators talk to
    Server(Server),
    /// Take the build steps of a directory, or bring what they make from the server
    Build(Build),
    /// Make a release of a directory and bring it to the server
    Push(Push),
    /// Keys that sign releases and deploys, and whom members trust
    #[command(subcommand)]
    Key(Key),
    /// Who may do what: tokens for people, programs and members
    #[command(subcommand)]
    Token(Token),
    /// Deploys of protected services, which wait for a second person
    Pending(Pending),
    /// What keeps mistakes and strangers away, and is switched off
    Guards(Guards),
    /// What was changed, by whom, refused or not
    Audit(Audit),
    /// Roll a release out, and wait until every member runs it
    Deploy(Deploy),
    /// Wait for the end of a rollout that is under way
    Wait(Await),
    /// Take the last deploy back
    Rollback(Rollback),
    /// Take back the rollout that is under way
    Abort(Abort),
    /// Refuse new releases of a service until it is unlocked
    Lock(Lock),
    /// Let a service take new releases again
    Unlock(Unlock),
    /// Stop a rollout where it is
    Halt(Halt),
    /// Go on with what was halted
    Resume(Resume),
    /// How services stand
    Status(Status),
    /// The members of a service and where each stands
    Members(Members),
    /// The deploys of a service, newest first
    Deploys(Deploys),
    /// The releases that the server keeps, newest first; remove what nobody needs
    Releases(Releases),
    /// What happened
    Events(Events),
}

/// `baton demo`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton demo

Starts control and 8 members of a small Python program with load on them, then deploys
good and bad releases, rolls back, and kills things. Needs python3 and, beside this
program, baton-boot and baton-load. Leaves nothing behind.")]
pub struct Demo {}

/// `baton dev`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton dev               control, 4 members, and this directory deployed to them
  baton dev --watch       and again whenever a file of it is saved
  baton dev --members 1   where every save shall be there at once

The first member listens where baton.toml says, on this machine only, and the others at
free ports. What members and programs write comes with their names before it. Ctrl-C
stops all of it and leaves nothing behind. Needs baton-boot beside this program.")]
pub struct Dev {
    /// The directory with the baton.toml
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// How many members there are
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub members: u16,
    /// Deploy again whenever a file is saved
    #[arg(long)]
    pub watch: bool,
    /// How a deploy goes through the members
    #[arg(long, value_enum, value_name = "POLICY", default_value = "fast")]
    pub policy: PolicyName,
    /// How long to wait for the end of a deploy
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub timeout: Millis,
}

/// `baton init`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton init -- node server.js    for this program
  baton init                      for that of the Procfile, of package.json, or
                                  the only executable file
  baton init shop --print         only show it

Runs the program twice: by itself, to see where it listens, and with the draft
under baton-boot. Ends all that it has started.")]
pub struct Init {
    /// The directory
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// The program and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// How long the program may take to listen; what does not is a worker
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub wait: Millis,
    /// Replace a baton.toml that is there
    #[arg(long, conflicts_with = "print")]
    pub force: bool,
    /// Only show what would be written
    #[arg(long)]
    pub print: bool,
}

/// `baton doctor`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton doctor
  baton doctor shop --slow '/report?year=2024'

Runs the program under baton-boot where baton.toml says, looks at its sockets,
reloads it under a small load, stops it with a request under way and an idle
connection, and starts it on another port. Ends all that it has started.
Exit code 0 if nothing is bad, 1 if something is.")]
pub struct Doctor {
    /// The directory, with a baton.toml in it
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// What the load asks for
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = path)]
    pub path: String,
    /// A path whose answer takes some seconds, for the request under way
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub slow: Option<String>,
}

/// A path, with or without a query, as it stands in a request.
fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err("write a path that begins with a slash, without spaces, such as /report?year=2024".to_owned())
}

/// `baton build`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton build --explain

A step runs only when nobody has run it with the same inputs, command, environment
and platform: else what it makes comes from the server. `baton push` and `baton deploy`
do this first.")]
pub struct Build {
    /// The directory, with a baton.toml in it
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Tell why a step was taken: what has changed since it was taken here before
    #[arg(long)]
    pub explain: bool,
}

/// `baton push`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton push ./build --service web
  baton push --dry-run             only tell what is new and what changes

Only what the server lacks is uploaded. Nothing changes on any member.")]
pub struct Push {
    /// The directory, with a baton.toml in it
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// The service that the release is for [default: as baton.toml says]
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// Upload nothing; only tell what is new to the server, and what changes
    #[arg(long)]
    pub dry_run: bool,
    /// Take no build steps: push what is there
    #[arg(long)]
    pub no_build: bool,
    /// Who vouches for the release.
    #[command(flatten)]
    pub keys: Keys,
}

/// Which private keys sign.
#[derive(Debug, Clone, Args)]
pub struct Keys {
    /// Sign with the private key in this file; several times for several [default: the text in BATON_KEY]
    #[arg(long = "key", env = "BATON_KEY_FILE", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// How a deploy is signed.
#[derive(Debug, Clone, Args)]
pub struct Signing {
    /// Which keys sign.
    #[command(flatten)]
    pub keys: Keys,
    /// How long members may hear of what was signed for the first time
    #[arg(long, value_name = "DURATION", default_value = "720h")]
    pub valid: Millis,
    /// Sign only if this is the release to go back to, or `none`
    #[arg(long, value_name = "RELEASE")]
    pub fallback: Option<String>,
    /// Do not sign, although the deploy in force is signed
    #[arg(long)]
    pub unsigned: bool,
}

/// `baton deploy`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton deploy                             push this directory and roll it out
  baton deploy ./web                       another directory
  baton deploy 9f3a2b --policy careful     roll out a release that was pushed
  baton deploy --target 10% -m \"try it\"    to a tenth of the members only
  baton deploy --dry-run                   push, then show what would happen
  baton deploy ./api then ./web            web once api has switched
  baton deploy --key ada.key               sign the release and the deploy

Waits until the rollout has switched every member (exit 0), was halted or
rolled back (3), or took too long (4). Ctrl-C stops the waiting, not the
rollout.")]
pub struct Deploy {
    /// The release: its id or the first 4 or more digits; or a directory that is pushed, DIR, or a flavor of one, @FLAVOR or
    /// DIR@FLAVOR [default: push this directory]
    #[arg(value_name = "RELEASE or DIR")]
    pub release: Option<String>,
    /// Several services in an order: directories, DIR@FLAVOR, or SERVICE=RELEASE with `then` in between
    #[arg(value_name = "then NEXT", requires = "release")]
    pub rest: Vec<String>,
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// How careful to be [default: as baton.toml says, else safe]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub policy: Option<PolicyName>,
    /// How many members shall run the release: a share, or a number
    #[arg(long, value_name = "AMOUNT")]
    pub target: Option<Amount>,
    /// Only members with this label (BATON_LABELS of the bootloader)
    #[arg(long, value_name = "LABEL")]
    pub label: Option<Label>,
    /// The greatest share of the members that may be unproven at once
    #[arg(long, value_name = "PERCENT")]
    pub max_unhealthy: Option<Share>,
    /// How long each member must stay healthy on the release
    #[arg(long, value_name = "DURATION")]
    pub bake: Option<Millis>,
    /// Try it on every member at once, without phases
    #[arg(long, conflicts_with_all = ["policy", "max_unhealthy"])]
    pub all_at_once: bool,
    /// Roll out although the release was rolled back before
    #[arg(long)]
    pub again: bool,
    /// Sign what is in force anew, for members that have not heard of it in time
    #[arg(long, conflicts_with = "release")]
    pub renew: bool,
    /// Deploy what is in force again, with its secrets as they are now
    #[arg(long, conflicts_with_all = ["release", "renew"])]
    pub secrets: bool,
    /// How it is signed.
    #[command(flatten)]
    pub signing: Signing,
    /// Only show what would happen; a directory is pushed all the same
    #[arg(long, conflicts_with = "detach")]
    pub dry_run: bool,
    /// Why
    #[arg(short, long = "message", value_name = "WHY", default_value = "")]
    pub message: String,
    /// Whether to wait, and how long.
    #[command(flatten)]
    pub wait: Wait,
}

/// Policies that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PolicyName {
    /// One member, then 5 %, then 25 % at a time
    Safe,
    /// 25 % at a time, with a short bake
    Fast,
    /// One member, then 1 %, 5 % and 10 % at a time, a minute each
    Careful,
}

/// `baton rollback`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton rollback                        to the release that ran before
  baton rollback --to 9f3a2b -m \"slow\"  to one that you choose")]
pub struct Rollback {
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// The release to go back to [default: the last one that was fully rolled out]
    #[arg(long, value_name = "RELEASE")]
    pub to: Option<String>,
    /// How it is signed.
    #[command(flatten)]
    pub signing: Signing,
    /// Why
    #[arg(short, long = "message", value_name = "WHY", default_value = "")]
    pub message: String,
    /// Whether to wait, and how long.
    #[command(flatten)]
    pub wait: Wait,
}

/// `baton abort`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton abort -m \"wrong branch\"

Like `baton rollback`, and only while a rollout is under way or halted: what is
everywhere stays.")]
pub struct Abort {
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// How it is signed.
    #[command(flatten)]
    pub signing: Signing,
    /// Why
    #[arg(short, long = "message", value_name = "WHY", default_value = "")]
    pub message: String,
    /// Whether to wait, and how long.
    #[command(flatten)]
    pub wait: Wait,
}

/// `baton halt`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton halt -m \"looking at the error rate\"

Members that run the release keep it; no other one starts it.")]
pub struct Halt {
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// Why
    #[arg(short, long = "message", value_name = "WHY", default_value = "")]
    pub message: String,
}

/// `baton resume`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton resume --service web")]
pub struct Resume {
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// How it is signed.
    #[command(flatten)]
    pub signing: Signing,
    /// Why
    #[arg(short, long = "message", value_name = "WHY", default_value = "")]
    pub message: String,
    /// Whether to wait, and how long.
    #[command(flatten)]
    pub wait: Wait,
}

/// `baton status`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton status                 every service, or the one of this directory
  baton status web --watch     one service, again whenever it changes

As JSON: an object for a named SERVICE, else an array; with --watch one object
a line.")]
pub struct Status {
    /// The service
    #[arg(value_name = "SERVICE", conflicts_with = "named")]
    pub service: Option<ServiceName>,
    /// The same, as every other command takes it
    #[arg(long = "service", value_name = "SERVICE")]
    pub named: Option<ServiceName>,
    /// Show it again whenever it changes, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// `baton guards`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton guards || echo look at it

Exit code 0 if none is switched off, 8 if one is.")]
pub struct Guards {}

/// `baton members`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton members --service web --output json")]
pub struct Members {
    /// What to do with them; list them when nothing is said
    #[command(subcommand)]
    pub action: Option<MembersAction>,
    /// The service
    #[arg(long, value_name = "SERVICE", global = true)]
    pub service: Option<ServiceName>,
}

/// What to do with members.
#[derive(Debug, Subcommand)]
pub enum MembersAction {
    /// Let members go that will not come back: nobody waits for them any more
    Forget(MembersForget),
}

/// `baton members forget`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").required(true).args(["members", "silent"]), after_help = "\
Examples:
  baton members forget web-7 web-9         their machines are gone
  baton members forget --silent            all that cannot be heard

While more than half of a fleet is silent nothing is decided, since that is
rather a fault of the network. A person may know better.")]
pub struct MembersForget {
    /// Their names
    #[arg(value_name = "MEMBER")]
    pub members: Vec<MemberId>,
    /// All that cannot be heard
    #[arg(long)]
    pub silent: bool,
}

/// `baton deploys`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  baton deploys --service web")]
pub struct Deploys {
    /// The service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
}

/// `baton events`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton events --last 20
  baton events -f --service web

As JSON: an array; with --follow one object a line.")]
pub struct Events {
    /// Only those of this service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// Show new ones as they happen, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the past to show
    #[arg(long, value_name = "N", default_value = "50")]
    pub last: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_is_in_the_reference() {
        let page = include_str!("../../../docs/reference/cli.md");
        let mut cli = command();
        cli.build();
        for command in cli.get_subcommands() {
            let heading = format!("\n## baton {}\n", command.get_name());
            let start = page.find(&heading).unwrap_or_else(|| panic!("no section{heading}"));
            let section = &page[start + 1..];
            let section = &section[..section.find("\n## ").unwrap_or(section.len())];
            for argument in command.get_arguments().filter(|argument| !argument.is_global_set()) {
                let name = match (argument.get_long(), argument.get_value_names()) {
                    (Some("help" | "version"), _) => continue,
                    (Some(long), _) => format!("`--{long}"),
                    (None, Some([name])) => format!("`{name}"),
                    (None, _) => panic!("an argument without a name in {heading}"),
                };
                assert!(section.contains(&name), "{heading} does not tell of {name}");
            }
            assert!(section.contains("```"), "{heading} has no example");
        }
        for global in ["`--server", "`--output"] {
            assert!(page.contains(global), "{global}");
        }
    }

    #[test]
    fn every_help_has_an_example_and_fits_80_columns() {
        let mut cli = command();
        cli.build();
        for command in cli.get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("\nExample"), "{help}");
            assert!(help.contains(&format!("baton {}", command.get_name())), "{help}");
        }
    }
}
