//! What it costs to bring a tree, and changes of it, to a member: Baton beside what people use for that.

pub mod baton;
pub mod cost;
pub mod docker;
pub mod files;
pub mod mirror;
pub mod server;
pub mod tree;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use self::baton::Baton;
use self::cost::Cost;
use self::docker::Docker;
use self::files::{Links, Tar};
use self::mirror::{Casync, Rsync};
use self::tree::{Change, Group, Tree};
use super::goal::Goal;
use super::sample::Sample;

/// A way to bring a tree to another machine, here: to another folder, over the loopback where it has a network.
pub trait Way {
    /// As people call it.
    fn name(&self) -> &'static str;
    /// Brings the tree as it is now to where members get it.
    fn push(&mut self, tree: &Tree) -> anyhow::Result<Option<Cost>>;
    /// Brings what was pushed last to a member, which has what was fetched before.
    fn fetch(&mut self) -> anyhow::Result<Cost>;
    /// The member loses all that it has.
    fn forget(&mut self) -> anyhow::Result<()>;
    /// Waits until the member has nothing to do.
    fn settle(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Where it is measured, and with what.
#[derive(Debug)]
pub struct Places {
    /// baton and baton-boot.
    pub baton: PathBuf,
    /// The bootloader.
    pub boot: PathBuf,
    /// A tree of dependencies, and some of it as an upgrade leaves it.
    pub dependencies: PathBuf,
    /// See there.
    pub upgraded: PathBuf,
    /// A binary, and its next version.
    pub binary: [PathBuf; 2],
    /// A folder on a disk.
    pub beneath: PathBuf,
}

/// What one way costs for one change, turn by turn: times in ms, bytes in kB.
#[derive(Debug, Default)]
struct Row {
    push: Sample,
    push_cpu: Sample,
    fetch: Sample,
    fetch_cpu: Sample,
    bytes: Sample,
}

/// What one change costs each way.
#[derive(Debug)]
struct Table {
    change: Change,
    tree: String,
    rows: Vec<(&'static str, Row)>,
    /// How long it takes to walk the tree, in ms.
    walk: Sample,
    /// The changed files, compressed together, in kB.
    compressed: f64,
    /// The most memory of the bootloader, in MiB.
    memory: f64,
}

/// The figures, by change.
#[derive(Debug)]
pub struct Figures(Vec<Table>);

/// Measures all ways in these changes, in turns.
///
/// # Errors
/// When one of them fails, or a peer is not installed.
pub fn measure(places: &Places, group: Group) -> anyhow::Result<Figures> {
    let folder = tempfile::tempdir_in(&places.beneath)?;
    let tree = Tree::make(places, group.changes, folder.path())?;
    let mut figures = Figures(Vec::new());
    if group.changes.iter().any(|change| change.is_once()) {
        for change in group.changes {
            figures.0.push(Table::of_upgrades(places, &tree, *change, folder.path())?);
        }
    } else {
        let mut ways = Ways::start(places, group.changes, folder.path())?;
        for change in group.changes {
            figures.0.push(Table::of_changes(&tree, &mut ways, *change)?);
        }
    }
    Ok(figures)
}

/// What it costs one way to push, and to fetch.
type Costs = (Option<Cost>, Option<Cost>);

/// Baton and its peers.
struct Ways {
    baton: Baton,
    peers: Vec<Box<dyn Way>>,
}

impl Ways {
    /// Those that know what a change is; and those that bring everything, where everything is brought.
    fn start(places: &Places, changes: &[Change], folder: &Path) -> anyhow::Result<Self> {
        let at = |name: &str| -> anyhow::Result<PathBuf> {
            let path = folder.join(name);
            std::fs::create_dir_all(&path)?;
            Ok(path)
        };
        let mut peers: Vec<Box<dyn Way>> = vec![
            Box::new(Rsync::start(&at("rsync")?)?),
            Box::new(Casync::start(&at("casync")?)?),
            Box::new(Docker::start(&at("docker")?)?),
        ];
        if changes == [Change::All] {
            peers.push(Box::new(Tar::new(&at("tar")?)));
            peers.push(Box::new(Links::new(&at("links")?)));
        }
        Ok(Self { baton: Baton::start(places, &at("baton")?)?, peers })
    }

    /// Each brings the tree as it is now.
    fn turn(&mut self, tree: &Tree, change: Change) -> anyhow::Result<Vec<Costs>> {
        let mut costs = Vec::new();
        for way in self.each() {
            way.settle()?;
            rustix::fs::sync();
            let pushed = way.push(tree)?;
            rustix::fs::sync();
            let fetched = (change != Change::Nothing).then(|| way.fetch()).transpose()?;
            costs.push((pushed, fetched));
        }
        Ok(costs)
    }

    fn each(&mut self) -> impl Iterator<Item = &mut dyn Way> {
        let peers = self.peers.iter_mut().map(|peer| &mut **peer as &mut dyn Way);
        std::iter::once::<&mut dyn Way>(&mut self.baton).chain(peers)
    }
}

impl Table {
    /// Another change in each turn, on top of the one before.
    fn of_changes(tree: &Tree, ways: &mut Ways, change: Change) -> anyhow::Result<Self> {
        let mut table = Self::new(tree, ways, change)?;
        // The first turn may be somebody's first time, and is not counted.
        for turn in 0..=change.turns() {
            tree.change(change, turn)?;
            table.walk.add(tree.walk_ms()?);
            if change == Change::All && turn > 0 {
                ways.each().try_for_each(|way| way.forget())?;
            }
            let costs = ways.turn(tree, change)?;
            if turn > 0 {
                table.add(costs);
            }
        }
        table.memory = ways.baton.memory_kib() as f64 / 1024.0;
        Ok(table)
    }

    /// The same upgrade in each turn, where nobody has seen it yet.
    fn of_upgrades(places: &Places, tree: &Tree, change: Change, folder: &Path) -> anyhow::Result<Self> {
        let mut table: Option<Self> = None;
        for _ in 0..change.turns() {
            let folder = tempfile::tempdir_in(folder)?;
            let mut ways = Ways::start(places, &[change], folder.path())?;
            tree.change(change, 0)?;
            ways.turn(tree, change)?;
            tree.change(change, 1)?;
            let table = match &mut table {
                Some(table) => table,
                none => none.insert(Self::new(tree, &mut ways, change)?),
            };
            table.walk.add(tree.walk_ms()?);
            table.add(ways.turn(tree, change)?);
            table.memory = table.memory.max(ways.baton.memory_kib() as f64 / 1024.0);
        }
        table.context("no turns")
    }

    fn new(tree: &Tree, ways: &mut Ways, change: Change) -> anyhow::Result<Self> {
        Ok(Self {
            change,
            tree: tree.told()?,
            rows: ways.each().map(|way| (way.name(), Row::default())).collect(),
            walk: Sample::default(),
            compressed: tree.compressed(change)? as f64 / 1000.0,
            memory: 0.0,
        })
    }

    fn add(&mut self, costs: Vec<Costs>) {
        for ((_, row), (pushed, fetched)) in self.rows.iter_mut().zip(costs) {
            row.add(pushed, fetched);
        }
    }

    /// The median of a figure of one way; not a number without it.
    fn median(&self, way: &str, figure: fn(&Row) -> &Sample) -> f64 {
        let row = self.rows.iter().find(|(name, _)| *name == way);
        row.map_or(f64::NAN, |(_, row)| figure(row).median())
    }

    fn goals(&self) -> Vec<Goal> {
        let [push, fetch, bytes] = [push, fetch, bytes].map(|figure| self.median(baton::NAME, figure));
        let what = self.change.told();
        let limits = |launchable: f64, kb: f64| {
            [
                Goal::at_most(format!("{what}: until it can be launched"), launchable, " ms", fetch),
                Goal::at_most(format!("{what}: bytes to the member"), kb, " kB", bytes),
            ]
        };
        let mut goals = match self.change {
            Change::OneFile | Change::TwentyFiles => {
                let mut goals = limits(50.0, 2.0 * self.compressed + 16.0).to_vec();
                goals.push(Goal::at_most(format!("{what}: push"), 150.0, " ms", push));
                goals
            }
            Change::Dependency => limits(500.0, 500.0).to_vec(),
            Change::All => {
                let beside = fetch / self.median(files::TAR, self::fetch);
                vec![Goal::at_most(format!("{what}: beside `zstd -dc \\| tar -x`"), 1.2, "", beside)]
            }
            Change::Nothing => {
                let beside = push / self.walk.median();
                vec![Goal::at_most(format!("{what}: push beside walking the tree"), 2.0, "", beside)]
            }
            Change::Binary => Vec::new(),
        };
        if matches!(self.change, Change::All | Change::Binary) {
            goals.push(Goal::at_most(format!("{what}: memory of the bootloader"), 32.0, " MiB", self.memory));
        }
        goals
    }
}

fn push(row: &Row) -> &Sample {
    &row.push
}

fn fetch(row: &Row) -> &Sample {
    &row.fetch
}

fn bytes(row: &Row) -> &Sample {
    &row.bytes
}

impl Figures {
    /// As tables.
    pub fn table(&self) -> String {
        self.0.iter().map(|table| format!("{table}\n")).collect()
    }

    /// Each with its figure.
    pub fn goals(&self) -> Vec<Goal> {
        self.0.iter().flat_map(Table::goals).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { change, tree, rows, walk, compressed, memory } = self;
        writeln!(
            f,
            "#### {}\n\n{tree}; walked in {walk} ms; what changes, compressed: {compressed:.1} kB; most memory of the \
                     bootloader: {memory:.1} MiB.\n",
            capitalised(change.told())
        )?;
        writeln!(
            f,
            "| way | push, ms | CPU, ms | to the member, ms | CPU, ms | kB |\n| --- | --- | --- | --- | --- | --- |"
        )?;
        for (name, Row { push, push_cpu, fetch, fetch_cpu, bytes }) in rows {
            writeln!(f, "| {name} | {push} | {push_cpu} | {fetch} | {fetch_cpu} | {bytes} |")?;
        }
        Ok(())
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

impl Row {
    fn add(&mut self, pushed: Option<Cost>, fetched: Option<Cost>) {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        if let Some(Cost { took, cpu, .. }) = pushed {
            self.push.add(ms(took));
            self.push_cpu.add(ms(cpu));
        }
        if let Some(Cost { took, cpu, bytes }) = fetched {
            self.fetch.add(ms(took));
            self.fetch_cpu.add(ms(cpu));
            self.bytes.add(bytes as f64 / 1000.0);
        }
    }
}
