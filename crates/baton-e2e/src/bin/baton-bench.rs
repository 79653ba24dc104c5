//! Measures what `docs/benchmarks.md` records: `make bench`, `make bench-boot`, `make bench-release`, `make bench-fleet`
//! and `make bench-swarm`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use baton_e2e::bench::fleet::redis::{self, SUBSCRIBE};
use baton_e2e::bench::fleet::{self, Setup, growth};
use baton_e2e::bench::goal::{self, Goal};
use baton_e2e::bench::release::tree::Group;
use baton_e2e::bench::supervised::Places;
use baton_e2e::bench::{
    deploy, handover, loaded, moments, output, program, release, resident, supervision, swarm, switching,
};
use baton_e2e::process::Footprint;
use baton_e2e::sandbox;
use tempfile::{TempDir, tempdir};

const USAGE: &str = "usage: baton-bench [boot [PART ...] | release [FOLDER [GROUP ...]] | fleet [PART ...] | \
                     swarm [CONTAINERS ...]]";

/// What is measured of a fleet: its parts by name.
const FLEET_PARTS: [&str; 4] = ["file", "tls", "redis", "growth"];
/// The sizes of the fleets that show how figures grow.
const GROWTH: [usize; 4] = [250, 1000, 4000, 16_000];
/// Where the picture of that is written.
const GROWTH_SVG: &str = "target/fleet-growth.svg";

/// What is measured of the bootloader: each part with its name, under which it can be measured alone.
const PARTS: [(&str, Part); 5] = [
    ("supervision", supervision_part),
    ("switching", switching_part),
    ("loaded", loaded_part),
    ("output", output_part),
    ("resident", resident_part),
];

type Part = fn(&mut Measured) -> anyhow::Result<()>;

/// What was measured so far.
#[derive(Default)]
struct Measured {
    goals: Vec<Goal>,
    footprints: Vec<(String, Footprint)>,
}

fn main() -> anyhow::Result<()> {
    // Before anything else: for `tell`, this is the moment that is measured.
    let started = moments::now();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => handovers(),
        ["boot", ref named @ ..] => boot(named),
        ["fleet", ref named @ ..] => fleets(named),
        ["release"] => releases(&std::env::temp_dir(), &[]),
        ["release", folder, ref named @ ..] => releases(Path::new(folder), named),
        // An engine leaves bridges and rules of its firewall behind.
        ["swarm", ..] => Err(sandbox::enter(&["ip", "dockerd", "docker"])),
        [sandbox::INSIDE, "swarm", ref containers @ ..] => swarm(containers),
        // The programs that are measured, or measured against.
        ["tell", path] => moments::program(Path::new(path), started, false),
        ["tell", path, moments::DEAF] => moments::program(Path::new(path), started, true),
        [SUBSCRIBE, address, count] => redis::subscribe(address.parse()?, count.parse()?),
        ["write", bytes] => output::write(bytes.parse()?),
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        _ => bail!("{USAGE}"),
    }
}

fn handovers() -> anyhow::Result<()> {
    let (baton, boot) = (program("baton")?, program("baton-boot")?);
    let folder = temporary()?;
    let example = copy_example(folder.path())?;

    println!("### Handover inside one member\n");
    let figures = handover::measure(&boot, &example, &["python3", "server.py"])?;
    println!("{}", figures.table());

    println!("### Deploy to 8 members\n");
    let deploys = deploy::measure(&baton, &boot, &example, folder.path())?;
    println!("{}", deploy::table(&deploys, figures.alone_ms()));
    Ok(())
}

/// Releases beside other ways to bring a tree to a machine, on the disk that has this folder: all groups of changes, or those
/// that are named.
fn releases(beneath: &Path, named: &[&str]) -> anyhow::Result<()> {
    let groups = Group::ALL.map(|group| group.name);
    for name in named {
        ensure!(groups.contains(name), "there is no group {name}, but {}\n{USAGE}", groups.join(", "));
    }
    let trees = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/format");
    ensure!(trees.is_dir(), "there is no {}: run scripts/setup bench-release", trees.display());
    let places = release::Places {
        baton: program("baton")?,
        boot: program("baton-boot")?,
        dependencies: trees.join("node"),
        upgraded: trees.join("node-upgraded"),
        binary: ["old", "new"].map(|version| trees.join("binary").join(version).join("node")),
        beneath: beneath.to_owned(),
    };
    println!("### Releases\n");
    let mut goals = Vec::new();
    for group in Group::ALL.into_iter().filter(|group| named.is_empty() || named.contains(&group.name)) {
        let figures = release::measure(&places, group)?;
        println!("{}", figures.table());
        goals.extend(figures.goals());
    }
    println!("### Goals\n\n{}", goal::table(&goals));
    Ok(())
}

/// Thousands of members at real servers: all parts, or those that are named.
fn fleets(named: &[&str]) -> anyhow::Result<()> {
    for name in named {
        ensure!(
            FLEET_PARTS.contains(name),
            "there is no part {name}, but {}\n{USAGE}",
            FLEET_PARTS.join(", ")
        );
    }
    let is_wanted = |name| named.is_empty() || named.contains(&name);
    baton_sys::descriptors::raise().context("cannot have enough descriptors")?;
    let baton = program("baton")?;
    let measure = |setup| {
        let folder = temporary()?;
        let figures = fleet::measure(&baton, folder.path(), setup)?;
        println!("{}", figures.table());
        Ok::<_, anyhow::Error>(figures)
    };
    let one = Setup { members: fleet::MEMBERS, servers: 1, closed: false };
    let mut goals = Vec::new();
    println!("### A fleet\n");
    if is_wanted("file") {
        goals.extend(measure(one)?.goals());
    }
    if is_wanted("tls") {
        goals.extend(measure(Setup { closed: true, ..one })?.goals());
    }
    if is_wanted("redis") {
        goals.extend(measure(Setup { servers: 3, ..one })?.goals());
    }
    if is_wanted("growth") {
        let mut decisions = Vec::new();
        for members in GROWTH {
            let nanoseconds = fleet::report::measure(members)?;
            println!("the decision about a report, {members} members: {nanoseconds} ns");
            decisions.push((members, nanoseconds.median()));
        }
        println!();
        let all = GROWTH
            .into_iter()
            .map(|members| measure(Setup { members, ..one }))
            .collect::<Result<Vec<_>, _>>()?;
        println!("### Growth\n\n{}", growth::table(&all, &decisions));
        std::fs::write(GROWTH_SVG, growth::svg(&all, &decisions))?;
        println!("the picture of it is {GROWTH_SVG}\n");
        let grows =
            decisions.last().zip(decisions.first()).map_or(f64::NAN, |((_, most), (_, least))| most / least);
        goals.push(Goal::at_most("the decision about a report, 16,000 members beside 250", 3.0, "", grows));
    }
    println!("### Goals\n\n{}", goal::table(&goals));
    Ok(())
}

/// Docker Swarm beside `baton deploy`, with so many containers each; 20 and 60 if nothing is said.
fn swarm(containers: &[&str]) -> anyhow::Result<()> {
    let sizes =
        containers.iter().map(|count| count.parse()).collect::<Result<Vec<usize>, _>>().context(USAGE)?;
    let sizes = if sizes.is_empty() { vec![20, 60] } else { sizes };
    let places =
        swarm::Places { baton: program("baton")?, boot: program("baton-boot")?, web: program("baton-web")? };
    sandbox::begin()?;
    let folder = temporary()?;
    println!("### Containers updated by Docker Swarm and by Baton\n");
    let figures = swarm::measure(&places, folder.path(), &sizes)?;
    println!("{}", figures.table());
    println!("### Goals\n\n{}", goal::table(&figures.goals()));
    Ok(())
}

/// The bootloader beside its peers: all parts, or those that are named.
fn boot(named: &[&str]) -> anyhow::Result<()> {
    let names = PARTS.map(|(name, _)| name);
    for name in named {
        ensure!(names.contains(name), "there is no part {name}, but {}\n{USAGE}", names.join(", "));
    }
    let mut measured = Measured::default();
    for (_, part) in PARTS.iter().filter(|(name, _)| named.is_empty() || named.contains(name)) {
        part(&mut measured)?;
    }
    println!("### Goals\n\n{}", goal::table(&measured.goals));
    Ok(())
}

fn supervision_part(measured: &mut Measured) -> anyhow::Result<()> {
    println!("### A program run by something\n");
    let places = Places { boot: program("baton-boot")?, pm2: pm2()? };
    let folder = temporary()?;
    let figures = supervision::measure(&places, &this()?, folder.path())?;
    println!("{}", figures.table());
    measured.goals.extend(figures.goals());
    Ok(())
}

fn switching_part(measured: &mut Measured) -> anyhow::Result<()> {
    println!("### Handover and hand-back\n");
    let folder = temporary()?;
    let figures = switching::measure(&program("baton-boot")?, &program("baton-web")?, folder.path())?;
    println!("{}", figures.table());
    measured.goals.extend(figures.goals());
    Ok(())
}

fn loaded_part(measured: &mut Measured) -> anyhow::Result<()> {
    println!("### Under load\n");
    let places = loaded::Places { boot: program("baton-boot")?, web: program("baton-web")?, bench: this()? };
    let folder = temporary()?;
    let figures = loaded::measure(&places, folder.path())?;
    println!("{}", figures.table());
    measured.goals.extend(figures.goals());
    Ok(())
}

fn output_part(measured: &mut Measured) -> anyhow::Result<()> {
    println!("### Output\n");
    let folder = temporary()?;
    let figures = output::measure(&program("baton-boot")?, &this()?, folder.path())?;
    println!("{}", figures.table());
    measured.goals.extend(figures.goals());
    measured.footprints.extend(figures.footprints());
    Ok(())
}

fn resident_part(measured: &mut Measured) -> anyhow::Result<()> {
    println!("### Memory, descriptors and size\n");
    let (baton, boot, web) = (program("baton")?, program("baton-boot")?, program("baton-web")?);
    let folder = temporary()?;
    let example = copy_example(folder.path())?;
    make_talkative(&example)?;
    let member = deploy::measure(&baton, &boot, &example, folder.path())?.member;
    let elsewhere = std::mem::take(&mut measured.footprints);
    let figures = resident::measure(&boot, &web, folder.path(), member, elsewhere)?;
    println!("{}", figures.table());
    measured.goals.extend(figures.goals());
    Ok(())
}

fn this() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program")
}

fn temporary() -> anyhow::Result<TempDir> {
    tempdir().context("cannot make a temporary folder")
}

/// Where `scripts/setup bench-boot` puts PM2's programs.
fn pm2() -> anyhow::Result<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/node_modules/.bin");
    ensure!(place.is_dir(), "there is no {}: run scripts/setup bench-boot", place.display());
    Ok(place)
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

/// Has the example write more than a bootloader keeps of its output, at every start.
fn make_talkative(example: &Path) -> anyhow::Result<()> {
    const COMMAND: &str = r#"["python3", "server.py"]"#;
    const TALKATIVE: &str =
        r#"["sh", "-c", "yes something that it says | head -c 4000000; exec python3 server.py"]"#;
    let path = example.join("baton.toml");
    let settings = std::fs::read_to_string(&path)?;
    ensure!(settings.contains(COMMAND), "{} does not run {COMMAND}", path.display());
    Ok(std::fs::write(path, settings.replace(COMMAND, TALKATIVE))?)
}
