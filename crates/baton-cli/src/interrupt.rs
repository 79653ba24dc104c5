//! Ctrl-C: says what goes on without this program, and ends it.

use std::io::{self, Write};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Exit;

/// What Ctrl-C says.
#[derive(Debug, Clone)]
pub struct Interrupt {
    says: Arc<Mutex<String>>,
}

impl Interrupt {
    /// From now on Ctrl-C (and SIGTERM) ends the program with [`Exit::Interrupted`].
    ///
    /// # Errors
    /// The kernel refuses, or the thread that waits for it cannot be started.
    pub fn install() -> io::Result<Self> {
        let says = Arc::new(Mutex::new("stopped".to_owned()));
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let told = Arc::clone(&says);
        // The thread lives as long as the process, which it ends.
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
            if signals.forever().next().is_some() {
                let text = told.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = writeln!(io::stderr(), "\n{text}");
                process::exit(Exit::Interrupted as i32);
            }
        })?;
        Ok(Self { says })
    }

    /// What it says from now on: one line.
    pub fn on_ctrl_c(&self, text: &str) {
        text.clone_into(&mut self.says.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
