//! AWS, as moto knows it: secrets, parameters and buckets for control to read, written by boto3.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A server of its own. It ends with the value.
pub struct Moto {
    child: Child,
    calls: ChildStdin,
    answers: BufReader<ChildStdout>,
    port: String,
}

impl Moto {
    pub fn start() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(here.join("../../target/moto/python/bin/python"))
            .arg(here.join("../baton-store/tests/moto/serve.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs moto: scripts/setup test");
        let calls = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut moto = Self { child, calls, answers, port: String::new() };
        moto.port = moto.line().trim().to_owned();
        moto
    }

    /// The variables by which control finds it.
    pub fn variables(&self) -> Vec<(String, String)> {
        let own = [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ];
        own.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Answers nobody from now on, and takes what is asked.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Answers again.
    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Where it listens.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Calls boto3.
    pub fn call(&mut self, service: &str, method: &str, arguments: &Value) -> Value {
        writeln!(self.calls, "{}", json!([service, method, arguments])).unwrap();
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{service} {method} {arguments}: {line}"))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
