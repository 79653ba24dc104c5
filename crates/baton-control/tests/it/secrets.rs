//! Who is told which secrets.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use baton_control::Config;
use baton_core::ids::ReleaseId;
use baton_core::run::RunSettings;
use baton_core::run::secrets::{Reference, Secrets};
use baton_wire::access::GuardView;
use baton_wire::api::{Propose, References, Refused, Versions};
use baton_wire::session::{FromMember, Hello, Socket, ToMember};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::running::{LIMIT, Running, rollout};

/// A server whose AWS is not there.
fn server() -> Running {
    Running::start_with(Arc::new(TempDir::new().unwrap()), "127.0.0.1:0".parse().unwrap(), variables())
}

/// What tells of an AWS that is not there.
fn variables() -> Vec<(String, String)> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "hunter2".to_owned()),
    ];
    variables.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Settings with one secret.
fn with_secret(reference: &str) -> RunSettings {
    let mut run = RunSettings::for_command(vec!["true".into()]);
    let token = ("TOKEN".to_owned(), reference.parse::<Reference>().unwrap().into());
    run.secrets = Secrets { env: vec![token], ..Secrets::default() };
    run
}

/// What a member of a service is told when it asks for the secrets of a release.
async fn told(address: SocketAddr, service: &str, release: ReleaseId) -> Result<usize, String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut socket = Socket::call(stream, &address.to_string(), None).await.unwrap();
    let hello = Hello {
        member: format!("{service}-1").parse().unwrap(),
        service: service.parse().unwrap(),
        version: "test".into(),
        listens: Vec::new(),
        life: 1,
        peer: None,
    };
    // A member may ask more often than it is answered.
    for said in
        [FromMember::Hello(hello)].into_iter().chain((0..8).map(|_| FromMember::SecretsWanted(release)))
    {
        socket.say(&said.to_wire()).await.unwrap();
    }
    let answer = async {
        loop {
            let order = socket.hear().await.expect("the session goes on");
            if let Some(ToMember::SecretsTold { release: of, told }) = ToMember::from_wire(order).unwrap() {
                assert_eq!(of, release);
                return told.map(|values| values.len());
            }
        }
    };
    timeout(LIMIT, answer).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p43_values_are_for_members_of_a_service_that_the_release_was_deployed_to() {
    let server = server();
    let release = server.push_run(1, with_secret("aws-ssm:/prod/token")).await;
    // Pushing it is not enough, and neither is a member of another service.
    let never = told(server.address, "web", release).await.unwrap_err();
    assert!(never.contains("was never deployed to web"), "{never}");
    server.deploy(&rollout(release, 100)).await;
    let never = told(server.address, "mail", release).await.unwrap_err();
    assert!(never.contains("was never deployed to mail"), "{never}");
    let away = told(server.address, "web", release).await.unwrap_err();
    assert!(
        away.starts_with("the secret TOKEN (aws-ssm:/prod/token) cannot be had: ssm does not answer: "),
        "{away}"
    );
    assert!(!away.contains("hunter2"), "{away}");

    // A release without any has none.
    let plain = server.push(2).await;
    server.deploy(&rollout(plain, 100)).await;
    assert_eq!(told(server.address, "web", plain).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p43_versions_are_asked_for_by_references_and_what_is_none_is_not_repeated() {
    let server = server();
    let ask = async |references: &[&str]| {
        let references = references.iter().map(|text| (*text).to_owned()).collect();
        server.post("/v1/secrets/versions", &References { references, service: None }).await
    };
    let none = ask(&[]).await;
    assert_eq!((none.status, none.json::<Versions>().versions.len()), (200, 0));
    let many = vec!["aws-ssm:/a"; 257];
    for (references, status, why) in [
        (&["hunter2"][..], 400, "no reference to a secret: it is none that is known"),
        (&["file:/run/secrets/db"], 400, "the member's own"),
        (&["env:DB"], 400, "the member's own"),
        (&many, 400, "more than 256"),
        (&["aws-ssm:/a"], 503, "the secret aws-ssm:/a cannot be had: ssm does not answer"),
    ] {
        let answer = ask(references).await;
        let said = answer.json::<Refused>().message;
        assert_eq!(answer.status, status, "{said}");
        assert!(said.contains(why) && !said.contains("hunter2"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p43_a_service_has_those_secrets_only_that_the_list_allows() {
    let dir = Arc::new(TempDir::new().unwrap());
    let list = dir.path().join("allowed");
    let write = |lines: &str| std::fs::write(&list, format!("baton-allowed-secrets 1\n{lines}\n")).unwrap();
    write("web aws-ssm:/prod/web/*");
    let server = Running::start_so(dir.clone(), |config| Config {
        secrets: variables(),
        allowed_secrets: Some(list.clone()),
        ..config
    });
    let versions = async |reference: &str, service: Option<&str>| {
        let (references, service) = (vec![reference.to_owned()], service.map(str::to_owned));
        let answer = server.post("/v1/secrets/versions", &References { references, service }).await;
        (answer.status, answer.json::<Refused>().code)
    };
    let refused = |status, code: &str| (status, code.to_owned());
    assert_eq!(
        versions("aws-ssm:/prod/web/a", Some("web")).await,
        refused(503, "unavailable"),
        "it was asked for"
    );
    assert_eq!(versions("aws-ssm:/prod/token", Some("web")).await, refused(403, "secret-not-allowed"));
    assert_eq!(versions("aws-ssm:/prod/web/a", Some("api")).await, refused(403, "secret-not-allowed"));
    assert_eq!(versions("aws-ssm:/prod/web/a", None).await, refused(400, "invalid"));

    let other = server.push_run(1, with_secret("aws-ssm:/prod/token")).await;
    for dry_run in [true, false] {
        let answer = server.propose(&Propose { dry_run, ..rollout(other, 0) }).await;
        let said: Refused = answer.json();
        assert_eq!((answer.status, said.code.as_str()), (403, "secret-not-allowed"));
        assert!(said.message.contains("lacks the line `web aws-ssm:/prod/token`"), "{}", said.message);
    }
    let own = server.push_run(2, with_secret("aws-ssm:/prod/web/token")).await;
    server.deploy(&rollout(own, 0)).await;
    let asked = told(server.address, "web", own).await.unwrap_err();
    assert!(asked.contains("ssm does not answer"), "{asked}");

    // What is taken out of the list is given to nobody any more, however long it was deployed.
    write("web aws-ssm:/prod/web/other");
    let deadline = Instant::now() + LIMIT;
    let taken = loop {
        let said = told(server.address, "web", own).await.unwrap_err();
        if !said.contains("ssm does not answer") || Instant::now() > deadline {
            break said;
        }
    };
    assert!(taken.contains("lacks the line `web aws-ssm:/prod/web/token`"), "{taken}");

    // A list with a mistake leaves the one before it, and is told of.
    write("web everything");
    let off = loop {
        let off: Vec<GuardView> = server.get("/v1/guards").await;
        if let Some(off) = off.into_iter().find(|off| off.guard == "secrets") {
            break off.text;
        }
        assert!(Instant::now() < deadline);
    };
    assert!(off.contains("refused at line 2: a reference") && !off.contains("everything"), "{off}");
    assert_eq!(told(server.address, "web", own).await.unwrap_err(), taken);
    server.stop().await;
}
