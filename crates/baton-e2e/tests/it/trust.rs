//! Members that trust keys: what is not signed does not run, whoever says so.

mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::boot::{Folder, binary, free_address};
use crate::fleet::Fleet;
use crate::moto::Moto;
use crate::redis_server::Redis;
use crate::wait::wait_for;

const QUICK: [&str; 6] = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "100ms"];

/// Keys, and the list of those that are trusted.
pub struct Keys {
    folder: Folder,
}

impl Keys {
    /// One that may vouch for releases, one that may deploy, and one that nobody trusts.
    pub fn new() -> Self {
        let keys = Self { folder: Folder::empty() };
        keys.baton(&["key", "generate", "ci", "--signs", "releases"]);
        keys.baton(&["key", "generate", "ada", "--signs", "deploys", "--services", "web"]);
        keys.baton(&["key", "generate", "mallory", "--trusted", "other"]);
        keys
    }

    fn baton(&self, arguments: &[&str]) -> Output {
        let output =
            Command::new(binary("baton")).args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    }

    pub fn trusted(&self) -> PathBuf {
        self.folder.path().join("trusted-keys")
    }

    /// Pushes and deploys a folder, signed by these keys.
    pub fn deploy(&self, fleet: &Fleet, folder: &Folder, by: &[&str], options: &[&str]) -> Option<i32> {
        let files: Vec<String> = by
            .iter()
            .map(|name| self.folder.path().join(format!("{name}.key")).display().to_string())
            .collect();
        let signed = files.iter().flat_map(|file| ["--key", file]);
        let options: Vec<&str> = QUICK.into_iter().chain(signed).chain(options.iter().copied()).collect();
        fleet.deploy(folder, &options)
    }
}

/// Waits until every member refuses what is in force, for this reason.
fn all_refuse(fleet: &Fleet, why: &str) {
    wait_for(&format!("every member to refuse: {why}"), || {
        let members = fleet.members_now();
        members
            .iter()
            .all(|member| member["refusal"].as_str().is_some_and(|refusal| refusal.contains(why)))
            .then_some(())
    });
}

fn all_answer(fleet: &Fleet, release: &str) {
    wait_for("every member to answer", || {
        (0..fleet.members.len()).all(|member| fleet.answers(member).as_deref() == Some(release)).then_some(())
    });
}

fn on_disk(fleet: &Fleet) -> Vec<PathBuf> {
    let entries =
        |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    [entries(&fleet.path("web-0/releases")), entries(&fleet.path("web-0/staging"))].concat()
}

#[test]
fn p38_p40_f67_f99_members_that_trust_keys_run_only_what_is_signed_for_them() {
    let keys = Keys::new();
    let fleet = Fleet::start_trusting(&keys.trusted(), "web", 2);
    let folder = Folder::with_example("python");

    assert_eq!(fleet.deploy(&folder, &["--detach"]), Some(0), "control takes it");
    all_refuse(&fleet, "is not signed: deploy with --key");
    let detail = fleet.members_now()[0]["refusal"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("it is not signed as this member wants it"), "{detail}");
    keys.deploy(&fleet, &folder, &["mallory"], &["--detach"]);
    all_refuse(&fleet, "is not trusted here");
    keys.deploy(&fleet, &folder, &["ci"], &["--detach"]);
    all_refuse(&fleet, "key ci may not sign this");
    assert_eq!(on_disk(&fleet), [""; 0].map(PathBuf::from), "nothing was created");

    assert_eq!(keys.deploy(&fleet, &folder, &["ci", "ada"], &[]), Some(0));
    let first = fleet.release();
    all_answer(&fleet, &first);
    let unsigned = fleet.baton_in(folder.path(), &["deploy"]);
    assert!(
        String::from_utf8_lossy(&unsigned.stderr).contains("are signed: deploy with --key"),
        "{unsigned:?}"
    );

    // Who may only deploy cannot bring a release that nobody vouches for, with whichever signatures lie in the store.
    folder.write("VERSION", "2");
    let pushed = fleet.baton_in(folder.path(), &["push", "--output", "json"]);
    let pushed: serde_json::Value = serde_json::from_slice(&pushed.stdout).unwrap();
    let second = pushed["id"].as_str().unwrap();
    let signatures = fleet.path("control/artefacts/signatures");
    fs::create_dir(signatures.join(second)).unwrap();
    for entry in fs::read_dir(signatures.join(&first)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), signatures.join(second).join(entry.file_name())).unwrap();
    }
    fs::write(signatures.join(second).join("00".repeat(32)), "junk").unwrap();
    assert_eq!(keys.deploy(&fleet, &folder, &["ada"], &["--detach", second]), Some(0));
    all_refuse(&fleet, "is not signed: sign it with `baton key sign`");
    let ci = keys.folder.path().join("ci.key");
    let signed = fleet.baton(&["key", "sign", second, "--key", &ci.display().to_string()]);
    assert!(signed.status.success(), "{signed:?}");
    assert_eq!(keys.deploy(&fleet, &folder, &["ada"], &[second]), Some(0));
    all_answer(&fleet, second);

    // What control does by itself needs nobody: the way back was signed.
    folder.write("behaviour", "exit-at-start=7\n");
    assert_eq!(keys.deploy(&fleet, &folder, &["ci", "ada"], &[]), Some(3));
    assert_eq!(fleet.status()["deploy"]["kind"], "rollback");
    wait_for("the way back", || {
        fleet.members_now().iter().all(|member| member["standing"] == "proven").then_some(())
    });
    all_answer(&fleet, second);
}

#[test]
fn p30_p38_a_member_checks_again_what_lies_on_its_disk_and_needs_nobody_for_it() {
    let keys = Keys::new();
    let mut fleet = Fleet::start_trusting(&keys.trusted(), "web", 2);
    let folder = Folder::with_example("python");
    assert_eq!(keys.deploy(&fleet, &folder, &["ci", "ada"], &[]), Some(0));
    let release = fleet.release();
    fleet.kill_control();
    fleet.replace_member(0);
    all_answer(&fleet, &release);
    // Somebody has another release lie there as if it had been signed for: it is not launched.
    fs::write(fleet.path(&format!("web-1/releases/{release}/warrant")), "baton-warrant 1\n").unwrap();
    fleet.replace_member(1);
    wait_for("the member to say so", || fleet.log("web-1").contains("cannot launch release").then_some(()));
    assert_eq!(fleet.answers(1), None);
    // And once control is back it is fetched as it was signed.
    fleet.start_control();
    all_answer(&fleet, &release);
}

#[test]
fn f99_a_key_is_replaced_without_a_break_and_what_a_revoked_one_has_signed_starts_again() {
    let keys = Keys::new();
    let mut fleet = Fleet::start_trusting(&keys.trusted(), "web", 1);
    let folder = Folder::with_example("python");
    assert_eq!(keys.deploy(&fleet, &folder, &["ci", "ada"], &[]), Some(0));
    keys.baton(&["key", "rotate", "ada", "ada-2"]);
    folder.write("VERSION", "2");
    assert_eq!(keys.deploy(&fleet, &folder, &["ci", "ada-2"], &[]), Some(0), "the new one counts");
    folder.write("VERSION", "3");
    assert_eq!(keys.deploy(&fleet, &folder, &["ci", "ada"], &[]), Some(0), "the old one still does");
    let release = fleet.release();
    keys.baton(&["key", "revoke", "ada"]);
    folder.write("VERSION", "4");
    keys.deploy(&fleet, &folder, &["ci", "ada"], &["--detach"]);
    all_refuse(&fleet, "key ada was revoked");
    fleet.kill_control();
    fleet.replace_member(0);
    all_answer(&fleet, &release);
    // What was refused is obeyed when the list says so again: nobody has to deploy anew.
    fleet.start_control();
    all_refuse(&fleet, "key ada was revoked");
    let list = fs::read_to_string(keys.trusted()).unwrap().replace(" revoked", "");
    fs::write(keys.trusted(), list).unwrap();
    let latest = fleet.release();
    all_answer(&fleet, &latest);
    // A renewal starts nothing: it is there.
    assert_eq!(keys.deploy(&fleet, &folder, &["ada-2"], &["--renew"]), Some(0));
    assert_eq!(fleet.members_now()[0]["running"], latest.as_str());
    let launched = format!("({}) launched", &latest[..12]);
    assert_eq!(fleet.log("web-0").matches(&launched).count(), 1, "{}", fleet.log("web-0"));
}

#[test]
fn p38_f67_whoever_writes_to_the_redis_of_control_does_not_choose_what_runs() {
    let (keys, redis, mut moto) = (Keys::new(), Redis::start(), Moto::start());
    moto.call("s3", "create_bucket", &json!({ "Bucket": "releases" }));
    let mut variables = moto.variables();
    variables.push(("BATON_STORE".to_owned(), "s3://releases/web".to_owned()));
    variables.push(("BATON_STATE".to_owned(), redis.address()));
    let fleet = Fleet::start_trusting_with(&keys.trusted(), "web", 2, variables.clone());
    let folder = Folder::with_example("python");
    assert_eq!(keys.deploy(&fleet, &folder, &["ci", "ada"], &[]), Some(0));
    let first = fleet.release();

    // Somebody else's control, over the same stores.
    let address = free_address();
    let mut server = Command::new(binary("baton"))
        .args(["server", "--dev", "--listen", &address.to_string(), "--data"])
        .arg(fleet.path("mallory"))
        .envs(variables)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    folder.write("VERSION", "2");
    let server_url = format!("http://{address}");
    let deploy = ["deploy", "--unsigned", "--detach", "--service", "web", "--server", &server_url];
    wait_for("it to be in force", || fleet.baton_in(folder.path(), &deploy).status.success().then_some(()));
    all_refuse(&fleet, "is not signed: deploy with --key");
    assert_ne!(fleet.release(), first, "control believes its store");
    all_answer(&fleet, &first);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(
        keys.deploy(&fleet, &folder, &["ci", "ada"], &[]),
        Some(0),
        "whoever signs goes on from there"
    );
}
