//! Speed, measured against a peer in the same run, in turns: machines are shared and noisy, so ratios of pairs
//! are what counts.

pub mod deploy;
pub mod fleet;
pub mod goal;
pub mod handover;
pub mod json_file;
pub mod loaded;
pub mod moments;
pub mod output;
pub mod release;
pub mod resident;
pub mod sample;
pub mod supervised;
pub mod supervision;
pub mod swarm;
pub mod switching;

use std::path::PathBuf;

use anyhow::{Context, bail};

/// A program of this workspace: they all lie beside each other.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find this program")?.with_file_name(name);
    if !path.is_file() {
        bail!("there is no {}: run `make build` first", path.display());
    }
    Ok(path)
}
