//! Secrets without control: what the bootloader resolves itself.

use std::fs;

use rustix::process::Signal;

use crate::boot::{Boot, Folder, free_address};
use crate::program::Client;

/// What the program says that it was given.
fn given(folder: &Folder) -> String {
    folder.read("given")
}

#[test]
fn files_and_variables_are_read_at_each_start_and_reload_and_what_is_missing_changes_nothing() {
    let folder = Folder::with_example("python");
    let file = folder.path().join("password");
    fs::write(&file, "one\n").unwrap();
    folder.change(
        "baton.toml",
        "[\"python3\", \"server.py\"]",
        "[\"sh\", \"-c\", \"echo $PASSWORD $OTHER >given; exec python3 server.py\"]",
    );
    let settings = format!(
        "{}\n[rollout]\nbake = \"50ms\"\n[secrets.env]\nPASSWORD = \"file:{}\"\nOTHER = \"env:HIDDEN\"\n",
        folder.read("baton.toml"),
        file.display()
    );
    let settings = settings.replace("[run]\n", "[run]\nenvironment.inherit = [\"PATH\"]\n");
    folder.write("baton.toml", &settings);
    let address = free_address();
    let variables = [("BATON_LISTEN", &*format!("http={address}")), ("HIDDEN", "two")];
    let boot = Boot::start(&folder, &[], &variables);
    boot.wait_for(" serves, ", 1);
    assert_eq!(given(&folder), "one two\n");
    fs::write(&file, "three").unwrap();
    boot.signal(Signal::HUP);
    boot.wait_for(" is proven", 2);
    assert_eq!(given(&folder), "three two\n");
    fs::remove_file(&file).unwrap();
    boot.signal(Signal::HUP);
    boot.wait_for("nothing is changed: the secret PASSWORD (file:", 1);
    assert_eq!(Client::connect(address).unwrap().get("/").unwrap().generation(), "2");
    assert!(boot.stop().success());

    let boot = Boot::start(&folder, &[], &variables);
    boot.wait_for("cannot be had: No such file or directory", 1);
    assert_eq!(boot.exit().code(), Some(2), "nothing was started");
}

#[test]
fn p28_with_control_an_image_that_lacks_a_secret_is_told_and_the_member_waits() {
    let folder = Folder::with_example("python");
    let settings = format!("{}\n[secrets.env]\nTOKEN = \"aws-ssm:/prod/token\"\n", folder.read("baton.toml"));
    folder.write("baton.toml", &settings);
    let (control, address) = (format!("http://{}", free_address()), free_address());
    let listen = format!("http={address}");
    let variables = [
        ("BATON_LISTEN", &*listen),
        ("BATON_SERVER", &*control),
        ("BATON_SERVICE", "web"),
        ("BATON_MEMBER", "web-0"),
    ];
    let boot = Boot::start(&folder, &[], &variables);
    boot.wait_for("the image cannot be run: the secret TOKEN (aws-ssm:/prod/token) cannot be had: ", 1);
    boot.wait_for("; waiting for control to say what to run", 1);
    assert!(boot.stop().success());
}
