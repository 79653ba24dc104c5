//! How fast Docker takes in what a container writes with its default log driver, `json-file`: what the bootloader's
//! JSON is held against.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::docker::Engine;

const IMAGE: &str = "baton-bench:empty";
const CONTAINER: &str = "baton-bench";
/// How much of the file is read at once.
const READ_BYTES: usize = 1024 * 1024;
/// How long to wait for more of the file: far less than a turn takes.
const PAUSE: Duration = Duration::from_millis(2);
/// After this long without a byte more none will come.
const STALLED: Duration = Duration::from_secs(60);

/// An engine with an empty image: programs and their libraries are those of this machine.
#[derive(Debug)]
pub struct JsonFile(Engine);

impl JsonFile {
    /// Starts the engine. Its files are made in `folder`.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let engine = Engine::start()?;
        let (empty, tar) = (folder.join("empty"), folder.join("empty.tar"));
        std::fs::create_dir(&empty)?;
        let tar = tar.to_str().context("a folder whose name is no text")?;
        let made =
            std::process::Command::new("tar").arg("-cf").arg(tar).arg("-C").arg(&empty).arg(".").status()?;
        ensure!(made.success(), "tar failed");
        engine.docker(&["import", tar, IMAGE])?;
        Ok(Self(engine))
    }

    /// Has a program in a container write so many lines, as [`write()`](super::output::write) does for so many bytes,
    /// and returns the seconds from the first byte of the log file to the last line.
    pub fn pass(&self, program: &Path, bytes: usize, lines: usize) -> anyhow::Result<f64> {
        let place = program.parent().and_then(Path::to_str).context("the program is nowhere")?;
        let name = program.file_name().and_then(|name| name.to_str()).context("the program has no name")?;
        let mounts = ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro", &format!("{place}:/program:ro")];
        let mut run = vec!["run", "--detach", "--name", CONTAINER, "--network", "none"];
        run.extend(["--log-driver", "json-file"]);
        run.extend(mounts.iter().flat_map(|mount| ["--volume", mount]));
        let (inside, bytes) = (format!("/program/{name}"), bytes.to_string());
        run.extend([IMAGE, &inside, "write", &bytes]);
        self.0.docker(&run)?;
        let seconds = self
            .0
            .docker(&["inspect", "--format", "{{.LogPath}}", CONTAINER])
            .and_then(|path| read(Path::new(path.trim()), lines));
        self.0.docker(&["rm", "--force", CONTAINER])?;
        seconds
    }
}

fn read(path: &Path, lines: usize) -> anyhow::Result<f64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut start, mut last, mut left) = (None, Instant::now(), lines);
    while left > 0 {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            ensure!(last.elapsed() < STALLED, "the log ends too early: {left} of {lines} lines are missing");
            std::thread::park_timeout(PAUSE);
            continue;
        }
        last = Instant::now();
        start.get_or_insert(last);
        left -= super::output::count_lines(&buffer[..read]).min(left);
    }
    Ok(start.map_or(f64::NAN, |start: Instant| start.elapsed().as_secs_f64()))
}
