//! `baton server`: control.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use baton_control::{
    Artefacts, Backup, Callers, Certificates, Config, InvalidAddress, PrometheusLogin, Server, ServerError,
    State, backup,
};
use baton_sys::descriptors;
use baton_sys::process::close_to_others;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::args::{self, ServerAction};
use crate::failure::Failure;
use crate::ui::Ui;

/// How often it is tried again to bind a server that cannot be yet: as often as one that runs looks at its store.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// Serves until Ctrl-C or SIGTERM.
pub fn run(args: args::Server, ui: &Ui) -> Result<(), Failure> {
    let data_dir = match args.data {
        Some(dir) => dir,
        None => state_dir(|name| std::env::var_os(name).map(PathBuf::from))?,
    };
    let state = match args.state.filter(|url| !url.is_empty()) {
        None => State::File,
        Some(url) => State::Redis(Box::new(
            url.parse().map_err(|error: InvalidAddress| Failure::Usage(error.to_string()))?,
        )),
    };
    match args.action {
        Some(ServerAction::Export(to)) => return export(&state, &data_dir, &to.file, ui),
        Some(ServerAction::Import(from)) => return import(&state, &data_dir, &from.file, ui),
        None => {}
    }
    let artefacts = match args.store.filter(|url| !url.is_empty()) {
        None => Artefacts::Folder,
        Some(url) => Artefacts::Bucket { url, variables: variables() },
    };
    let callers = match (args.dev, args.plain, args.cert, args.cert_key) {
        (true, ..) => Callers::Anybody,
        (false, true, ..) => Callers::KnownInPlain,
        (false, false, Some(chain), Some(key)) => Callers::Known(Certificates::Given { chain, key }),
        (false, false, ..) => Callers::Known(Certificates::Own { names: args.names }),
    };
    let token = args.prometheus_token_file.map(PrometheusLogin::Token);
    let login = token.or_else(|| args.prometheus_password_file.map(PrometheusLogin::Password));
    let system = |what| move |source| Failure::System { what, source };
    // What it knows of secrets, keys and tokens is not for a core dump, nor for others of the same user.
    if let Err(error) = close_to_others() {
        ui.remark(&format!("others can look into this process, and it may dump core: {error}"));
    }
    // Each member has a connection. Where the kernel refuses, there may be as many as before.
    let _ = descriptors::raise();
    let runtime = runtime().map_err(system("start threads"))?;
    runtime.block_on(async {
        let shutdown = asked_to_stop().map_err(system("listen for signals"))?;
        let releases = match &artefacts {
            Artefacts::Folder => String::new(),
            Artefacts::Bucket { url, .. } => format!(", its releases in {url}"),
        };
        tokio::pin!(shutdown);
        let config = Config {
            listen: args.listen,
            callers,
            data_dir: data_dir.clone(),
            state: state.clone(),
            artefacts,
            seal_key: args.seal_key_file,
            prometheus: args.prometheus.filter(|url| !url.is_empty()),
            prometheus_login: login.clone(),
            secrets: variables(),
            allowed_secrets: args.allowed_secrets,
        };
        let Some(server) = bind(config, &mut shutdown, ui).await? else { return Ok(()) };
        let shared = match &state {
            State::File => String::new(),
            State::Redis(address) => format!(", deploys and members in {address}"),
        };
        let mut said = format!(
            "control listens at {} and keeps its data in {}{shared}{releases}\n",
            server.url(),
            data_dir.display()
        );
        if let Some(file) = server.first_token() {
            said.push_str(&format!(
                "the first token is in {}: move it to who is to be the admin\n",
                file.display()
            ));
        }
        if let Some(file) = server.authority() {
            said.push_str(&format!("clients without a token trust it by {}\n", file.display()));
        }
        ui.text(&said)?;
        Ok(server.run(shutdown).await?)
    })
}

/// Binds the server. What it cannot do without and is away for now is waited for; none if it was asked to stop meanwhile.
async fn bind(
    config: Config,
    mut shutdown: impl Future<Output = ()> + Unpin,
    ui: &Ui,
) -> Result<Option<Server>, Failure> {
    let mut told = String::new();
    loop {
        let failure = match Server::bind(config.clone()) {
            Err(error) if error.may_heal() => Failure::from(error),
            bound => return Ok(Some(bound?)),
        };
        let why = failure.message();
        if why != told {
            ui.remark(&format!("{why}; it is waited for"));
            told = why;
        }
        tokio::select! {
            () = &mut shutdown => return Ok(None),
            () = sleep(BIND_AGAIN) => {}
        }
    }
}

fn export(state: &State, data_dir: &Path, file: &Path, ui: &Ui) -> Result<(), Failure> {
    let backup = backup::export(state, data_dir).map_err(ServerError::from)?;
    let write = || {
        // It says who has deployed what, so others do not read it; and it is there whole, or not at all.
        let mut new = tempfile::NamedTempFile::new_in(directory(file))?;
        new.write_all(&backup.to_bytes())?;
        new.as_file().sync_all()?;
        new.persist(file).map_err(|error| error.error)
    };
    write().map_err(|source| Failure::Write { path: file.to_owned(), source })?;
    tell(ui, "exported", &backup, file)
}

fn import(state: &State, data_dir: &Path, file: &Path, ui: &Ui) -> Result<(), Failure> {
    let bytes = fs::read(file).map_err(|source| Failure::Read { path: file.to_owned(), source })?;
    let backup =
        Backup::from_bytes(&bytes).map_err(|source| Failure::Backup { path: file.to_owned(), source })?;
    fs::create_dir_all(data_dir).map_err(|source| Failure::Write { path: data_dir.to_owned(), source })?;
    backup::import(backup.clone(), state, data_dir).map_err(ServerError::from)?;
    tell(ui, "imported", &backup, file)
}

fn tell(ui: &Ui, done: &str, backup: &Backup, file: &Path) -> Result<(), Failure> {
    let ((services, events), file) = (backup.size(), file.display().to_string());
    ui.result(&json!({ "file": file, "services": services, "events": events }), |_| {
        format!("{done} {services} services and {events} events: {file}\n")
    })
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// The environment. What is not text is nothing that a bucket's client would read.
fn variables() -> Vec<(String, String)> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}

/// Comes to an end with Ctrl-C or SIGTERM, which are caught as soon as this returns.
fn asked_to_stop() -> io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Where the user's programs keep their state, as the XDG base directory specification has it.
fn state_dir(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, Failure> {
    let absolute = |dir: &PathBuf| dir.is_absolute();
    let state = variable("XDG_STATE_HOME").filter(absolute);
    let home = || variable("HOME").filter(absolute).map(|home| home.join(".local/state"));
    let dir = state.or_else(home).map(|state| state.join("baton"));
    dir.ok_or_else(|| {
        Failure::Usage("there is no home directory: say where to keep the data with --data".to_owned())
    })
}

/// Where the server's connections live. The loop that decides has a thread of its own, so theirs are one less than there are
/// processors. What that loop has to tell goes before what has just come in: a deploy is heard of by all before the answers
/// of the first are read.
fn runtime() -> io::Result<Runtime> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(processors.saturating_sub(1).max(1))
        .global_queue_interval(1)
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_kept_where_users_programs_keep_theirs() {
        let with = |set: &'static [(&str, &str)]| {
            state_dir(|name| set.iter().find(|(known, _)| *known == name).map(|(_, dir)| dir.into()))
        };
        assert_eq!(with(&[("HOME", "/home/kim")]).unwrap(), PathBuf::from("/home/kim/.local/state/baton"));
        assert_eq!(
            with(&[("XDG_STATE_HOME", "/state"), ("HOME", "/home/kim")]).unwrap(),
            PathBuf::from("/state/baton")
        );
        assert_eq!(
            with(&[("XDG_STATE_HOME", "not/absolute"), ("HOME", "/root")]).unwrap(),
            PathBuf::from("/root/.local/state/baton")
        );
        assert!(matches!(with(&[("HOME", "")]), Err(Failure::Usage(_))));
    }
}
