//! Where a value could be found that must be nowhere.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::boot::binary;
use crate::fleet::Fleet;

/// What people and machines can ask of control and of the bootloaders, and what the kernel tells of all processes but the
/// programs: the names of what has the text in it.
pub fn told(fleet: &Fleet, text: &str) -> Vec<String> {
    let mut told: Vec<(String, Vec<u8>)> = Vec::new();
    for words in [&["status", "web"][..], &["members"], &["deploys"], &["events"], &["releases"]] {
        let output = fleet.baton(&[words, &["--output", "json"]].concat());
        told.push((format!("{words:?}"), [output.stdout, output.stderr].concat()));
    }
    for path in ["/metrics", "/v1/services", "/v1/services/web/deploys", "/v1/events", "/v1/releases"] {
        told.push((path.to_owned(), get(fleet, path)));
    }
    for member in &fleet.members {
        let mut ask = Command::new(binary("baton-boot"));
        let status = ask.args(["status", "--json", &member.pid().to_string()]).output().unwrap();
        told.push(("the status of a bootloader".to_owned(), status.stdout));
    }
    for (what, answer) in &told {
        assert!(!answer.is_empty(), "{what} says nothing");
    }
    told.extend(processes());
    let holds = |answer: &[u8]| answer.windows(text.len()).any(|window| window == text.as_bytes());
    told.into_iter().filter(|(_, answer)| holds(answer)).map(|(what, _)| what).collect()
}

fn get(fleet: &Fleet, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(fleet.control()).unwrap();
    let host = fleet.control();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
    answer
}

/// The command line and environment of every process that is no program of a release.
fn processes() -> Vec<(String, Vec<u8>)> {
    let of = |pid: &str, what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    let names =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let pids = names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    pids.filter_map(|pid| {
        let command = of(&pid, "cmdline");
        let is_program = command.starts_with(b"python3\0server.py\0");
        let shown = [command, of(&pid, "environ")].concat();
        (!is_program).then(|| (format!("process {pid}"), shown))
    })
    .collect()
}

/// The files beneath a folder that have these bytes in them.
pub fn holding(folder: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    search(folder, bytes, &mut found);
    found
}

fn search(folder: &Path, bytes: &[u8], found: &mut Vec<PathBuf>) {
    // What is put in order meanwhile may be gone.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => search(&path, bytes, found),
            Ok(kind) if kind.is_file() => {
                let holds = |content: Vec<u8>| content.windows(bytes.len()).any(|window| window == bytes);
                if fs::read(&path).is_ok_and(holds) {
                    found.push(path);
                }
            }
            Ok(_) | Err(_) => {}
        }
    }
}
