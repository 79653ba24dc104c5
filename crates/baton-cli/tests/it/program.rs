//! The program as people start it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The program in this directory, with nothing in its environment but what a person has.
pub fn baton(dir: &Path, server: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir)
        .env("USER", "kim")
        .env("BATON_SERVER", server)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// What it printed, as the one JSON document that it should be.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of the failure that it printed as JSON.
    pub fn error_code(&self) -> String {
        let error: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        error["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// Runs the program to its end.
pub fn run(dir: &Path, server: &str, arguments: &[&str]) -> Ran {
    baton(dir, server, arguments).output().unwrap().into()
}
