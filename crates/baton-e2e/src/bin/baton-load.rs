//! `baton-load`: makes load and accounts for every request.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use baton_core::units::{Millis, Share};
use baton_e2e::load::{Line, Plan, Target, run};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Lines that may wait to be heard.
const SAID_MAX: usize = 64;

/// Makes load and accounts for every request. Prints one JSON object a line: the counts every second, and all of
/// them at the end. Ends after --duration, on SIGINT, SIGTERM, or when told `stop`; with 1 if anything was lost.
///
/// Hears lines on standard input: forbid RELEASE, committed TARGET RELEASE, open TARGET, window TARGET begin,
/// window TARGET end, window TARGET FROM_MS TO_MS, away TARGET begin, away TARGET end, handover begin, handover end, stop.
#[derive(Debug, Parser)]
#[command(name = "baton-load")]
struct Args {
    /// Where requests go: host:port
    #[arg(required = true)]
    targets: Vec<Target>,
    /// Clients that open a new connection for each request
    #[arg(long, default_value_t = 2)]
    new: usize,
    /// Clients that keep their connection
    #[arg(long, default_value_t = 2)]
    keep: usize,
    /// Clients that keep an HTTP/2 connection
    #[arg(long, default_value_t = 0)]
    http2: usize,
    /// Clients that call by gRPC, on a connection that they keep
    #[arg(long, default_value_t = 0)]
    grpc: usize,
    /// Clients that keep a WebSocket
    #[arg(long, default_value_t = 0)]
    websocket: usize,
    /// Requests a second of each client; 0 is as fast as answers come
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Idle time of a kept connection after each answer
    #[arg(long, default_value = "0ms")]
    idle_gap: Millis,
    /// Share of the requests that take time: slow answers, uploads and streams in turn
    #[arg(long, default_value = "5%")]
    slow_share: Share,
    /// How long those take at most
    #[arg(long, default_value = "500ms")]
    slow: Millis,
    /// How long a request may take before it counts as lost
    #[arg(long, default_value = "10s")]
    timeout: Millis,
    /// When to stop
    #[arg(long)]
    duration: Option<Millis>,
    /// Stop when standard input ends, so that this process does not outlive its driver
    #[arg(long)]
    attached: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let attached = args.attached;
    let plan = Plan {
        targets: args.targets,
        new: args.new,
        keep: args.keep,
        http2: args.http2,
        grpc: args.grpc,
        websocket: args.websocket,
        rate: args.rate,
        idle_gap: args.idle_gap,
        slow_share: args.slow_share,
        slow: args.slow,
        timeout: args.timeout,
        duration: args.duration,
    };
    if let Err(invalid) = plan.check() {
        Args::command().error(ErrorKind::ValueValidation, invalid).exit();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the event loop")?;
    let report = runtime.block_on(async {
        let (said, heard) = mpsc::channel(SAID_MAX);
        stop_on_signals(&said)?;
        // A thread of its own: a read of standard input cannot be called off.
        std::thread::spawn(move || hear_lines(&said, attached));
        anyhow::Ok(run(plan, heard, |line| print(&line)).await?)
    })?;
    let clean = report.is_clean();
    print(&Line::Report(report));
    Ok(ExitCode::from(u8::from(!clean)))
}

fn stop_on_signals(said: &mpsc::Sender<String>) -> anyhow::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut arrivals = signal(kind).context("cannot listen to signals")?;
        let said = said.clone();
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() && said.send("stop".into()).await.is_ok() {}
        });
    }
    Ok(())
}

fn hear_lines(said: &mpsc::Sender<String>, attached: bool) {
    let lines = std::io::stdin().lines().map_while(Result::ok);
    for line in lines.chain(attached.then(|| "stop".into())) {
        if said.blocking_send(line).is_err() {
            return;
        }
    }
}

/// Prints one line. When nobody reads any more, the exit code still tells.
fn print(line: &Line) {
    if let Ok(text) = serde_json::to_string(line) {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}
