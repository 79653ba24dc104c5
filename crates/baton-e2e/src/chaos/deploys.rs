//! A deploy every ten seconds, whatever is broken.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::control::Server;
use super::ill::Ill;
use super::releases;
use super::schedule::{DEPLOY_EVERY, Size};
use super::watch::{Load, say};

/// How long it is attempted to get one deploy accepted; then it is time for the next one.
const ATTEMPTS: Duration = Duration::from_secs(9);
/// How long nobody is asked after a refusal.
const PAUSE: Duration = Duration::from_millis(300);

/// What became of the wish to deploy something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A new release was pushed, and the deploy accepted.
    Accepted,
    /// It could not be pushed, and one that members have was deployed instead.
    AcceptedOld,
    /// No server would, or could: what the last one said.
    Refused(String),
}

/// Deploys one release after the other.
pub struct Deploys {
    servers: Vec<Server>,
    baton: PathBuf,
    web: PathBuf,
    folder: PathBuf,
    load: Load,
    number: usize,
    /// What was pushed, and what is wrong with it.
    pub releases: BTreeMap<String, Option<Ill>>,
    /// Good releases that were deployed, the last one last.
    good: Vec<String>,
    /// What became of each.
    pub wishes: Vec<(Option<Ill>, Wish)>,
}

impl Deploys {
    /// Nothing was deployed yet.
    pub fn new(size: Size, baton: PathBuf, web: PathBuf, folder: PathBuf, load: Load) -> Self {
        Self {
            servers: Server::all(size.servers),
            baton,
            web,
            folder,
            load,
            number: 0,
            releases: BTreeMap::new(),
            good: Vec::new(),
            wishes: Vec::new(),
        }
    }

    /// The good release that was deployed last.
    pub fn last_good(&self) -> Option<&String> {
        self.good.last()
    }

    /// Deploys all of them at their times. `goes_on` tells whether to.
    ///
    /// # Errors
    /// If a release cannot be written.
    pub fn run(
        &mut self,
        begin: Instant,
        planned: &[Option<Ill>],
        goes_on: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        for (number, ill) in planned.iter().enumerate() {
            let at = begin + Duration::from_millis(DEPLOY_EVERY.0) * u32::try_from(number)?;
            while Instant::now() < at && goes_on() {
                std::thread::park_timeout(PAUSE.min(at.saturating_duration_since(Instant::now())));
            }
            if !goes_on() {
                return Ok(());
            }
            let wish = self.deploy(*ill, Instant::now() + ATTEMPTS)?;
            self.wishes.push((*ill, wish));
        }
        Ok(())
    }

    /// Gets one release deployed until then.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn deploy(&mut self, ill: Option<Ill>, until: Instant) -> anyhow::Result<Wish> {
        self.number += 1;
        let at = releases::write(&self.folder, &self.web, self.number, ill)?;
        let half = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
        let baton = self.baton.clone();
        let (release, old) = match self.attempt(half, |server| server.push(&baton, &at)) {
            Ok(release) => (release, false),
            // What members have needs no store: the good one before the last one.
            Err(why) => match self.good.iter().rev().nth(1).filter(|_| ill.is_none()) {
                Some(release) => (release.clone(), true),
                None => return Ok(Wish::Refused(why)),
            },
        };
        if !old {
            self.releases.insert(release.clone(), ill);
        }
        if ill.is_some_and(Ill::shows_before_the_switch) {
            say(&self.load, &format!("forbid {release}"))?;
        }
        let key = format!("deploy-{}", self.number);
        match self.attempt(until, |server| server.propose(&release, &key)) {
            Ok(_) if old => Ok(Wish::AcceptedOld),
            Ok(_) => {
                if ill.is_none() {
                    self.good.push(release);
                }
                Ok(Wish::Accepted)
            }
            Err(why) => Ok(Wish::Refused(why)),
        }
    }

    /// Asks one server after the other, beginning with any, until one does it.
    fn attempt<T>(&self, until: Instant, ask: impl Fn(&Server) -> anyhow::Result<T>) -> Result<T, String> {
        let mut number = fastrand::usize(..self.servers.len());
        loop {
            match ask(&self.servers[number % self.servers.len()]) {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() >= until => return Err(format!("{error:#}")),
                Err(_) => std::thread::park_timeout(PAUSE),
            }
            number += 1;
        }
    }
}
