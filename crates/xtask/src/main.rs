//! Checks and chores of this repository: `cargo xtask NAME`.

mod bench;
mod check;
mod simulate;

use anyhow::bail;

const HELP: &str = "\
cargo xtask check            format, lints, structure, documentation
cargo xtask simulate SEEDS   rollouts of a simulated fleet: the first so many seeds, or FROM..TO
cargo xtask bench [boot]     speed, against peers (after make build)";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["check"] => check::run(),
        ["simulate", seeds] => simulate::run(&simulate::seeds(seeds)?),
        ["bench", ref parts @ ..] => bench::run(parts),
        _ => bail!("what is to be done?\n{HELP}"),
    }
}
