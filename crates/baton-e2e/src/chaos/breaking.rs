//! Breaking what the schedule says, and mending it.

use std::time::{Duration, Instant};

use anyhow::Context;
use baton_core::units::Millis;

use super::fault::Fault;
use super::fleet::{Fleet, answer_of};
use super::guest::until;
use super::net::{Cut, Host, Way, slow};
use super::redis::NODES;
use super::schedule::Planned;
use super::watch::{Load, say};

/// How long replicas hear nothing of their primary before that is killed.
const AHEAD: Millis = Millis(1_500);

/// A part of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It begins.
    Begin,
    /// What the beginning has prepared.
    Strike,
    /// The member in this place is cut off.
    Cut(usize),
    /// The member in this place is let back.
    Back(usize),
    /// It ends, and all is whole again.
    End,
}

/// What is to be done when, from the beginning of the run on.
pub fn steps(planned: &Planned) -> Vec<(Millis, Step)> {
    let Planned { at, lasts, fault } = planned;
    let (begin, end) = ((*at, Step::Begin), (*at + *lasts, Step::End));
    match fault {
        Fault::PrimaryKilledAhead => vec![begin, (*at + AHEAD, Step::Strike), end],
        Fault::OneByOne { cut, .. } => {
            // A third of the time for cutting them off, and a third for letting them back.
            let gap = |number: usize| Millis(lasts.0 * number as u64 / (3 * cut.len().max(1) as u64));
            let cuts = (0..cut.len()).map(|number| (*at + gap(number), Step::Cut(number)));
            let last = cut.len().saturating_sub(1);
            let backs =
                (0..cut.len()).map(|number| (Millis(end.0.0 - gap(last - number).0), Step::Back(number)));
            cuts.chain(backs).collect()
        }
        Fault::ServerKilled(_)
        | Fault::ServerPaused(_)
        | Fault::AllServersKilled
        | Fault::ServerSlow(_)
        | Fault::PrimaryKilled
        | Fault::PrimaryPaused
        | Fault::PrimaryApart(_)
        | Fault::StoreGone
        | Fault::Apart(_)
        | Fault::Deaf(_)
        | Fault::Mute(_)
        | Fault::Lossy(_)
        | Fault::MemberKilled(_) => vec![begin, end],
    }
}

/// Breaks and mends.
pub struct Breaking<'a> {
    fleet: &'a mut Fleet,
    load: Load,
    /// The primary that was hit, until it is mended.
    hit: usize,
    /// Its connections that are cut, likewise.
    cuts: Vec<Cut>,
    /// How long members that were killed took to serve again, from their start.
    pub returns: Vec<Duration>,
    /// How often a server was started again that had ended since its state store was not there.
    pub revived: usize,
}

impl<'a> Breaking<'a> {
    /// Begins with all whole.
    pub const fn of(fleet: &'a mut Fleet, load: Load) -> Self {
        Self { fleet, load, hit: 0, cuts: Vec::new(), returns: Vec::new(), revived: 0 }
    }

    /// Starts what has ended by itself, and may.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        self.revived += self.fleet.revive_servers()?;
        Ok(())
    }

    /// Does one step of a fault.
    ///
    /// # Errors
    /// If it cannot be done.
    pub fn act(&mut self, fault: &Fault, step: Step) -> anyhow::Result<()> {
        self.step(fault, step).with_context(|| format!("{fault:?}, {step:?}"))
    }

    fn step(&mut self, fault: &Fault, step: Step) -> anyhow::Result<()> {
        let begins = step == Step::Begin;
        match fault {
            Fault::ServerKilled(server) => self.kill_servers(&[*server], begins),
            Fault::AllServersKilled => {
                let all: Vec<usize> = (0..self.fleet.servers.len()).collect();
                self.kill_servers(&all, begins)
            }
            Fault::ServerPaused(server) if begins => self.fleet.servers[*server].freeze(),
            Fault::ServerPaused(server) => self.fleet.servers[*server].thaw(),
            Fault::ServerSlow(server) => slow(Host::Server(*server), begins),
            Fault::PrimaryKilled if begins => {
                self.hit = self.fleet.redis.primary()?;
                self.fleet.redis.node(self.hit).kill()
            }
            Fault::PrimaryKilled => self.fleet.redis.node(self.hit).start_again(),
            Fault::PrimaryKilledAhead => self.kill_ahead(step),
            Fault::PrimaryPaused if begins => {
                self.hit = self.fleet.redis.primary()?;
                self.fleet.redis.node(self.hit).freeze()
            }
            Fault::PrimaryPaused => self.fleet.redis.node(self.hit).thaw(),
            Fault::PrimaryApart(server) if begins => {
                let primary = self.fleet.redis.primary()?;
                let others = (0..NODES).filter(|node| *node != primary).map(Host::Redis);
                let servers = (0..self.fleet.servers.len()).filter(|other| other != server);
                let far: Vec<_> = others.chain([Host::Sentinel]).chain(servers.map(Host::Server)).collect();
                // The server that is left with it cannot ask the Sentinel where to go.
                let near = both(Host::Server(*server), &[Host::Sentinel]);
                self.cut([both(Host::Redis(primary), &far), near].concat())
            }
            Fault::PrimaryApart(_) => self.mend(),
            Fault::StoreGone => each(&self.around_store(), begins),
            Fault::Apart(members) => each(&self.apart(members, &[Way::In, Way::Out]), begins),
            Fault::Deaf(members) => each(&self.apart(members, &[Way::In]), begins),
            Fault::Mute(members) => each(&self.apart(members, &[Way::Out]), begins),
            Fault::OneByOne { cut, back } => {
                let member = match step {
                    Step::Cut(place) => cut[place],
                    Step::Back(place) => back[place],
                    Step::Begin | Step::Strike | Step::End => return Ok(()),
                };
                each(&self.apart(&[member], &[Way::In, Way::Out]), matches!(step, Step::Cut(_)))
            }
            Fault::Lossy(members) => {
                let control = self.control();
                let lossy = |member: &usize| {
                    let member = Host::Member(*member);
                    [Way::In, Way::Out].map(|way| Cut::lossy(member, &control, way))
                };
                each(&members.iter().flat_map(lossy).collect::<Vec<_>>(), begins)
            }
            Fault::MemberKilled(member) if begins => self.kill_member(*member),
            Fault::MemberKilled(member) => self.start_member(*member),
        }
    }

    fn kill_servers(&mut self, servers: &[usize], kill: bool) -> anyhow::Result<()> {
        servers.iter().try_for_each(|server| {
            let server = &mut self.fleet.servers[*server];
            if kill { server.kill() } else { server.start_again() }
        })
    }

    /// The replicas know less than their primary when one of them takes its place.
    fn kill_ahead(&mut self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Begin => {
                self.hit = self.fleet.redis.primary()?;
                let replicas: Vec<_> = (0..NODES).filter(|node| *node != self.hit).map(Host::Redis).collect();
                self.cut(both(Host::Redis(self.hit), &replicas))
            }
            Step::Strike => {
                self.fleet.redis.node(self.hit).kill()?;
                self.mend()
            }
            Step::End => self.fleet.redis.node(self.hit).start_again(),
            Step::Cut(_) | Step::Back(_) => Ok(()),
        }
    }

    fn cut(&mut self, cuts: Vec<Cut>) -> anyhow::Result<()> {
        each(&cuts, true)?;
        self.cuts = cuts;
        Ok(())
    }

    fn mend(&mut self) -> anyhow::Result<()> {
        each(&std::mem::take(&mut self.cuts), false)
    }

    /// Control and the artefact store.
    fn control(&self) -> Vec<Host> {
        (0..self.fleet.servers.len()).map(Host::Server).chain([Host::Store]).collect()
    }

    fn apart(&self, members: &[usize], ways: &[Way]) -> Vec<Cut> {
        let control = self.control();
        let of = |member: &usize| {
            ways.iter().map(|way| Cut::between(Host::Member(*member), &control, *way)).collect::<Vec<_>>()
        };
        members.iter().flat_map(of).collect()
    }

    fn around_store(&self) -> Vec<Cut> {
        let servers = (0..self.fleet.servers.len()).map(Host::Server);
        let all: Vec<_> = servers.chain((0..self.fleet.size()).map(Host::Member)).collect();
        vec![Cut::between(Host::Store, &all, Way::In)]
    }

    /// Its clients are cut with it, and then find nobody.
    fn kill_member(&mut self, member: usize) -> anyhow::Result<()> {
        let address = Fleet::address(member);
        say(&self.load, &format!("away {address} begin"))?;
        say(&self.load, &format!("window {address} begin"))?;
        self.fleet.kill_member(member)?;
        say(&self.load, &format!("window {address} end"))
    }

    fn start_member(&mut self, member: usize) -> anyhow::Result<()> {
        let start = Instant::now();
        self.fleet.start_member(member)?;
        // From its own disk, whatever else is broken.
        until("a member that was killed to serve again", || answer_of(member).is_some())?;
        self.returns.push(start.elapsed());
        say(&self.load, &format!("away {} end", Fleet::address(member)))
    }
}

/// Nothing passes between a host and others.
fn both(at: Host, others: &[Host]) -> Vec<Cut> {
    [Way::In, Way::Out].map(|way| Cut::between(at, others, way)).into()
}

fn each(cuts: &[Cut], make: bool) -> anyhow::Result<()> {
    cuts.iter().try_for_each(|cut| if make { cut.make() } else { cut.mend() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_cut_off_one_by_one_and_let_back_until_the_end() {
        let fault = Fault::OneByOne { cut: vec![0, 1, 2], back: vec![2, 0, 1] };
        let (at, lasts) = (Millis(10_000), Millis(9_000));
        let steps = steps(&Planned { at, lasts, fault });
        let expected = [
            (10_000, Step::Cut(0)),
            (11_000, Step::Cut(1)),
            (12_000, Step::Cut(2)),
            (17_000, Step::Back(0)),
            (18_000, Step::Back(1)),
            (19_000, Step::Back(2)),
        ];
        assert_eq!(steps, expected.map(|(at, step)| (Millis(at), step)));
    }

    #[test]
    fn everything_that_begins_ends() {
        let (at, lasts) = (Millis(1_000), Millis(5_000));
        for fault in [Fault::StoreGone, Fault::PrimaryKilledAhead, Fault::MemberKilled(3)] {
            let steps = steps(&Planned { at, lasts, fault });
            assert_eq!(steps.first(), Some(&(at, Step::Begin)));
            assert_eq!(steps.last(), Some(&(at + lasts, Step::End)));
            assert!(steps.is_sorted_by_key(|(at, _)| *at), "{steps:?}");
        }
    }
}
