//! Ctrl-C: says what goes on without this program, and ends it.

use std::fmt;
use std::io::{self, Write};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Exit;

/// What is done before the program ends.
type Last = Box<dyn FnOnce() + Send>;

/// What Ctrl-C says and does.
#[derive(Clone)]
pub struct Interrupt {
    says: Arc<Mutex<String>>,
    last: Arc<Mutex<Option<Last>>>,
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupt").field("says", &self.says).finish_non_exhaustive()
    }
}

impl Interrupt {
    /// From now on Ctrl-C (and SIGTERM) ends the program with [`Exit::Interrupted`].
    ///
    /// # Errors
    /// The kernel refuses, or the thread that waits for it cannot be started.
    pub fn install() -> io::Result<Self> {
        let says = Arc::new(Mutex::new("stopped".to_owned()));
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let (told, last) = (Arc::clone(&says), Arc::new(Mutex::new(None::<Last>)));
        let due = Arc::clone(&last);
        // The thread lives as long as the process, which it ends.
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
            if signals.forever().next().is_some() {
                let last = due.lock().unwrap_or_else(PoisonError::into_inner).take();
                last.into_iter().for_each(|last| last());
                let text = told.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = writeln!(io::stderr(), "\n{text}");
                process::exit(Exit::Interrupted as i32);
            }
        })?;
        Ok(Self { says, last })
    }

    /// What it says from now on: one line.
    pub fn on_ctrl_c(&self, text: &str) {
        text.clone_into(&mut self.says.lock().unwrap_or_else(PoisonError::into_inner));
    }
    /// What is done first from now on, once: nothing is left half done. It must not take long.
    pub fn before_leaving(&self, last: Option<Last>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}
