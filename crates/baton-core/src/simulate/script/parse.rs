//! Reads scripts.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::iter::Peekable;
use core::str::{FromStr, SplitWhitespace};

use super::text::{FORMS, MEANT};
use super::{
    Cut, Flaw, Line, NamedPolicy, SERVERS_MAX, Script, Setup, Step, StoreFault, TOLD, Until, Way, What,
};
use crate::costs::Cost;
use crate::deploy::{Phase, PhaseSize};
use crate::limits::Connections;
use crate::simulate::network::Network;
use crate::simulate::release::{Program, Release};
use crate::target::Amount;
use crate::units::{Millis, Share};

/// Most members of a script, and most that join at once: more takes a computer minutes.
const MEMBERS_MAX: u32 = 100_000;
/// The longest duration: nothing takes longer than a bake, which may take a day.
const DURATION_MAX: Millis = Millis::from_secs(30 * 24 * 3600);
/// Most percent that something costs more: ten times as much.
const MORE_MAX: u32 = 1000;
/// What a start takes where only fetches were said, and the other way round.
const USUAL: Millis = Millis::from_secs(2);

/// Why a text is no script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, {at}: {wrong}")]
pub struct ScriptError {
    /// Which line, counted from 1.
    pub line: usize,
    /// The word that is wrong, in quotes, or where one is missing.
    pub at: String,
    /// What is wrong, and what to write.
    pub wrong: String,
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut head = Head::default();
        let mut lines: Vec<Line> = Vec::new();
        for (index, text) in text.lines().enumerate() {
            if text.trim_start().starts_with(TOLD) {
                continue;
            }
            let said = text.split_once('#').map_or(text, |(said, _)| said);
            let mut words = Words { line: index + 1, words: said.split_whitespace().peekable(), last: "" };
            let step = match words.words.next() {
                None => None,
                Some(word) if head.reads(word, &mut words)? => {
                    if lines.iter().any(|line| line.step.is_some()) {
                        return Err(words.wrong_at(word, "belongs before everything that happens"));
                    }
                    None
                }
                Some(word) => Some(step(word, said, &mut words)?),
            };
            words.end()?;
            lines.push(Line { text: text.trim_end().into(), step });
        }
        let setup = head.into_setup().ok_or_else(|| ScriptError {
            line: 1,
            at: "the beginning".into(),
            wrong: "there is no fleet: write how many members there are, such as `fleet 40`".into(),
        })?;
        let needed = lines.iter().filter_map(|line| line.step.as_ref()).filter_map(server_of).max();
        match needed.filter(|needed| *needed >= setup.servers) {
            None => Ok(Self { setup, lines }),
            Some(server) => Err(ScriptError {
                line: 1,
                at: "the beginning".into(),
                wrong: format!("there is no server {}: write `servers {}`", server + 1, server + 1),
            }),
        }
    }
}

/// The server that a step names.
const fn server_of(step: &Step) -> Option<usize> {
    match step {
        Step::Server { number, .. } | Step::Isolate(number) => Some(*number),
        Step::Cut(cut) => cut.server,
        _ => None,
    }
}

/// What is said before anything happens.
#[derive(Default)]
struct Head {
    setup: Option<Setup>,
    fleet: bool,
    startup: Option<Millis>,
    fetch: Option<Millis>,
    traffic: Option<u32>,
}

impl Head {
    /// Reads a line of the head; none of it where the word begins no such line.
    fn reads(&mut self, word: &str, words: &mut Words<'_>) -> Result<bool, ScriptError> {
        let setup = self.setup.get_or_insert_with(|| Setup::of(0));
        match word {
            "seed" => setup.seed = words.number(0, u64::MAX)?,
            "fleet" => (setup.members, self.fleet) = (words.members()?, true),
            "servers" => setup.servers = words.number(1, SERVERS_MAX as u64)? as usize,
            "network" => {
                setup.network = match words.next("good or bad")? {
                    "good" => Network::Good,
                    "bad" => Network::Bad,
                    _ => return Err(words.wrong("write good or bad")),
                }
            }
            "label" => {
                let label = words.read("a label, such as canary or zone=eu-1")?;
                let members = words.amount()?;
                setup.labels.push((label, members));
            }
            "startup" => self.startup = Some(words.duration()?),
            "fetch" => self.fetch = Some(words.duration()?),
            "traffic" => self.traffic = Some(words.number(0, u64::from(u32::MAX))? as u32),
            "no" => {
                words.expect("overlap")?;
                setup.overlap = false;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn into_setup(self) -> Option<Setup> {
        let mut setup = self.setup.filter(|_| self.fleet)?;
        if self.startup.is_some() || self.fetch.is_some() {
            setup.program = Program::starting_in(self.startup.unwrap_or(USUAL), self.fetch.unwrap_or(USUAL));
        }
        setup.program.traffic = self.traffic;
        Some(setup)
    }
}

fn step(word: &str, line: &str, words: &mut Words<'_>) -> Result<Step, ScriptError> {
    Ok(match word {
        "policy" => Step::Policy(policy(words)?),
        "crash" => {
            let release = words.release_or_usual();
            if words.takes("after") {
                Step::Flaw(release, Flaw::CrashesAfter(words.duration()?))
            } else {
                Step::Flaw(release, Flaw::Crashes(words.read("a share, such as 1%, or `after 30s`")?))
            }
        }
        "slower" => Step::Flaw(words.release_or_usual(), Flaw::Slower(words.percent()?)),
        "larger" => Step::Flaw(words.release_or_usual(), Flaw::Larger(words.percent()?)),
        "refuse" => Step::Refuse(words.release_or_usual(), words.amount()?),
        "unfetchable" => Step::Unfetchable(words.release_or_usual(), words.amount()?),
        "deploy" => Step::Deploy { release: words.release()?, again: words.takes("again") },
        "halt" => Step::Halt,
        "resume" => Step::Resume,
        "abort" => Step::Abort,
        "rollback" => {
            Step::RollBack(if words.words.peek().is_some() { Some(words.release()?) } else { None })
        }
        "lock" => {
            words.next("the reason")?;
            words.words.by_ref().for_each(drop);
            Step::Lock(line.trim().trim_start_matches("lock").trim_start().to_string())
        }
        "unlock" => Step::Unlock,
        "join" => Step::Join(words.members()?),
        "leave" => Step::Leave { members: words.amount()?, goodbye: true },
        "vanish" => Step::Leave { members: words.amount()?, goodbye: false },
        "restart" => Step::Restart(words.amount()?),
        "silence" => Step::Cut(Cut { members: words.amount()?, server: None, way: Way::Both }),
        "partition" if words.takes("server") => Step::Isolate(words.server()?),
        "partition" => Step::Cut(cut(words)?),
        "heal" => Step::Heal,
        "server" => {
            let number = words.server()?;
            let up = match words.next("dies or starts")? {
                "dies" => false,
                "starts" => true,
                _ => return Err(words.wrong("write dies or starts")),
            };
            Step::Server { number, up }
        }
        "store" => Step::Store(store_fault(words)?),
        "run" if words.takes("until") => {
            if words.takes("quiet") {
                Step::Run(Until::Quiet)
            } else {
                let members = words.members()?;
                words.expect("proven")?;
                Step::Run(Until::Proven(members))
            }
        }
        "run" => Step::Run(Until::After(words.duration()?)),
        "show" if words.takes("members") => Step::Show(What::Members),
        "show" if words.takes("deploys") => Step::Show(What::Deploys),
        "show" => Step::Show(What::Fleet),
        _ => return Err(words.wrong_at(word, &format!("begins no line; write one of {}", FORMS.join("; ")))),
    })
}

fn cut(words: &mut Words<'_>) -> Result<Cut, ScriptError> {
    let members = words.amount()?;
    let server = if words.takes("from") {
        words.expect("server")?;
        Some(words.server()?)
    } else {
        None
    };
    let way = match (words.takes("deaf"), words.takes("mute")) {
        (true, _) => Way::Deaf,
        (_, true) => Way::Mute,
        (false, false) => Way::Both,
    };
    Ok(Cut { members, server, way })
}

fn store_fault(words: &mut Words<'_>) -> Result<StoreFault, ScriptError> {
    Ok(match words.next("dies, starts, empties or loses")? {
        "dies" => StoreFault::Dies,
        "starts" => StoreFault::Starts,
        "empties" => StoreFault::Empties,
        "loses" => StoreFault::Loses(words.number(1, 1000)? as u32),
        _ => return Err(words.wrong("write dies, starts, empties, or loses with a number of writes")),
    })
}

fn policy(words: &mut Words<'_>) -> Result<NamedPolicy, ScriptError> {
    const NAMES: &str = "safe, fast or careful";
    let name = words.next(NAMES)?;
    let mut named = NamedPolicy::named(name).ok_or_else(|| words.wrong(&format!("write {NAMES}")))?;
    let policy = &mut named.policy;
    while let Some(word) = words.words.next() {
        words.last = word;
        match word {
            "phases" => policy.phases = phases(words, &policy.phases)?,
            "bake" => bakes(words, &mut policy.phases)?,
            "bake-connections" => policy.bake_connections = words.members()?,
            "target" => policy.target.amount = words.amount()?,
            "label" => policy.target.label = Some(words.read("a label, such as canary or zone=eu-1")?),
            "max-unhealthy" => policy.max_unhealthy = words.share()?,
            "failure-limit" => policy.failure_limit = words.share()?,
            "all-at-once" => *policy = policy.clone().at_once(),
            "no-auto-rollback" => policy.auto_rollback = false,
            "lock-after-rollback" => policy.lock_after_rollback = true,
            "singleton" => policy.limits.singleton = true,
            "never-more-than" => policy.limits.never_more_than = Some(words.members()?),
            "min-available" => policy.limits.min_available = Some(words.members()?),
            "connections" => {
                let budget = words.members()?;
                words.expect("each")?;
                policy.limits.connections = Some(Connections { budget, each: words.members()? });
            }
            "gate" => {
                let gate = Cost::from_code(words.next("startup or memory")?);
                policy.gates.push(gate.ok_or_else(|| words.wrong("write startup or memory"))?);
            }
            _ => {
                return Err(words.wrong(
                    "is no part of a policy; write phases, bake, bake-connections, target, label, max-unhealthy, failure-limit, all-at-once, \
                     no-auto-rollback, lock-after-rollback, singleton, never-more-than, min-available, connections or gate",
                ));
            }
        }
    }
    policy.check().map_err(|error| words.wrong_at(name, &error.to_string()))?;
    Ok(named)
}

/// Phases of these sizes, with the bakes that the old ones had.
fn phases(words: &mut Words<'_>, old: &[Phase]) -> Result<Vec<Phase>, ScriptError> {
    let last = old.last().map_or(Millis::ZERO, |phase| phase.bake);
    let mut bakes = old.iter().map(|phase| phase.bake);
    let list = words.next("sizes, such as 1,5%,25%")?;
    let size = |text: &str| match text {
        "1" => Some(PhaseSize::One),
        text => text.parse().ok().map(PhaseSize::Share),
    };
    let phase = |text: &str| Some(Phase { size: size(text)?, bake: bakes.next().unwrap_or(last) });
    let phases: Option<Vec<_>> = list.split(',').map(phase).collect();
    phases.ok_or_else(|| words.wrong("write sizes with commas in between, such as 1,5%,25%"))
}

fn bakes(words: &mut Words<'_>, phases: &mut [Phase]) -> Result<(), ScriptError> {
    let list = words.next("a duration for all phases, or one for each, such as 10s,5s")?;
    let bakes: Result<Vec<Millis>, _> = list.split(',').map(str::parse).collect();
    let bakes = bakes.map_err(|_| words.wrong("write durations with commas in between, such as 10s,5s"))?;
    if bakes.len() > 1 && bakes.len() != phases.len() {
        return Err(words.wrong(&format!("write one duration, or {} as there are phases", phases.len())));
    }
    for (phase, bake) in phases.iter_mut().zip(bakes.iter().cycle()) {
        phase.bake = *bake;
    }
    Ok(())
}

/// The words of a line.
struct Words<'a> {
    line: usize,
    words: Peekable<SplitWhitespace<'a>>,
    /// The one that was read last.
    last: &'a str,
}

impl<'a> Words<'a> {
    fn wrong_at(&self, at: &str, wrong: &str) -> ScriptError {
        ScriptError { line: self.line, at: format!("{at:?}"), wrong: wrong.into() }
    }

    fn wrong(&self, wrong: &str) -> ScriptError {
        self.wrong_at(self.last, wrong)
    }

    fn next(&mut self, what: &str) -> Result<&'a str, ScriptError> {
        let missing = || ScriptError {
            line: self.line,
            at: "at its end".into(),
            wrong: format!("something is missing: write {what}"),
        };
        self.last = self.words.next().ok_or_else(missing)?;
        Ok(self.last)
    }

    fn end(&mut self) -> Result<(), ScriptError> {
        match self.words.next() {
            None => Ok(()),
            Some(word) => Err(self.wrong_at(word, "is too much: the line ends before it")),
        }
    }

    /// Takes this word, if it is the next one.
    fn takes(&mut self, word: &str) -> bool {
        self.words.next_if(|next| *next == word).is_some()
    }

    fn expect(&mut self, word: &str) -> Result<(), ScriptError> {
        if self.next(word)? == word { Ok(()) } else { Err(self.wrong(&format!("write {word}"))) }
    }

    fn read<T: FromStr>(&mut self, what: &str) -> Result<T, ScriptError> {
        self.next(what)?.parse().map_err(|_| self.wrong(&format!("write {what}")))
    }

    fn number(&mut self, least: u64, most: u64) -> Result<u64, ScriptError> {
        let what =
            if most == u64::MAX { "a number".into() } else { format!("a number from {least} to {most}") };
        let number: u64 = self.read(&what)?;
        let fits = (least..=most).contains(&number) && !self.last.starts_with('+');
        if fits { Ok(number) } else { Err(self.wrong(&format!("write {what}"))) }
    }

    fn members(&mut self) -> Result<u32, ScriptError> {
        Ok(self.number(1, MEMBERS_MAX.into())? as u32)
    }

    fn server(&mut self) -> Result<usize, ScriptError> {
        Ok(self.number(1, SERVERS_MAX as u64)? as usize - 1)
    }

    fn amount(&mut self) -> Result<Amount, ScriptError> {
        self.read("an amount of members: a share such as 10%, or a number such as 3")
    }

    fn share(&mut self) -> Result<Share, ScriptError> {
        self.read("a share, such as 25%")
    }

    fn percent(&mut self) -> Result<u32, ScriptError> {
        const WHAT: &str = "how much more, such as 50%";
        let text = self.next(WHAT)?.strip_suffix('%').and_then(|number| number.parse().ok());
        text.filter(|percent| *percent <= MORE_MAX).ok_or_else(|| self.wrong(&format!("write {WHAT}")))
    }

    fn duration(&mut self) -> Result<Millis, ScriptError> {
        let duration: Millis = self.read("a duration, such as 30s or 5m")?;
        if duration <= DURATION_MAX { Ok(duration) } else { Err(self.wrong("write at most 720h")) }
    }

    fn release(&mut self) -> Result<Release, ScriptError> {
        self.read("a release: r1 to r9")
    }

    /// The release that is named, or else the one that is meant then.
    fn release_or_usual(&mut self) -> Release {
        let named = self.words.peek().and_then(|word| word.parse().ok());
        if named.is_some() {
            self.words.next();
        }
        named.unwrap_or(MEANT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        text.parse::<Script>().unwrap_err().to_string()
    }

    #[test]
    fn every_line_is_read_as_it_is_written() {
        let text = "\
seed 7
fleet 4000
servers 3
network bad
label zone=eu-1 10%
label canary 3
startup 8s
fetch 500ms
traffic 4
no overlap
policy careful phases 1,5%,50% bake 1m,30s,10s target 50% label canary max-unhealthy 10% failure-limit 1% no-auto-rollback lock-after-rollback singleton bake-connections 20 gate startup gate memory never-more-than 4100 min-available 3000 connections 9000 each 2
policy fast all-at-once
policy safe bake 1m30s
crash r2 1%
crash r3 after 30s
slower r2 50%
larger r2 40%
refuse r2 3
unfetchable r2 0.5%
deploy r2
deploy r2 again
halt
resume
abort
rollback
rollback r1
lock somebody looks at it
unlock
join 5
leave 10%
vanish 3
restart 1
silence 60%
partition 50% from server 2
partition 50% from server 1 deaf
partition 5 mute
partition server 2
heal
server 3 dies
server 3 starts
store dies
store starts
store loses 4
store empties
run 1m30s
run until quiet
run until 12 proven
show
show members
show deploys
";
        let script: Script = text.parse().unwrap();
        let again = Script::new(script.setup.clone(), script.steps().cloned());
        assert_eq!(again.to_string(), text);
        assert_eq!(again, script);
        // No form is forgotten in the list of them.
        for line in text.lines() {
            let word = line.split(' ').next().unwrap();
            assert!(FORMS.iter().any(|form| form.split(' ').next() == Some(word)), "{line}");
        }
        for form in FORMS {
            let word = form.split(' ').next().unwrap();
            assert!(text.lines().any(|line| line.split(' ').next() == Some(word)), "{form}");
        }
    }

    #[test]
    fn what_was_told_and_what_is_remarked_is_skipped() {
        let script: Script = "# A script.\n\nfleet 3 # small\n| told\nshow\n  | told too\n".parse().unwrap();
        assert_eq!((script.setup.members, script.steps().count()), (3, 1));
        assert_eq!(script.to_string(), "# A script.\n\nfleet 3 # small\nshow\n");
        let usual: Script = "fleet 3\ncrash 1%\nrefuse 1".parse().unwrap();
        assert!(usual.steps().all(|step| step.to_string().contains(" r2 ")));
    }

    #[test]
    fn mistakes_name_the_line_and_the_word() {
        for (text, expected) in [
            ("", "line 1, the beginning: there is no fleet"),
            ("show", "line 1, the beginning: there is no fleet"),
            ("fleet", "line 1, at its end: something is missing: write a number from 1 to 100000"),
            ("fleet 0", "line 1, \"0\": write a number from 1 to 100000"),
            ("fleet +3", "line 1, \"+3\": write a number"),
            ("fleet many", "line 1, \"many\": write a number"),
            ("fleet 3 4", "line 1, \"4\": is too much"),
            ("fleet 3\n\nhurry", "line 3, \"hurry\": begins no line; write one of seed NUMBER;"),
            ("fleet 3\nhalt\nfleet 4", "line 3, \"fleet\": belongs before everything that happens"),
            ("fleet 3\ncrash lots", "line 2, \"lots\": write a share"),
            ("fleet 3\ncrash r2", "line 2, at its end: something is missing"),
            ("fleet 3\ndeploy web", "line 2, \"web\": write a release: r1 to r9"),
            ("fleet 3\npolicy brave", "line 2, \"brave\": write safe, fast or careful"),
            ("fleet 3\npolicy safe bake 1s,2s", "line 2, \"1s,2s\": write one duration, or 3"),
            ("fleet 3\npolicy safe soon", "line 2, \"soon\": is no part of a policy"),
            ("fleet 3\npolicy safe max-unhealthy 100%", "line 2, \"safe\": max_unhealthy is 100 %"),
            ("fleet 3\npolicy safe never-more-than 1", "line 2, \"safe\": never_more_than is 1"),
            ("fleet 3\nserver 2 dies", "line 1, the beginning: there is no server 2: write `servers 2`"),
            ("fleet 3\nserver 1 sleeps", "line 2, \"sleeps\": write dies or starts"),
            ("fleet 3\nstore leaks", "line 2, \"leaks\": write dies"),
            ("fleet 3\nslower 5000%", "line 2, \"5000%\": write how much more"),
            ("fleet 3\nrun 999h", "line 2, \"999h\": write at most 720h"),
            ("fleet 3\nrun until dark", "line 2, \"dark\": write a number"),
            ("fleet 3\nlock", "line 2, at its end: something is missing: write the reason"),
        ] {
            assert!(refused(text).starts_with(expected), "{text:?}: {}", refused(text));
        }
    }
}
