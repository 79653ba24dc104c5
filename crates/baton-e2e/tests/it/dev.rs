//! `baton dev`, as people run it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::boot::{Folder, binary, free_address};
use crate::demo::assert_nothing_left;
use crate::wait::wait_for;

/// Says one word to everybody.
const SERVER: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"one")
    def log_message(self, *arguments):
        pass
print("at your service", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

fn start(folder: &Folder, arguments: &[&str]) -> Child {
    let output = std::fs::File::create(folder.path().join("output")).unwrap();
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    Command::new(binary("baton"))
        .arg("dev")
        .args(arguments)
        .current_dir(folder.path().join("app"))
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("TMPDIR", temporary)
        // Of whoever types it, and no business of this fleet.
        .env("BATON_STATE", "redis://127.0.0.1:1")
        .env("BATON_STORE", "s3://nowhere/releases")
        .env("BATON_TRUSTED_KEYS", "/nowhere")
        .env("XDG_CACHE_HOME", folder.path().join("cache"))
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap()
}

fn write_app(folder: &Folder, server: &str, own: SocketAddr) {
    std::fs::create_dir_all(folder.path().join("app")).unwrap();
    folder.write("app/server.py", server);
    let listen = format!("[[run.listen]]\nname = \"http\"\naddress = \"{own}\"\n");
    let run =
        "[run]\ncommand = [\"python3\", \"server.py\"]\n[run.health]\nhttp = \"/\"\ninterval = \"100ms\"\n";
    folder.write("app/baton.toml", &format!("service = \"web\"\n{run}{listen}"));
}

/// What is answered there; nothing when nobody answers.
fn said(address: SocketAddr) -> Option<String> {
    let mut client = TcpStream::connect(address).ok()?;
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).ok()?;
    Some(answer.rsplit_once("\r\n\r\n")?.1.to_owned())
}

/// Where the members listen, as they were told.
fn addresses(folder: &Folder, members: usize) -> Vec<SocketAddr> {
    wait_for("the addresses of the members", || {
        let output = folder.read("output");
        let at = output.lines().filter(|line| line.starts_with("web-") && line.contains(": http "));
        let found: Vec<_> =
            at.filter_map(|line| line.rsplit_once(' ')?.1.parse::<SocketAddr>().ok()).collect();
        (found.len() == members).then_some(found)
    })
}

#[test]
fn what_is_saved_is_deployed_to_members_of_this_machine_and_what_fails_is_taken_back() {
    let (folder, own) = (Folder::empty(), free_address());
    write_app(&folder, SERVER, own);
    let mut dev = start(&folder, &["--members", "2", "--watch"]);
    let addresses = addresses(&folder, 2);
    assert_eq!(addresses[0], own, "where the settings say");
    let everybody_says = |word: &str| {
        wait_for(&format!("everybody to say {word}"), || {
            addresses.iter().all(|address| said(*address).as_deref() == Some(word)).then_some(())
        });
    };
    everybody_says("one");
    let waits = |times: usize| {
        wait_for("dev to wait for a save", || {
            (folder.read("output").matches("waiting for a file").count() >= times).then_some(())
        });
    };
    waits(1);
    folder.write("app/server.py", &SERVER.replace("one", "two"));
    everybody_says("two");
    waits(2);
    folder.write("app/server.py", "a mistake");
    waits(3);
    let output = folder.read("output");
    assert!(output.contains("SyntaxError") && output.contains("baton: "), "{output}");
    everybody_says("two");
    folder.write("app/server.py", &SERVER.replace("one", "three"));
    everybody_says("three");
    assert!(folder.read("output").contains("web-1 | at your service"));

    kill_process(Pid::from_child(&dev), Signal::INT).unwrap();
    let status = wait_for("dev to end", || dev.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    assert_nothing_left(&folder);
}

#[test]
fn a_directory_that_cannot_be_run_is_refused_with_a_reason_and_nothing_is_left() {
    let folder = Folder::empty();
    write_app(&folder, "a mistake", free_address());
    let mut dev = start(&folder, &["--members", "1"]);
    let status = wait_for("dev to end", || dev.try_wait().unwrap());
    assert_eq!(status.code(), Some(3), "{}", folder.read("output"));
    assert!(folder.read("output").contains("SyntaxError"));
    assert_nothing_left(&folder);
}

#[test]
fn ctrl_c_while_it_starts_leaves_nothing() {
    let folder = Folder::empty();
    write_app(&folder, SERVER, free_address());
    let mut dev = start(&folder, &["--members", "3"]);
    // That is the first thing that is there.
    wait_for("its folder", || {
        std::fs::read_dir(folder.path().join("tmp")).unwrap().next().is_some().then_some(())
    });
    kill_process(Pid::from_child(&dev), Signal::INT).unwrap();
    let status = wait_for("dev to end", || dev.try_wait().unwrap());
    assert_eq!(status.code(), Some(130), "{}", folder.read("output"));
    assert_nothing_left(&folder);
}
