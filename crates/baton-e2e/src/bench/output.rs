//! How fast output passes through the bootloader, and what that costs, beside `cat` and beside Docker's log driver.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use super::goal::Goal;
use super::json_file::JsonFile;
use super::sample::Sample;
use crate::process::{Footprint, cpu_seconds};

/// How much is written in one measurement.
const BYTES: usize = 1 << 30;
/// How much of it when it becomes JSON, which takes longer.
const JSON_BYTES: usize = 1 << 28;
/// How much of it when Docker takes it in, which takes longer still.
const DOCKER_BYTES: usize = 1 << 26;
/// How long a line is, with its end: an access log's.
const LINE_BYTES: usize = 128;
/// How much the program writes at once.
const WRITE_BYTES: usize = 64 * 1024;
/// How many measurements there are of each.
const TURNS: usize = 15;
/// How much of what comes out is read at once: more than any pipe has.
const READ_BYTES: usize = 1024 * 1024;
const GIB: f64 = (1u64 << 30) as f64;

/// Through what the output passes.
#[derive(Debug, Clone, Copy)]
enum By<'a> {
    /// `cat`.
    Cat,
    /// The bootloader, in this form.
    Boot { boot: &'a Path, format: &'a str },
}

/// How fast it was, and what it cost.
#[derive(Debug, Clone, Copy)]
struct Figure {
    gib_a_second: f64,
    cpu_seconds_a_gib: f64,
    footprint: Footprint,
}

/// The figures of all.
#[derive(Debug, Default)]
pub struct Output {
    cat: [Sample; 2],
    raw: [Sample; 2],
    inherit: [Sample; 2],
    json: [Sample; 2],
    /// What Docker's `json-file` takes in, in GiB a second.
    docker: Sample,
    /// JSON beside that, pair by pair.
    beside_docker: Sample,
    /// Raw beside `cat`, pair by pair.
    ratio: [Sample; 2],
    /// What the bootloader took up at the end of the last turn, raw and as JSON.
    footprints: Vec<(String, Footprint)>,
}

/// What the program that is measured does: `baton-bench write BYTES` writes lines, and then waits to be killed.
///
/// # Errors
/// When nobody reads.
pub fn write(bytes: usize) -> anyhow::Result<()> {
    let line: Vec<u8> = (b' '..).take(LINE_BYTES - 1).map(|byte| byte.min(b'~')).chain([b'\n']).collect();
    let lines = line.repeat(WRITE_BYTES / LINE_BYTES);
    // Not by way of a buffer of our own.
    let mut output = fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    for _ in 0..bytes / WRITE_BYTES {
        output.write_all(&lines)?;
    }
    loop {
        std::thread::park();
    }
}

/// Measures all in turns. `program` is called as [`write()`] says; settings are written to `folder`.
pub fn measure(boot: &Path, program: &Path, folder: &Path) -> anyhow::Result<Output> {
    let mut output = Output::default();
    let docker = JsonFile::start(folder)?;
    let through = |format, bytes| pass(By::Boot { boot, format }, program, folder, bytes);
    for _ in 0..TURNS {
        let cat = pass(By::Cat, program, folder, BYTES)?;
        let raw = through("raw", BYTES)?;
        add(&mut output.cat, cat);
        add(&mut output.raw, raw);
        output.ratio[0].add(raw.gib_a_second / cat.gib_a_second);
        output.ratio[1].add(raw.cpu_seconds_a_gib / cat.cpu_seconds_a_gib);
        add(&mut output.inherit, through("inherit", BYTES)?);
        let json = through("json", JSON_BYTES)?;
        add(&mut output.json, json);
        let seconds = docker.pass(program, DOCKER_BYTES, DOCKER_BYTES / LINE_BYTES)?;
        let taken_in = DOCKER_BYTES as f64 / GIB / seconds;
        output.docker.add(taken_in);
        output.beside_docker.add(json.gib_a_second / taken_in);
        let last = [("after 1 GiB of output", raw), ("after 256 MiB of output as JSON", json)];
        output.footprints = last.map(|(state, figure)| (state.into(), figure.footprint)).into();
    }
    Ok(output)
}

fn add(samples: &mut [Sample; 2], figure: Figure) {
    samples[0].add(figure.gib_a_second);
    samples[1].add(figure.cpu_seconds_a_gib);
}

/// Passes so many bytes through.
fn pass(by: By<'_>, program: &Path, folder: &Path, bytes: usize) -> anyhow::Result<Figure> {
    let (mut passes_on, mut writes, output) = start(by, program, folder, bytes)?;
    // JSON has more bytes, but as many lines; to count them would hold up the others.
    let is_json = matches!(by, By::Boot { format: "json", .. });
    let (count, all): (fn(&[u8]) -> usize, _) =
        if is_json { (count_lines, bytes / LINE_BYTES) } else { (<[u8]>::len, bytes) };
    let measured = read(output, count, all).and_then(|seconds| {
        let gib = bytes as f64 / GIB;
        let cpu = cpu_seconds(passes_on.id())?;
        let footprint = Footprint::of(passes_on.id())?;
        Ok(Figure { gib_a_second: gib / seconds, cpu_seconds_a_gib: cpu / gib, footprint })
    });
    for child in std::iter::once(&mut passes_on).chain(writes.as_mut()) {
        child.kill()?;
        child.wait()?;
    }
    measured
}

/// Starts what passes it on, and what writes it, unless the former does that.
fn start(
    by: By<'_>,
    program: &Path,
    folder: &Path,
    bytes: usize,
) -> anyhow::Result<(Child, Option<Child>, ChildStdout)> {
    let quiet = |command: &mut Command| {
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("cannot start")
    };
    let (mut passes_on, writes) = match by {
        By::Cat => {
            let words = ["write", &bytes.to_string()];
            let mut writes = quiet(Command::new(program).args(words).stdin(Stdio::null()))?;
            let input = writes.stdout.take().context("no output")?;
            (quiet(Command::new("cat").stdin(input))?, Some(writes))
        }
        By::Boot { boot, format } => {
            let settings = format!(
                "service = \"bench\"\nrun.command = [{program:?}, \"write\", \"{bytes}\"]\nrun.output.format = {format:?}\n"
            );
            fs::write(folder.join("baton.toml"), settings)?;
            let mut command = Command::new(boot);
            command.current_dir(folder).env("BATON_STATE_DIR", folder.join("state")).stdin(Stdio::null());
            (quiet(&mut command)?, None)
        }
    };
    let output = passes_on.stdout.take().context("no output")?;
    Ok((passes_on, writes, output))
}

/// Reads until this counts to so many, and returns the seconds from the first byte on.
fn read(mut output: ChildStdout, count: fn(&[u8]) -> usize, all: usize) -> anyhow::Result<f64> {
    let mut buffer = vec![0; READ_BYTES];
    let (mut start, mut left) = (None, all);
    while left > 0 {
        let bytes = output.read(&mut buffer)?;
        ensure!(bytes > 0, "the output ended too early: {left} of {all} are missing");
        start.get_or_insert_with(Instant::now);
        left -= count(&buffer[..bytes]).min(left);
    }
    Ok(start.map_or(f64::NAN, |start| start.elapsed().as_secs_f64()))
}

pub(super) fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

impl Output {
    /// What is to be reached.
    pub fn goals(&self) -> Vec<Goal> {
        let [speed, cost] = &self.ratio;
        vec![
            Goal::at_least("raw output, speed beside `cat`", 0.95, "", speed.median()),
            Goal::at_most("raw output, CPU time beside `cat`", 1.1, "", cost.median()),
            Goal::at_least("JSON, speed beside Docker's `json-file`", 5.0, "", self.beside_docker.median()),
        ]
    }

    /// What the bootloader took up, by its state.
    pub fn footprints(self) -> Vec<(String, Footprint)> {
        self.footprints
    }

    /// The figures as lines of a table.
    pub fn table(&self) -> String {
        let mut text = "| passed on by | GiB/s | CPU seconds per GiB |\n| --- | --- | --- |\n".to_owned();
        for (name, [speed, cost]) in [
            ("`cat`", &self.cat),
            ("baton-boot, `raw`", &self.raw),
            ("`raw` / `cat`, pairs", &self.ratio),
            ("baton-boot, `inherit`", &self.inherit),
            ("baton-boot, `json` (of what the program writes)", &self.json),
        ] {
            text.push_str(&format!("| {name} | {speed} | {cost} |\n"));
        }
        text.push_str(&format!("| Docker, `json-file` (the same) | {} | |\n", self.docker));
        text.push_str(&format!("| `json` / `json-file`, pairs | {} | |\n", self.beside_docker));
        let lines = self.json[0].median() * GIB / LINE_BYTES as f64;
        text.push_str(&format!("\n{lines:.0} lines of {LINE_BYTES} bytes a second as JSON.\n"));
        text
    }
}
