//! The files of `docs/how-to`: what can be run is run, the others are held against the schema of their platform.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use baton_e2e::docker::Engine;

use crate::boot::{Folder, binary, free_address};
use crate::handover::{assert_nothing_lost, plan};
use crate::load::Load;
use crate::program::Client;
use crate::wait::{wait_for, wait_or_tell};

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
        let built = binary(program).canonicalize().unwrap();
        let unit = block(page, "ini");
        assert_eq!(unit.matches(&installed).count(), count, "{page}");
        folder.write("page.service", &unit.replace(&installed, &built.display().to_string()));
        let path = folder.path().join("page.service");
        let said = succeed(Command::new("systemd-analyze").arg("verify").arg(path));
        assert!(!said.contains("page.service"), "{page}: {said}");
    }
}

/// One that runs in any image. What optimizes it changes nothing of what is shown here, and takes long.
fn static_bootloader() -> PathBuf {
    let file = repository().join("target/x86_64-unknown-linux-musl/debug/baton-boot");
    assert!(file.is_file(), "there is no {}: run `make deployments`, which builds it", file.display());
    file
}

#[test]
fn an_engine_that_cannot_be_had_says_what_to_do() {
    let failed = |engine: anyhow::Result<Engine>| format!("{:#}", engine.unwrap_err());
    let own = failed(Engine::own(&["--storage-driver", "none-of-this-name"]));
    assert!(own.contains("name a running engine by DOCKER_HOST"), "{own}");
    assert!(own.contains("driver not supported: dockerd has ended"), "{own}");
    let named = failed(Engine::named("unix:///nowhere"));
    assert!(named.contains("/nowhere, which does not answer: start it, or unset the variable"), "{named}");
}

/// A container that is removed when the test is over.
struct Container<'a> {
    engine: &'a Engine,
    name: &'static str,
}

impl Container<'_> {
    /// Runs a command in it.
    fn exec(&self, command: &[&str]) -> anyhow::Result<String> {
        self.engine.docker(&[&["exec", self.name], command].concat())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.engine.docker(&["rm", "--force", "--volumes", self.name]);
    }
}

/// Gives the engine an image of Debian with Python and systemd, under this name.
fn import_debian(engine: &Engine, name: &str) {
    let tar = repository().join("target/deployments/debian.tar").display().to_string();
    engine.docker(&["import", &tar, name]).unwrap();
}

/// The settings of the Docker page, which the systemd page names too. Reloads would take as long as their bake.
fn settings_of_the_docker_page() -> String {
    block("docker.md", "toml") + "\n[rollout]\nbake = \"50ms\"\n"
}

#[test]
fn p1_the_container_of_the_docker_page_is_reloaded_under_load_and_stopped() {
    let engine = Engine::start().unwrap();
    let web = Container { engine: &engine, name: "web" };
    let docker = |arguments: &[&str]| engine.docker(arguments).unwrap();
    let dockerfile = block("docker.md", "dockerfile");
    let base = dockerfile.lines().find_map(|line| line.strip_prefix("FROM ")).unwrap().to_owned();
    import_debian(&engine, &base);

    let folder = Folder::with_example("python");
    fs::copy(static_bootloader(), folder.path().join("baton-boot")).unwrap();
    folder.write("Dockerfile", &dockerfile);
    folder.write("baton.toml", &settings_of_the_docker_page());
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
        assert_eq!(web.exec(&["baton-boot", "reload"]).unwrap(), "reload: proven\n");
    }
    assert_nothing_lost(&load.stop());
    let status = web.exec(&["baton-boot", "status"]).unwrap();
    assert!(status.contains("pid 1,") && status.contains("0 restarts"), "{status}");
    let who = web.exec(&["sh", "-c", "grep -h -E '^(Uid|CapEff)' /proc/[0-9]*/status | sort -u"]).unwrap();
    assert_eq!(who, "CapEff:\t0000000000000000\nUid:\t10001\t10001\t10001\t10001\n");

    // As the program's user, without any capability.
    let looked = engine.command("docker").args(["exec", "web", "cat", "/proc/1/environ"]).output().unwrap();
    assert!(!looked.status.success() && looked.stdout.is_empty(), "{looked:?}");

    docker(&["stop", "web"]);
    let ended = docker(&["inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", "web"]);
    assert_eq!(ended, "0 false\n", "{}", logs());
}

/// Debian's systemd as the first process of a container, with the program and the files of the systemd page in it.
fn machine<'a>(engine: &'a Engine, folder: &Folder) -> Container<'a> {
    import_debian(engine, "debian");
    let machine = Container { engine, name: "machine" };
    let allowed = "--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined";
    let run = format!("run --detach --name machine {allowed} --cgroupns private --tmpfs /run debian sh -c");
    // Where there are only control groups of the second version, systemd needs to write to them.
    let init = "mount -o remount,rw /sys/fs/cgroup; exec /sbin/init";
    engine.docker(&[run.split(' ').collect(), vec![init]].concat()).unwrap();
    let up = ["sh", "-c", "systemctl is-system-running | grep -E 'running|degraded'"];
    wait_or_tell(
        || format!("systemd to be up: {:?}", engine.docker(&["logs", "machine"])),
        || machine.exec(&up).ok(),
    );
    folder.write("baton.toml", &settings_of_the_docker_page());
    folder.write("web.service", &block("systemd.md", "ini"));
    let copy = |from: &Path, to: &str| {
        engine.docker(&["cp", from.to_str().unwrap(), &format!("machine:{to}")]).unwrap()
    };
    copy(&static_bootloader(), "/usr/local/bin/baton-boot");
    copy(folder.path(), "/srv/web");
    // It was a temporary folder, which nobody else may read.
    machine.exec(&["chmod", "755", "/srv/web"]).unwrap();
    copy(&folder.path().join("web.service"), "/etc/systemd/system/web.service");
    machine
}

#[test]
fn the_unit_of_the_systemd_page_is_run_by_systemd() {
    let engine = Engine::start().unwrap();
    let folder = Folder::with_example("python");
    let machine = machine(&engine, &folder);
    let systemctl =
        |arguments: &str| machine.exec(&[vec!["systemctl"], arguments.split(' ').collect()].concat());
    let status = || systemctl("show web --property StatusText,ActiveState").unwrap();

    systemctl("start web").unwrap();
    assert_eq!(status(), "StatusText=generation 1 (image) serves, healthy\nActiveState=active\n");
    systemctl("reload web").unwrap();
    assert_eq!(status(), "StatusText=generation 2 (image) serves, healthy\nActiveState=active\n");

    // One that is refused fails the command, and no more.
    machine.exec(&["sed", "-i", "s/server.py/mistake.py/", "/srv/web/baton.toml"]).unwrap();
    assert!(systemctl("reload web").is_err());
    assert_eq!(status(), "StatusText=generation 2 (image) serves, healthy\nActiveState=active\n");

    systemctl("stop web").unwrap();
    let ended = systemctl("show web --property ActiveState,Result").unwrap();
    assert_eq!(ended, "Result=success\nActiveState=inactive\n");
}
