//! One program under baton-boot, under each of its peers, and under nothing at all.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Who starts a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Nobody: it is executed as it is.
    Nobody,
    /// baton-boot around a command, as an init.
    BatonBoot,
    /// baton-boot with a settings file, so that it launches the program again.
    BatonBootSettings,
    /// tini.
    Tini,
    /// dumb-init.
    DumbInit,
    /// s6-supervise.
    S6,
    /// supervisord.
    Supervisord,
    /// pm2-runtime, which is PM2 for containers.
    Pm2,
}

impl By {
    /// Those that only pass on: all that is done with them takes little time.
    pub const INITS: [Self; 4] = [Self::Nobody, Self::BatonBoot, Self::Tini, Self::DumbInit];
    /// Those that launch a program again which has ended.
    pub const SUPERVISORS: [Self; 4] = [Self::BatonBootSettings, Self::S6, Self::Supervisord, Self::Pm2];

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nothing",
            Self::BatonBoot => "`baton-boot -- PROGRAM`",
            Self::BatonBootSettings => "`baton-boot`, with settings",
            Self::Tini => "tini",
            Self::DumbInit => "dumb-init",
            Self::S6 => "s6-supervise",
            Self::Supervisord => "supervisord",
            Self::Pm2 => "PM2 (`pm2-runtime`)",
        }
    }

    /// Whether it ends a program that does not obey, when it is asked to stop itself. Who does not, waits for it for as long
    /// as it lives.
    pub fn ends_what_does_not_obey(self) -> bool {
        match self {
            Self::BatonBoot | Self::BatonBootSettings | Self::S6 | Self::Supervisord | Self::Pm2 => true,
            Self::Nobody | Self::Tini | Self::DumbInit => false,
        }
    }

    /// How long it takes to start: seconds, for some.
    pub fn is_slow(self) -> bool {
        match self {
            Self::Supervisord | Self::Pm2 => true,
            Self::Nobody
            | Self::BatonBoot
            | Self::BatonBootSettings
            | Self::Tini
            | Self::DumbInit
            | Self::S6 => false,
        }
    }
}

/// How long a program may take to stop, under all that have such a limit.
pub const STOP_LIMIT_MS: u32 = 1000;

/// Where the programs are that take part.
#[derive(Debug, Clone)]
pub struct Places {
    /// baton-boot.
    pub boot: PathBuf,
    /// The folder of PM2's own programs.
    pub pm2: PathBuf,
}

/// A program that runs under something. Both end with the value.
#[derive(Debug)]
pub struct Supervised {
    by: By,
    child: Child,
    folder: PathBuf,
    places: Places,
}

impl Supervised {
    /// Starts a program. Whatever the supervisor needs is written to `folder`, which is to be its own.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(by: By, places: &Places, folder: &Path, program: &[String]) -> anyhow::Result<Self> {
        let mut command = prepare(by, places, folder, program)?;
        let child = command.spawn().with_context(|| format!("cannot start {}", by.name()))?;
        Ok(Self { by, child, folder: folder.to_owned(), places: places.clone() })
    }

    /// The process of the supervisor; the program's own where there is none.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has USR1 sent to the program, in the way that its documentation gives.
    ///
    /// # Errors
    /// If the supervisor refuses.
    pub fn signal(&self) -> anyhow::Result<()> {
        let mut command = match self.by {
            By::Nobody | By::BatonBoot | By::BatonBootSettings | By::Tini | By::DumbInit => {
                return Ok(kill_process(Pid::from_child(&self.child), Signal::USR1)?);
            }
            By::S6 => words("s6-svc", &["-1", "service"]),
            By::Supervisord => {
                words("supervisorctl", &["--configuration", "supervisord.conf", "signal", "USR1", "app"])
            }
            By::Pm2 => pm2(&self.places, "pm2", &["sendSignal", "SIGUSR1", "app"]),
        };
        let status = quiet(&mut command, &self.folder).status()?;
        ensure!(status.success(), "{} did not pass a signal on", self.by.name());
        Ok(())
    }

    /// Asks the supervisor to stop, and waits until it has.
    ///
    /// # Errors
    /// If it is not there any more.
    pub fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// The command that starts a program under something, with what it needs written to the folder.
fn prepare(by: By, places: &Places, folder: &Path, program: &[String]) -> anyhow::Result<Command> {
    let boot = places.boot.to_string_lossy();
    let after = |supervisor: &str| {
        let mut command = Command::new(supervisor);
        command.arg("--").args(program);
        command
    };
    let mut command = match by {
        By::Nobody => {
            let mut command = Command::new(&program[0]);
            command.args(&program[1..]);
            command
        }
        By::BatonBoot => after(&boot),
        By::Tini => after("tini"),
        By::DumbInit => after("dumb-init"),
        By::BatonBootSettings => {
            let settings =
                format!("service = \"bench\"\n[run]\ncommand = {program:?}\ndrain = \"{STOP_LIMIT_MS}ms\"\n");
            fs::write(folder.join("baton.toml"), settings)?;
            let mut command = Command::new(&*boot);
            command.env("BATON_STATE_DIR", folder.join("state"));
            command
        }
        By::S6 => {
            let run = folder.join("service/run");
            fs::create_dir_all(folder.join("service"))?;
            fs::write(&run, format!("#!/bin/sh\nexec {}\n", program.join(" ")))?;
            fs::set_permissions(run, Permissions::from_mode(0o755))?;
            fs::write(folder.join("service/timeout-kill"), STOP_LIMIT_MS.to_string())?;
            words("s6-supervise", &["service"])
        }
        By::Supervisord => {
            fs::write(folder.join("supervisord.conf"), supervisord(folder, program))?;
            words("supervisord", &["--configuration", "supervisord.conf"])
        }
        By::Pm2 => {
            let app = serde_json::json!({ "apps": [{
                "name": "app", "script": program[0], "args": program[1..], "interpreter": "none",
                "kill_timeout": STOP_LIMIT_MS,
            }]});
            fs::write(folder.join("app.json"), app.to_string())?;
            pm2(places, "pm2-runtime", &["start", "app.json"])
        }
    };
    quiet(&mut command, folder);
    Ok(command)
}

fn supervisord(folder: &Path, program: &[String]) -> String {
    let (folder, program) = (folder.display(), program.join(" "));
    format!(
        "[supervisord]\nnodaemon=true\nsilent=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n\
         pidfile={folder}/supervisord.pid\n\
         [unix_http_server]\nfile={folder}/control\n\
         [rpcinterface:supervisor]\n\
         supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\nserverurl=unix://{folder}/control\n\
         [program:app]\ncommand={program}\nautorestart=true\nstopwaitsecs={}\n",
        STOP_LIMIT_MS / 1000
    )
}

fn words(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn pm2(places: &Places, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(places.pm2.join(program));
    command.args(arguments);
    command
}

/// In this folder, with no input, and with everything that it writes thrown away.
fn quiet<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.current_dir(folder).env("PM2_HOME", folder.join("pm2")).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null())
}
