//! A bootloader as an init: signals, exit codes, orphans, and stopping.

use rustix::process::Signal;

use crate::boot::{Boot, Folder};
use crate::wait::wait_for;

fn shell(script: &str) -> [&str; 4] {
    ["--", "sh", "-c", script]
}

#[test]
fn p18_every_exit_code_is_passed_on() {
    let folder = Folder::empty();
    for code in 0..=255 {
        let script = format!("exit {code}");
        let exit = Boot::start(&folder, &shell(&script), &[]).exit();
        assert_eq!(exit.code(), Some(code));
    }
}

#[test]
fn p18_the_end_by_a_signal_is_passed_on_as_128_and_its_number() {
    let folder = Folder::empty();
    // Those that end a process and that a shell can send to itself; 17 to 23 and 28 do not end one.
    for number in (1..=31).filter(|number| !(17..=23).contains(number) && *number != 28) {
        let script = format!("ulimit -c 0; kill -{number} $$; sleep 5");
        let exit = Boot::start(&folder, &shell(&script), &[]).exit();
        assert_eq!(exit.code(), Some(128 + number), "signal {number}");
    }
}

#[test]
fn p18_signals_that_are_not_the_bootloaders_reach_the_program() {
    let folder = Folder::empty();
    let script = "import signal, sys\n\
        mine = {s for s in signal.valid_signals() if s not in (9, 19, 17)}\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, mine)\n\
        print('up', flush=True)\n\
        while True: print('got', int(signal.sigwait(mine)), flush=True)\n";
    folder.write("listen.py", script);
    let boot = Boot::start(&folder, &["--", "python3", "listen.py"], &[]);
    wait_for("the program", || folder.read("output").contains("up").then_some(()));
    // HUP, INT and TERM have a meaning of their own; the faults show only in the bootloader itself.
    let kept = [1, 2, 4, 5, 7, 8, 9, 11, 13, 15, 17, 19, 31];
    for number in (1..=31).filter(|number| !kept.contains(number)) {
        boot.signal(Signal::from_named_raw(number).unwrap());
        wait_for(&format!("signal {number}"), || {
            folder.read("output").contains(&format!("got {number}\n")).then_some(())
        });
    }
}

#[test]
fn p18_orphans_are_reaped() {
    let folder = Folder::empty();
    // Each inner shell leaves a child behind that outlives it a little.
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sh -c 'sleep 0.1 &'; done; sleep 0.5; touch done; sleep 60";
    let boot = Boot::start(&folder, &shell(script), &[]);
    wait_for("the orphans", || folder.path().join("done").exists().then_some(()));
    let zombies = || {
        baton_sys::process::all().unwrap().into_iter().filter(|p| p.parent == boot.pid() && p.zombie).count()
    };
    wait_for("no zombie", || (zombies() == 0).then_some(()));
}

/// The main process ends at once on TERM; its 15 children need a second to finish.
#[test]
fn p19_what_the_main_process_leaves_may_finish() {
    let folder = Folder::empty();
    folder.write(
        "child.sh",
        "trap 'sleep 1; echo finished >> finished; exit' TERM; echo up >> up; while :; do sleep 0.05; done\n",
    );
    let script =
        "for i in $(seq 15); do sh child.sh & done; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let boot = Boot::start(&folder, &shell(script), &[]);
    wait_for("the children", || (folder.read("up").lines().count() == 15).then_some(()));
    assert_eq!(boot.stop().code(), Some(0));
    assert_eq!(folder.read("finished").lines().count(), 15);
}

#[test]
fn p20_a_program_that_ignores_term_is_killed_at_its_limit_and_all_its_processes_with_it() {
    let folder = Folder::empty();
    folder.write(
        "baton.toml",
        "service = \"stubborn\"\n[run]\ncommand = [\"sh\", \"run.sh\"]\ndrain = \"500ms\"\n",
    );
    // One that ignores the signal, one that left the session, and one that is stopped.
    folder.write(
        "run.sh",
        "trap '' TERM\nsetsid sh -c \"trap '' TERM; echo \\$\\$ >> pids; while :; do sleep 0.1; done\" &\n\
         sh -c 'echo $$ >> pids; kill -STOP $$' &\necho $$ >> pids\nwhile :; do sleep 0.1; done\n",
    );
    let boot = Boot::start(&folder, &[], &[]);
    wait_for("the processes", || (folder.read("pids").lines().count() == 3).then_some(()));
    assert_eq!(boot.stop().code(), Some(137));
    let pids: Vec<i32> = folder.read("pids").lines().map(|pid| pid.parse().unwrap()).collect();
    wait_for("their ends", || {
        let all = baton_sys::process::all().unwrap();
        (!all.iter().any(|one| pids.contains(&one.pid) && !one.zombie)).then_some(())
    });
}

#[test]
fn f4_a_stop_right_after_the_start_is_not_lost() {
    let folder = Folder::empty();
    for _ in 0..20 {
        let boot = Boot::start(&folder, &shell("exec sleep 60"), &[]);
        let status = || std::fs::read_to_string(format!("/proc/{}/status", boot.pid())).unwrap_or_default();
        // From the moment at which signals are blocked, none is lost.
        wait_for("blocked signals", || {
            let blocked = status().lines().find(|line| line.starts_with("SigBlk"))?.to_owned();
            (!blocked.ends_with("0000000000000000")).then_some(())
        });
        let code = boot.stop().code();
        assert!(matches!(code, Some(0 | 143)), "{code:?}");
    }
}

#[test]
fn mistakes_are_told_and_end_with_2() {
    let folder = Folder::empty();
    let nothing = Boot::start(&folder, &[], &[]);
    nothing.wait_for("there is nothing to run", 1);
    assert_eq!(nothing.exit().code(), Some(2));
    folder.write("baton.toml", "service = \"x\"\n[run]\ncomand = [\"true\"]\ndrain = 5\n");
    let wrong = Boot::start(&folder, &[], &[]);
    for mistake in ["baton.toml:3:1: run.comand is not a setting; did you mean run.command?", "baton.toml:4:"]
    {
        wrong.wait_for(mistake, 1);
    }
    assert_eq!(wrong.exit().code(), Some(2));
}

#[test]
fn f14_a_command_that_does_not_exist_ends_with_127() {
    let folder = Folder::empty();
    let boot = Boot::start(&folder, &["--", "no-such-program"], &[]);
    boot.wait_for("there is no program \"no-such-program\"", 1);
    assert_eq!(boot.exit().code(), Some(127));
}

#[test]
fn a_bare_command_reads_what_the_bootloader_is_given() {
    use std::io::Write;
    let mut boot = std::process::Command::new(crate::boot::binary("baton-boot"))
        .args(["--", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    boot.stdin.take().unwrap().write_all(b"typed").unwrap();
    let ended = boot.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(0), &b"typed"[..]));
}

/// Types at a terminal, as somebody at a shell would, and tells what is seen: its arguments are the command.
const AT_A_TERMINAL: &str = r#"
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
def until(text):
    global seen
    while text not in seen:
        seen += os.read(terminal, 1000)
    seen = seen.split(text, 1)[1]
# Who hears of nothing says nothing.
signal.alarm(60)
until(b"ready")
os.write(terminal, b"hello\n")
until(b"got hello")
os.write(terminal, b"\x1a")
assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1]), "not stopped by Ctrl-Z"
os.kill(pid, signal.SIGCONT)
os.write(terminal, b"again\n")
until(b"got again")
os.write(terminal, b"\x03")
status = os.waitpid(pid, 0)[1]
assert os.WEXITSTATUS(status) == 130, f"ended with {status} after Ctrl-C"
"#;

/// Gives the terminal another size, as a window does that somebody pulls at, and asks how often that was heard.
const IN_A_WINDOW: &str = r#"
import fcntl, os, pty, signal, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
# Who hears of nothing says nothing.
signal.alarm(60)
seen = b""
def until(text):
    global seen
    while text not in seen:
        seen += os.read(terminal, 1000)
    seen = seen.split(text, 1)[1]
until(b"ready")
for nth, (rows, columns) in enumerate([(33, 99), (50, 200)], 1):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    until(b"%d: %d %d." % (nth, rows, columns))
os.write(terminal, b"\x03")
status = os.waitpid(pid, 0)[1]
assert os.WEXITSTATUS(status) == 130, f"ended with {status} after Ctrl-C"
"#;

/// Reloads it at the terminal, to a program that does not start, and types on.
const RELOADS_AT_A_TERMINAL: &str = r#"
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
def until(text):
    global seen
    while text not in seen:
        seen += os.read(terminal, 1000)
    seen = seen.split(text, 1)[1]
until(b"is proven")
open("fail", "w").close()
os.kill(pid, signal.SIGHUP)
until(b"refused: exit 7")
os.write(terminal, b"hello\n")
until(b"got hello")
os.write(terminal, b"\x03")
status = os.waitpid(pid, 0)[1]
assert os.WEXITSTATUS(status) == 130, f"ended with {status} after Ctrl-C"
"#;

/// Starts it as a job in the background, as a shell does, and asks who has the terminal.
const IN_THE_BACKGROUND: &str = r#"
import os, pty, subprocess, sys
pid, terminal = pty.fork()
if pid == 0:
    job = subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE, preexec_fn=os.setpgrp)
    while b"is proven" not in job.stderr.readline():
        pass
    kept = os.tcgetpgrp(0) == os.getpgrp()
    job.terminate()
    job.wait()
    os._exit(0 if kept else 1)
while True:
    try:
        os.read(terminal, 1000)
    except OSError:
        break
assert os.waitpid(pid, 0)[1] == 0, "the terminal was taken from the shell"
"#;

fn at_a_terminal(script: &str, program: &str) {
    let folder = Folder::empty();
    let typed = std::process::Command::new("python3")
        .args(["-c", script, crate::boot::binary("baton-boot").to_str().unwrap(), "--", "sh", "-c", program])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(typed.status.success(), "{}", String::from_utf8_lossy(&typed.stderr));
}

#[test]
fn a_terminal_stays_with_the_program_that_serves() {
    at_a_terminal(
        RELOADS_AT_A_TERMINAL,
        "if [ -e fail ]; then exit 7; fi; while read line; do echo got $line; done",
    );
}

/// Once each time: the kernel tells the foreground, and the bootloader passes on only what it is told itself.
#[test]
fn p18_a_program_on_a_terminal_hears_of_every_new_size_once() {
    at_a_terminal(
        IN_A_WINDOW,
        "n=0; trap 'n=$((n+1)); echo \"$n: $(stty size).\"' WINCH; echo ready; while :; do sleep 0.05; done",
    );
}

#[test]
fn a_job_in_the_background_leaves_the_terminal_alone() {
    at_a_terminal(IN_THE_BACKGROUND, "sleep 60");
}

#[test]
fn p18_a_program_on_a_terminal_is_in_its_foreground_and_stopped_and_interrupted_by_keys() {
    at_a_terminal(AT_A_TERMINAL, "echo ready; while read line; do echo got $line; done");
}

/// A program whose child names itself as its main process, reads on in the group of its parent, and survives it.
const NAMES_ITS_CHILD: &str = r#"exec python3 -c '
import os, socket, sys
said, say = os.pipe()
if os.fork():
    os.read(said, 1)
    os._exit(0)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"MAINPID=%d" % os.getpid(), os.environ["NOTIFY_SOCKET"])
os.write(say, b"x")
for line in sys.stdin:
    print("got", line.strip(), flush=True)
'"#;

#[test]
fn p18_a_main_process_that_was_named_is_at_the_terminal_with_the_group_that_it_is_in() {
    let script = AT_A_TERMINAL.replace("until(b\"ready\")", "until(b\"is followed at process\")");
    at_a_terminal(&script, NAMES_ITS_CHILD);
}

#[test]
fn a_program_gets_the_user_and_the_limits_that_the_settings_say() {
    let folder = Folder::empty();
    // Somebody else is for root to become.
    let uid = if rustix::process::geteuid().is_root() { 65_534 } else { rustix::process::geteuid().as_raw() };
    let user = if uid == 65_534 { "user = 65534\n" } else { "" };
    folder.write(
        "baton.toml",
        &format!(
            "service = \"test\"\n[run]\n{user}umask = \"077\"\nnice = 3\nnofile = 99\non_exit = \"exit\"\n\
             oom_score_adj = 200\ncommand = [\"sh\", \"-c\", \
             \"sleep 1.5; id -u; umask; nice; ulimit -n; cat /proc/self/oom_score_adj; \
             echo kept > $BATON_SCRATCH/file && cat $BATON_SCRATCH/file > /dev/stdout\"]\n"
        ),
    );
    let boot = Boot::start(&folder, &[], &[]);
    assert_eq!(boot.exit().code(), Some(0));
    assert_eq!(folder.read("output"), format!("{uid}\n0077\n3\n99\n200\nkept\n"));
}

#[test]
fn p3_the_main_process_is_asked_to_stop_once() {
    let folder = Folder::empty();
    folder.write(
        "main.sh",
        "trap 'echo asked >> asked' TERM\n\
         (trap 'echo asked >> child; exit' TERM; echo up > up; while :; do sleep 0.05; done) &\n\
         while :; do sleep 0.05; done\n",
    );
    let run = "command = [\"sh\", \"main.sh\"]\ndrain = \"2s\"\nstop_tree_after = \"500ms\"";
    folder.write("baton.toml", &format!("service = \"test\"\n[run]\n{run}\n"));
    let boot = Boot::start(&folder, &[], &[]);
    wait_for("the program", || folder.path().join("up").exists().then_some(()));
    assert_eq!(boot.stop().code(), Some(137));
    assert_eq!((folder.read("asked").as_str(), folder.read("child").as_str()), ("asked\n", "asked\n"));
}

/// Many sleepers, and a leader that answers the end of each of them with another one. All of them ignore the request to
/// stop, for three minutes. The leader is started last, so that it lives while the others are killed.
const CREW: &str = r#"
import os, select, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def sleeper():
    end, held = os.pipe()
    if os.fork() == 0:
        os.close(end)
        signal.alarm(180)
        while True:
            signal.pause()
    os.close(held)
    return end
ends = [sleeper() for _ in range(100)]
if os.fork() == 0:
    signal.alarm(180)
    open("crew", "w").write("complete")
    while True:
        for ended in select.select(ends, [], [])[0]:
            ends.remove(ended)
            ends.append(sleeper())
while True:
    signal.pause()
"#;

#[test]
fn p19_p20_who_answers_the_end_of_a_worker_with_another_one_is_killed_all_the_same() {
    let folder = Folder::empty();
    folder.write("crew.py", CREW);
    let run = "command = [\"python3\", \"crew.py\"]\ndrain = \"300ms\"";
    folder.write("baton.toml", &format!("service = \"crew\"\n[run]\n{run}\n"));
    let boot = Boot::start(&folder, &[], &[]);
    let crew = || wait_for("the crew", || (folder.read("crew") == "complete").then_some(()));
    crew();
    folder.write("crew", "");
    boot.signal(Signal::HUP);
    boot.wait_for("generation 1 is gone", 1);
    // Until then the next one may not be deaf yet.
    crew();
    assert_eq!(boot.stop().code(), Some(137));
}
