//! Secrets of members that trust keys: control chooses values, and nothing else.

use super::{Aws, with_secrets};
use crate::boot::Folder;
use crate::fleet::Fleet;
use crate::trust::Keys;

const NAMED: &str = r#"
[secrets.env]
DB_PASSWORD = "aws-secretsmanager:prod/db#password"
API_TOKEN = "aws-ssm:/prod/token"
MERGED = "s3://bucket/web.json#MERGED"
"#;

#[test]
fn p38_p43_members_that_trust_keys_take_the_names_of_variables_from_who_has_signed() {
    let mut aws = Aws::start();
    let keys = Keys::new();
    let fleet = Fleet::start_trusting_with(&keys.trusted(), "web", 1, aws.moto.variables());
    let folder = with_secrets(NAMED);
    assert_eq!(keys.deploy(&fleet, &folder, &["ci", "ada"], &[]), Some(0));
    assert!(aws.all_given(&fleet, 1));
    let first = fleet.release();

    // A change of secrets is signed like anything else, by who has signed the release before.
    aws.put(2);
    let nowhere = Folder::empty();
    let anew = ["--secrets", "--service", "web"];
    assert_eq!(keys.deploy(&fleet, &nowhere, &["mallory"], &anew), Some(6), "its files are not mallory's");
    assert_eq!(fleet.release(), first);
    assert_eq!(keys.deploy(&fleet, &nowhere, &["ci", "ada"], &anew), Some(0));
    assert!(aws.all_given(&fleet, 2) && fleet.release() != first);

    // What comes from control may set no variable that nobody has signed.
    let plain = Folder::with_example("python").read("baton.toml");
    folder.write("baton.toml", &format!("{plain}[secrets]\nfrom = [\"s3://bucket/web.json\"]\n"));
    assert_eq!(keys.deploy(&fleet, &folder, &["ci", "ada"], &[]), Some(3), "it is rolled back");
    let events = fleet.json(&["events", "--service", "web"]).to_string();
    let why = "the names of the variables in s3://bucket/web.json are not signed";
    assert!(events.contains(why), "{events}");
    assert!(aws.all_given(&fleet, 2), "what ran before");
}
