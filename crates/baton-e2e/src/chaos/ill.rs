//! Releases that are ill, each in its way, and the program that is.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_core::units::Millis;

/// The variable that says what is wrong with the program.
pub const ILL: &str = "WEB_ILL";
/// The variable that says in which file the program tells what it does.
pub const TOLD: &str = "WEB_TOLD";
/// How long a release of a chaotic fleet bakes: long enough for whatever goes wrong at `IN_BAKE` to be seen by probes.
pub const BAKE: Millis = Millis(2_000);
/// How long after its first probe a program falls ill that does so while it bakes.
const IN_BAKE: Duration = Duration::from_millis(200);
/// How long after it one falls ill that does so when it is proven.
const LATER: Duration = Duration::from_millis(3_000);

/// What is wrong with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ill {
    /// It ends as soon as it is launched.
    EndsAtStart,
    /// It never listens.
    NeverListens,
    /// It answers, and says of itself that it is not healthy.
    NeverHealthy,
    /// It crashes while it bakes.
    Crashes,
    /// It says that it is not healthy any more while it bakes.
    Sickens,
    /// It answers nobody any more while it bakes.
    Hangs,
    /// It crashes when it is proven there, and the rollout goes on.
    CrashesLater,
}

impl Ill {
    /// Every illness.
    pub const ALL: [Self; 7] = [
        Self::EndsAtStart,
        Self::NeverListens,
        Self::NeverHealthy,
        Self::Crashes,
        Self::Sickens,
        Self::Hangs,
        Self::CrashesLater,
    ];

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::EndsAtStart => "ends at its start",
            Self::NeverListens => "never listens",
            Self::NeverHealthy => "is never healthy",
            Self::Crashes => "crashes in its bake",
            Self::Sickens => "gets unhealthy in its bake",
            Self::Hangs => "hangs in its bake",
            Self::CrashesLater => "crashes once it is proven",
        }
    }

    /// Whether it shows before a client can be answered, so that no client ever is.
    pub const fn shows_before_the_switch(self) -> bool {
        matches!(self, Self::EndsAtStart | Self::NeverListens | Self::NeverHealthy)
    }

    /// Whether the first member that tries it finds it out, before another one does.
    pub const fn shows_in_the_bake(self) -> bool {
        !matches!(self, Self::CrashesLater)
    }
}

impl fmt::Display for Ill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndsAtStart => "ends-at-start",
            Self::NeverListens => "never-listens",
            Self::NeverHealthy => "never-healthy",
            Self::Crashes => "crashes",
            Self::Sickens => "sickens",
            Self::Hangs => "hangs",
            Self::CrashesLater => "crashes-later",
        })
    }
}

impl FromStr for Ill {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|ill| ill.to_string() == text);
        found.ok_or_else(|| anyhow::anyhow!("{text:?} is no illness"))
    }
}

/// Milliseconds since 1970, which all processes of a machine share.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The program's part: what is wrong with this process, and what it tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patient {
    ill: Option<Ill>,
}

impl Patient {
    /// What the environment says. Tells that the program was launched, before anything else can happen.
    ///
    /// # Errors
    /// If there is no such illness, or nobody can be told.
    pub fn begin() -> anyhow::Result<Self> {
        tell("launched")?;
        let ill = std::env::var(ILL).ok().map(|text| text.parse()).transpose()?;
        match ill {
            Some(Ill::EndsAtStart) => std::process::exit(3),
            Some(Ill::NeverListens) => hang(),
            Some(Ill::NeverHealthy | Ill::Crashes | Ill::Sickens | Ill::Hangs | Ill::CrashesLater) | None => {
                Ok(Self { ill })
            }
        }
    }

    /// Whether it says so when it is asked for its health. The first time, its time begins to run.
    pub fn is_healthy(self) -> bool {
        static SICK: OnceLock<std::time::Instant> = OnceLock::new();
        let first = SICK.get().is_none();
        let since = SICK.get_or_init(std::time::Instant::now).elapsed();
        match self.ill {
            Some(Ill::NeverHealthy) => false,
            Some(Ill::Sickens) => since < IN_BAKE,
            Some(ill @ (Ill::Crashes | Ill::CrashesLater | Ill::Hangs)) => {
                if first {
                    tokio::spawn(fall(ill));
                }
                true
            }
            Some(Ill::EndsAtStart | Ill::NeverListens) | None => true,
        }
    }
}

/// Ends or hangs after its time. Whoever counts requests is told before, so that those that it had are not looked for.
async fn fall(ill: Ill) {
    let after = if ill == Ill::CrashesLater { LATER } else { IN_BAKE };
    tokio::time::sleep(after).await;
    // Where nobody can be told, whatever is lost shows as lost.
    let _ = tell("falls");
    if ill == Ill::Hangs {
        hang();
    }
    std::process::exit(101);
}

/// Takes the thread, and with it all that the program does.
fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// Adds a line to what the program has told: `WHAT MS PID RELEASE`.
fn tell(what: &str) -> anyhow::Result<()> {
    let Some(path) = std::env::var_os(TOLD) else { return Ok(()) };
    let release = std::env::var("BATON_RELEASE").unwrap_or_default();
    let line = format!("{what} {} {} {release}\n", now_ms(), std::process::id());
    // One write of a few bytes: what two generations tell is not mixed.
    Ok(OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())?)
}

/// A line of what a program has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Whether it falls ill; else it was launched.
    pub falls: bool,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The process.
    pub pid: i32,
    /// Its release.
    pub release: String,
}

impl FromStr for Told {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [what @ ("launched" | "falls"), at, pid, release] => Ok(Self {
                falls: what == "falls",
                at_ms: at.parse()?,
                pid: pid.parse()?,
                release: release.to_owned(),
            }),
            _ => anyhow::bail!("no program tells this: {line:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn illnesses_and_what_is_told_are_read_as_written() {
        for ill in Ill::ALL {
            assert_eq!(ill.to_string().parse::<Ill>().unwrap(), ill);
        }
        assert!("well".parse::<Ill>().is_err());
        let told: Told = "falls 17 42 abc".parse().unwrap();
        assert_eq!(told, Told { falls: true, at_ms: 17, pid: 42, release: "abc".into() });
        for bad in ["", "falls 17 42", "falls x 42 abc", "rises 17 42 abc"] {
            assert!(bad.parse::<Told>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn who_is_sick_says_so() {
        let healthy = |ill| Patient { ill }.is_healthy();
        assert!(healthy(None) && !healthy(Some(Ill::NeverHealthy)));
    }
}
