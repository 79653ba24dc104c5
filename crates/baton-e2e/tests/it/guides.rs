//! The programs of the guides: started, reloaded under load and stopped, and nothing is lost.

mod build_steps;
mod diagnosed;
mod variants;

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use baton_e2e::load::{Plan, Report};
use rustix::process::{Pid, Signal, kill_process};

use crate::boot::{Boot, Folder, binary, free_address};
use crate::handover::assert_nothing_lost;
use crate::load::Load;
use crate::wait::{wait_for, wait_or_tell};

/// How often each program is reloaded, unless `RELOADS` says more: `make guides RELOADS=20` measures what the guides
/// tell.
const RELOADS: usize = 3;

/// So many requests for each reload at least, however fast the program starts.
const REQUESTS: u64 = 50;
/// And so many tasks for each reload of a worker.
const TASKS: usize = 20;

/// Ended by the SIGTERM that the bootloader sends.
const ENDED_BY_TERM: i32 = 128 + 15;

fn reloads() -> usize {
    std::env::var("RELOADS").map_or(RELOADS, |times| times.parse().unwrap())
}

/// Where `scripts/setup guides` puts what is not a package of the system.
fn runtimes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guides")
}

fn path() -> String {
    format!("{}/python/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", runtimes().display())
}

/// A command of a runtime, in this folder.
fn command(program: &str, arguments: &[&str], folder: &Folder) -> Command {
    let found = path().split(':').map(|part| Path::new(part).join(program)).find(|file| file.is_file());
    assert!(found.is_some(), "there is no {program}: run scripts/setup guides");
    let mut command = Command::new(found.unwrap());
    command.args(arguments).current_dir(folder.path()).env("PATH", path());
    command
}

fn build(program: &str, arguments: &[&str], folder: &Folder) {
    assert!(command(program, arguments, folder).stdout(Stdio::null()).status().unwrap().success());
}

/// The program of a guide, in a folder of its own. Unless it needs a bake, there is hardly one, so that the old
/// generation ends while much is under way.
fn app(name: &str) -> Folder {
    let folder = Folder::with_app(name);
    let settings = folder.read("baton.toml");
    if !settings.contains("bake") {
        folder.write("baton.toml", &format!("{settings}\n[rollout]\nbake = \"50ms\"\n"));
    }
    folder
}

/// Replaces a text in all files.
fn replace(folder: &Folder, from: &str, to: &str) {
    for file in fs::read_dir(folder.path()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let text = folder.read(&name);
        if text.contains(from) {
            folder.write(&name, &text.replace(from, to));
        }
    }
}

/// Gives what has this port in the files a free one.
fn relocate(folder: &Folder, port: u16) -> SocketAddr {
    let address = free_address();
    replace(folder, &format!("127.0.0.1:{port}"), &address.to_string());
    address
}

fn start(folder: &Folder) -> Boot {
    let boot = Boot::start(folder, &[], &[("PATH", &path())]);
    boot.wait_for(" serves, ", 1);
    boot
}

/// Reloads, each time when it is time, until every old generation is gone.
fn reload(boot: &Boot, wait_for_its_time: impl Fn(u64)) {
    for (reload, nth) in (1..=reloads()).zip(1..) {
        wait_for_its_time(nth);
        boot.signal(Signal::HUP);
        boot.wait_for(" is proven", reload + 1);
    }
    boot.wait_for(" is gone: ", reloads());
    assert!(!boot.log().contains(" failed ("), "{}", boot.log());
}

/// Starts a program, reloads it under load and stops it. Returns how it ended.
fn story(name: &str, folder: &Folder, target: &str) -> Option<i32> {
    let (report, ended) = measured(name, folder, target);
    assert_nothing_lost(&report);
    ended
}

/// The same, whatever is lost.
fn measured(name: &str, folder: &Folder, target: &str) -> (Report, Option<i32>) {
    let boot = start(folder);
    let load = Load::start(Plan::mixed(vec![target.parse().unwrap()]));
    reload(&boot, |nth| load.run_until(|report| report.answered >= nth * REQUESTS));
    let report = load.stop();
    println!(
        "{name}: {} reloads, {} requests, {} lost, {} idle closes",
        reloads(),
        report.sent,
        report.lost,
        report.idle_closes
    );
    (report, boot.stop().code())
}

/// The story of a program that needs nothing but its files.
fn web(name: &str, prepare: impl FnOnce(&Folder)) -> Option<i32> {
    let folder = app(name);
    let address = relocate(&folder, 8080);
    prepare(&folder);
    story(name, &folder, &address.to_string())
}

fn python(name: &str, server: &str) -> Option<i32> {
    web(name, |folder| build(server, &["--version"], folder))
}

fn node(name: &str) -> Option<i32> {
    web(name, link_modules)
}

fn link_modules(folder: &Folder) {
    let modules = runtimes().join("node/node_modules");
    assert!(modules.is_dir(), "there is no {}: run scripts/setup guides", modules.display());
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
}

#[test]
fn gunicorn() {
    assert_eq!(python("gunicorn", "gunicorn"), Some(0));
}

#[test]
fn gunicorn_at_a_path() {
    let folder = app("gunicorn");
    build("gunicorn", &["--version"], &folder);
    let target = format!("unix:{}", folder.path().join("web.sock").display());
    folder.change("baton.toml", "\"--bind\", \"127.0.0.1:{port:http}\", ", "");
    folder.change("baton.toml", "127.0.0.1:8080", &target);
    assert_eq!(story("gunicorn at a path", &folder, &target), Some(0));
}

#[test]
fn uvicorn() {
    assert_eq!(python("uvicorn", "uvicorn"), Some(ENDED_BY_TERM));
}

#[test]
fn flask() {
    assert_eq!(python("flask", "gunicorn"), Some(0));
}

#[test]
fn django() {
    assert_eq!(python("django", "gunicorn"), Some(0));
}

#[test]
fn node_http() {
    assert_eq!(node("node"), Some(0));
}

#[test]
fn express() {
    assert_eq!(node("express"), Some(0));
}

#[test]
fn fastify() {
    assert_eq!(node("fastify"), Some(0));
}

#[test]
fn puma() {
    assert_eq!(web("puma", |folder| build("puma", &["--version"], folder)), Some(ENDED_BY_TERM));
}

#[test]
fn go() {
    assert_eq!(web("go", build_go), Some(0));
}

fn build_go(folder: &Folder) {
    build("go", &["build", "-o", "server", "main.go"], folder);
}

#[test]
fn axum() {
    let copy = |folder: &Folder| {
        fs::copy(binary("examples/axum"), folder.path().join("server")).unwrap();
    };
    assert_eq!(web("axum", copy), Some(0));
}

#[test]
fn java() {
    assert_eq!(web("java", compile), Some(ENDED_BY_TERM));
}

fn compile(folder: &Folder) {
    build("javac", &["-d", "classes", "Server.java"], folder);
}

#[test]
fn php() {
    assert_eq!(web("php", |folder| build("php", &["--version"], folder)), Some(ENDED_BY_TERM));
}

/// A server beside the program of a guide. It is killed with the value.
struct Beside(Child);

impl Beside {
    fn start(mut command: Command, address: SocketAddr) -> Self {
        let beside = Self(command.stdout(Stdio::null()).spawn().unwrap());
        wait_for("the server beside to listen", || TcpStream::connect(address).ok());
        beside
    }
}
impl Drop for Beside {
    fn drop(&mut self) {
        // Not by KILL, which nginx's workers would outlive.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn nginx() {
    let backend = app("node");
    let behind = relocate(&backend, 8080);
    let _backend = start(&backend);
    let proxy = |folder: &Folder| {
        build("nginx", &["-v"], folder);
        replace(folder, "127.0.0.1:8081", &behind.to_string());
    };
    assert_eq!(web("nginx", proxy), Some(0));
}

#[test]
fn php_fpm() {
    let folder = app("php-fpm");
    build("php-fpm8.2", &["--version"], &folder);
    // PHP-FPM's workers are another user's.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    relocate(&folder, 9000);
    let address = relocate(&folder, 8080);
    let here = folder.path().display().to_string();
    folder.change("nginx.conf", "/srv/app", &here);
    let nginx = command("nginx", &["-p", &here, "-c", &format!("{here}/nginx.conf")], &folder);
    let _nginx = Beside::start(nginx, address);
    assert_eq!(story("php-fpm", &folder, &address.to_string()), Some(0));
}

/// A worker that takes its work from a Redis of its own.
struct Worker {
    folder: Folder,
    redis: SocketAddr,
    boot: Boot,
    _server: Beside,
}

impl Worker {
    fn start(name: &str, changes: &[(&str, String, String)]) -> Self {
        let folder = app(name);
        changes.iter().for_each(|(file, from, to)| folder.change(file, from, to));
        let redis = relocate(&folder, 6379);
        let port = redis.port().to_string();
        let server =
            command("redis-server", &["--bind", "127.0.0.1", "--port", &port, "--save", ""], &folder);
        let _server = Beside::start(server, redis);
        let boot = start(&folder);
        Self { folder, redis, boot, _server }
    }

    /// A program that sends it tasks.
    fn sender(&self, program: &str, arguments: &[&str]) -> Command {
        let mut sender = command(program, arguments, &self.folder);
        sender.env("REDIS_URL", format!("redis://{}/0", self.redis));
        sender
    }

    fn asked(&self, question: &[&str]) -> Vec<usize> {
        let port = self.redis.port().to_string();
        let answer = command("redis-cli", &[&["-p", &port], question].concat(), &self.folder).output();
        let answer = String::from_utf8(answer.unwrap().stdout).unwrap();
        answer.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    /// How often each of these tasks was done, once all of them are.
    fn all_done(&self, sent: usize) -> Vec<usize> {
        wait_or_tell(
            || format!("{sent} tasks to be done; {} are\n{}", self.times_done().len(), self.boot.log()),
            || Some(self.times_done()).filter(|done| done.len() == sent),
        )
    }

    fn times_done(&self) -> Vec<usize> {
        self.asked(&["hvals", "done"])
    }
}

/// Reloads a worker while tasks are sent, and counts what became of them. Some may be done twice, as many as that in each
/// reload.
fn worker(name: &str, program: &str, sender: [&str; 2], twice_max: usize) {
    let worker = Worker::start(name, &[]);
    build(program, &["--version"], &worker.folder);
    let mut tasks = worker.sender(sender[0], &[sender[1]]);
    let mut tasks = tasks.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // A worker that does not say when it is ready counts as healthy after a second, and may not have begun to work.
    reload(&worker.boot, |nth| {
        wait_for("tasks to be done", || (worker.times_done().len() >= nth as usize * TASKS).then_some(()));
    });
    // It sends for as long as its standard input is open, and says how many.
    drop(tasks.stdin.take());
    let sent = tasks.wait_with_output().unwrap();
    let sent = String::from_utf8(sent.stdout).unwrap().trim().parse::<usize>().unwrap();
    let done = worker.all_done(sent);
    assert_eq!(worker.boot.stop().code(), Some(0));

    let twice = done.iter().filter(|times| **times != 1).count();
    println!("{name}: {} reloads, {sent} tasks, 0 lost, {twice} done twice", reloads());
    assert!(twice <= twice_max * reloads(), "{done:?}");
}

#[test]
fn celery() {
    // It gives back what it has not acknowledged, which may be what has just been done: at the most what ran.
    worker("celery", "celery", ["python3", "send.py"], 4);
}

#[test]
fn sidekiq() {
    worker("sidekiq", "sidekiq", ["ruby", "send.rb"], 0);
}

/// Longer than half of the drain, when all processes of a generation are asked to stop unless something else is said.
#[test]
fn celery_with_long_tasks() {
    let limits = ["drain   =", "stop_tree_after ="];
    let shorter = limits.map(|limit| ("baton.toml", format!("{limit} \"60s\""), format!("{limit} \"12s\"")));
    let worker = Worker::start("celery", &shorter);
    let send = "from tasks import work; [work.delay(n, 8000) for n in range(4)]";
    assert!(worker.sender("python3", &["-c", send]).status().unwrap().success());
    wait_for("the tasks to run", || (worker.asked(&["scard", "begun"]) == [4]).then_some(()));
    worker.boot.signal(Signal::HUP);
    worker.boot.wait_for(" is gone: ", 1);
    assert_eq!(worker.all_done(4), [1; 4]);
    assert_eq!(worker.boot.stop().code(), Some(0));
}
