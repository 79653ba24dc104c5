//! The files of `docs/how-to`: what can be run is run, the others are held against the schema of their platform.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use baton_e2e::docker::Engine;

use crate::boot::{Folder, free_address};
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::program::Client;
use crate::wait::wait_for;

/// The version that the page on Kubernetes names.
const KUBERNETES: &str = "1.30";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The blocks of code in this language on a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join("docs/how-to").join(page)).unwrap();
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The only block in this language.
fn block(page: &str, language: &str) -> String {
    let [only] = <[String; 1]>::try_from(blocks(page, language)).unwrap();
    only
}

fn succeed(command: &mut Command) -> String {
    let output: Output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn validate(arguments: &[&str], file: &str, text: &str) {
    let folder = Folder::empty();
    folder.write(file, text);
    let mut command = Command::new(repository().join("target/deployments/python/bin/python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("apps/deployments/validate.py"));
    succeed(command.args(arguments).arg(folder.path().join(file)));
}

#[test]
fn the_manifests_for_kubernetes_are_as_their_schema_wants_them() {
    for (page, count) in [("kubernetes.md", 1), ("control.md", 2)] {
        let text = fs::read_to_string(repository().join("docs/how-to").join(page)).unwrap();
        let named = format!("the schema of Kubernetes {KUBERNETES}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&named), "{page} does not say: {named}");
        let manifests = blocks(page, "yaml");
        assert_eq!(manifests.len(), count, "{page}");
        for manifest in manifests {
            validate(&["kubernetes", KUBERNETES], "manifest.yaml", &manifest);
        }
    }
}

#[test]
fn the_task_definition_for_ecs_is_as_its_schema_wants_it() {
    validate(&["ecs"], "task.json", &block("ecs.md", "json"));
}

#[test]
fn the_units_for_systemd_are_found_good() {
    for (page, program, count) in [("systemd.md", "baton-boot", 2), ("control.md", "baton", 1)] {
        let folder = Folder::empty();
        // It looks for the program, which is not installed here.
        let installed = format!("/usr/local/bin/{program}");
        let built = repository().join("target/release").join(program).canonicalize().unwrap();
        let unit = block(page, "ini");
        assert_eq!(unit.matches(&installed).count(), count, "{page}");
        folder.write("page.service", &unit.replace(&installed, &built.display().to_string()));
        let path = folder.path().join("page.service");
        let said = succeed(Command::new("systemd-analyze").arg("verify").arg(path));
        assert!(!said.contains("page.service"), "{page}: {said}");
    }
}

/// Removes the container of the page when the test is over.
struct Web<'a>(&'a Engine);

impl Drop for Web<'_> {
    fn drop(&mut self) {
        let _ = self.0.docker(&["rm", "--force", "--volumes", "web"]);
    }
}

#[test]
fn p1_the_container_of_the_docker_page_is_reloaded_under_load_and_stopped() {
    let engine = Engine::start().unwrap();
    let _web = Web(&engine);
    let docker = |arguments: &[&str]| engine.docker(arguments).unwrap();
    let dockerfile = block("docker.md", "dockerfile");
    let base = dockerfile.lines().find_map(|line| line.strip_prefix("FROM ")).unwrap().to_owned();
    let tar = repository().join("target/deployments/base.tar").display().to_string();
    docker(&["import", &tar, &base]);

    let folder = Folder::with_example("python");
    let boot = repository().join("target/release/baton-boot");
    fs::copy(boot, folder.path().join("baton-boot")).unwrap();
    folder.write("Dockerfile", &dockerfile);
    // Reloads would take as long as their bake.
    folder.write("baton.toml", &(block("docker.md", "toml") + "\n[rollout]\nbake = \"50ms\"\n"));
    let address = free_address();
    let script = blocks("docker.md", "sh").remove(0);
    assert!(script.contains("--publish 8080:8080"));
    // The base is here, and there is nobody to ask for a newer one.
    let script = script
        .replace("docker build ", "docker build --quiet --network none ")
        .replace("--publish 8080:8080", &format!("--publish {address}:8080"));
    let mut shell = engine.command("sh");
    succeed(shell.args(["-ec", &script]).current_dir(folder.path()).env("DOCKER_BUILDKIT", "0"));
    let logs = || docker(&["logs", "web"]);
    wait_for("the program to serve", || logs().contains(" serves, ").then_some(()));
    wait_for("an answer", || Client::connect(address)?.get("/").map(drop));
    assert!(!logs().contains("does not let a bind be answered"), "{}", logs());

    let load = Load::start(plan(address));
    for _ in 0..3 {
        load.run_until(|report| report.answered > 50);
        assert_eq!(docker(&["exec", "web", "baton-boot", "reload"]), "reload: proven\n");
    }
    assert_nothing_lost(&load.stop());
    let status = docker(&["exec", "web", "baton-boot", "status"]);
    assert!(status.contains("pid 1,") && status.contains("0 restarts"), "{status}");
    let who =
        docker(&["exec", "web", "sh", "-c", "grep -h -E '^(Uid|CapEff)' /proc/[0-9]*/status | sort -u"]);
    assert_eq!(who, "CapEff:\t0000000000000000\nUid:\t10001\t10001\t10001\t10001\n");

    // As the program's user, without any capability.
    let looked = engine.command("docker").args(["exec", "web", "cat", "/proc/1/environ"]).output().unwrap();
    assert!(!looked.status.success() && looked.stdout.is_empty(), "{looked:?}");

    docker(&["stop", "web"]);
    let ended = docker(&["inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", "web"]);
    assert_eq!(ended, "0 false\n", "{}", logs());
}
