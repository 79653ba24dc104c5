//! What the bootloader was started with: its arguments and its environment, read once.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What people see with `--help`.
pub const HELP: &str = "\
baton-boot: runs a program, and replaces it without closing its sockets

Usage: baton-boot [--settings FILE] [-- COMMAND [ARGUMENT ...]]

  --settings FILE   run settings (default: baton.toml, if there is one)
  --help            this text
  --version         the version

COMMAND is run instead of the settings' own run.command. Without settings it
is run as it is, and its end is the end of the container.

Signals: TERM and INT stop (a second one asks every process, a third kills),
HUP starts the program anew beside the old one and hands over when it is
healthy; every other signal is passed on to the program.

Environment:
  BATON_LISTEN      where this member listens, instead of the settings:
                    NAME=ADDRESS[,NAME=ADDRESS ...]
  BATON_STATE_DIR   where scratch folders are made (default: /var/lib/baton,
                    or a folder of its own in TMPDIR where that cannot be written)
";

/// What the bootloader was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Print this and end.
    Print(String),
    /// Run.
    Run(Box<Config>),
}

/// Everything that the bootloader was told from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The settings file, if one was named.
    pub settings: Option<PathBuf>,
    /// The command behind `--`; may be empty.
    pub command: Vec<String>,
    /// Where this member listens, by the listener's name, instead of what the settings say.
    pub listen: Vec<(String, SocketAddr)>,
    /// Where this member keeps what it must not forget.
    pub state_dir: Option<PathBuf>,
    /// What the program inherits: everything but the bootloader's own variables.
    pub environment: Vec<(OsString, OsString)>,
}

/// What is wrong with the arguments or the environment.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An argument that is not known or lacks its value.
    #[error("{0}; see baton-boot --help")]
    Argument(#[from] lexopt::Error),
    /// An argument that is not text.
    #[error("the argument {0:?} is not UTF-8; write it in UTF-8")]
    NotText(OsString),
    /// `BATON_LISTEN` cannot be read.
    #[error("BATON_LISTEN has {0:?}, which is not NAME=ADDRESS; write for example http=127.0.0.1:8080")]
    Listen(String),
}

impl Config {
    /// Reads arguments (without the program's own name) and environment.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        environment: Vec<(OsString, OsString)>,
    ) -> Result<Request, ConfigError> {
        let mut settings = None;
        let mut command = Vec::new();
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                    return Ok(Request::Print(HELP.to_owned()));
                }
                lexopt::Arg::Long("version") => {
                    return Ok(Request::Print(
                        concat!("baton-boot ", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
                    ));
                }
                lexopt::Arg::Long("settings") => settings = Some(PathBuf::from(parser.value()?)),
                lexopt::Arg::Value(first) => {
                    command = std::iter::once(first)
                        .chain(parser.raw_args()?)
                        .map(|argument| argument.into_string().map_err(ConfigError::NotText))
                        .collect::<Result<_, _>>()?;
                }
                other => return Err(other.unexpected().into()),
            }
        }
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
        };
        let listen = variable("BATON_LISTEN").map_or(Ok(Vec::new()), |text| parse_listen(&text))?;
        let state_dir = variable("BATON_STATE_DIR").map(PathBuf::from);
        let environment =
            environment.into_iter().filter(|(name, _)| is_inherited(&name.to_string_lossy())).collect();
        Ok(Request::Run(Box::new(Self { settings, command, listen, state_dir, environment })))
    }
}

fn parse_listen(text: &str) -> Result<Vec<(String, SocketAddr)>, ConfigError> {
    let parse = |part: &str| {
        let (name, address) = part.split_once('=')?;
        Some((name.trim().to_owned(), address.trim().parse().ok()?))
    };
    text.split(',').map(|part| parse(part).ok_or_else(|| ConfigError::Listen(part.to_owned()))).collect()
}

/// The program must not see what belongs to the bootloader: its credentials, and sockets that were not passed
/// on by it.
fn is_inherited(name: &str) -> bool {
    !name.starts_with("BATON_")
        && !matches!(name, "LISTEN_FDS" | "LISTEN_PID" | "LISTEN_FDNAMES" | "NOTIFY_SOCKET")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Request, ConfigError> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Config::parse(arguments.iter().map(OsString::from), environment)
    }

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
        match parse(arguments, environment).unwrap() {
            Request::Run(config) => *config,
            Request::Print(text) => panic!("{text}"),
        }
    }

    #[test]
    fn everything_behind_the_dashes_is_the_command() {
        assert_eq!(run(&["--", "sh", "-c", "--settings x"], &[]).command, ["sh", "-c", "--settings x"]);
        assert_eq!(run(&["--settings", "a.toml", "node", "--inspect"], &[]).command, ["node", "--inspect"]);
        assert_eq!(run(&["--settings=a.toml"], &[]).settings, Some("a.toml".into()));
        assert!(parse(&["--sttings", "x"], &[]).unwrap_err().to_string().contains("--sttings"));
    }

    #[test]
    fn addresses_are_read_by_name() {
        let config = run(&[], &[("BATON_LISTEN", "http=127.0.0.1:80, admin=[::1]:81")]);
        assert_eq!(config.listen[1], ("admin".to_owned(), "[::1]:81".parse().unwrap()));
        for bad in ["http", "http=", "http=localhost:80", "http=1.2.3.4:80,"] {
            assert!(matches!(parse(&[], &[("BATON_LISTEN", bad)]), Err(ConfigError::Listen(_))), "{bad}");
        }
    }

    #[test]
    fn the_program_does_not_see_what_is_ours() {
        let config = run(&[], &[("BATON_TOKEN", "secret"), ("LISTEN_FDS", "1"), ("HOME", "/root")]);
        assert_eq!(config.environment, [("HOME".into(), "/root".into())]);
    }
}
