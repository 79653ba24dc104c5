//! What was typed behind `baton key`.

use std::path::PathBuf;

use baton_core::ids::ServiceName;
use clap::{Args, Subcommand, ValueEnum};

use super::Keys;

/// `baton key`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  baton key generate ada --trusted trusted-keys
  baton key list --trusted trusted-keys
  baton key rotate ada ada-2 --trusted trusted-keys
  baton key revoke ada --trusted trusted-keys

What a list of trusted keys says holds on members whose BATON_TRUSTED_KEYS names
it. Private keys stay where they are made.")]
pub enum Key {
    /// Make a private key, and add its public half to a list of trusted keys
    Generate(KeyGenerate),
    /// Show a list of trusted keys
    List(KeyList),
    /// Make a new key that may sign what an old one may, which goes on counting until it is revoked
    Rotate(KeyRotate),
    /// Let a key count for nothing new any more
    Revoke(KeyRevoke),
    /// Sign a release that the server has
    Sign(KeySign),
}

/// Where the list of trusted keys is.
#[derive(Debug, Clone, Args)]
pub struct Trusted {
    /// The list of trusted keys
    #[arg(long = "trusted", value_name = "FILE", default_value = "trusted-keys")]
    pub file: PathBuf,
}

/// `baton key generate`
#[derive(Debug, Args)]
pub struct KeyGenerate {
    /// What people call the key
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The list of trusted keys, which is made where there is none.
    #[command(flatten)]
    pub trusted: Trusted,
    /// Where the private key goes [default: NAME.key]
    #[arg(long, value_name = "FILE")]
    pub private: Option<PathBuf>,
    /// What it may sign: releases, deploys, or both
    #[arg(long, value_name = "WHAT", value_delimiter = ',', default_value = "releases,deploys")]
    pub signs: Vec<Signs>,
    /// For which services [default: all]
    #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
    pub services: Vec<ServiceName>,
}

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Signs {
    /// That members may fetch them
    Releases,
    /// What members run
    Deploys,
}

/// `baton key list`
#[derive(Debug, Args)]
pub struct KeyList {
    /// The list.
    #[command(flatten)]
    pub trusted: Trusted,
}

/// `baton key rotate`
#[derive(Debug, Args)]
pub struct KeyRotate {
    /// The key that is replaced
    #[arg(value_name = "OLD")]
    pub old: String,
    /// What people call the new one
    #[arg(value_name = "NEW")]
    pub new: String,
    /// The list.
    #[command(flatten)]
    pub trusted: Trusted,
    /// Where the private key goes [default: NEW.key]
    #[arg(long, value_name = "FILE")]
    pub private: Option<PathBuf>,
}

/// `baton key revoke`
#[derive(Debug, Args)]
pub struct KeyRevoke {
    /// The key
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The list.
    #[command(flatten)]
    pub trusted: Trusted,
}

/// `baton key sign`
#[derive(Debug, Args)]
pub struct KeySign {
    /// The release: its id or the first 4 or more digits
    #[arg(value_name = "RELEASE")]
    pub release: String,
    /// Which keys sign.
    #[command(flatten)]
    pub keys: Keys,
}
