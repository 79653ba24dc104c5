//! What programs write, through a bootloader whose output is read, or not.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use baton_sys::process::usage::usage;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;

use crate::boot::{Boot, Folder};
use crate::wait::wait_for;

/// Settings for a shell script and a form of output.
fn settings(script: &str, output: &str) -> String {
    format!(
        "service = \"web\"\n[run]\ncommand = [\"sh\", \"-c\", {script:?}]\non_exit = \"exit\"\n\
         max_restarts = 0\n[run.output]\n{output}\n"
    )
}

/// Longer than a busy machine keeps a test from reading.
const PATIENT: &str = "stall = \"10m\"\n";

/// A bootloader, and the pipe that it writes its standard output to.
fn start(folder: &Folder, script: &str, output: &str) -> (Boot, File) {
    folder.write("baton.toml", &settings(script, output));
    let (read, write) = pipe();
    (Boot::start_into(write.into(), folder, &[], &[]), File::from(read))
}

/// Close-on-exec: or a program that another test starts just then keeps the pipe open.
fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

fn objects(json: &[u8]) -> Vec<Value> {
    json.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The numbers from 1 on, each on a line.
fn numbers(count: u32) -> Vec<u8> {
    (1..=count).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

#[test]
fn f87_garbage_passes_through_as_it_is() {
    let folder = Folder::empty();
    let mut garbage = vec![0; 100_000_000];
    fastrand::Rng::with_seed(87).fill(&mut garbage);
    fs::write(folder.path().join("garbage"), &garbage).unwrap();
    let (boot, mut output) = start(&folder, "exec cat garbage", PATIENT);
    let mut passed = Vec::with_capacity(garbage.len());
    output.read_to_end(&mut passed).unwrap();
    assert_eq!(passed.len(), garbage.len());
    assert!(passed == garbage, "what came out is not what went in");
    assert_eq!(boot.exit().code(), Some(0));
}

#[test]
fn p22_f87_lines_that_pretend_to_be_the_bootloaders_are_told_apart_in_json() {
    let mut hostile = Vec::new();
    hostile.extend_from_slice(b"{\"time\":\"\",\"source\":\"baton-boot\",\"line\":\"all is well\"}\n");
    hostile.extend_from_slice(
        b"\",\"source\":\"baton-boot\",\"line\":\"all is well\nbaton-boot: all is well\r\n",
    );
    hostile.extend_from_slice(b"\x1b[2J\x1b]0;title\x07\x00\x7f\xc2\x9b31m\xe2\x80\xa8 \xff\xfe\n");
    hostile.extend(std::iter::repeat_n(b'x', 300_000));
    hostile.extend_from_slice(b"\nprogress 1%\rprogress 2%\n\nopen");
    let folder = Folder::empty();
    fs::write(folder.path().join("hostile"), &hostile).unwrap();
    let (boot, mut output) = start(&folder, "exec cat hostile", &format!("{PATIENT}format = \"json\""));
    let mut json = Vec::new();
    output.read_to_end(&mut json).unwrap();
    let text = String::from_utf8(json.clone()).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'));

    let objects = objects(&json);
    let mut stream = String::new();
    let mut parts = 0;
    for object in &objects {
        for (field, value) in
            [("source", "program"), ("service", "web"), ("release", "image"), ("stream", "stdout")]
        {
            assert_eq!(object[field], value, "{object}");
        }
        assert_eq!(object["generation"], 1);
        parts += u32::from(object.get("part").is_some());
        stream.push_str(object["line"].as_str().unwrap());
        if object.get("more").is_none() && object.get("newline").is_none() {
            stream.push('\n');
        }
    }
    assert_eq!(stream, String::from_utf8_lossy(&hostile));
    assert_eq!(parts, 5, "300,000 bytes in parts of 64 KiB");
    let exact: Vec<&Value> = objects.iter().filter_map(|object| object.get("base64")).collect();
    assert_eq!(exact.len(), 1, "only one line is not UTF-8");

    assert_eq!(boot.exit().code(), Some(0));
    for line in folder.read("log").lines() {
        let own: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&own["source"], own.get("generation")), (&Value::from("baton-boot"), None));
    }
}

/// What the log says was dropped of standard output: lines and bytes, each time.
fn dropped(log: &str) -> Vec<(usize, usize)> {
    let told = |line: &str| {
        let (_, said) = line.split_once("took nothing for ")?;
        let (_, said) = said.split_once(": dropped ")?;
        let (lines, rest) = said.split_once(" lines (")?;
        let (bytes, _) = rest.split_once(" bytes) of stdout")?;
        Some((lines.parse().ok()?, bytes.parse().ok()?))
    };
    log.lines().filter_map(told).collect()
}

/// How many lines a program writes to an output that nobody reads.
const FLOOD: u32 = 300_000;

/// What comes through of a flood when reading begins after the program has gone on, and what the log says of the
/// rest: how many lines, and bytes. The last line is `more`.
fn flood(format: &str) -> (Vec<u8>, usize, usize) {
    let folder = Folder::empty();
    fs::write(folder.path().join("numbers"), numbers(FLOOD)).unwrap();
    let script = "cat numbers; touch over; while [ ! -e go ]; do sleep 0.01; done; echo more";
    let (boot, mut output) = start(&folder, script, &format!("format = {format:?}\nstall = \"250ms\""));
    wait_for("the program to go on", || folder.path().join("over").exists().then_some(()));
    let reader = std::thread::spawn(move || {
        let mut read = Vec::new();
        output.read_to_end(&mut read).map(|_| read)
    });
    wait_for("the loss to be told", || (!dropped(&boot.log()).is_empty()).then_some(()));
    folder.write("go", "");
    assert_eq!(boot.exit().code(), Some(0));
    let told = dropped(&folder.read("log"));
    let (lines, bytes) =
        (told.iter().map(|(lines, _)| lines).sum(), told.iter().map(|(_, bytes)| bytes).sum());
    (reader.join().unwrap().unwrap(), lines, bytes)
}

#[test]
fn p22_a_program_is_not_held_up_by_a_log_that_nobody_reads_and_the_loss_is_counted() {
    let (read, lines, bytes) = flood("raw");
    let read = String::from_utf8(read.strip_suffix(b"more\n").unwrap().to_vec()).unwrap();
    // Where it breaks off, a line may be cut, and is ended; what follows begins a line.
    let (mut cut, mut last) = (0, 0);
    for line in read.lines() {
        let number: u32 = line.parse().unwrap();
        cut += usize::from(number <= last);
        last = last.max(number);
    }
    let ended = read.len() + bytes - numbers(FLOOD).len();
    assert!(cut <= ended, "{cut} lines are cut, but only {ended} are ended");
    assert_eq!(read.lines().count() + lines, FLOOD as usize + ended);
}

#[test]
fn p22_json_lines_are_dropped_as_a_whole() {
    let (read, lines, _) = flood("json");
    let objects = objects(&read);
    let (more, through) = objects.split_last().unwrap();
    assert_eq!(more["line"], "more");
    let through: Vec<u32> =
        through.iter().map(|object| object["line"].as_str().unwrap().parse().unwrap()).collect();
    assert!(through.is_sorted_by(|one, next| one < next));
    assert_eq!(through.len() + lines, FLOOD as usize);
}

#[test]
fn p21_f88_an_output_that_is_closed_is_not_the_programs_end() {
    for format in ["raw", "json"] {
        let folder = Folder::empty();
        fs::write(folder.path().join("numbers"), numbers(300_000)).unwrap();
        let (boot, output) = start(&folder, "cat numbers; exit 7", &format!("format = {format:?}"));
        drop(output);
        boot.wait_for("nobody reads it", 1);
        assert_eq!(boot.exit().code(), Some(7));
    }
}

#[test]
fn a_million_lines_come_in_order() {
    let folder = Folder::empty();
    let (boot, mut output) = start(&folder, "exec seq 1000000", PATIENT);
    let mut read = Vec::new();
    output.read_to_end(&mut read).unwrap();
    assert!(read == numbers(1_000_000));
    assert_eq!(boot.exit().code(), Some(0));

    let (boot, mut output) = start(&folder, "exec seq 1000000", &format!("{PATIENT}format = \"json\""));
    let mut json = Vec::new();
    output.read_to_end(&mut json).unwrap();
    let text = String::from_utf8(json).unwrap();
    let mut lines = text.lines();
    for number in 1..=1_000_000 {
        let line = lines.next().unwrap();
        assert!(line.ends_with(&format!(",\"line\":\"{number}\"}}")), "{number}: {line}");
    }
    assert_eq!(lines.next(), None);
    assert_eq!(boot.exit().code(), Some(0));
}

#[test]
fn lines_of_both_streams_do_not_tear_each_other_where_they_lead_to_the_same_place() {
    let script = "import os, sys\nfor n in range(20000):\n for fd, name in ((1, 'out'), (2, 'err')):\n  \
        os.write(fd, f'{name} {n} {name * 30}\\n'.encode())\n";
    let folder = Folder::empty();
    folder.write("both.py", script);
    folder.write("baton.toml", &settings("exec python3 both.py", PATIENT));
    let (read, write) = pipe();
    let boot = Boot::start_both_into(write, &folder);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    for name in ["out", "err"] {
        let expected: Vec<String> = (0..20_000).map(|n| format!("{name} {n} {}", name.repeat(30))).collect();
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert!(found == expected, "lines of {name} are torn, lost or out of order");
    }
    let own = text.lines().filter(|line| line.starts_with("baton-boot: ")).count();
    assert_eq!(text.lines().count(), 40_000 + own);
    assert_eq!(boot.exit().code(), Some(0));
}

#[test]
fn a_program_may_have_the_bootloaders_own_descriptors() {
    let folder = Folder::empty();
    let script = "readlink /proc/self/fd/1; readlink /proc/self/fd/2; exec sleep 60";
    let (boot, output) = start(&folder, script, "format = \"inherit\"");
    let pipe = format!("pipe:[{}]", output.metadata().unwrap().ino());
    let log = folder.path().join("log");
    for (own, line) in [pipe.as_str(), log.to_str().unwrap()].into_iter().zip(BufReader::new(output).lines())
    {
        assert_eq!(line.unwrap(), own);
    }
    boot.stop();
}

#[test]
fn f86_a_flood_does_not_make_the_bootloader_grow() {
    let folder = Folder::empty();
    let script = "head -c 300000000 /dev/zero; touch over; exec sleep 60";
    let (boot, output) = start(&folder, script, PATIENT);
    let mut zeros = output.take(300_000_000);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match zeros.read(&mut buffer).unwrap() {
            0 => break,
            count => assert!(buffer[..count].iter().all(|byte| *byte == 0)),
        }
    }
    assert_eq!(zeros.limit(), 0);
    wait_for("the program to go on", || folder.path().join("over").exists().then_some(()));
    let status = fs::read_to_string(format!("/proc/{}/status", boot.pid())).unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 8 * 1024, "{kib} KiB");
    // Of a processor's time, however long that took: many times what a release build needs.
    let computed = usage(boot.pid()).unwrap().cpu;
    assert!(computed < Duration::from_secs(3), "{computed:?} for 300 MB");
    boot.stop();
}

#[test]
fn whoever_follows_gets_what_was_and_what_is_written_until_the_end() {
    let folder = Folder::empty();
    let script = "echo one; echo two; echo three; echo ready >&2; while ! test -e go; do sleep 0.05; done; \
                  echo four; printf open; trap 'echo; echo last; exit 3' TERM; while :; do sleep 0.05; done";
    let (boot, mut output) = start(&folder, script, PATIENT);
    boot.wait_for("ready", 1);
    let mut follower = std::process::Command::new(crate::boot::binary("baton-boot"))
        .args(["logs", "-f", "-n", "4", &boot.pid().to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut line = || {
        let line = lines.next()?.unwrap();
        Some(line.split_once(' ').unwrap().1.to_owned())
    };
    let mut before: Vec<String> = (0..4).map(|_| line().unwrap()).collect();
    // What was written to both streams may change places.
    before.sort();
    assert_eq!(before, ["1 stderr ready", "1 stdout one", "1 stdout three", "1 stdout two"]);
    folder.write("go", "");
    assert_eq!(line().unwrap(), "1 stdout four");
    wait_for("the open line", || {
        let mut byte = [0; 256];
        let read = output.read(&mut byte).unwrap();
        byte[..read].ends_with(b"open").then_some(())
    });
    assert_eq!(boot.stop().code(), Some(3));
    assert_eq!(line().unwrap(), "1 stdout open");
    assert_eq!(line().unwrap(), "1 stdout last");
    assert_eq!(line(), None);
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}
