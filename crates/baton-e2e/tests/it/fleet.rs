//! Control, members and the command line as real processes on this machine.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use baton_engine::local::{LocalMember, Spec};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::boot::{Folder, binary, free_address};
use crate::program::Client;
use crate::wait::wait_for;

/// A control server and its members. All end with the value.
pub struct Fleet {
    pub service: &'static str,
    boot: PathBuf,
    /// The name of the service's listener; workers have none.
    listener: Option<&'static str>,
    /// The servers of control, and which of them the command line talks to.
    servers: Vec<(SocketAddr, Option<Child>)>,
    asked: usize,
    pub members: Vec<LocalMember>,
    pub addresses: Vec<SocketAddr>,
    /// What the members are told besides, each by a variable.
    told: Vec<(String, String)>,
    /// What control finds in its environment.
    variables: Vec<(String, String)>,
    folder: Folder,
}

impl Fleet {
    /// Control and this many members of a service that listens at `http`.
    pub fn start(service: &'static str, members: usize) -> Self {
        Self::start_with(service, members, Vec::new())
    }

    /// The same, and control finds these variables.
    pub fn start_with(service: &'static str, members: usize, variables: Vec<(String, String)>) -> Self {
        Self::with(service, Some("http"), members, binary("baton-boot"), Vec::new(), variables)
    }

    /// The same, and the members believe these keys only.
    pub fn start_trusting(keys: &Path, service: &'static str, members: usize) -> Self {
        Self::start_trusting_with(keys, service, members, Vec::new())
    }

    /// The same, and control finds these variables.
    pub fn start_trusting_with(
        keys: &Path,
        service: &'static str,
        members: usize,
        variables: Vec<(String, String)>,
    ) -> Self {
        let keys = ("BATON_TRUSTED_KEYS".to_owned(), keys.display().to_string());
        Self::with(service, Some("http"), members, binary("baton-boot"), vec![keys], variables)
    }

    /// The same of a service that does not listen.
    pub fn of_workers(service: &'static str, members: usize) -> Self {
        Self::with(service, None, members, binary("baton-boot"), Vec::new(), Vec::new())
    }

    /// The same, and the members are told more by variables.
    pub fn of_workers_told(service: &'static str, members: usize, told: &[(&str, &str)]) -> Self {
        let told = told.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self::with(service, None, members, binary("baton-boot"), told.collect(), Vec::new())
    }

    /// One member of a service that listens at `http`, whose bootloader is started by a program.
    pub fn start_by(boot: &Path, service: &'static str) -> Self {
        Self::with(service, Some("http"), 1, boot.to_owned(), Vec::new(), Vec::new())
    }

    /// Several servers that find these variables, and members that know all of them.
    pub fn over(servers: usize, members: usize, variables: Vec<(String, String)>) -> Self {
        Self::with_servers(servers, "web", Some("http"), members, binary("baton-boot"), Vec::new(), variables)
    }

    fn with(
        service: &'static str,
        listener: Option<&'static str>,
        members: usize,
        boot: PathBuf,
        told: Vec<(String, String)>,
        variables: Vec<(String, String)>,
    ) -> Self {
        Self::with_servers(1, service, listener, members, boot, told, variables)
    }

    fn with_servers(
        servers: usize,
        service: &'static str,
        listener: Option<&'static str>,
        members: usize,
        boot: PathBuf,
        told: Vec<(String, String)>,
        variables: Vec<(String, String)>,
    ) -> Self {
        let mut fleet = Self {
            service,
            boot,
            listener,
            servers: (0..servers).map(|_| (free_address(), None)).collect(),
            asked: 0,
            members: Vec::new(),
            addresses: Vec::new(),
            told,
            variables,
            folder: Folder::empty(),
        };
        for server in (0..servers).rev() {
            fleet.ask(server);
            fleet.start_control();
        }
        (0..members).for_each(|_| fleet.add_member());
        wait_for("the members to report", || {
            let live = fleet.members_now().iter().filter(|member| member["presence"] == "live").count();
            (live == members).then_some(())
        });
        fleet
    }

    /// The command line talks to this server from now on, and it is the one that is started and killed.
    pub fn ask(&mut self, server: usize) {
        self.asked = server;
    }

    pub fn start_control(&mut self) {
        self.spawn_control();
        wait_for("control to answer", || self.baton(&["status"]).status.success().then_some(()));
    }

    /// The same, and nobody waits until it can do its work.
    pub fn spawn_control(&mut self) {
        let name = if self.asked == 0 { "control".to_owned() } else { format!("control-{}", self.asked) };
        let log = File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).unwrap();
        let child = Command::new(binary("baton"))
            .args(["server", "--dev", "--listen", &self.control().to_string(), "--data"])
            .arg(self.path(&name))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.servers[self.asked].1 = Some(child);
    }

    /// Where control listens.
    pub fn control(&self) -> SocketAddr {
        self.servers[self.asked].0
    }

    pub fn kill_control(&mut self) {
        let mut server = self.servers[self.asked].1.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Asks it to stop, and says how it has ended.
    pub fn stop_control(&mut self) -> Option<i32> {
        self.signal_control(Signal::TERM);
        let mut server = self.servers[self.asked].1.take().unwrap();
        wait_for("control to stop", || server.try_wait().unwrap()).code()
    }

    /// It does nothing from now on, and is still there.
    pub fn freeze_control(&self) {
        self.signal_control(Signal::STOP);
    }

    /// It goes on where it was.
    pub fn thaw_control(&self) {
        self.signal_control(Signal::CONT);
    }

    fn signal_control(&self, signal: Signal) {
        let server = self.servers[self.asked].1.as_ref().unwrap();
        kill_process(Pid::from_child(server), signal).unwrap();
    }

    /// Where all servers of control listen, as a member is told.
    fn all_servers(&self) -> String {
        let servers: Vec<_> = self.servers.iter().map(|(address, _)| format!("http://{address}")).collect();
        servers.join(",")
    }

    /// Takes the artefact store away: no member can fetch anything any more.
    pub fn lose_store(&self) {
        std::fs::rename(self.path("control/artefacts"), self.path("lost")).unwrap();
    }

    pub fn add_member(&mut self) {
        let name = format!("{}-{}", self.service, self.members.len());
        let address = free_address();
        self.addresses.push(address);
        self.members.push(self.member(&name, address));
    }

    /// The same, and it is told more by variables than those before it.
    pub fn add_member_told(&mut self, told: &[(&str, &str)]) {
        let before = self.told.len();
        self.told.extend(told.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.add_member();
        self.told.truncate(before);
    }

    /// Kills a bootloader, and starts one again in its place.
    pub fn replace_member(&mut self, index: usize) {
        self.members[index].kill().unwrap();
        wait_for("the bootloader to end", || self.members[index].wait(std::time::Duration::ZERO).unwrap());
        let name = self.members[index].member().to_string();
        self.members[index] = self.member(&name, self.addresses[index]);
    }

    fn member(&self, name: &str, address: SocketAddr) -> LocalMember {
        self.member_at(name, name, address)
    }

    /// Another process with the name of a member.
    pub fn twin(&self, index: usize) -> LocalMember {
        self.member_at(&self.members[index].member().to_string(), "twin", free_address())
    }

    /// What the process wrote that has its state there.
    pub fn log(&self, state: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{state}.log"))).unwrap_or_default()
    }

    fn member_at(&self, name: &str, state: &str, address: SocketAddr) -> LocalMember {
        let path = ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        let spec = Spec {
            boot: self.boot.clone(),
            server: self.all_servers(),
            service: self.service.parse().unwrap(),
            member: name.parse().unwrap(),
            state_dir: self.path(state),
            listen: self.listener.map(|name| (name.to_owned(), address)).into_iter().collect(),
            env: self.told.iter().cloned().chain([path]).collect(),
            output: self.path(&format!("{state}.log")),
        };
        LocalMember::start(&spec).unwrap()
    }

    /// Where something of control or of a member lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the command line to its end, in a folder.
    pub fn baton_in(&self, directory: &Path, arguments: &[&str]) -> Output {
        Command::new(binary("baton"))
            .args(arguments)
            .current_dir(directory)
            .env("BATON_SERVER", format!("http://{}", self.control()))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub fn baton(&self, arguments: &[&str]) -> Output {
        self.baton_in(self.folder.path(), arguments)
    }

    /// Runs a command that must end well, and returns its JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.json_in(self.folder.path(), arguments)
    }

    /// The same in a folder.
    pub fn json_in(&self, directory: &Path, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--output", "json"]].concat();
        let output = self.baton_in(directory, &arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Pushes and deploys what is in a folder, and returns the exit code.
    pub fn deploy(&self, folder: &Folder, options: &[&str]) -> Option<i32> {
        let output = self.baton_in(folder.path(), &[&["deploy"], options].concat());
        let code = output.status.code();
        if code != Some(0) {
            eprintln!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        code
    }

    pub fn members_now(&self) -> Vec<Value> {
        let output = self.baton(&["members", "--service", self.service, "--output", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    pub fn status(&self) -> Value {
        self.json(&["status", self.service])
    }

    /// A number that control tells to monitoring systems.
    pub fn metric(&self, name: &str) -> u64 {
        self.sample(name).parse().unwrap()
    }

    /// The same as it is written.
    pub fn sample(&self, name: &str) -> String {
        let address = self.control();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name}: {text}")).trim().to_owned()
    }

    /// The release that the deploy in force brings.
    pub fn release(&self) -> String {
        self.status()["deploy"]["release"].as_str().unwrap().to_owned()
    }

    /// The release that a member's program says it is.
    pub fn answers(&self, member: usize) -> Option<String> {
        let answer = Client::connect(self.addresses[member])?.get("/")?;
        answer.body["release"].as_str().map(str::to_owned)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.terminate();
        }
        self.members.clear();
        for mut server in self.servers.iter_mut().filter_map(|(_, server)| server.take()) {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
