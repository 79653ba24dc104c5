//! Measures what `docs/benchmarks.md` records: `make bench`. With the word `output`, only that.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use baton_e2e::bench::{deploy, handover, init, output, program};

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => all(),
        ["output"] => output_only(),
        // The program whose output is measured.
        ["write", bytes] => output::write(bytes.parse()?),
        _ => bail!("usage: baton-bench [output]"),
    }
}

fn all() -> anyhow::Result<()> {
    let (baton, boot) = (program("baton")?, program("baton-boot")?);
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let example = copy_example(folder.path())?;

    println!("## An init around `true`, and around `sleep`\n");
    let tini = which("tini").context("there is no tini: run scripts/setup")?;
    println!("{}", init::table(&init::compare(&[("baton-boot", boot.clone()), ("tini", tini)])?));

    println!("## Handover inside one member\n");
    let figures = handover::measure(&boot, &example, &["python3", "server.py"])?;
    println!("{}", figures.table());

    println!("## Deploy to 8 members\n");
    let deploys = deploy::measure(&baton, &boot, &example, folder.path())?;
    println!("{}", deploy::table(&deploys, figures.alone_ms()));
    output_only()
}

fn output_only() -> anyhow::Result<()> {
    println!("## Output\n");
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let writes = std::env::current_exe().context("cannot find this program")?;
    println!("{}", output::measure(&program("baton-boot")?, &writes, folder.path())?.table());
    Ok(())
}

fn copy_example(beneath: &Path) -> anyhow::Result<PathBuf> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python");
    let to = beneath.join("example");
    std::fs::create_dir(&to)?;
    for file in ["server.py", "baton.toml"] {
        std::fs::copy(from.join(file), to.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    // A hand-back would be measured instead of a handover, were the one before still on trial.
    let settings = std::fs::read_to_string(to.join("baton.toml"))?;
    std::fs::write(to.join("baton.toml"), format!("{settings}\n[rollout]\nbake = \"1ms\"\n"))?;
    Ok(to)
}

fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|place| place.join(name)).find(|found| found.is_file())
}
