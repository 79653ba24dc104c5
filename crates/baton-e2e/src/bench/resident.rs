//! What the bootloader takes up: idle, with everything on, with much output behind it, and after many handovers.

use std::path::Path;
use std::time::Instant;

use super::goal::Goal;
use super::sample::Sample;
use crate::member::{Member, Settings};
use crate::ports::free_address;
use crate::process::Footprint;

/// How many handovers there are, and after how many it has warmed up: longer than sockets rest before they are taken
/// again, at the pace that the bake sets.
const HANDOVERS: u64 = 1_000;
const WARM: u64 = 100;
const BAKE: &str = "50ms";
/// There is a socket for each handover of the last 3 s, at the fastest pace there was: so many more may be due to a
/// change of pace.
const DESCRIPTORS_MORE_MAX: f64 = 10.0;
const KIB: f64 = 1024.0;

/// What it takes up.
#[derive(Debug)]
pub struct Resident {
    /// One of several on this machine, with everything on and as much output behind it as it keeps.
    in_a_fleet: Footprint,
    /// In which state it was, alone.
    states: Vec<(String, Footprint)>,
    /// From the order to the proof, in ms, of all handovers.
    handovers_ms: Sample,
    binary_bytes: u64,
}

/// Measures it. What was measured elsewhere is given: in a fleet, and alone by its state.
///
/// # Errors
/// If a handover fails.
pub fn measure(
    boot: &Path,
    web: &Path,
    folder: &Path,
    in_a_fleet: Footprint,
    elsewhere: Vec<(String, Footprint)>,
) -> anyhow::Result<Resident> {
    let settings = Settings { web: web.to_owned(), address: free_address(), handover: "auto", bake: BAKE };
    settings.write(folder)?;
    let mut member = Member::start(boot, folder, &[])?;
    member.proven()?;
    let mut states = elsewhere;
    states.push(("alone, with a listener and probes".into(), Footprint::settled(member.pid())?));
    let mut handovers_ms = Sample::default();
    for handover in 1..=HANDOVERS {
        let start = Instant::now();
        member.order()?;
        member.proven()?;
        handovers_ms.add(start.elapsed().as_secs_f64() * 1000.0);
        if [WARM, HANDOVERS / 2, HANDOVERS].contains(&handover) {
            states.push((format!("the same after {handover} handovers"), Footprint::settled(member.pid())?));
        }
    }
    member.stop()?;
    let binary_bytes = std::fs::metadata(boot)?.len();
    Ok(Resident { in_a_fleet, states, handovers_ms, binary_bytes })
}

impl Resident {
    /// What is to be reached.
    pub fn goals(&self) -> Vec<Goal> {
        let mib = |kib: u64| kib as f64 / KIB;
        let all = self.states.iter().map(|(_, footprint)| footprint).chain([&self.in_a_fleet]);
        let most = all.map(|footprint| footprint.rss_kib).max().map_or(f64::NAN, mib);
        let after = |handovers: u64| {
            let state =
                self.states.iter().find(|(state, _)| state.ends_with(&format!(" {handovers} handovers")));
            state.map(|(_, footprint)| *footprint)
        };
        let (warm, last) = (after(WARM), after(HANDOVERS));
        let grown = warm.zip(last).map_or((f64::NAN, f64::NAN), |(warm, last)| {
            let pss = (last.pss_kib as f64 - warm.pss_kib as f64) / KIB;
            (pss, last.descriptors as f64 - warm.descriptors as f64)
        });
        vec![
            Goal::at_most(
                "PSS in a fleet, with a session, metrics and a full log",
                3.0,
                " MiB",
                mib(self.in_a_fleet.pss_kib),
            ),
            Goal::at_most("RSS, in every state", 8.0, " MiB", most),
            Goal::at_most("PSS, growth from 100 to 1,000 handovers", 0.25, " MiB", grown.0),
            Goal::at_most(
                "descriptors, growth from 100 to 1,000 handovers",
                DESCRIPTORS_MORE_MAX,
                "",
                grown.1,
            ),
            Goal::at_most("binary", 8.0, " MiB", self.binary_bytes as f64 / KIB / KIB),
        ]
    }

    /// The figures as lines of a table.
    pub fn table(&self) -> String {
        let mut text =
            "| baton-boot | PSS, KiB | RSS, KiB | descriptors |\n| --- | --- | --- | --- |\n".to_owned();
        let fleet = ("in a fleet, with a session, after 11 deploys and 44 MB of output", &self.in_a_fleet);
        let alone = self.states.iter().map(|(state, footprint)| (state.as_str(), footprint));
        for (state, footprint) in [fleet].into_iter().chain(alone) {
            let Footprint { pss_kib, rss_kib, descriptors, .. } = footprint;
            text.push_str(&format!("| {state} | {pss_kib} | {rss_kib} | {descriptors} |\n"));
        }
        text.push_str(&format!(
            "\nA handover without load, from the order to the proof, bake {BAKE}: {} ms. The binary: {} bytes.\n",
            self.handovers_ms, self.binary_bytes
        ));
        text
    }
}
