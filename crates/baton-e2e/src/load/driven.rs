//! Load that is made beside whatever drives it.

use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use tokio::sync::mpsc;

use super::plan::Plan;
use super::report::{Line, Report};
use super::run::run;

/// Lines that may wait to be heard.
const SAID_MAX: usize = 64;

/// Load in a thread of its own. It ends with the value.
#[derive(Debug)]
pub struct Driven {
    said: mpsc::Sender<String>,
    answers: std::sync::mpsc::Receiver<Line>,
    thread: Option<JoinHandle<anyhow::Result<Report>>>,
}

impl Driven {
    /// Begins to make load.
    ///
    /// # Errors
    /// If there can be no event loop.
    pub fn start(plan: Plan) -> anyhow::Result<Self> {
        let (said, heard) = mpsc::channel(SAID_MAX);
        let (answer, answers) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let print = move |line| {
            if !matches!(line, Line::Progress(_)) {
                // Whoever said it and does not wait for the answer has gone.
                let _ = answer.send(line);
            }
        };
        let thread = std::thread::spawn(move || Ok(runtime.block_on(run(plan, heard, print))?));
        Ok(Self { said, answers, thread: Some(thread) })
    }

    /// Says something, and waits until it holds.
    ///
    /// # Errors
    /// If it is not understood, or the load has ended.
    pub fn say(&self, line: &str) -> anyhow::Result<()> {
        self.said.blocking_send(line.into()).context("the load has ended")?;
        match self.answers.recv().context("the load has ended")? {
            Line::Misheard { line, why } => Err(anyhow!("{line:?}: {why}")),
            Line::Heard(_) | Line::Progress(_) | Line::Report(_) => Ok(()),
        }
    }

    /// Stops, and returns the account when all that was under way has ended.
    ///
    /// # Errors
    /// If the load could not be made.
    pub fn stop(self) -> anyhow::Result<Report> {
        self.said.blocking_send("stop".into()).context("the load has ended")?;
        self.end()
    }

    /// Waits for the end, by its duration.
    ///
    /// # Errors
    /// If the load could not be made.
    pub fn end(mut self) -> anyhow::Result<Report> {
        let thread = self.thread.take().context("the load has ended")?;
        thread.join().map_err(|_| anyhow!("the load generator panicked"))?
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // Nobody is told anything any more, and where it has ended, nobody hears it.
        let _ = self.said.try_send("stop".into());
    }
}
