//! Secrets, as AWS keeps them: moto answers in its words.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use baton_core::run::secrets::{Pinned, Reference};
use baton_store::secrets::SecretSource;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::artefact::s3::{Checking, call, moto};

fn source(endpoint: SocketAddr, more: &[(&str, &str)]) -> (Runtime, SecretSource) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoint = format!("http://{endpoint}");
    let own = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("PATH", "/"),
    ];
    // The last of a name counts.
    let all: BTreeMap<&str, &str> = own.iter().chain(more).copied().collect();
    let set = all.into_iter().filter(|(_, value)| !value.is_empty());
    (runtime, SecretSource::new(set.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap())
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// The value of a reference, or why there is none; and its version where none was named.
fn ask_at(
    endpoint: SocketAddr,
    text: &str,
    version: Option<&str>,
) -> Result<(String, Option<String>), String> {
    let (runtime, source) = source(endpoint, &[]);
    let reference = reference(text);
    let version = match version {
        Some(version) => Some(version.to_owned()),
        None => {
            let current = runtime.block_on(source.versions(&[reference.aws().unwrap()]));
            current.map_err(|(_, error)| shown(&*error))?.remove(0)
        }
    };
    let pinned = [Pinned { reference, version: version.clone() }];
    let mut values = runtime.block_on(source.values(&pinned)).map_err(|(_, error)| shown(&*error))?;
    Ok((values.remove(0).1.reveal().to_owned(), version))
}

fn ask(text: &str, version: Option<&str>) -> Result<(String, Option<String>), String> {
    ask_at(moto(), text, version)
}

/// Everything that an error could show.
fn shown(error: &dyn Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error} {error:?}");
        cause = error.source();
    }
    text
}

#[test]
fn each_place_gives_what_is_current_and_what_was_when_it_keeps_versions() {
    let versions = json!({ "Bucket": "versioned", "VersioningConfiguration": { "Status": "Enabled" } });
    call("s3", "create_bucket", &json!({ "Bucket": "versioned" }));
    call("s3", "put_bucket_versioning", &versions);
    let object = |bucket: &str, text: &str| {
        call("s3", "put_object", &json!({ "Bucket": bucket, "Key": "in/web.json", "Body": text }));
    };
    let parameter = |text: &str| {
        let value = json!({ "Name": "/prod/a", "Value": text, "Type": "SecureString", "Overwrite": text != "\"one\"" });
        call("ssm", "put_parameter", &value);
    };
    let text = |number: &str| json!({ "password": number, "port": 5432 }).to_string();
    call("secretsmanager", "create_secret", &json!({ "Name": "prod/a", "SecretString": text("one") }));
    object("versioned", &text("one"));
    object("bucket", &text("one"));
    parameter("\"one\"");
    let places = [
        "aws-secretsmanager:prod/a",
        "s3://versioned/in/web.json",
        "s3://bucket/in/web.json",
        "aws-ssm:/prod/a",
    ];
    let before = places.map(|place| ask(place, None).unwrap());
    assert_eq!(ask("aws-secretsmanager:prod/a#port", None).unwrap().0, "5432");
    assert_eq!(ask("s3://versioned/in/web.json#password", None).unwrap().0, "one");

    call("secretsmanager", "put_secret_value", &json!({ "SecretId": "prod/a", "SecretString": text("two") }));
    object("versioned", &text("two"));
    object("bucket", &text("two"));
    parameter("two");
    for (place, (then, version)) in places.into_iter().zip(before) {
        let (now, newer) = ask(place, None).unwrap();
        assert!(then.contains("one") && now.contains("two"), "{place}: {then} {now}");
        // The bucket without versions has none of what was.
        assert_eq!(version.is_none(), place.starts_with("s3://bucket"), "{place}");
        assert_eq!(version == newer, version.is_none(), "{place}: {version:?} {newer:?}");
        if let Some(version) = version {
            assert_eq!(ask(place, Some(&version)), Ok((then, Some(version))), "{place}");
        }
    }
}

#[test]
fn p43_f83_what_is_not_to_be_had_is_told_without_any_value() {
    call("secretsmanager", "create_secret", &json!({ "Name": "bad", "SecretString": "hunter2-is-no-json" }));
    for (reference, version, why) in [
        ("aws-secretsmanager:absent", None, "ResourceNotFoundException"),
        ("aws-secretsmanager:bad", Some("00000000-0000-0000-0000-000000000000"), "ResourceNotFoundException"),
        ("aws-secretsmanager:bad#key", None, "it is no JSON"),
        ("aws-ssm:/absent", None, "ParameterNotFound"),
        ("s3://bucket/absent", None, "there is no such object"),
        ("s3://absent/absent", None, "there is no such object"),
    ] {
        let told = ask(reference, version).unwrap_err();
        assert!(told.contains(why) && !told.contains("hunter2"), "{reference}: {told}");
    }
}

#[test]
fn references_to_one_place_get_one_version_and_a_failure_is_asked_for_once() {
    let user = json!({ "user": "u", "password": "p" }).to_string();
    call("secretsmanager", "create_secret", &json!({ "Name": "both", "SecretString": user }));
    let (runtime, source) = source(moto(), &[]);
    let references =
        ["aws-secretsmanager:both#user", "aws-secretsmanager:both#password", "aws-secretsmanager:both"];
    let references = references.map(reference);
    let wanted = references.each_ref().map(|reference| reference.aws().unwrap());
    let versions = runtime.block_on(source.versions(&wanted)).unwrap();
    assert!(versions[0].is_some() && versions.iter().all(|version| *version == versions[0]), "{versions:?}");
    // Whoever makes a release gets what is current, whatever was asked for a moment before.
    let changed = json!({ "user": "u2", "password": "p2" }).to_string();
    call("secretsmanager", "put_secret_value", &json!({ "SecretId": "both", "SecretString": changed }));
    assert_ne!(runtime.block_on(source.versions(&wanted)).unwrap()[0], versions[0]);
    let absent = reference("aws-secretsmanager:both#absent");
    let both = [wanted[0], absent.aws().unwrap()];
    assert_eq!(runtime.block_on(source.versions(&both)).unwrap_err().0, 1, "which one it is");

    // All members of a fleet ask at once, and who is away is asked by one of them.
    let (address, asked) = answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}");
    let (runtime, source) = self::source(address, &[]);
    let pinned = [Pinned::from(reference("aws-ssm:/a"))];
    let all = (0..100).map(|_| source.values(&pinned));
    let told = runtime.block_on(futures_util::future::join_all(all));
    assert!(told.iter().all(Result::is_err));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// A server that answers everybody so, and how many it has answered.
fn answering(answer: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counted = Arc::clone(&counted);
            thread::spawn(move || serve(stream, answer, &counted));
        }
    });
    (address, asked)
}

fn serve(mut stream: TcpStream, answer: &[u8], asked: &AtomicUsize) {
    let mut request = [0; 4096];
    while stream.read(&mut request).is_ok_and(|bytes| bytes > 0) {
        asked.fetch_add(1, Ordering::Relaxed);
        if stream.write_all(answer).is_err() {
            return;
        }
        // An answer of no length goes on until nobody reads it.
        while answer.ends_with(b"xxx") && stream.write_all(&[b'x'; 4096]).is_ok() {}
    }
}

#[test]
fn p36_p43_whatever_a_server_answers_is_bounded_and_is_not_told() {
    for (answer, why) in [
        (&b"HTTP/1.1 200 OK\r\n\r\nhunter2xxx"[..], "answers with more than 1048576 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nhunter2", "the answer is no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "the parameter has no text"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nhunter2", "ssm answers 403"),
        (b"junk\r\n\r\n", "ssm does not answer"),
    ] {
        let told = ask_at(answering(answer).0, "aws-ssm:/a", None).unwrap_err();
        assert!(told.contains(why) && !told.contains("hunter2"), "{told}");
    }
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nLast-Modified: Sat, 21 Nov 2026 12:00:00 GMT\r\nETag: \"1\"\r\n\r\n";
    let binary = [text.as_bytes(), b"\xff\xfe\xff\xfe"].concat();
    let told = ask_at(answering(binary.leak()).0, "s3://bucket/a", None).unwrap_err();
    assert!(told.contains("it is not text in UTF-8"), "{told}");
    let long = text.replace("Length: 4", "Length: 131073");
    let told = ask_at(answering(long.into_bytes().leak()).0, "s3://bucket/a", None).unwrap_err();
    assert!(told.contains("it is longer than 131072 bytes"), "{told}");
}

#[test]
fn p43_f109_who_is_away_is_told_by_name_and_no_credentials_are() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "hunter2").unwrap();
    let (token, nowhere) = (token.to_str().unwrap(), format!("http://{port}"));
    let web_identity = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/control"),
        ("AWS_ENDPOINT_URL_STS", nowhere.as_str()),
    ];
    for (more, text, why) in [
        (&[("AWS_SESSION_TOKEN", "hunter2")][..], "aws-ssm:/a", "ssm does not answer"),
        (&[], "aws-secretsmanager:a", "secretsmanager does not answer"),
        (&[("AWS_SESSION_TOKEN", "hunter2")], "s3://bucket/a", "s3 does not answer: "),
        (&web_identity, "aws-ssm:/a", "control cannot read it"),
        (&[("AWS_ALLOW_HTTP", "false")], "aws-ssm:/a", "ssm does not answer"),
    ] {
        let (runtime, source) = source(port, more);
        let reference = reference(text);
        let (_, error) = runtime.block_on(source.versions(&[reference.aws().unwrap()])).unwrap_err();
        let told = shown(&*error);
        assert!(told.contains(why) && !told.contains("hunter2"), "{text} {more:?}: {told}");
    }
}

#[test]
fn p43_credentials_that_do_not_fit_are_told_without_them() {
    // This one checks signatures, and knows another key.
    let server = Checking::start();
    let (runtime, source) = source(server.address, &[]);
    let reference = reference("s3://bucket/a");
    let (_, error) = runtime.block_on(source.versions(&[reference.aws().unwrap()])).unwrap_err();
    let told = shown(&*error);
    assert!(told.contains("S3 does not let control read it") && !told.contains("hunter2"), "{told}");
}
