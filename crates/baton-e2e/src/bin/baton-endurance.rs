//! `baton-endurance`: a thousand reloads in a row under every kind of load, with the peers beside it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::ensure;
use baton_e2e::bench::program;
use baton_e2e::endurance::{Pace, Places, Round, boot, peer, report};
use clap::Parser;

/// Peers take seconds for a reload: so many times fewer.
const FEWER: u64 = 10;

/// Reloads a program again and again under load that accounts for every request: by baton-boot in each of its ways,
/// and by its peers. Prints tables, and ends with 1 if baton-boot lost anything or grew.
#[derive(Debug, Parser)]
#[command(name = "baton-endurance")]
struct Args {
    /// How often baton-boot reloads in each way; peers a tenth of it
    #[arg(long, default_value_t = 1000)]
    reloads: u64,
    /// Without the peers
    #[arg(long)]
    alone: bool,
    /// Only this way of baton-boot: auto, inherit or proxy
    #[arg(long)]
    way: Option<String>,
    /// With 50 requests a second of each client at most, in the place of as many as the machine bears
    #[arg(long)]
    modest: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = Places {
        boot: program("baton-boot")?,
        web: program("baton-web")?,
        apps: here.join("apps"),
        python: here.join("../../target/guides/python/bin"),
        pm2: here.join("../../target/peers/node_modules/.bin"),
    };
    let pace = if args.modest { Pace::Modest } else { Pace::Full };
    let mut rounds: Vec<Round> = Vec::new();
    let ways = boot::WAYS.into_iter().filter(|way| args.way.as_deref().is_none_or(|only| only == *way));
    for way in ways {
        rounds.push(told(boot::round(&places, way, pace, args.reloads, &boot::looks_of(args.reloads))?));
    }
    ensure!(!rounds.is_empty(), "--way is one of {}", boot::WAYS.join(", "));
    let mut faults: Vec<String> = rounds
        .iter()
        .flat_map(|round| round.faults().into_iter().map(|fault| format!("{}: {fault}", round.name)))
        .collect();
    if !args.alone {
        for peer in peer::Peer::ALL {
            // What was measured before is told all the same.
            match peer::round(&places, peer, pace, args.reloads.div_ceil(FEWER)) {
                Ok(round) => rounds.push(told(round)),
                Err(error) => faults.push(format!("{} could not be measured: {error:#}", peer.name())),
            }
        }
    }
    println!("{}", report(&rounds));
    for (round, example) in
        rounds.iter().flat_map(|round| round.report.losses.values().map(move |loss| (round, loss)))
    {
        if let Some(example) = &example.example {
            println!("{}, the first of its kind: {example:?}", round.name);
        }
    }
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    Ok(ExitCode::from(u8::from(!faults.is_empty())))
}

/// Says that a round is over, as the whole takes a while.
fn told(round: Round) -> Round {
    let report = &round.report;
    eprintln!("{}: {} reloads, {} requests, {} lost", round.name, round.reloads, report.sent, report.lost);
    round
}
