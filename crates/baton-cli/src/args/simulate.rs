//! `baton simulate`.

use std::path::PathBuf;

use baton_core::units::{Millis, Share};
use clap::Args;

use super::PolicyName;

/// `baton simulate`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton simulate --members 4000 --startup 8s
  baton simulate --members 4000 --startup 8s --crash-rate 100%    what a bad release touches
  baton simulate --startup 8s --crash-after 30s --bake 5s         what a bake is for
  baton simulate --policy careful --svg rollout.svg
  baton simulate --script rollout.txt                             what is written there

Nothing is deployed and no server is asked: the very functions that control decides with
run in virtual time, over a network that delays, loses and reorders. The policy is that
of the baton.toml of this directory, if there is one, and all simulated members are meant.")]
pub struct Simulate {
    /// How many members there are
    #[arg(long, value_name = "NUMBER", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub members: u32,
    /// How long the program takes to start, a fifth more or less
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub startup: Millis,
    /// How long a member takes to fetch the release, at the most
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub fetch: Millis,
    /// How many connections a member accepts in a second, where rollout.bake_connections needs some: else there are enough
    #[arg(long, value_name = "NUMBER")]
    pub traffic: Option<u32>,
    /// How many starts of the new release crash
    #[arg(long, value_name = "PERCENT", default_value = "0%")]
    pub crash_rate: Share,
    /// The new release crashes so long after it was switched to
    #[arg(long, value_name = "DURATION")]
    pub crash_after: Option<Millis>,
    /// Stop the old generation before the new one starts
    #[arg(long)]
    pub no_overlap: bool,
    /// How it goes through the members
    #[arg(long, value_enum, value_name = "POLICY")]
    pub policy: Option<PolicyName>,
    /// How many members may be on trial at once
    #[arg(long, value_name = "PERCENT")]
    pub max_unhealthy: Option<Share>,
    /// How long a member has to be healthy on the new release before it counts
    #[arg(long, value_name = "DURATION")]
    pub bake: Option<Millis>,
    /// How often: each run has chances of its own
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Which chances the first run has: the same number gives the same runs
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Play a script instead: what is in this file happens, and is told below each line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["members", "startup", "fetch", "traffic", "crash_rate", "crash_after", "no_overlap", "policy", "max_unhealthy", "bake", "runs", "seed", "svg"])]
    pub script: Option<PathBuf>,
    /// Draw the first run into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}
