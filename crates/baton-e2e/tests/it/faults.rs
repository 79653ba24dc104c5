//! Faults, put into real processes on purpose. Each test is named by its row in docs/reliability.md.

mod clocks;
mod half_open;
mod launches;
mod limits;
mod names;
mod own;
mod processes;
mod releases;
mod surroundings;
mod traffic;

use std::net::SocketAddr;

use rustix::process::{Pid, test_kill_process};

use crate::boot::{Boot, Folder, free_address};
use crate::program::Client;

/// The Python example in a folder, to be served at an address.
fn example(bake: &str) -> (Folder, SocketAddr) {
    let (folder, address) = (Folder::with_example("python"), free_address());
    folder.change("baton.toml", "127.0.0.1:8080", &address.to_string());
    let settings = folder.read("baton.toml");
    folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"{bake}\"\n"));
    (folder, address)
}

/// The example under a bootloader, serving.
fn serving(bake: &str) -> (Folder, Boot, SocketAddr) {
    let (folder, address) = example(bake);
    let boot = Boot::start(&folder, &[], &[]);
    boot.wait_for(" serves, ", 1);
    (folder, boot, address)
}

/// The generation that answers a new connection.
fn generation(address: SocketAddr) -> String {
    Client::connect(address).unwrap().get("/").unwrap().generation().to_owned()
}

/// The process that answers a new connection.
fn process(address: SocketAddr) -> Pid {
    pid(&Client::connect(address).unwrap().get("/").unwrap().pid().to_string())
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err()
}

/// How many descriptors a process has open.
fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
