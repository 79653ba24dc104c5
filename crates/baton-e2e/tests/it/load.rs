//! Load made beside a test.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use baton_e2e::load::{Line, Loss, Plan, Report, run};
use tokio::sync::mpsc;

use crate::wait::wait_for;

/// Load that is being made.
pub struct Load {
    said: mpsc::Sender<String>,
    thread: JoinHandle<Report>,
    progress: Arc<Mutex<Report>>,
}

impl Load {
    /// Makes load until told to stop; a server may do that through [`Load::said`].
    pub fn start(plan: Plan) -> Self {
        let (said, heard) = mpsc::channel(64);
        Self::with(plan, said, heard)
    }

    /// The same over a channel that a server already has the other end of.
    pub fn with(plan: Plan, said: mpsc::Sender<String>, heard: mpsc::Receiver<String>) -> Self {
        let progress = Arc::<Mutex<Report>>::default();
        let noted = progress.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let note = |line| {
                if let Line::Progress(report) = line {
                    *noted.lock().unwrap() = report;
                }
            };
            runtime.block_on(run(plan, heard, note)).unwrap()
        });
        Self { said, thread, progress }
    }

    pub fn say(&self, line: &str) {
        self.said.blocking_send(line.into()).unwrap();
    }

    /// Goes on until the counts, which come once a second, are as asked for.
    pub fn run_until(&self, enough: impl Fn(&Report) -> bool) {
        wait_for("enough load", || enough(&self.progress.lock().unwrap()).then_some(()));
    }

    pub fn stop(self) -> Report {
        self.say("stop");
        self.end()
    }

    pub fn end(self) -> Report {
        self.thread.join().unwrap()
    }
}

/// The kinds of loss that happened.
pub fn kinds(report: &Report) -> Vec<Loss> {
    Loss::ALL.into_iter().filter(|loss| report.count(*loss) > 0).collect()
}
