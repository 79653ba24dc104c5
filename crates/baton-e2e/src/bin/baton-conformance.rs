//! `baton-conformance`: holds any init against what a PID 1 must do.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use baton_core::units::Millis;
use baton_e2e::bench::program;
use baton_e2e::conformance::checks::CHECKS;
use baton_e2e::conformance::{Check, Init, Tools, hold, scores};
use clap::{Parser, ValueEnum};

/// Holds an init against what a PID 1 must do, each check in a namespace of its own; without an init, baton-boot
/// beside tini, dumb-init, s6 and supervisord. Says on standard error how it goes. Ends with 1 if the given init,
/// or baton-boot, fails a check, and with 2 if it could not be checked.
#[derive(Debug, Parser)]
#[command(name = "baton-conformance")]
struct Args {
    /// Only these checks
    #[arg(long, value_name = "CHECK")]
    only: Vec<String>,
    /// Only those that take no more than a few seconds
    #[arg(long)]
    quick: bool,
    /// When the given init kills a program that does not stop, if it does so by itself
    #[arg(long, value_name = "DURATION")]
    stop_limit: Option<Millis>,
    /// Print what is checked and why, and end
    #[arg(long)]
    list: bool,
    /// A table, or one JSON document
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// The init's command, up to where the program's begins: `tini --`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    init: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// The exit code for what keeps the checks from being made: 1 is that of an init that fails one.
const EXIT_NOT_CHECKED: u8 = 2;

fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("baton-conformance: {error:#}");
        EXIT_NOT_CHECKED.into()
    })
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let checks = chosen(args)?;
    if args.list {
        checks
            .iter()
            .for_each(|check| println!("{}\n    {}\n    {}\n", check.name, check.proves, check.matters));
        return Ok(ExitCode::SUCCESS);
    }
    let inits = inits(args)?;
    let tools = Tools::new(program("baton-nasty")?)?;
    let all = inits
        .iter()
        .map(|init| hold(init, &tools, &checks, &mut std::io::stderr()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    match args.output {
        Output::Table => println!("{}", scores::table(&all)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&all)?),
    }
    // The first is the one that it is all about.
    let conforms = all.first().is_some_and(|scores| scores.failed().is_empty());
    Ok(if conforms { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(args: &Args) -> anyhow::Result<Vec<&'static Check>> {
    if let Some(unknown) = args.only.iter().find(|name| !CHECKS.iter().any(|check| check.name == **name)) {
        bail!("{unknown:?} is no check; --list shows all");
    }
    let wanted = |check: &&Check| args.only.is_empty() || args.only.iter().any(|name| name == check.name);
    Ok(CHECKS.iter().filter(wanted).filter(|check| check.quick || !args.quick).collect())
}

fn inits(args: &Args) -> anyhow::Result<Vec<Init>> {
    if args.init.is_empty() {
        let mut all = vec![Init::baton_boot(&program("baton-boot")?)?];
        all.extend(Init::peers()?);
        return Ok(all);
    }
    let given = Init::given(&args.init)?;
    Ok(vec![match args.stop_limit {
        Some(limit) => given.with_limit(Duration::from_millis(limit.0)),
        None => given,
    }])
}
