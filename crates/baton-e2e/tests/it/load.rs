//! Load made beside a test.

use std::thread::JoinHandle;

use baton_e2e::load::{Loss, Plan, Report, run};
use tokio::sync::mpsc;

/// Load that is being made.
pub struct Load {
    said: mpsc::Sender<String>,
    thread: JoinHandle<Report>,
}

impl Load {
    /// Makes load until told to stop; a server may do that through [`Load::said`].
    pub fn start(plan: Plan) -> Self {
        let (said, heard) = mpsc::channel(64);
        Self::with(plan, said, heard)
    }

    /// The same over a channel that a server already has the other end of.
    pub fn with(plan: Plan, said: mpsc::Sender<String>, heard: mpsc::Receiver<String>) -> Self {
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(plan, heard, |_| {})).unwrap()
        });
        Self { said, thread }
    }

    pub fn say(&self, line: &str) {
        self.said.blocking_send(line.into()).unwrap();
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
