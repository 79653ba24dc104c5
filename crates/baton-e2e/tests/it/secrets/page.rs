//! What the page on secrets shows, done as it stands there.

use std::fs;

use baton_core::access::AllowedSecrets;
use baton_core::run::secrets::{Place, Reference};
use serde_json::{Map, Value, json};

use super::{Aws, given, with_secrets};
use crate::fleet::Fleet;
use crate::page::blocks;

const PAGE: &str = "how-to/secrets.md";

/// Puts a value where a reference of the page is.
fn put(aws: &mut Aws, reference: &str) {
    let Ok(Reference::Aws(found)) = reference.parse::<Reference>() else { return };
    // What is behind no `#` is merged, or the value itself.
    let key = found.key.unwrap_or_else(|| "MERGED".to_owned());
    let object = json!({ key: "first" }).to_string();
    match found.place {
        Place::S3 { bucket, object: name } => {
            aws.moto.call("s3", "create_bucket", &json!({ "Bucket": bucket }));
            aws.moto.call("s3", "put_object", &json!({ "Bucket": bucket, "Key": name, "Body": object }));
        }
        // Both were made for all tests.
        Place::SecretsManager(name) => {
            aws.moto.call(
                "secretsmanager",
                "put_secret_value",
                &json!({ "SecretId": name, "SecretString": object }),
            );
        }
        Place::Ssm(name) => {
            let parameter = json!({ "Name": name, "Value": "first", "Type": "SecureString" });
            aws.moto.call("ssm", "put_parameter", &parameter);
        }
    }
}

/// A command of AWS's own command line: it has the names of its API, in another spelling.
fn aws_command(aws: &mut Aws, line: &str) {
    let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches('\'')).collect();
    let [_, service, command, options @ ..] = &words[..] else { panic!("{line}") };
    let camel = |option: &str| -> String {
        let words = option.trim_start_matches("--").split('-');
        words.map(|word| word[..1].to_uppercase() + &word[1..]).collect()
    };
    let options = options.chunks(2).map(|pair| (camel(pair[0]), Value::from(pair[1])));
    let options: Map<String, Value> = options.collect();
    aws.moto.call(service, &command.replace('-', "_"), &options.into());
}

#[test]
fn the_list_on_the_page_on_secrets_is_one() {
    let [list] = &blocks(PAGE, "conf")[..] else { panic!("the page has one list") };
    let list = AllowedSecrets::parse(list).unwrap();
    for (service, reference, expected) in [
        ("web.beat", "aws-ssm:/prod/web/token", true),
        ("web", "aws-secretsmanager:prod/db#web", true),
        ("web", "aws-secretsmanager:prod/db", false),
        ("mail", "s3://acme-shared/mail.json", true),
        ("mail", "aws-ssm:/prod/web/token", false),
    ] {
        let allowed = list.check(&service.parse().unwrap(), &reference.parse().unwrap());
        assert_eq!(allowed.is_ok(), expected, "{service} {reference}");
    }
}

#[test]
fn what_the_page_on_secrets_shows_is_so() {
    let mut aws = Aws::start();
    let fleet = Fleet::start_with("web", 2, aws.moto.variables());
    let [settings] = &blocks(PAGE, "toml")[..] else { panic!("the page has one list of references") };
    settings.split('"').for_each(|text| put(&mut aws, text));
    // What only a machine of the page's has.
    let folder = with_secrets("");
    let key = folder.path().join("tls-key").display().to_string();
    fs::write(&key, "of the file").unwrap();
    let here = |text: &str| text.replace("/run/secrets/tls-key", &key).replace("env:AWS_REGION", "env:PATH");
    folder.write("baton.toml", &format!("{}\n{}", folder.read("baton.toml"), here(settings)));
    fs::write(folder.path().join(".batonignore"), "tls-key\n").unwrap();
    let pushed = fleet.baton_in(folder.path(), &["deploy", "--policy", "fast", "--bake", "100ms"]);
    let said = String::from_utf8_lossy(&pushed.stderr).into_owned();
    assert!(pushed.status.success(), "{pushed:?}");
    assert!(said.contains("has no versions where it is kept"), "of the object: {said}");
    for (name, value) in
        [("MERGED", "first"), ("DB_PASSWORD", "first"), ("API_TOKEN", "first"), ("TLS_KEY", "of the file")]
    {
        assert_eq!(given(&fleet, 0, name).as_deref(), Some(value), "{name}");
    }

    let mut commands = 0;
    for line in blocks(PAGE, "sh").iter().flat_map(|block| block.lines()) {
        commands += 1;
        match line.split_once(' ').unwrap() {
            ("aws", _) => aws_command(&mut aws, line),
            ("baton", rest) => {
                let done = fleet.baton_in(folder.path(), &rest.split_whitespace().collect::<Vec<_>>());
                assert!(done.status.success(), "{line}: {done:?}");
            }
            _ => panic!("{line}"),
        }
    }
    assert!(commands > 1);
    assert_eq!(given(&fleet, 1, "DB_PASSWORD").as_deref(), Some("…"), "as the page has it");

    fs::remove_file(&key).unwrap();
    let failed = fleet.baton_in(folder.path(), &["deploy", "--secrets"]);
    let said = String::from_utf8_lossy(&[failed.stdout, failed.stderr].concat()).into_owned();
    let [shown] = &blocks(PAGE, "text")[..] else { panic!("the page shows one failure") };
    let (shown, said) = (here(shown.trim()), said.replace("web-0", "web-1"));
    assert!(said.contains(&shown), "{said}\n{shown}");
}
