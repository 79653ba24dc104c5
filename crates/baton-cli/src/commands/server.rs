//! `baton server`: control.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use baton_control::{Artefacts, Config, Server};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::args;
use crate::failure::Failure;
use crate::ui::Ui;

/// Serves until Ctrl-C or SIGTERM.
pub fn run(args: args::Server, ui: &Ui) -> Result<(), Failure> {
    let data_dir = match args.data {
        Some(dir) => dir,
        None => state_dir(|name| std::env::var_os(name).map(PathBuf::from))?,
    };
    let artefacts = match args.store.filter(|url| !url.is_empty()) {
        None => Artefacts::Folder,
        Some(url) => Artefacts::Bucket { url, variables: variables() },
    };
    let system = |what| move |source| Failure::System { what, source };
    let runtime = Runtime::new().map_err(system("start threads"))?;
    runtime.block_on(async {
        let shutdown = asked_to_stop().map_err(system("listen for signals"))?;
        let releases = match &artefacts {
            Artefacts::Folder => String::new(),
            Artefacts::Bucket { url, .. } => format!(", its releases in {url}"),
        };
        let server = Server::bind(Config {
            listen: args.listen,
            data_dir: data_dir.clone(),
            artefacts,
            secrets: variables(),
        })?;
        ui.text(&format!(
            "control listens at http://{} and keeps its data in {}{releases}\n",
            server.address(),
            data_dir.display()
        ))?;
        Ok(server.run(shutdown).await?)
    })
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
