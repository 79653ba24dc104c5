//! Ctrl-C: says what goes on without this program, and ends it.

use std::fmt;
use std::io::{self, Write};
use std::mem;
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
    /// What was begun last is ended first.
    lasts: Arc<Mutex<Vec<Last>>>,
}

/// As long as this lives, Ctrl-C does what it is for before it ends the program. Such values end in the order opposite to that
/// in which they were made.
#[must_use = "it counts for as long as this lives"]
pub struct Leaving(Arc<Mutex<Vec<Last>>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        drop(last);
    }
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
        let (told, lasts) = (Arc::clone(&says), Arc::<Mutex<Vec<Last>>>::default());
        let due = Arc::clone(&lasts);
        // The thread lives as long as the process, which it ends.
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
            if signals.forever().next().is_some() {
                let lasts = mem::take(&mut *due.lock().unwrap_or_else(PoisonError::into_inner));
                lasts.into_iter().rev().for_each(|last| last());
                let text = told.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = writeln!(io::stderr(), "\n{text}");
                process::exit(Exit::Interrupted as i32);
            }
        })?;
        Ok(Self { says, lasts })
    }

    /// What it says from now on: one line.
    pub fn on_ctrl_c(&self, text: &str) {
        text.clone_into(&mut self.says.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is done first, for as long as the value lives: nothing is left half done. It must not take long.
    pub fn before_leaving(&self, last: impl FnOnce() + Send + 'static) -> Leaving {
        self.lasts.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(last));
        Leaving(Arc::clone(&self.lasts))
    }
}
