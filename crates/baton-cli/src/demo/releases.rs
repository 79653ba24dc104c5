//! The releases of the demo: the Python example, with and without a fault.

use std::fs;
use std::path::{Path, PathBuf};

use super::DemoError;

/// The program.
const SERVER: &str = include_str!("../../../../examples/python/server.py");

/// How long a candidate may take to get healthy.
const SETTINGS: &str = r#"service = "demo"

[run]
command = ["python3", "server.py"]
drain   = "10s"

[[run.listen]]
name    = "http"
address = "127.0.0.1:8080"

[run.health]
http            = "/health"
startup_timeout = "3s"
interval        = "1s"
"#;

/// Writes a release into a folder and returns the folder. `behaviour` is what is wrong with it, if anything.
pub fn write(beneath: &Path, number: u32, behaviour: Option<&str>) -> Result<PathBuf, DemoError> {
    let folder = beneath.join(format!("release-{number}"));
    let write = |file: &str, text: &str| fs::write(folder.join(file), text);
    let all = || {
        fs::create_dir_all(&folder)?;
        write("server.py", SERVER)?;
        write("baton.toml", SETTINGS)?;
        write("VERSION", &format!("{number}\n"))?;
        behaviour.map_or(Ok(()), |behaviour| write("behaviour", &format!("{behaviour}\n")))
    };
    all().map_err(DemoError::io(format!("write {}", folder.display())))?;
    Ok(folder)
}
