//! What was typed behind `baton token` and `baton audit`.

use std::path::PathBuf;

use baton_core::access::Role;
use baton_core::ids::{AuditHash, HolderName, MemberId, ServiceName, TokenId};
use baton_core::units::Millis;
use clap::{ArgGroup, Args, Subcommand};

/// `baton token`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  baton token create ada --role operator
  baton token create ci --role deployer --service web --ttl 720h
  baton token join --service web           what makes one member
  baton token list
  baton token revoke 0123456789ab

A token is shown once: control keeps its hash. Commands take it from BATON_TOKEN, or
from the file in BATON_TOKEN_FILE. The first one is in admin.token, among the server's
data.")]
pub enum Token {
    /// Make a token for a person or a program
    Create(TokenCreate),
    /// Make a token that makes a member
    Join(TokenJoin),
    /// Show who has which tokens
    List(TokenList),
    /// Make a token, or what a member has, worth nothing
    Revoke(TokenRevoke),
}

/// `baton token create`
#[derive(Debug, Args)]
pub struct TokenCreate {
    /// Whose it is
    #[arg(value_name = "NAME")]
    pub holder: HolderName,
    /// What it may do: viewer, deployer, approver, operator or admin
    #[arg(long, value_name = "ROLE", value_parser = given)]
    pub role: Role,
    /// For which services, with commas between [default: all]
    #[arg(long = "service", value_name = "SERVICE", value_delimiter = ',')]
    pub services: Vec<ServiceName>,
    /// How long it is good for [default: until it is revoked]
    #[arg(long, value_name = "DURATION")]
    pub ttl: Option<Millis>,
}

/// `baton token join`
#[derive(Debug, Args)]
pub struct TokenJoin {
    /// The service of the member
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<ServiceName>,
    /// The only member that it makes [default: any that is not live]
    #[arg(long, value_name = "NAME")]
    pub member: Option<MemberId>,
    /// It makes members as often as it is shown: for members that keep nothing
    #[arg(long, conflicts_with = "member")]
    pub reusable: bool,
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub ttl: Millis,
}

/// `baton token list`
#[derive(Debug, Args)]
pub struct TokenList {}

/// `baton token revoke`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["id", "member"]))]
pub struct TokenRevoke {
    /// The token, as the list has it
    #[arg(value_name = "ID")]
    pub id: Option<TokenId>,
    /// Not a token, but what this member has: it needs a new token then
    #[arg(long, value_name = "NAME")]
    pub member: Option<MemberId>,
    /// The service of that member
    #[arg(long, value_name = "SERVICE", requires = "member")]
    pub service: Option<ServiceName>,
}

/// A role that can be given.
fn given(text: &str) -> Result<Role, String> {
    let role = text.parse().ok().filter(|role| Role::GIVEN.contains(role));
    role.ok_or_else(|| "write viewer, deployer, approver, operator or admin".to_owned())
}

/// `baton audit`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  baton audit --last 20
  baton audit verify --head 3f2a…      whether what was written then is still there

Every call that changes something is in it, refused ones too: who, from where, what,
and what came of it."
)]
pub struct Audit {
    /// What to do with it; a list when nothing is said
    #[command(subcommand)]
    pub action: Option<AuditAction>,
    /// How many of the last records to show
    #[arg(long, value_name = "N", default_value = "50")]
    pub last: u64,
}

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Check that nothing in it was changed, removed or inserted
    Verify(AuditVerify),
}

/// `baton audit verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton audit verify
  baton audit verify --head 3f2a…
  baton audit verify --file /var/lib/baton/audit.log

Prints the hash of the last record: who keeps it elsewhere sees later, with --head, that
nothing up to it is gone. Exit code 0 if all is as it was written, 1 if not.")]
pub struct AuditVerify {
    /// The hash of a record that must be there
    #[arg(long, value_name = "HASH")]
    pub head: Option<AuditHash>,
    /// A copy of the log, instead of the server's
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}
