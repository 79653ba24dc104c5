//! Plays scripts.

use alloc::string::String;

use super::script::{Script, Step, TOLD, Until};
use super::world::World;
use super::{End, Outcome};

/// What came of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// The script, with what came out below each line.
    pub transcript: String,
    /// How it ended.
    pub outcome: Outcome,
}

impl Script {
    /// Simulates what it says, and tells what comes out.
    pub fn play(&self) -> Played {
        let mut transcript = String::new();
        let mut world = World::new(self, true);
        let mut end = None;
        for line in &self.lines {
            transcript += &line.text;
            transcript.push('\n');
            let Some(step) = &line.step else { continue };
            let shown = world.step(step, &mut end);
            for told in world.take_log().into_iter().chain(shown) {
                transcript += TOLD;
                transcript.push(' ');
                transcript += told.trim_end();
                transcript.push('\n');
            }
            if let Some(broken) = &world.observer.broken {
                let told = alloc::format!("{TOLD} {} does not hold: {}\n", broken.invariant, broken.what);
                transcript += &told;
                break;
            }
        }
        Played { transcript, outcome: world.outcome(end) }
    }

    /// Simulates what it says.
    pub fn run(&self) -> Outcome {
        let mut world = World::new(self, false);
        let mut end = None;
        for step in self.steps() {
            world.step(step, &mut end);
            if world.observer.broken.is_some() {
                break;
            }
        }
        world.outcome(end)
    }
}

impl World {
    /// Does one step, and returns what is to be seen. Where an end was awaited, `end` is how it came.
    fn step(&mut self, step: &Step, end: &mut Option<End>) -> alloc::vec::Vec<String> {
        match step {
            Step::Run(until) => {
                let came = self.run(*until);
                if *until == Until::Quiet {
                    *end = came;
                }
            }
            Step::Show(what) => return self.show(*what),
            step => {
                self.befall(step);
                *end = None;
            }
        }
        alloc::vec::Vec::new()
    }
}
