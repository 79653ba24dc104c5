//! What the bootloader was started with: its arguments and its environment, read once.

mod known;
mod supply;
mod typed;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use baton_core::access::{BadToken, Shown};
use baton_core::ids::{InvalidId, MemberId, ServiceName};
use baton_core::run::Address;
use baton_core::signal::Signal;
use baton_core::target::{InvalidLabel, LABELS_MAX, Label};
use baton_core::units::Millis;

pub use self::supply::{PeerSettings, SupplySettings};
use self::typed::TypedSettings;
use crate::admin::{self, Question};
use crate::service_manager::Told;

/// What people see with `--help`.
pub const HELP: &str = "\
baton-boot: runs a program, and replaces it without closing its sockets

Usage: baton-boot [--settings FILE] [-- COMMAND [ARGUMENT ...]]
       baton-boot [--listen [NAME=]ADDRESS]... [--set KEY=VALUE]... -- COMMAND ...
       baton-boot status|reload|logs [-n LINES] [-f] [--json] [PID]

  --settings FILE   run settings (default: baton.toml, if there is one)
  --listen ADDRESS  without a file: a listening socket of the program, such as
                    0.0.0.0:8080 or admin=unix:/run/admin.sock (its name: http,
                    if not said)
  --set KEY=VALUE   without a file: one of the settings, such as
                    run.health.http=/health or run.drain=10s
  --help            this text
  --version         the version

status tells how a running baton-boot stands, and reload does what HUP does and
waits for its end: exit code 0 when the new program is kept, 1 when it is not.
logs shows what was written last (-n: so many lines, 100 if not said), and with
-f what is written from then on, until that baton-boot ends.
Without PID it is process 1, or the only baton-boot there is. --json prints the
answer as it is.

COMMAND is run instead of the settings' own run.command. Without settings it
is run as it is, and its end is the end of the container.

Signals: TERM and INT stop (a second one asks every process, a third kills),
HUP starts the program anew beside the old one and hands over when it is
healthy; every other signal is passed on to the program, but for the one that
BATON_STATUS_SIGNAL names.

Environment:
  BATON_SERVER      where control is, for example https://control:7400, or several
                    servers, separated by commas, any of which will do; without
                    it the bootloader works on its own
  BATON_TOKEN       what makes this one a member, from `baton token join`, or
  BATON_TOKEN_FILE  the file with it; needed where control asks who is there
  BATON_CA          a file with certificates, of which one must vouch for control;
                    without it the authority that the token names, or a public one
  BATON_SERVICE     the service that this member belongs to; needed with a server
  BATON_MEMBER      this member's name (default: the host's name)
  BATON_LISTEN      where this member listens, instead of the settings:
                    NAME=ADDRESS[,NAME=ADDRESS ...]
  BATON_STATE_DIR   where releases and scratch folders are kept; put it on a volume
                    (default: /var/lib/baton; without a server a folder in TMPDIR
                    where that cannot be written)
  BATON_TRUSTED_KEYS
                    a file that says whose signatures this member wants to see
                    on releases and deploys; without it, nobody's
  BATON_PEERS       where other members of the service may ask this one for what it
                    has of a release, ADDRESS:PORT; it asks them too, before the
                    store. Without it, or with off, neither
  BATON_PEERS_LIMIT how much this member gives others in a second at the most, for
                    example 10MiB (default: 64MiB)
  BATON_FETCH_LIMIT how much this member fetches in a second at the most, for
                    example 20MiB (default: as fast as it goes)
  BATON_MIRRORS     servers with a copy of the store's packs, asked before it, nearest
                    first: http://HOST/PREFIX[,http://HOST/PREFIX ...]
  BATON_CACHE_DIR   a directory that the members of a host share, so that what one has
                    fetched the others need not; without it, none
  BATON_CACHE_LIMIT how much it holds (default: 1GiB)
  BATON_KEEP_RELEASES  how many proven releases stay on disk beside what runs and
                    shall run (default: 3)
  BATON_LABELS      what this member can be chosen by in a deploy, for example
                    canary,zone=eu-1
  BATON_STATUS_SIGNAL  a signal, such as USR1, at which the status is written to
                    standard error, instead of passing it on
  BATON_STOP_LIMIT  how long the platform waits after TERM until it kills, for
                    example 30s: a stop ends before that
  NOTIFY_SOCKET     where a service manager wants to be told how it stands
                    (systemd: Type=notify or notify-reload)
";

/// What the bootloader was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Print this and end.
    Print(String),
    /// Run.
    Run(Box<Config>),
    /// Ask a bootloader that runs already.
    Ask(Question),
}

/// Everything that the bootloader was told from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The settings file, if one was named.
    pub settings: Option<PathBuf>,
    /// What the arguments say instead of a file, as the text of one; empty where they say nothing.
    pub typed: String,
    /// The command behind `--`; may be empty.
    pub command: Vec<String>,
    /// Where this member listens, by the listener's name, instead of what the settings say.
    pub listen: Vec<(String, Address)>,
    /// Control, if there is one.
    pub control: Option<Control>,
    /// Where this member keeps what it must not forget.
    pub state_dir: Option<PathBuf>,
    /// How many proven releases stay on disk beside what runs and shall run, where that was said.
    pub keep_releases: Option<usize>,
    /// How long the platform waits after it has asked for a stop, until it kills everything.
    pub stop_limit: Option<Millis>,
    /// At which signal the status is written, instead of passing it on.
    pub status_signal: Option<Signal>,
    /// The service manager that wants to be told how the member stands.
    pub manager: Option<Told>,
    /// All variables that the bootloader was started with; what of them a program inherits says its plan.
    pub environment: Vec<(OsString, OsString)>,
}

/// Where control is, and who this member is to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Its address, `https://HOST:PORT` or `http://HOST:PORT`, or those of several servers, separated by commas: any of them
    /// will do.
    pub server: String,
    /// What makes this one a member, if control wants to know.
    pub token: Option<TokenSource>,
    /// A file with certificates, of which one must vouch for control, if it was named.
    pub authority: Option<PathBuf>,
    /// The service that the member belongs to.
    pub service: ServiceName,
    /// The member's name.
    pub member: MemberId,
    /// What it can be chosen by: sorted, each once.
    pub labels: Vec<Label>,
    /// Whose signatures the member believes, if it wants any.
    pub trusted_keys: Option<PathBuf>,
    /// From where releases come, and how fast.
    pub supply: SupplySettings,
}

/// Where a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// In a variable.
    Text(Shown),
    /// In a file, which is read when the token is needed.
    File(PathBuf),
}

/// What is wrong with the arguments or the environment.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An argument that is not known or lacks its value.
    #[error("the arguments are not understood (see baton-boot --help)")]
    Argument(#[from] lexopt::Error),
    /// An argument that is not text.
    #[error("the argument {0:?} is not UTF-8; write it in UTF-8")]
    NotText(OsString),
    /// A variable that begins like ours, and is not.
    #[error("{name} is no setting of baton-boot: {instead}")]
    Unknown {
        /// Its name.
        name: String,
        /// What to do about it.
        instead: String,
    },
    /// `BATON_LISTEN` cannot be read.
    #[error(
        "BATON_LISTEN has {0:?}, which is not NAME=ADDRESS, has port 0, or has a name or an address a second time; \
         write for example http=127.0.0.1:8080 or http=unix:/run/app.sock"
    )]
    Listen(String),
    /// `BATON_TRUSTED_KEYS` names nothing.
    #[error(
        "BATON_TRUSTED_KEYS is empty; name the list of trusted keys, or leave it out for a member that asks for no signature"
    )]
    NoKeys,
    /// `BATON_STOP_LIMIT` cannot be read.
    #[error("BATON_STOP_LIMIT is {0:?}; write a time with its unit, such as 30s")]
    StopLimit(String),
    /// `BATON_STATUS_SIGNAL` cannot be read.
    #[error("BATON_STATUS_SIGNAL is {0:?}; write USR1, USR2, or a real-time signal from RTMIN+1 on")]
    StatusSignal(String),
    /// `--set` without a value.
    #[error("--set {0:?} is not KEY=VALUE; write for example --set run.drain=10s")]
    Set(String),
    /// Settings of two kinds.
    #[error("{0} goes with no settings file: write it in the file, or leave out --settings")]
    TwoSettings(&'static str),
    /// `BATON_KEEP_RELEASES` cannot be read.
    #[error("BATON_KEEP_RELEASES is {0:?}; write a number, such as 3")]
    KeepReleases(String),
    /// `BATON_LABELS` has one that is none.
    #[error("BATON_LABELS is not understood; write for example canary,zone=eu-1")]
    Labels(#[source] InvalidLabel),
    /// `BATON_LABELS` has too many.
    #[error("BATON_LABELS has {0} labels; write at most {LABELS_MAX}")]
    TooManyLabels(usize),
    /// `BATON_PEERS` cannot be read.
    #[error("BATON_PEERS is {0:?}; write ADDRESS:PORT, at which other members reach this one, or off")]
    Peers(String),
    /// `BATON_PEERS_LIMIT` cannot be read, or is so low that nobody would wait.
    #[error("BATON_PEERS_LIMIT is {0:?}; write a size with its unit, at least 2MiB")]
    PeersLimit(String),
    /// `BATON_FETCH_LIMIT` cannot be read, or is so low that every answer takes too long.
    #[error("BATON_FETCH_LIMIT is {0:?}; write a size with its unit, at least 1MiB")]
    FetchLimit(String),
    /// `BATON_CACHE_LIMIT` cannot be read, or is so low that nothing is found there.
    #[error("BATON_CACHE_LIMIT is {0:?}; write a size with its unit, at least 32MiB")]
    CacheLimit(String),
    /// One of `BATON_MIRRORS` cannot be read.
    #[error("BATON_MIRRORS has {0:?}; write http://HOST/PREFIX, several with commas between")]
    Mirror(String),
    /// A name is missing that control must know.
    #[error("BATON_SERVER is set, but BATON_SERVICE is not; name the service that this member belongs to")]
    NoService,
    /// The address of control is of a kind that this version does not speak.
    #[error("BATON_SERVER is {0:?}; write https://HOST:PORT, or http://HOST:PORT on the same machine")]
    Server(String),
    /// The token is none. It is not repeated.
    #[error("BATON_TOKEN is not valid")]
    Token(#[from] BadToken),
    /// A name is not valid.
    #[error("{variable} is not valid")]
    Id {
        /// The variable that has it.
        variable: &'static str,
        /// Why.
        #[source]
        source: InvalidId,
    },
}

impl ConfigError {
    fn id(variable: &'static str) -> impl FnOnce(InvalidId) -> Self {
        move |source| Self::Id { variable, source }
    }
}

impl Config {
    /// Reads arguments (without the program's own name) and environment; `host` is the host's name.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        environment: Vec<(OsString, OsString)>,
        host: &str,
    ) -> Result<Request, ConfigError> {
        let mut arguments = arguments.into_iter().peekable();
        if let Some(request) = arguments.peek().and_then(|first| asked(first)) {
            return question(request, lexopt::Parser::from_args(arguments.skip(1))).map(Request::Ask);
        }
        let (settings, typed, command) = match read(lexopt::Parser::from_args(arguments))? {
            Typed::Print(text) => return Ok(Request::Print(text)),
            Typed::Run { settings, typed, command } => (settings, typed, command),
        };
        known::check(&environment)?;
        // Else a variable that something else was to fill would have this member believe everybody.
        if environment.iter().any(|(name, value)| name == "BATON_TRUSTED_KEYS" && value.is_empty()) {
            return Err(ConfigError::NoKeys);
        }
        let variable = |name: &str| {
            debug_assert!(!name.starts_with("BATON_") || known::OWN.contains(&name), "{name} is not listed");
            let found = environment.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
        };
        let listen = variable("BATON_LISTEN").map_or(Ok(Vec::new()), |text| parse_listen(&text))?;
        let control = control(&variable, host)?;
        let state_dir = variable("BATON_STATE_DIR").map(PathBuf::from);
        let stop_limit = variable("BATON_STOP_LIMIT").map(stop_limit).transpose()?;
        let status_signal = variable("BATON_STATUS_SIGNAL").map(status_signal).transpose()?;
        let keep_releases = variable("BATON_KEEP_RELEASES")
            .map(|text| text.parse().map_err(|_| ConfigError::KeepReleases(text)))
            .transpose()?;
        let manager = variable("NOTIFY_SOCKET").map(|socket| Told { socket, watchdog: watchdog(&variable) });
        let config = Self {
            settings,
            typed,
            command,
            listen,
            control,
            state_dir,
            keep_releases,
            stop_limit,
            status_signal,
            manager,
            environment,
        };
        Ok(Request::Run(Box::new(config)))
    }
}

/// What the arguments of a start say.
enum Typed {
    Print(String),
    Run { settings: Option<PathBuf>, typed: String, command: Vec<String> },
}

fn read(mut parser: lexopt::Parser) -> Result<Typed, ConfigError> {
    let (mut settings, mut typed, mut command) = (None, TypedSettings::default(), Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Ok(Typed::Print(HELP.to_owned())),
            lexopt::Arg::Long("version") => {
                let version = concat!("baton-boot ", env!("CARGO_PKG_VERSION"), "\n");
                return Ok(Typed::Print(version.to_owned()));
            }
            lexopt::Arg::Long("settings") => settings = Some(PathBuf::from(parser.value()?)),
            lexopt::Arg::Long("listen") => typed.listen(&text(parser.value()?)?),
            lexopt::Arg::Long("set") => typed.set(&text(parser.value()?)?)?,
            lexopt::Arg::Value(first) => {
                let words = std::iter::once(first).chain(parser.raw_args()?);
                command = words.map(text).collect::<Result<_, _>>()?;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    match typed.any() {
        Some(argument) if settings.is_some() => Err(ConfigError::TwoSettings(argument)),
        Some(_) | None => Ok(Typed::Run { settings, typed: typed.text(&command), command }),
    }
}

fn text(argument: OsString) -> Result<String, ConfigError> {
    argument.into_string().map_err(ConfigError::NotText)
}

/// One that nobody else has a meaning for: what the kernel or a shell sends is none.
fn status_signal(text: String) -> Result<Signal, ConfigError> {
    let signal = text.parse().ok().filter(|signal: &Signal| matches!(signal.number(), 10 | 12 | 35..=64));
    signal.ok_or(ConfigError::StatusSignal(text))
}

/// Where control is, if there is one; `host` is this member's name where nothing else is said.
fn control(variable: &impl Fn(&str) -> Option<String>, host: &str) -> Result<Option<Control>, ConfigError> {
    let Some(server) = variable("BATON_SERVER") else { return Ok(None) };
    if !server.split(',').all(|server| is_address(server.trim())) {
        return Err(ConfigError::Server(server));
    }
    let service = variable("BATON_SERVICE").ok_or(ConfigError::NoService)?;
    let member = variable("BATON_MEMBER").unwrap_or_else(|| host.to_owned());
    Ok(Some(Control {
        server: server.trim_end_matches('/').to_owned(),
        token: token(variable)?,
        authority: variable("BATON_CA").map(PathBuf::from),
        service: service.parse().map_err(ConfigError::id("BATON_SERVICE"))?,
        member: member.parse().map_err(ConfigError::id("BATON_MEMBER"))?,
        labels: variable("BATON_LABELS").map_or(Ok(Vec::new()), |text| labels(&text))?,
        trusted_keys: variable("BATON_TRUSTED_KEYS").map(PathBuf::from),
        supply: SupplySettings::parse(variable)?,
    }))
}

/// Where the token is, if there is one.
fn token(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<TokenSource>, ConfigError> {
    let file = || variable("BATON_TOKEN_FILE").map(|file| TokenSource::File(file.into()));
    match variable("BATON_TOKEN") {
        Some(text) => Ok(Some(TokenSource::Text(text.parse()?))),
        None => Ok(file()),
    }
}

/// The labels in a list, sorted, each once.
fn labels(text: &str) -> Result<Vec<Label>, ConfigError> {
    let read = text.split(',').map(|label| label.trim().parse());
    let labels: BTreeSet<Label> = read.collect::<Result<_, _>>().map_err(ConfigError::Labels)?;
    if labels.len() > LABELS_MAX {
        return Err(ConfigError::TooManyLabels(labels.len()));
    }
    Ok(labels.into_iter().collect())
}

fn stop_limit(text: String) -> Result<Millis, ConfigError> {
    let limit = text.parse().ok().filter(|limit| *limit > Millis::ZERO);
    limit.ok_or(ConfigError::StopLimit(text))
}

/// How often the manager wants a sign of life, if it wants it of this process (`sd_watchdog_enabled(3)`).
fn watchdog(variable: &impl Fn(&str) -> Option<String>) -> Option<Millis> {
    let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
    let micros: u64 = variable("WATCHDOG_USEC").filter(|_| ours)?.parse().ok()?;
    Some(Millis(micros / 1000)).filter(|limit| *limit > Millis::ZERO)
}

/// What follows `status` or `reload`.
fn question(request: admin::Request, mut parser: lexopt::Parser) -> Result<Question, ConfigError> {
    use lexopt::ValueExt;
    let mut question = Question { request, pid: None, json: false };
    let (mut lines, mut follow) = (admin::LINES_DEFAULT, false);
    let is_logs = matches!(request, admin::Request::Logs { .. });
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("json") => question.json = true,
            lexopt::Arg::Short('n') if is_logs => {
                lines = parser.value()?.parse()?;
            }
            lexopt::Arg::Short('f') | lexopt::Arg::Long("follow") if is_logs => follow = true,
            lexopt::Arg::Value(pid) if question.pid.is_none() => question.pid = Some(pid.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if is_logs {
        question.request = admin::Request::Logs { lines, follow };
    }
    Ok(question)
}

/// What the first argument asks for; a command of that name needs the dashes before it.
fn asked(word: &OsStr) -> Option<admin::Request> {
    word.to_str().and_then(admin::Request::named)
}

/// Whether this is `http://HOST:PORT` or the same with `https`, as far as can be told without asking anybody.
fn is_address(server: &str) -> bool {
    let rest = server.strip_prefix("http://").or_else(|| server.strip_prefix("https://"));
    let authority = rest.map(|rest| rest.trim_end_matches('/'));
    let parts = authority.and_then(|authority| authority.rsplit_once(':'));
    parts.is_some_and(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok())
}

fn parse_listen(text: &str) -> Result<Vec<(String, Address)>, ConfigError> {
    let mut listen: Vec<(String, Address)> = Vec::new();
    for part in text.split(',') {
        let parsed = part.split_once('=').and_then(|(name, address)| {
            let address: Address = address.trim().parse().ok()?;
            Some((name.trim().to_owned(), address))
        });
        let known =
            |name: &str, address: &Address| listen.iter().any(|(other, at)| other == name || at == address);
        match parsed {
            Some((name, address)) if !known(&name, &address) => {
                listen.push((name, address));
            }
            Some(_) | None => return Err(ConfigError::Listen(part.to_owned())),
        }
    }
    Ok(listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Request, ConfigError> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Config::parse(arguments.iter().map(OsString::from), environment, "host-1")
    }

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
        match parse(arguments, environment).unwrap() {
            Request::Run(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_behind_the_dashes_is_the_command() {
        assert_eq!(run(&["--", "sh", "-c", "--settings x"], &[]).command, ["sh", "-c", "--settings x"]);
        assert_eq!(run(&["--settings", "a.toml", "node", "--inspect"], &[]).command, ["node", "--inspect"]);
        assert_eq!(run(&["--settings=a.toml"], &[]).settings, Some("a.toml".into()));
        assert!(crate::log::chain(&parse(&["--sttings", "x"], &[]).unwrap_err()).contains("--sttings"));
    }

    #[test]
    fn the_help_explains_every_variable() {
        for name in known::OWN {
            assert!(HELP.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}");
        }
        assert!(matches!(parse(&[], &[("BATON_TRUSTED_KEY", "/nope")]), Err(ConfigError::Unknown { .. })));
        // Who asks another one is not told about that one's settings.
        assert!(parse(&["status"], &[("BATON_TRUSTED_KEY", "/nope")]).is_ok());
    }

    #[test]
    fn settings_are_in_a_file_or_typed() {
        let typed = run(&["--listen", "127.0.0.1:80", "--set", "run.drain=1s", "--", "app"], &[]).typed;
        assert_eq!(typed.lines().count(), 3, "{typed}");
        assert_eq!(run(&["--settings", "a.toml", "app"], &[]).typed, "");
        for argument in ["--listen=127.0.0.1:80", "--set=run.drain=1s"] {
            let error = parse(&["--settings", "a.toml", argument, "app"], &[]).unwrap_err();
            assert!(matches!(error, ConfigError::TwoSettings(_)), "{argument}");
        }
        assert!(matches!(parse(&["--set", "run.drain"], &[]), Err(ConfigError::Set(_))));
    }

    #[test]
    fn a_running_bootloader_is_asked_by_name() {
        let ask = |arguments: &[&str]| match parse(arguments, &[]) {
            Ok(Request::Ask(question)) => question,
            other => panic!("{other:?}"),
        };
        let question = Question { request: admin::Request::Status, pid: None, json: false };
        assert_eq!(ask(&["status"]), question);
        let reload = Question { request: admin::Request::Reload, pid: Some(7), json: true };
        assert_eq!(ask(&["reload", "--json", "7"]), reload);
        let logs = |lines, follow| Question {
            request: admin::Request::Logs { lines, follow },
            pid: None,
            json: false,
        };
        assert_eq!(ask(&["logs", "-n", "5"]), logs(5, false));
        assert_eq!(ask(&["logs", "-fn5"]), logs(5, true));
        assert_eq!(ask(&["logs", "--follow"]), logs(100, true));
        assert_eq!(run(&["--", "status"], &[]).command, ["status"]);
        for bad in [&["status", "seven"][..], &["status", "7", "8"], &["reload", "-x"], &["status", "-f"]] {
            assert!(parse(bad, &[]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_read_by_name() {
        let config = run(&[], &[("BATON_LISTEN", "http=127.0.0.1:80, admin=unix:/run/a.sock")]);
        assert_eq!(config.listen[1], ("admin".to_owned(), "unix:/run/a.sock".parse().unwrap()));
        for bad in [
            "http",
            "http=",
            "http=localhost:80",
            "http=unix:app.sock",
            "http=1.2.3.4:80,",
            "a=1.2.3.4:0",
            "a=1.2.3.4:8,b=1.2.3.4:8",
        ] {
            assert!(matches!(parse(&[], &[("BATON_LISTEN", bad)]), Err(ConfigError::Listen(_))), "{bad}");
        }
    }

    #[test]
    fn control_needs_to_know_who_this_member_is() {
        let config = run(&[], &[("BATON_SERVER", "http://127.0.0.1:7400/"), ("BATON_SERVICE", "web")]);
        let control = config.control.unwrap();
        assert_eq!((control.server.as_str(), control.member.as_str()), ("http://127.0.0.1:7400", "host-1"));
        for (bad, message) in [
            (vec![("BATON_SERVER", "http://x:1")], "BATON_SERVICE is not"),
            (vec![("BATON_SERVER", "x:80"), ("BATON_SERVICE", "web")], "write https://HOST:PORT"),
            (vec![("BATON_SERVER", "http://"), ("BATON_SERVICE", "web")], "write https://HOST:PORT"),
            (vec![("BATON_SERVER", "http://x:1"), ("BATON_SERVICE", "we b")], "BATON_SERVICE is not valid"),
        ] {
            assert!(parse(&[], &bad).unwrap_err().to_string().contains(message), "{message}");
        }
    }

    #[test]
    fn p43_a_token_is_in_a_variable_or_a_file_and_never_repeated() {
        let with = |set: &[(&'static str, &'static str)]| {
            let base = [("BATON_SERVER", "https://control:7400"), ("BATON_SERVICE", "web")];
            parse(&[], &[&base[..], set].concat())
        };
        let token = |set: &[_]| match with(set) {
            Ok(Request::Run(config)) => config.control.unwrap().token,
            other => panic!("{other:?}"),
        };
        assert_eq!(token(&[]), None);
        let file = Some(TokenSource::File("/run/secrets/join".into()));
        assert_eq!(token(&[("BATON_TOKEN_FILE", "/run/secrets/join")]), file);
        let text = "baton_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
        let both = token(&[("BATON_TOKEN", text), ("BATON_TOKEN_FILE", "/run/secrets/join")]);
        assert_eq!(both, Some(TokenSource::Text(text.parse().unwrap())));
        let error = crate::log::chain(&with(&[("BATON_TOKEN", "hunter2")]).unwrap_err());
        assert!(error.contains("BATON_TOKEN is not valid") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn labels_are_sorted_and_each_is_there_once() {
        let told = [("BATON_SERVER", "http://x:1"), ("BATON_SERVICE", "web")];
        let labels = |text| {
            let config = parse(&[], &[told[0], told[1], ("BATON_LABELS", text)])?;
            let Request::Run(config) = config else { panic!("{config:?}") };
            Ok::<_, ConfigError>(
                config.control.unwrap().labels.iter().map(ToString::to_string).collect::<Vec<_>>(),
            )
        };
        assert_eq!(labels("zone=eu-1, canary,canary").unwrap(), ["canary", "zone=eu-1"]);
        assert!(matches!(labels("zone=").unwrap_err(), ConfigError::Labels(_)));
        let many = (0..33).map(|n| format!("l{n}")).collect::<Vec<_>>().join(",");
        assert!(matches!(labels(&many).unwrap_err(), ConfigError::TooManyLabels(33)));
    }

    #[test]
    fn limits_and_the_service_manager_are_read_from_the_environment() {
        let pid = std::process::id().to_string();
        let config = run(
            &[],
            &[
                ("BATON_STOP_LIMIT", "1m30s"),
                ("NOTIFY_SOCKET", "/run/systemd/notify"),
                ("WATCHDOG_USEC", "3000000"),
                ("WATCHDOG_PID", &pid),
            ],
        );
        assert_eq!(config.stop_limit, Some(Millis::from_secs(90)));
        let watchdog = Some(Millis::from_secs(3));
        assert_eq!(config.manager, Some(Told { socket: "/run/systemd/notify".to_owned(), watchdog }));
        let others = [("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")];
        assert_eq!(run(&[], &others).manager, Some(Told { socket: "@x".to_owned(), watchdog: None }));
        assert_eq!((run(&[], &[]).manager, run(&[], &[]).stop_limit), (None, None));
        assert_eq!(run(&[], &[("BATON_KEEP_RELEASES", "0")]).keep_releases, Some(0));
        for bad in ["-1", "all"] {
            let error = parse(&[], &[("BATON_KEEP_RELEASES", bad)]).unwrap_err();
            assert!(matches!(error, ConfigError::KeepReleases(_)), "{bad}");
        }
        assert_eq!(run(&[], &[("BATON_STATUS_SIGNAL", "usr1")]).status_signal, Some(Signal::USR1));
        for bad in ["TERM", "HUP", "CHLD", "34", "1.5", "now"] {
            let error = parse(&[], &[("BATON_STATUS_SIGNAL", bad)]).unwrap_err();
            assert!(matches!(error, ConfigError::StatusSignal(_)), "{bad}");
        }
        for bad in ["30", "0s", "soon"] {
            let error = parse(&[], &[("BATON_STOP_LIMIT", bad)]).unwrap_err();
            assert!(matches!(error, ConfigError::StopLimit(_)), "{bad}");
        }
        let error = parse(&[], &[("BATON_TRUSTED_KEYS", "")]).unwrap_err();
        assert!(matches!(error, ConfigError::NoKeys), "nobody is trusted by leaving a variable empty");
    }
}
