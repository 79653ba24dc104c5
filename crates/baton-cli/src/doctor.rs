//! `baton doctor` and `baton init`: runs a program, as Baton does and by itself, and writes down what it does.

mod bare;
mod http;
mod load;
mod look;
mod member;
mod start;
mod stop;
mod told;
mod trial;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use self::bare::{Bare, Order, run_bare};
pub use self::trial::{Examined, Subject, examine};

/// How often it is looked whether something has happened.
const GLANCE: Duration = Duration::from_millis(10);

/// Why a program could not be tried out. What a program does wrong is no error, but a finding.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// Somebody else listens where the program shall.
    #[error(
        "somebody listens on {0} already: stop that first, since the program is tried where its clients will be"
    )]
    InUse(SocketAddr),
    /// The bootloader did not do what it was started for.
    #[error("baton-boot does not {what}; it said last: {said}")]
    Boot {
        /// What was waited for.
        what: String,
        /// Its last lines.
        said: String,
    },
    /// The system refused something.
    #[error("cannot {what}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody wants it to end.
    #[error("interrupted; nothing of what was started is left")]
    Interrupted,
}

impl DoctorError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Set by Ctrl-C. One for the process, as signals are.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on Ctrl-C is noticed wherever something is waited for, so that all that was started is ended.
///
/// # Errors
/// The kernel refuses.
pub fn catch_interrupts() -> Result<(), DoctorError> {
    let interrupted = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone())
            .map_err(DoctorError::io("handle signals"))?;
    }
    Ok(())
}

/// Waits until there is a value, at most for so long; nothing when there was none.
fn wait_for<T>(
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>, DoctorError>,
) -> Result<Option<T>, DoctorError> {
    let start = Instant::now();
    loop {
        if INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(DoctorError::Interrupted);
        }
        if let Some(value) = condition()? {
            return Ok(Some(value));
        }
        if start.elapsed() > limit {
            return Ok(None);
        }
        std::thread::park_timeout(GLANCE);
    }
}
