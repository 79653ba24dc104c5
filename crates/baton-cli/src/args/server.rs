//! Running control, and its state as a file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Where control listens, unless something else is said.
pub const LISTEN: &str = "127.0.0.1:7400";

/// `baton server`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  baton server --dev
  baton server --data /var/lib/baton --listen 0.0.0.0:7400 --name control.internal
  baton server export state.backup     all deploys, members and events, as a file
  baton server import state.backup     and back, where there is no state yet

Who asks needs a token (`baton token`), over TLS; the first one is in admin.token,
among the data. With --dev it asks nobody who they are, and listens on this machine
only.")]
pub struct Server {
    /// What to do with its state; run it when nothing is said
    #[command(subcommand)]
    pub action: Option<ServerAction>,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN, value_parser = address)]
    pub listen: SocketAddr,
    /// Ask nobody who they are, and speak no TLS; on this machine only
    #[arg(long)]
    pub dev: bool,
    /// Speak no TLS, for a proxy that does; on this machine only
    #[arg(long, conflicts_with = "dev")]
    pub plain: bool,
    /// A name or address by which others call this server; several times for several
    #[arg(long = "name", value_name = "NAME", conflicts_with_all = ["dev", "plain", "cert"])]
    pub names: Vec<String>,
    /// A certificate in PEM, with those behind it [default: one of an authority of its own]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dev", "plain"], requires = "cert_key")]
    pub cert: Option<PathBuf>,
    /// The private key of --cert, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub cert_key: Option<PathBuf>,
    /// Where deploys, events and releases are kept [default: baton in the user's state directory]
    #[arg(long, env = "BATON_DATA", value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
    /// A Redis to keep deploys, members and events in, for several servers: redis://… or rediss://… [default: a file with
    /// the other data]
    #[arg(long, env = "BATON_STATE", hide_env_values = true, value_name = "URL", global = true)]
    pub state: Option<String>,
    /// The file with the key that seals who may do what where several servers share it in --state
    #[arg(long, env = "BATON_SEAL_KEY_FILE", value_name = "FILE")]
    pub seal_key_file: Option<PathBuf>,
    /// The list of which service may have which secret [default: each may have all that this server can read]
    #[arg(long, env = "BATON_ALLOWED_SECRETS", value_name = "FILE")]
    pub allowed_secrets: Option<PathBuf>,
    /// A Prometheus server, for rollouts that wait for a metric
    #[arg(long, env = "BATON_PROMETHEUS", value_name = "URL")]
    pub prometheus: Option<String>,
    /// The file with a token that --prometheus is shown
    #[arg(long, env = "BATON_PROMETHEUS_TOKEN_FILE", value_name = "FILE")]
    pub prometheus_token_file: Option<PathBuf>,
    /// The file with NAME:PASSWORD that --prometheus is shown
    #[arg(
        long,
        env = "BATON_PROMETHEUS_PASSWORD_FILE",
        value_name = "FILE",
        conflicts_with = "prometheus_token_file"
    )]
    pub prometheus_password_file: Option<PathBuf>,
    /// A bucket to keep releases in: s3://BUCKET/PREFIX, gs://… or az://… [default: a folder with the other data]
    #[arg(long, env = "BATON_STORE", value_name = "URL")]
    pub store: Option<String>,
}

/// What to do with the state of a server.
#[derive(Debug, Subcommand)]
pub enum ServerAction {
    /// Write all deploys, members and events to a file; a server whose state is a file is stopped first
    Export(StateFile),
    /// Bring what was exported to where there is no state yet: after a loss, or from a file to a Redis
    Import(StateFile),
}

/// The file of an export.
#[derive(Debug, Args)]
pub struct StateFile {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// An address to listen at. Names are not looked up.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| match text.strip_prefix("localhost:") {
        Some(port) => format!("names are not looked up: write 127.0.0.1:{port}"),
        None => "write an address and a port, such as 127.0.0.1:7400".to_owned(),
    })
}
