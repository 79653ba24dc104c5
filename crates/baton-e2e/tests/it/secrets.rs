//! Secrets in a fleet: resolved at the launch, versioned with the release, and nowhere to be found.

mod alone;
mod page;
mod places;
mod signed;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use baton_e2e::load::Plan;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use self::places::{holding, told};
use crate::boot::Folder;
use crate::fleet::Fleet;
use crate::load::Load;
use crate::moto::Moto;
use crate::program::Client;
use crate::wait::{wait_for, wait_or_tell};

const QUICK: [&str; 6] = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "100ms"];

const SETTINGS: &str = r#"
[secrets]
from = ["s3://bucket/web.json"]

[secrets.env]
DB_PASSWORD = "aws-secretsmanager:prod/db#password"
API_TOKEN = "aws-ssm:/prod/token"
"#;

/// What of that the service may have, where there is a list.
const ALLOWED: &str = "baton-allowed-secrets 1
web s3://bucket/* aws-secretsmanager:prod/db#password aws-ssm:/prod/token
";

/// AWS, and secrets in it.
struct Aws {
    moto: Moto,
    /// How every value begins: it stands nowhere else.
    canary: String,
}

impl Aws {
    /// With the first version of everything.
    fn start() -> Self {
        let moto = Moto::start();
        let canary = format!("canary-{}-6f1d", moto.port());
        let mut aws = Self { moto, canary };
        let versions = json!({ "Bucket": "bucket", "VersioningConfiguration": { "Status": "Enabled" } });
        aws.moto.call("s3", "put_bucket_versioning", &versions);
        aws.put(1);
        aws
    }

    fn value(&self, name: &str, generation: u32) -> String {
        format!("{}-{name}-{generation}", self.canary)
    }

    /// Writes the first or a later version of everything.
    fn put(&mut self, generation: u32) {
        let db = json!({ "password": self.value("db", generation) }).to_string();
        let token = self.value("ssm", generation);
        let merged = json!({ "MERGED": self.value("s3", generation) }).to_string();
        let (method, id) = match generation {
            1 => ("create_secret", "Name"),
            _ => ("put_secret_value", "SecretId"),
        };
        self.moto.call("secretsmanager", method, &json!({ id: "prod/db", "SecretString": db }));
        let token = json!({
            "Name": "/prod/token", "Value": token, "Type": "SecureString", "Overwrite": generation > 1
        });
        self.moto.call("ssm", "put_parameter", &token);
        self.moto.call("s3", "put_object", &json!({ "Bucket": "bucket", "Key": "web.json", "Body": merged }));
    }

    /// Whether a member's program was given this version of everything.
    fn is_given(&self, fleet: &Fleet, member: usize, generation: u32) -> bool {
        [("DB_PASSWORD", "db"), ("API_TOKEN", "ssm"), ("MERGED", "s3")].iter().all(|(variable, name)| {
            given(fleet, member, variable).as_deref() == Some(self.value(name, generation).as_str())
        })
    }

    fn all_given(&self, fleet: &Fleet, generation: u32) -> bool {
        (0..fleet.members.len()).all(|member| self.is_given(fleet, member, generation))
    }
}

fn pid(fleet: &Fleet, member: usize) -> Option<Pid> {
    let pid = Client::connect(fleet.addresses[member])?.get("/")?.pid();
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// What the program of a member was given.
fn given(fleet: &Fleet, member: usize, variable: &str) -> Option<String> {
    let pid = pid(fleet, member)?.as_raw_nonzero();
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let environment = String::from_utf8(environment).ok()?;
    let found = environment.split('\0').find_map(|line| line.strip_prefix(&format!("{variable}=")));
    found.map(str::to_owned)
}

fn with_secrets(settings: &str) -> Folder {
    let folder = Folder::with_example("python");
    folder.write("baton.toml", &format!("{}{settings}", folder.read("baton.toml")));
    folder
}

/// Waits until a member has said why it cannot launch something, as often.
fn says(fleet: &Fleet, member: &str, why: &str, times: usize) {
    wait_or_tell(
        || format!("{times} × {why:?} in\n{}", fleet.log(member)),
        || (fleet.log(member).matches(why).count() >= times).then_some(()),
    );
}

#[test]
fn p1_p43_a_change_of_secrets_is_a_deploy_with_a_way_back_and_no_value_is_told_anywhere() {
    let mut aws = Aws::start();
    let list = Folder::empty();
    list.write("allowed", ALLOWED);
    let allowed = list.path().join("allowed").display().to_string();
    let mut variables = aws.moto.variables();
    variables.push(("BATON_ALLOWED_SECRETS".to_owned(), allowed));
    let fleet = Fleet::start_with("web", 2, variables);
    let greedy = with_secrets(&format!("{SETTINGS}OTHER = \"aws-ssm:/prod/other\"\n"));
    assert_eq!(fleet.deploy(&greedy, &QUICK), Some(6), "the list does not allow it");
    let folder = with_secrets(SETTINGS);
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    assert!(aws.all_given(&fleet, 1));
    let first = fleet.release();

    let targets = fleet.addresses.iter().map(|address| address.to_string().parse().unwrap());
    let load = Load::start(Plan { rate: 40, ..Plan::mixed(targets.collect()) });
    aws.put(2);
    let refreshed = fleet.baton(&[&["deploy", "--secrets", "--service", "web"], &QUICK[..]].concat());
    assert!(refreshed.status.success(), "{refreshed:?}");
    let second = fleet.release();
    assert_ne!(second, first, "the versions of its secrets belong to a release");
    assert!(aws.all_given(&fleet, 2));
    assert!(fleet.baton(&["rollback", "--service", "web"]).status.success());
    assert_eq!(fleet.release(), first);
    assert!(aws.all_given(&fleet, 1), "the values that it was made with");
    let report = load.stop();
    assert!(report.lost == 0 && report.is_clean(), "{report:#?}");

    assert_eq!(told(&fleet, &aws.canary), [""; 0]);
    assert_eq!(holding(&fleet.path(""), aws.canary.as_bytes()), [""; 0].map(PathBuf::from));
    let said = [refreshed.stdout, refreshed.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains(&aws.canary));
}

#[test]
fn p43_secrets_that_change_in_the_middle_of_a_rollout_are_the_same_on_all_members() {
    let mut aws = Aws::start();
    let fleet = Fleet::start_with("web", 3, aws.moto.variables());
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let plain = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{plain}{SETTINGS}"));
    let safe = ["--policy", "safe", "--max-unhealthy", "34%", "--bake", "1s", "--detach"];
    assert_eq!(fleet.deploy(&folder, &safe), Some(0));
    wait_for("the first member", || (0..3).any(|member| aws.is_given(&fleet, member, 1)).then_some(()));
    aws.put(2);
    assert!((0..3).any(|member| given(&fleet, member, "API_TOKEN").is_none()), "it has only begun");
    wait_for("the others", || aws.all_given(&fleet, 1).then_some(()));
}

#[test]
fn p30_p43_what_runs_is_launched_again_with_everything_away_and_a_new_bootloader_waits_for_it() {
    let aws = Aws::start();
    let mut fleet = Fleet::start_with("web", 2, aws.moto.variables());
    assert_eq!(fleet.deploy(&with_secrets(SETTINGS), &QUICK), Some(0));
    fleet.kill_control();
    aws.moto.freeze();
    // A program that crashes gets what the one before it had.
    let before = pid(&fleet, 0).unwrap();
    kill_process(before, Signal::KILL).unwrap();
    wait_for("the program", || pid(&fleet, 0).filter(|pid| *pid != before));
    assert!(aws.is_given(&fleet, 0, 1));
    // A bootloader that has lost its memory says what it waits for.
    fleet.replace_member(1);
    says(&fleet, "web-1", "cannot be had: control has it, and does not answer", 1);
    assert!(fleet.answers(1).is_none() && fleet.answers(0).is_some());
    // Control is there, and who keeps the secrets is not.
    fleet.start_control();
    says(&fleet, "web-1", "does not answer: ", 1);
    assert!(fleet.answers(1).is_none());
    // Nobody was asked for a slot, and no rollback follows: the release is as good as it was.
    let web_1 = || fleet.members_now().into_iter().find(|member| member["member"] == "web-1").unwrap();
    assert_eq!(web_1()["standing"], "proven", "{}", web_1());
    // Control is killed while it asks; whoever waits asks the next one.
    fleet.kill_control();
    fleet.start_control();
    aws.moto.thaw();
    wait_for("the member", || aws.is_given(&fleet, 1, 1).then_some(()));
    assert_eq!(told(&fleet, &aws.canary), [""; 0]);
    assert_eq!(holding(&fleet.path(""), aws.canary.as_bytes()), [""; 0].map(PathBuf::from));
}

#[test]
fn p28_p43_with_keep_disk_a_member_starts_without_control_and_one_private_file_has_the_values() {
    let aws = Aws::start();
    let mut fleet = Fleet::start_with("web", 1, aws.moto.variables());
    let folder = with_secrets(&SETTINGS.replace("[secrets]\n", "[secrets]\nkeep = \"disk\"\n"));
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    assert_eq!(told(&fleet, &aws.canary), [""; 0]);
    let kept = holding(&fleet.path(""), aws.canary.as_bytes());
    assert!(kept.len() == 1 && kept[0].starts_with(fleet.path("web-0")), "{kept:?}");
    assert_eq!(fs::metadata(&kept[0]).unwrap().permissions().mode() & 0o777, 0o600);
    fleet.kill_control();
    aws.moto.freeze();
    fleet.replace_member(0);
    wait_for("the member", || aws.is_given(&fleet, 0, 1).then_some(()));
    // What was written over it is not believed.
    let text = fs::read_to_string(&kept[0]).unwrap();
    fs::write(&kept[0], text.replace("DB_PASSWORD", "LD_PRELOAD")).unwrap();
    fleet.replace_member(0);
    says(&fleet, "web-0", "cannot be had: control has it, and does not answer", 1);
    aws.moto.thaw();
    fleet.start_control();
    wait_for("the member", || aws.is_given(&fleet, 0, 1).then_some(()));
}

#[test]
fn p8_p43_f83_a_secret_that_is_missing_is_refused_in_the_first_slot_by_its_name() {
    let aws = Aws::start();
    let fleet = Fleet::start_with("web", 2, aws.moto.variables());
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let good = fleet.release();
    let plain = folder.read("baton.toml");
    let with = |name: &str, reference: &str| {
        folder.write("baton.toml", &format!("{plain}[secrets.env]\n{name} = \"{reference}\"\n"));
    };
    // What control cannot read is told before anything is pushed.
    with("TOKEN", "aws-ssm:/absent");
    let refused = fleet.baton_in(folder.path(), &["deploy"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the secret aws-ssm:/absent cannot be had"), "{said}");
    // What only a member can read is found out by the first one.
    let file = folder.path().join("absent").display().to_string();
    with("TOKEN", &format!("file:{file}"));
    assert_eq!(fleet.deploy(&folder, &["--policy", "safe"]), Some(3));
    let events = fleet.json(&["events", "--service", "web"]).to_string();
    let reason = format!("the secret TOKEN (file:{file}) cannot be had: No such file");
    assert!(events.contains(&reason), "{events}");
    assert!((0..2).all(|member| fleet.answers(member).as_deref() == Some(&good)));

    // A program that tells its own secret before it ends does not tell control, not even the beginning of one that is too long
    // for a report.
    fs::write(&file, aws.value("file", 1).repeat(40)).unwrap();
    folder.change(
        "baton.toml",
        "[\"python3\", \"server.py\"]",
        "[\"sh\", \"-c\", \"echo token: $TOKEN; exit 7\"]",
    );
    assert_eq!(fleet.deploy(&folder, &["--policy", "safe"]), Some(3));
    let events = fleet.json(&["events", "--service", "web"]).to_string();
    assert!(events.contains("token: [secret]…") && !events.contains(&aws.canary), "{events}");
    assert_eq!(holding(&fleet.path("control"), aws.canary.as_bytes()), [""; 0].map(PathBuf::from));
}
