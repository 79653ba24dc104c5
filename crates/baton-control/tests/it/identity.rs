//! A data directory of which something is missing is not taken for a new one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baton_control::{Callers, Certificates, Config, Server};
use tempfile::TempDir;

use crate::closed::Asker;
use crate::running::{Running, config};

fn own(config: Config) -> Config {
    Config { callers: Callers::Known(Certificates::Own { names: Vec::new() }), ..config }
}

/// Why a server that asks who is there does not start in this directory; nothing if it does.
fn refused(dir: &Path) -> Option<String> {
    let error = Server::bind(own(config(dir))).err()?;
    let source = std::error::Error::source(&error).map(ToString::to_string);
    Some(format!("{error}: {}", source.unwrap_or_default()))
}

/// What a server has left that has asked who is there.
async fn used() -> Arc<TempDir> {
    Running::start_closed(Arc::new(TempDir::new().unwrap())).stop().await
}

/// Takes away what has these names, and gives it back.
fn without<T>(dir: &Path, names: &[&str], act: impl FnOnce() -> T) -> T {
    let away = TempDir::new_in(dir).unwrap();
    let moves = |back: bool| {
        for name in names {
            let (here, there) = (dir.join("data").join(name), away.path().join(name));
            let _ = if back { fs::rename(&there, &here) } else { fs::rename(&here, &there) };
        }
    };
    moves(false);
    let done = act();
    moves(true);
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_of_a_directory_is_named_and_not_made_anew() {
    let dir = used().await;
    let data = dir.path().join("data");
    let list = fs::read(data.join("access.json")).unwrap();
    let all = ["access.json", "access.reserve", "ca.key", "ca.pem", "admin.token", "audit.log", "identity"];
    for (names, missing) in [
        (&["access.json"][..], "access.json is missing"),
        (&["access.json", "access.reserve", "identity"], "access.json is missing"),
        (&["ca.key"], "ca.key is missing"),
        (&["ca.pem"], "ca.pem is missing"),
        (&["ca.key", "ca.pem"], "ca.key is missing"),
        (&["ca.key", "ca.pem", "identity"], "ca.key is missing"),
        // The state alone was copied back.
        (&all, "ca.key is missing"),
    ] {
        let told = without(dir.path(), names, || {
            let told = refused(dir.path()).unwrap_or_else(|| panic!("it starts without {names:?}"));
            names.iter().filter(|name| **name != "identity").for_each(|name| {
                assert!(!data.join(name).exists(), "{name} was made anew: {told}");
            });
            told
        });
        let file = data.join("identity");
        assert!(told.contains(missing) && told.contains(&*file.to_string_lossy()), "{names:?}: {told}");
    }
    assert_eq!(refused(dir.path()), None, "with all of it");
    assert_eq!(fs::read(data.join("access.json")).unwrap(), list, "as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_line_of_what_is_lost_out_begins_anew_without_it() {
    let dir = used().await;
    let data = dir.path().join("data");
    let authority = fs::read(data.join("ca.pem")).unwrap();
    let take_out = |line: &str| {
        let text = fs::read_to_string(data.join("identity")).unwrap();
        fs::write(data.join("identity"), text.replace(&format!("\n{line}\n"), "\n")).unwrap();
    };
    let remove = |names: &[&str]| names.iter().for_each(|name| fs::remove_file(data.join(name)).unwrap());
    remove(&["access.json", "admin.token"]);
    take_out("access.json");
    let server = Running::start_closed(dir);
    let admin = Asker::new(&server, Some(server.first_token()));
    assert_eq!(admin.call("GET", "/v1/tokens", None).await.status, 200);
    assert_eq!(fs::read(data.join("ca.pem")).unwrap(), authority, "the authority stays");
    let dir = server.stop().await;
    remove(&["ca.key", "ca.pem"]);
    assert!(refused(dir.path()).is_some());
    take_out("ca.key");
    let server = Running::start_closed(dir);
    assert_ne!(fs::read(data.join("ca.pem")).unwrap(), authority);
    let admin = Asker::new(&server, admin.shown_without_authority());
    assert_eq!(admin.call("GET", "/v1/tokens", None).await.status, 200, "and the tokens stay");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_which_nobody_was_asked_begins_its_list_of_tokens_when_somebody_is() {
    let dir = Arc::new(TempDir::new().unwrap());
    let dir = Running::start_in(dir, "127.0.0.1:0".parse().unwrap()).stop().await;
    let data: PathBuf = dir.path().join("data");
    let identities = ["access.json", "admin.token", "ca.key", "ca.pem"].map(|name| data.join(name).exists());
    assert_eq!(identities, [false; 4], "with --dev there is none");
    let server = Running::start_closed(dir);
    let admin = Asker::new(&server, Some(server.first_token()));
    assert_eq!(admin.call("GET", "/v1/tokens", None).await.status, 200);
    let dir = server.stop().await;
    // Nor does another such start lose what there is.
    let dir = Running::start_in(dir, "127.0.0.1:0".parse().unwrap()).stop().await;
    without(dir.path(), &["access.json"], || assert!(refused(dir.path()).is_some()));
    assert_eq!(refused(dir.path()), None);
}
