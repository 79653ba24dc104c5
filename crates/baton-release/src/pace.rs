//! How fast bytes may come or go, for all threads together.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_core::peers::Throttle;
use baton_core::units::{Bytes, Millis};

/// A rate that several threads keep to together, or none.
pub struct Pace(Option<Limited>);

struct Limited {
    begun: Instant,
    throttle: Mutex<Throttle>,
}

impl Pace {
    /// As fast as it goes.
    pub const fn unlimited() -> Self {
        Self(None)
    }

    /// At most so many bytes a second.
    pub fn of(rate: Bytes) -> Self {
        Self(Some(Limited { begun: Instant::now(), throttle: Mutex::new(Throttle::new(rate)) }))
    }

    /// Lets so many bytes through, after as long as that takes.
    pub(crate) fn pass(&self, bytes: usize) {
        let Some(Limited { begun, throttle }) = &self.0 else { return };
        let now = Millis(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        let pause = throttle.lock().unwrap_or_else(PoisonError::into_inner).pass(bytes, now);
        if pause > Millis::ZERO {
            wait(pause);
        }
    }

    /// What is read there, at this pace.
    pub(crate) fn reader<R: Read>(&self, inner: R) -> impl Read {
        Paced { inner, pace: self }
    }
}

#[expect(clippy::disallowed_methods, reason = "a rate is kept to by letting time pass")]
fn wait(pause: Millis) {
    std::thread::sleep(Duration::from_millis(pause.0));
}

struct Paced<'a, R> {
    inner: R,
    pace: &'a Pace,
}

impl<R: Read> Read for Paced<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.pace.pass(count);
        Ok(count)
    }
}
