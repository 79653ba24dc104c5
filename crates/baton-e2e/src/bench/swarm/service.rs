//! A service of Docker Swarm.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Updated, image, until};
use crate::docker::Engine;
use crate::load::Target;

/// How often Swarm is asked how far it is.
const LOOK: Duration = Duration::from_millis(100);
const NAME: &str = "web";
/// Where clients find it: one port for all, or for each container these digits with its number, which Swarm cannot add.
const PUBLISHED: u16 = 18_080;
const OWN: &str = "210";

/// How long a port may take to answer once the containers run, where the kernel lets it answer at all.
const REACHED_IN: Duration = Duration::from_secs(5);

/// How it is updated, and reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// With all settings as they are if nothing is said.
    Default,
    /// As fast as it goes on the bridge, behind one port: the new one first, all at once, without delay, and with the least
    /// that it may be watched for: none at all means 5 s.
    Bridge,
    /// The same in the network of the host. There the old one must have gone before the new one has its port.
    Host,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Default, Self::Bridge, Self::Host];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "Docker Swarm, default settings",
            Self::Bridge => "Docker Swarm, its best on the bridge",
            Self::Host => "Docker Swarm, its best on the host network",
        }
    }

    fn settings(self) -> Vec<String> {
        let published = format!("--publish={PUBLISHED}:8080");
        let own = format!("--env=PORT={OWN}{{{{.Task.Slot}}}}");
        let fast = ["--update-parallelism=0", "--update-delay=0s", "--update-monitor=1ms"];
        let all = match self {
            Self::Default => vec![&published[..], "--env=PORT=8080"],
            Self::Bridge => {
                [&fast[..], &["--update-order=start-first", &published, "--env=PORT=8080"]].concat()
            }
            Self::Host => [&fast[..], &["--network=host", &own]].concat(),
        };
        all.into_iter().map(str::to_owned).collect()
    }
}

/// Where clients find the containers. One port for all of them is the kernel's IPVS, which not every machine has.
fn targets(way: Way, containers: usize) -> anyhow::Result<Vec<Target>> {
    let ports: Vec<String> = match way {
        Way::Default | Way::Bridge => vec![PUBLISHED.to_string()],
        Way::Host => (1..=containers).map(|slot| format!("{OWN}{slot}")).collect(),
    };
    let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let start = Instant::now();
    while !addresses.iter().all(|address| TcpStream::connect(address).is_ok()) {
        if start.elapsed() > REACHED_IN {
            return Ok(Vec::new());
        }
        std::thread::park_timeout(LOOK);
    }
    addresses.iter().map(|address| Ok(address.parse()?)).collect()
}

/// A running service. It is removed with the value.
pub struct Service<'a> {
    engine: &'a Engine,
    containers: usize,
    version: usize,
    /// Where clients find it; nowhere if they cannot.
    targets: Vec<Target>,
}

impl<'a> Service<'a> {
    /// Starts so many containers of the first version.
    ///
    /// # Errors
    /// When they do not start.
    pub fn start(engine: &'a Engine, way: Way, containers: usize) -> anyhow::Result<Self> {
        let mut service = Self { engine, containers, version: 0, targets: Vec::new() };
        let (replicas, settings) = (format!("--replicas={containers}"), way.settings());
        let mut arguments = vec!["service", "create", "--detach", "--name", NAME, &replicas];
        arguments.extend(settings.iter().map(String::as_str));
        arguments.extend(["--env=HOST=0.0.0.0", "--env=ANSWERS_BY=RELEASE", "--no-resolve-image"]);
        let first = image::version(0);
        arguments.push(&first);
        engine.docker(&arguments)?;
        until("the containers to run", LOOK, || Ok(service.running()? == containers))?;
        service.targets = targets(way, containers)?;
        Ok(service)
    }

    /// How many containers of the version that is wanted run.
    fn running(&self) -> anyhow::Result<usize> {
        let format = "{{.Image}} {{.CurrentState}}";
        let tasks = self.engine.docker(&[
            "service",
            "ps",
            "--filter",
            "desired-state=running",
            "--format",
            format,
            NAME,
        ])?;
        let wanted = format!("{} Running", image::version(self.version));
        Ok(tasks.lines().filter(|line| line.starts_with(&wanted)).count())
    }

    fn is_updated(&self) -> anyhow::Result<bool> {
        let format = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}";
        let state = self.engine.docker(&["service", "inspect", "--format", format, NAME])?;
        Ok(state.trim() == "completed" && self.running()? == self.containers)
    }
}

impl Updated for Service<'_> {
    fn targets(&self) -> Vec<Target> {
        self.targets.clone()
    }

    fn update(&mut self) -> anyhow::Result<Duration> {
        self.version += 1;
        let start = Instant::now();
        let image = image::version(self.version);
        self.engine.docker(&[
            "service",
            "update",
            "--detach",
            "--no-resolve-image",
            "--image",
            &image,
            NAME,
        ])?;
        until("the update to end", LOOK, || self.is_updated())?;
        Ok(start.elapsed())
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.engine.docker(&["service", "rm", NAME]);
        // The next one gets its ports when the last container has gone.
        let _ = until("the containers to go", LOOK, || {
            Ok(self.engine.docker(&["ps", "--quiet", "--filter", &format!("name={NAME}.")])?.is_empty())
        });
    }
}
