//! What a program is given, and what it is not: variables and limits.

use std::collections::BTreeMap;

use serde_json::json;

use crate::boot::{Boot, Folder, free_address};

/// What the bootloader is started with, beside what every test has.
const VARIABLES: [(&str, &str); 6] = [
    ("BATON_TOKEN", "secret"),
    ("NOTIFY_SOCKET", "@nobody/listens"),
    ("LISTEN_FDS", "1"),
    ("AWS_SECRET", "key"),
    ("LC_ALL", "C.UTF-8"),
    ("HOME", "/root"),
];

/// Runs a shell script with these settings of `[run]`, and returns the bootloader once the script is through.
fn run(folder: &Folder, script: &str, run: &str) -> Boot {
    folder.write(
        "baton.toml",
        &format!(
            "service = \"given\"\n[env]\nMODE = \"test\"\n[run]\n\
             command = [\"/bin/sh\", \"-c\", \"{script}; exec /bin/sleep 1000\"]\n{run}\n"
        ),
    );
    let boot = Boot::start(folder, &[], &VARIABLES);
    boot.wait_for(" serves, ", 1);
    boot
}

/// The environment that the program was started with.
fn environment(folder: &Folder) -> BTreeMap<String, String> {
    let text = folder.read("environment");
    let entries = text.split('\0').filter_map(|entry| entry.split_once('='));
    entries.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

const LOOK: &str = "/bin/cat /proc/self/environ > environment";

#[test]
fn what_is_the_bootloaders_own_is_not_inherited_and_all_else_is() {
    let folder = Folder::empty();
    let boot = run(&folder, LOOK, "");
    let found = environment(&folder);
    for (name, value) in [("AWS_SECRET", "key"), ("LC_ALL", "C.UTF-8"), ("HOME", "/root"), ("MODE", "test")] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{found:?}");
    }
    assert_ne!(found["NOTIFY_SOCKET"], "@nobody/listens");
    for name in ["BATON_TOKEN", "BATON_STATE_DIR", "LISTEN_FDS"] {
        assert!(!found.contains_key(name), "{found:?}");
    }
    let withheld = json!(["BATON_STATE_DIR", "BATON_TOKEN", "LISTEN_FDS", "NOTIFY_SOCKET"]);
    assert_eq!(boot.status()["generations"][0]["withheld"], withheld);
    boot.stop();
}

#[test]
fn with_a_list_only_what_is_on_it_is_inherited() {
    let folder = Folder::empty();
    let boot = run(&folder, LOOK, "environment.inherit = [\"PATH\", \"LC_*\"]");
    let found = environment(&folder);
    // A shell adds its working directory.
    let ours: Vec<&str> = found
        .keys()
        .map(String::as_str)
        .filter(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"))
        .collect();
    let expected =
        ["BATON_GENERATION", "BATON_RELEASE", "BATON_SCRATCH", "LC_ALL", "MODE", "NOTIFY_SOCKET", "PATH"];
    assert_eq!(ours, expected);
    let withheld = &boot.status()["generations"][0]["withheld"];
    assert!(withheld.as_array().unwrap().contains(&json!("AWS_SECRET")), "{withheld}");
    boot.stop();
}

#[test]
fn limits_are_those_of_the_settings() {
    let folder = Folder::empty();
    let limits = "core = \"8KiB\"\nmemlock = \"16KiB\"\nstack = \"1MiB\"\nnofile = 99";
    let boot = run(&folder, "/bin/cat /proc/self/limits > limits", limits);
    let found = folder.read("limits");
    for (limit, value) in [
        ("Max core file size", "8192"),
        ("Max locked memory", "16384"),
        ("Max stack size", "1048576"),
        ("Max open files", "99"),
    ] {
        let line =
            found.lines().find_map(|line| line.strip_prefix(limit)).unwrap_or_else(|| panic!("{found}"));
        let values: Vec<&str> = line.split_ascii_whitespace().take(2).collect();
        assert_eq!(values, [value, value], "{limit}");
    }
    boot.stop();
}

/// Answers each connection with two of its options; binds its port, or takes the socket.
const TELLS_OPTIONS: &str = r#"
import os, socket, sys
if sys.argv[1:] == ["take"]:
    listener = socket.socket(fileno=3)
else:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(os.environ["PORT"])))
    listener.listen()
while True:
    client, _ = listener.accept()
    options = socket.TCP_NODELAY, socket.TCP_KEEPIDLE
    client.sendall(" ".join(str(client.getsockopt(socket.IPPROTO_TCP, option)) for option in options).encode())
    client.close()
"#;

#[test]
fn connections_have_the_options_of_their_release() {
    use std::io::Read;
    let told = |address| {
        let mut answer = String::new();
        std::net::TcpStream::connect(address).unwrap().read_to_string(&mut answer).unwrap();
        answer
    };
    for (handover, word) in [("auto", "bind"), ("inherit", "take")] {
        let (folder, address) = (Folder::empty(), free_address());
        folder.write("program.py", TELLS_OPTIONS);
        let settings = format!(
            "service = \"test\"\n[run]\ncommand = [\"python3\", \"program.py\", \"{word}\"]\n[[run.listen]]\n\
             name = \"http\"\naddress = \"{address}\"\nhandover = \"{handover}\"\n[rollout]\nbake = \"0s\"\n"
        );
        let options = "[run.listen.options]\nnodelay = true\nkeepalive = \"77s\"\n";
        folder.write("baton.toml", &format!("{settings}{options}"));
        let boot = Boot::start(&folder, &[], &[]);
        boot.wait_for(" serves, ", 1);
        assert_eq!(told(address), "1 77", "{handover}");
        // Without them, and in a slot whose socket had them before.
        let idle = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_keepalive_time").unwrap();
        let plain = format!("0 {}", idle.trim());
        folder.write("baton.toml", &settings);
        for reload in 1..=4 {
            boot.signal(rustix::process::Signal::HUP);
            boot.wait_for(" is proven", reload + 1);
            boot.wait_for(&format!("generation {reload} is gone"), 1);
            assert_eq!(told(address), plain, "{handover}");
        }
        boot.stop();
    }
}
