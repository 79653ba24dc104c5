//! What people do with what the server keeps: remove what nobody needs, check the rest, and give back what was lost.

use std::fs;
use std::path::{Path, PathBuf};

use baton_core::ids::ReleaseId;
use baton_release::fetch::fetch;
use baton_release::releases::ReleasesDir;
use baton_release::remote::Remote;
use serde_json::Value;

use crate::control::Control;
use crate::program::{Ran, run};
use crate::story::sample_project;
use crate::wait::wait_for;

struct Place {
    dir: tempfile::TempDir,
    data: tempfile::TempDir,
    control: Control,
}

impl Place {
    fn new() -> Self {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sample_project(dir.path());
        Self { control: Control::start(data.path()), dir, data }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(self.dir.path(), &self.control.url, arguments)
    }

    fn must(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran
    }

    /// Pushes a release with this content.
    fn push(&self, content: &str) -> ReleaseId {
        fs::write(self.dir.path().join("content"), content).unwrap();
        self.must(&["push", "--output", "json"]).json()["id"].as_str().unwrap().parse().unwrap()
    }

    /// The directory of a member that has these releases.
    fn member(&self, releases: &[ReleaseId]) -> PathBuf {
        let state = self.data.path().join(format!("member-{}", releases.len()));
        let dir = ReleasesDir::open(&state).unwrap();
        let store = Remote::new(&self.control.url);
        for id in releases {
            fetch(*id, &store, &dir, &|_| {}).unwrap();
        }
        state
    }

    fn artefacts(&self) -> PathBuf {
        self.data.path().join("artefacts")
    }

    fn known(&self) -> Vec<String> {
        let releases = self.must(&["releases", "--output", "json"]).json();
        let id = |release: &Value| release["id"].as_str().unwrap().to_owned();
        releases.as_array().unwrap().iter().map(id).collect()
    }
}

fn in_folder(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_nobody_needs_is_told_and_then_removed() {
    let place = Place::new();
    let ids = ["one", "two", "three"].map(|content| place.push(content));
    place.must(&["deploy", &ids[1].to_string(), "--detach"]);
    let told = place.must(&["releases", "prune", "--dry-run"]).stdout;
    assert!(told.contains("stays  in force in web"), "{told}");
    assert!(told.contains("stays  pushed or deployed within the grace period"), "{told}");
    assert!(told.contains("would remove 0 of 3 releases and 0 packs: 0 B of "), "{told}");
    let all = ["releases", "prune", "--keep", "1", "--grace", "0s"];
    let told = place.must(&[&all[..], &["--dry-run"]].concat()).stdout;
    assert!(told.contains("goes   nobody names it") && told.contains("would remove 2 of 3"), "{told}");
    assert_eq!(place.known().len(), 3);
    let done = place.must(&[&all[..], &["--output", "json"]].concat()).json();
    assert_eq!(done["dry_run"], false);
    assert_eq!(place.known(), [ids[1].to_string()]);
    let again = place.must(&all).stdout;
    assert!(again.contains("removed 0 of 1 releases and 0 packs: 0 B of "), "{again}");
    let told = || place.must(&["events"]).stdout.matches("was removed: nobody needed it").count();
    wait_for("both events", || (told() == 2).then_some(()));
    let wrong = place.run(&["releases", "--service", "web", "prune"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[test]
fn p28_what_has_a_tag_is_deployed_by_it_and_stays() {
    let place = Place::new();
    let [old, production, _] = ["one", "two", "three"].map(|content| place.push(content).to_string());
    assert!(place.must(&["releases", "tag", "v1.0", &old[..8]]).stdout.contains("v1.0 of web is release"));
    place.must(&["releases", "tag", "production", "v1.0"]);
    place.must(&["releases", "tag", "production", &production]);
    let tags = place.must(&["releases", "tags", "--output", "json"]).json();
    let releases = tags.as_array().unwrap().iter().map(|tag| (&tag["tag"], &tag["release"]));
    let expected = [("production", &production), ("v1.0", &old)];
    assert!(
        releases.eq(expected
            .map(|(tag, release)| (Value::from(tag), Value::from(release.clone())))
            .iter()
            .map(|(tag, release)| (tag, release))),
        "{tags}"
    );
    assert!(place.must(&["releases", "tags"]).stdout.contains("production"));

    let deployed = place.must(&["deploy", "production", "--detach", "--output", "json"]).json();
    assert_eq!(deployed["release"], production);
    let unknown = place.run(&["deploy", "staging", "--detach"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("staging names no release"), "{unknown:?}");

    let prune = ["releases", "prune", "--keep", "0", "--grace", "0s"];
    let would = place.must(&[&prune[..], &["--dry-run"]].concat()).stdout;
    assert!(would.contains("stays  tagged v1.0 in web"), "{would}");
    place.must(&prune);
    assert_eq!(place.known().len(), 2);
    place.must(&["releases", "untag", "v1.0"]);
    place.must(&prune);
    assert_eq!(place.known(), [production]);
    assert_eq!(place.run(&["releases", "untag", "v1.0"]).code, 1);
}

#[test]
fn f43_what_is_damaged_is_named_and_given_back_from_a_members_disk() {
    let place = Place::new();
    let ids = ["one", "two"].map(|content| place.push(content));
    let member = place.member(&ids);
    let member = member.to_str().unwrap();
    assert!(place.must(&["releases", "verify"]).stdout.contains("2 releases"));
    for pack in in_folder(&place.artefacts().join("packs")) {
        let mut bytes = fs::read(&pack).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let found = place.run(&["releases", "verify"]);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(
        found.stdout.contains("2 packs and 2 releases") && found.stdout.contains("baton releases repair")
    );
    assert!(found.stderr.contains("that the server keeps are damaged"), "{found:?}");
    let found = place.run(&["releases", "verify", "--output", "json"]);
    assert_eq!((found.code, found.error_code().as_str()), (1, "damaged"));

    let told = place.must(&["releases", "repair", member]).stdout;
    assert_eq!(told.matches(" of web: ").count(), 2, "{told}");
    assert!(told.contains(" given back, "), "{told}");
    place.must(&["releases", "verify"]);
    let told = place.must(&["releases", "repair", member]).stdout;
    assert_eq!(told.matches("nothing was missing").count(), 2, "{told}");
    place.member(&ids[..1]);
}

#[test]
fn a_store_that_lost_everything_gets_it_back_from_members_one_of_which_is_damaged_too() {
    let place = Place::new();
    let ids = ["one", "two"].map(|content| place.push(content));
    let [both, one] = [place.member(&ids), place.member(&ids[..1])];
    for folder in ["packs", "manifests"] {
        in_folder(&place.artefacts().join(folder))
            .into_iter()
            .for_each(|path| fs::remove_file(path).unwrap());
    }
    assert_eq!(place.known().len(), 0);
    fs::write(both.join(format!("releases/{}/tree/content", ids[0])), "eno").unwrap();
    fs::write(both.join("releases/not-a-release"), "").unwrap();
    let [both, one] = [&both, &one].map(|dir| dir.to_str().unwrap());
    let ran = place.run(&["releases", "repair", both]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("content was altered here, and the store lacks it"), "{ran:?}");
    assert_eq!(place.known(), [ids[1].to_string()], "the other one is there");
    let given = place.must(&["releases", "repair", both, one, "--output", "json"]).json();
    let whole: Vec<bool> = given.as_array().unwrap().iter().map(|one| one["is_whole"] == true).collect();
    assert_eq!(whole.iter().filter(|whole| **whole).count(), 2, "{given}");
    assert_eq!(place.known().len(), 2);
    place.must(&["releases", "verify"]);
    let missing = place.run(&["releases", "repair", "nowhere"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("cannot read nowhere"), "{missing:?}");
}
