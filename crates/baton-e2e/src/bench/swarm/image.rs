//! Images made of what is on this machine: nothing is pulled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::Places;
use crate::docker::Engine;

/// The image of a version of the program.
pub fn version(number: usize) -> String {
    format!("web:{}", number % VERSIONS)
}

/// Versions that an update goes to in turn.
const VERSIONS: usize = 2;
/// The image of a bootloader with nothing to run.
pub const BOOT: &str = "boot:latest";

/// Makes all of them.
///
/// # Errors
/// When the engine does not take them.
pub fn make(engine: &Engine, places: &Places, folder: &Path) -> anyhow::Result<()> {
    let root = folder.join("root");
    for program in [&places.web, &places.boot] {
        add(&root, program)?;
    }
    fs::create_dir_all(root.join("tmp"))?;
    for number in 0..VERSIONS {
        let release = format!("ENV RELEASE={number}");
        import(engine, &root, &version(number), &["ENTRYPOINT [\"/baton-web\"]", &release])?;
    }
    import(engine, &root, BOOT, &["ENTRYPOINT [\"/baton-boot\"]"])
}

/// Puts a program into a root directory, with the libraries that it needs where it looks for them.
fn add(root: &Path, program: &Path) -> anyhow::Result<()> {
    let name = program.file_name().context("a program has a name")?;
    copy(program, &root.join(name))?;
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    // A static program has none.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for library in libraries {
        copy(&library, &root.join(library.strip_prefix("/")?))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
}

fn import(engine: &Engine, root: &Path, name: &str, changes: &[&str]) -> anyhow::Result<()> {
    let mut tar = Command::new("tar")
        .arg("--create")
        .arg("--directory")
        .arg(root)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run tar")?;
    let files = tar.stdout.take().context("tar writes nothing")?;
    let mut docker = engine.command("docker");
    docker.arg("import");
    for change in changes {
        docker.args(["--change", change]);
    }
    let output = docker.args(["-", name]).stdin(files).output().context("cannot run docker")?;
    ensure!(output.status.success(), "docker import: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(tar.wait()?.success(), "tar failed");
    Ok(())
}
