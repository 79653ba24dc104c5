//! Reload after reload under every kind of load: nothing is lost, and nothing grows.

pub mod boot;
pub mod peer;
mod told;

use std::path::PathBuf;

use crate::bench::sample::Sample;
use crate::load::{Plan, Report};
use crate::process::{Footprint, Processors};

/// How many descriptors more than soon after the start there may be for each client, at any later time: a connection
/// that is forwarded has two.
const DESCRIPTORS_A_CLIENT: usize = 2;
/// How much more memory than soon after the start may be resident at any later time: what an allocator keeps for itself
/// comes and goes in pieces of this order.
const GROWTH_KIB_MAX: u64 = 512;

/// How much load there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As much as leaves the machine time for what else runs on it: 50 requests a second of each client at most.
    Modest,
    /// As much as the machine bears: each client sends its next request when it has the answer to the last one.
    Full,
}

/// Where the programs are that take part.
#[derive(Debug, Clone)]
pub struct Places {
    /// baton-boot.
    pub boot: PathBuf,
    /// baton-web, which speaks everything.
    pub web: PathBuf,
    /// The programs that peers run, each in a folder of its name.
    pub apps: PathBuf,
    /// The folder of gunicorn's own program.
    pub python: PathBuf,
    /// The folder of PM2's own programs.
    pub pm2: PathBuf,
}

/// What a process took up after so many reloads.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// How many reloads there had been.
    pub after: u64,
    /// What it took up.
    pub footprint: Footprint,
}

/// Many reloads of one program in a row, under load.
#[derive(Debug)]
pub struct Round {
    /// Who reloaded it, and how.
    pub name: String,
    /// How many reloads there were.
    pub reloads: u64,
    /// From the order to the end of a reload: what was there before has ended, or the next one is proven.
    pub reload_ms: Sample,
    /// What became of every request.
    pub report: Report,
    /// How many clients there were.
    pub clients: usize,
    /// Which share of their time all processors of the machine were at work, whatever for.
    pub busy: f64,
    /// What the supervisor took up; of those after some reload, the first is what later ones are compared with.
    pub looks: Vec<Look>,
}

impl Round {
    /// What is wrong: requests that were lost, and growth.
    pub fn faults(&self) -> Vec<String> {
        [self.losses(), self.leaks(), self.growth()].concat()
    }

    /// Requests that were lost.
    pub fn losses(&self) -> Vec<String> {
        let Report { sent, answered, lost, not_sent, died_with_program: died, .. } = &self.report;
        if self.report.is_clean() && answered == sent {
            return Vec::new();
        }
        vec![format!(
            "of {sent} requests {answered} were answered: {lost} lost, {died} died, {not_sent} not sent"
        )]
    }

    /// Descriptors that are left.
    pub fn leaks(&self) -> Vec<String> {
        let more = DESCRIPTORS_A_CLIENT * self.clients;
        self.later_looks(|early, look| {
            let (then, now) = (early.footprint.descriptors, look.footprint.descriptors);
            (now > then + more).then(|| format!("{now} descriptors, {then} after {} reloads", early.after))
        })
    }

    /// Memory that is not given back.
    pub fn growth(&self) -> Vec<String> {
        self.later_looks(|early, look| {
            let (then, now) = (early.footprint.anonymous_kib, look.footprint.anonymous_kib);
            (now > then + GROWTH_KIB_MAX).then(|| format!("{now} KiB, {then} after {} reloads", early.after))
        })
    }

    /// What is wrong at later looks, beside the first one after some reload.
    fn later_looks(&self, wrong: impl Fn(&Look, &Look) -> Option<String>) -> Vec<String> {
        let mut looks = self.looks.iter().filter(|look| look.after > 0);
        let Some(early) = looks.next() else { return Vec::new() };
        let told = |look: &Look| Some(format!("after {} reloads {}", look.after, wrong(early, look)?));
        looks.filter_map(told).collect()
    }
}

/// Clients that know HTTP/1.1 only, as every peer does.
fn plain(target: &str, pace: Pace) -> anyhow::Result<Plan> {
    let modest = Plan::mixed(vec![target.parse()?]);
    Ok(match pace {
        Pace::Modest => modest,
        Pace::Full => Plan { rate: 0, ..modest },
    })
}

/// The same, and clients of everything else.
fn everything(target: &str, pace: Pace) -> anyhow::Result<Plan> {
    Ok(Plan { http2: 3, grpc: 3, websocket: 4, ..plain(target, pace)? })
}

/// How busy the machine has been since then.
fn busy_since(then: Processors) -> anyhow::Result<f64> {
    Ok(Processors::now()?.busy_since(then))
}

/// What is to be told of rounds, as tables.
pub fn report(rounds: &[Round]) -> String {
    [told::losses(rounds), told::requests(rounds), told::looks(rounds)].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(report: Report, looks: &[(u64, usize, u64)]) -> Round {
        let look = |&(after, descriptors, kib): &(u64, usize, u64)| Look {
            after,
            footprint: Footprint { pss_kib: kib, rss_kib: kib, anonymous_kib: kib, descriptors },
        };
        let looks = looks.iter().map(look).collect();
        Round {
            name: "x".into(),
            reloads: 10,
            reload_ms: Sample::default(),
            report,
            clients: 8,
            busy: 0.0,
            looks,
        }
    }

    #[test]
    fn what_is_lost_and_what_grows_is_a_fault() {
        let clean = Report { sent: 5, answered: 5, ..Report::default() };
        let flat = [(0, 10, 1000), (1, 20, 2000), (5, 36, 2512), (10, 20, 1000)];
        assert!(round(clean.clone(), &flat).faults().is_empty());
        for (report, looks) in [
            (Report { answered: 4, lost: 1, ..clean.clone() }, flat),
            (Report { answered: 4, died_with_program: 1, ..clean.clone() }, flat),
            (Report { not_sent: 1, ..clean.clone() }, flat),
            (clean.clone(), [(0, 10, 1000), (1, 20, 2000), (5, 37, 2000), (10, 20, 2000)]),
            (clean, [(0, 10, 1000), (1, 20, 2000), (5, 20, 2000), (10, 20, 2513)]),
        ] {
            assert_eq!(round(report, &looks).faults().len(), 1);
        }
    }
}
