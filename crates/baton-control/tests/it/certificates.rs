//! Certificates that somebody has given, good ones and others, as clients meet them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use baton_control::Certificates;
use baton_release::control::Control;
use baton_wire::access::GuardView;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use ureq::Agent;

use crate::running::{LIMIT, Running};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An authority that clients believe, and where its certificate is.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Puts a certificate for this machine where the server has its own.
    fn give(&self, files: &Files, from: SystemTime, until: SystemTime) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (from.into(), until.into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        files.put(&certificate.pem(), &key.serialize_pem());
    }
}

struct Files {
    chain: PathBuf,
    key: PathBuf,
}

impl Files {
    /// As who renews certificates does it: one file after the other, each whole.
    fn put(&self, chain: &str, key: &str) {
        for (path, text) in [(&self.chain, chain), (&self.key, key)] {
            let new = path.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, path).unwrap();
        }
    }
}

/// Asks whether the server lives, as who believes this authority.
async fn asks(server: &Running, authority: &Path) -> Result<u16, String> {
    let control = Control::new(&server.url, None, Some(authority.to_owned())).unwrap();
    let url = format!("{}/healthz", server.url);
    let ask = move || {
        let tls = control.believed().map_err(|error| error.to_string())?.tls();
        let config = Agent::config_builder().http_status_as_error(false).proxy(None).tls_config(tls);
        let answer = Agent::new_with_config(config.build()).get(&url).call();
        answer.map(|answer| answer.status().as_u16()).map_err(|error| error.to_string())
    };
    spawn_blocking(ask).await.unwrap()
}

/// Waits until whoever asks gets what is looked for.
async fn until(server: &Running, authority: &Path, is_so: impl Fn(&Result<u16, String>) -> bool) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = asks(server, authority).await;
        if is_so(&answer) {
            return;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f60_certificates_that_are_not_good_are_believed_by_nobody_and_renewing_needs_no_restart() {
    let dir = Arc::new(TempDir::new().unwrap());
    let files = Files { chain: dir.path().join("chain.pem"), key: dir.path().join("key.pem") };
    let ours = Authority::new(dir.path(), "ours");
    let theirs = Authority::new(dir.path(), "theirs");
    let now = SystemTime::now();
    ours.give(&files, now - DAY, now + 90 * DAY);
    let given = Certificates::Given { chain: files.chain.clone(), key: files.key.clone() };
    let server = Running::start_known(Arc::clone(&dir), given);
    assert_eq!(asks(&server, &ours.file).await, Ok(200));
    assert!(asks(&server, &theirs.file).await.is_err(), "who believes others does not believe it");

    // Another one is used as soon as it is there, whatever it is: clients judge it.
    let refused = |why: &'static str| {
        move |answer: &Result<u16, String>| {
            let text = answer.as_ref().err().map(|text| text.to_lowercase().replace(' ', ""));
            text.is_some_and(|text| text.contains(why))
        }
    };
    let good = |answer: &Result<u16, String>| *answer == Ok(200);
    ours.give(&files, now - 2 * DAY, now - DAY);
    until(&server, &ours.file, refused("expired")).await;
    ours.give(&files, now + DAY, now + 2 * DAY);
    until(&server, &ours.file, refused("notvalidyet")).await;
    theirs.give(&files, now - DAY, now + 90 * DAY);
    until(&server, &theirs.file, good).await;
    until(&server, &ours.file, refused("unknownissuer")).await;

    // What is no certificate leaves the one before, and somebody is told.
    ours.give(&files, now - DAY, now + 90 * DAY);
    until(&server, &ours.file, good).await;
    let key = fs::read_to_string(&files.key).unwrap();
    for (chain, key) in [("nothing", "nothing"), (&*fs::read_to_string(&theirs.file).unwrap(), &*key)] {
        files.put(chain, key);
        warned(&server, &ours.file, "is not used").await;
        assert_eq!(asks(&server, &ours.file).await, Ok(200), "the one before is good");
    }
    ours.give(&files, now - DAY, now + 31 * DAY);
    assert_eq!(warnings(&server, &ours.file, |found| found.is_empty()).await, "");
    ours.give(&files, now - DAY, now + 29 * DAY);
    warned(&server, &ours.file, "ends in 2").await;

    // Whoever speaks something else than TLS is cut off, and nobody else is.
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 0x03, 0x01, 0xff, 0xff], &[0xff; 4096]] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("it is cut off");
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    assert_eq!(asks(&server, &ours.file).await, Ok(200));
    server.stop().await;
}

/// What somebody has to do about the certificate, as soon as it is what is looked for.
async fn warnings(server: &Running, authority: &Path, is_so: impl Fn(&str) -> bool) -> String {
    let shown = server.first_token();
    let deadline = Instant::now() + LIMIT;
    loop {
        let control = Control::new(&server.url, Some(shown.clone()), Some(authority.to_owned())).unwrap();
        let url = format!("{}/v1/guards", server.url);
        let ask = move || {
            let tls = control.believed().unwrap().tls();
            let config = Agent::config_builder().proxy(None).tls_config(tls);
            let bearer = control.bearer().unwrap();
            let request = Agent::new_with_config(config.build()).get(&url);
            let mut answer = request.header("authorization", bearer.reveal()).call().unwrap();
            answer.body_mut().read_to_vec().unwrap()
        };
        let body = spawn_blocking(ask).await.unwrap();
        let guards: Vec<GuardView> = serde_json::from_slice(&body).unwrap();
        let found = guards.into_iter().find(|guard| guard.guard == "certificate");
        let text = found.map(|guard| guard.text).unwrap_or_default();
        if is_so(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "{text}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn warned(server: &Running, authority: &Path, says: &str) {
    warnings(server, authority, |text| text.contains(says)).await;
}
