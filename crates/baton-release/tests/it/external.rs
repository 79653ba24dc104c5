//! Links that lead to what every member has: a virtual environment of Python, and its interpreter.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use baton_core::build::Step;
use baton_core::release::ExternalLinks;
use baton_core::run::RunSettings;
use baton_release::build::{Outputs, RestoreError, restore};
use baton_release::fetch::fetch;
use baton_release::push::{PushError, Reading, Source, Wanted, prepare};
use baton_release::releases::VerifyError;
use baton_release::store::memory::MemoryStore;

use crate::sample::{chain, open};

const PYTHON: &str = "venv/bin/python3";

fn output(command: &mut Command) -> String {
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

/// A program with a real virtual environment and a module in it; and where that has its interpreter.
fn program(dir: &Path) -> String {
    fs::create_dir(dir).unwrap();
    let venv = dir.join("venv");
    output(Command::new("python3").args(["-m", "venv", "--symlinks", "--without-pip"]).arg(&venv));
    let site = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let site = output(Command::new(dir.join(PYTHON)).args(["-c", site]));
    fs::write(Path::new(&site).join("greeting.py"), "TEXT = 'hello'\n").unwrap();
    let links = fs::read_dir(venv.join("bin")).unwrap().flatten();
    let outside: BTreeSet<String> = links
        .filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok())
        .filter(|target| target.starts_with('/'))
        .collect();
    let [interpreter] = outside.into_iter().collect::<Vec<_>>().try_into().unwrap();
    interpreter
}

fn source(dir: &Path) -> Source {
    Source {
        dir: dir.to_owned(),
        service: "web".parse().unwrap(),
        run: RunSettings::for_command(vec![PYTHON.to_owned()]),
        builder: "test".to_owned(),
    }
}

fn links(targets: &[&str]) -> ExternalLinks {
    ExternalLinks::of(targets.iter().map(|&target| target.to_owned())).unwrap()
}

fn reading(external_links: &ExternalLinks) -> Reading {
    let wanted = Wanted {
        include: vec!["venv".to_owned()],
        external_links: external_links.clone(),
        ..Wanted::default()
    };
    Reading { wanted, ..Reading::default() }
}

#[test]
fn a_virtual_environment_is_pushed_and_runs_on_a_member() {
    let dir = tempfile::tempdir().unwrap();
    let (app, store) = (dir.path().join("app"), MemoryStore::new());
    let interpreter = program(&app);
    let allowed = links(&["/opt/tool", &interpreter]);

    let refused = prepare(&source(&app), &reading(&links(&["/opt/tool"])), &|_| {}).unwrap_err();
    let said = chain(&refused);
    let quoted: Vec<String> = allowed.iter().map(|target| format!("{target:?}")).collect();
    let advice = format!("[push] external_links = [{}]", quoted.join(", "));
    assert!(matches!(refused, PushError::External { .. }) && said.ends_with(&advice), "{said}");
    assert!(said.contains(&format!("a link to {interpreter}, outside")), "{said}");

    let pushed = prepare(&source(&app), &reading(&allowed), &|_| {}).unwrap().send(&store, &|_| {}).unwrap();
    let releases = open(&dir.path().join("member"));
    fetch(pushed.id, &store, &releases, &|_| {}).unwrap();
    fs::remove_dir_all(&app).unwrap();
    let script = "import greeting, sys; print(greeting.TEXT, sys.prefix)";
    let tree = releases.path(pushed.id);
    let said = output(Command::new(tree.join(PYTHON)).args(["-B", "-c", script]));
    assert_eq!(said, format!("hello {}", tree.join("venv").display()));
    releases.verify(pushed.id).unwrap();

    let link = tree.join("venv/bin").join(
        fs::read_dir(tree.join("venv/bin"))
            .unwrap()
            .flatten()
            .find(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == Path::new(&interpreter)))
            .unwrap()
            .file_name(),
    );
    fs::remove_file(&link).unwrap();
    symlink("/opt/tool", &link).unwrap();
    let altered = releases.verify(pushed.id).unwrap_err();
    assert!(matches!(altered, VerifyError::Altered { what: "points elsewhere", .. }), "{altered:?}");
}

#[test]
fn outputs_of_a_build_step_lead_outside_only_where_the_settings_allow_it() {
    let dir = tempfile::tempdir().unwrap();
    let (app, store, into) = (dir.path().join("app"), MemoryStore::new(), dir.path().join("into"));
    fs::create_dir_all(app.join("out")).unwrap();
    symlink("/etc/passwd", app.join("out/link")).unwrap();
    let toml = "service = \"web\"\nrun.command = [\"true\"]\n[[build]]\nname = \"make\"\ninputs = [\"in\"]\n\
                run = [\"true\"]\noutputs = [\"out\"]\n";
    let settings = baton_core::settings::parse("baton.toml", toml).unwrap();
    let step: &Step = &settings.build[0];
    let allowed = links(&["/etc/passwd"]);
    let read = |links: &ExternalLinks| Outputs::read(&app, &settings.service, step, links, None);

    assert!(matches!(read(&links(&[])), Err(PushError::External { .. })));
    let outputs = read(&allowed).unwrap();
    outputs.send(&store, false).unwrap();
    fs::create_dir(&into).unwrap();
    let refused = restore(&outputs.record(), &store, &links(&["/etc"]), &into).unwrap_err();
    assert!(matches!(&refused, RestoreError::External(target) if target == "/etc/passwd"), "{refused:?}");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
    restore(&outputs.record(), &store, &allowed, &into).unwrap();
    assert_eq!(fs::read_link(into.join("out/link")).unwrap(), Path::new("/etc/passwd"));
}
