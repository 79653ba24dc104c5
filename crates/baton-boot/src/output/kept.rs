//! What is remembered of the programs' output: all of it for a while, and the last lines of each generation.

use std::sync::Arc;

use baton_core::output::time::UnixMicros;
use baton_core::units::Millis;

use super::Shared;
use super::echo::{Echo, Part};
use super::last_lines::LastLines;
use super::source::{Origin, Source};

/// The thread's side of it.
pub(super) struct Kept {
    shared: Arc<Shared>,
    /// What was passed on and not kept yet, with the last lines that it belongs to.
    echo: Option<(Echo, Vec<(Origin, LastLines)>)>,
    /// Whether this system lets us have one.
    has_echo: bool,
}

impl Kept {
    /// With nothing in it.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, echo: None, has_echo: true }
    }

    /// Remembers what was read of a source.
    pub fn add(&self, source: &Source, time: UnixMicros, bytes: &[u8]) {
        let (generation, stream) = source.origin;
        source.last.add(generation, stream, time, bytes);
        self.shared.ring().add(generation, stream, time, bytes);
    }

    /// A stream has ended.
    pub fn end(&self, (generation, stream): Origin) {
        self.shared.ring().end(generation, stream);
    }

    /// Remembers at most `bytes` of what waits in a source, without reading them, and returns how many these are.
    pub fn refer(&mut self, source: &Source, time: UnixMicros, bytes: usize, now: Millis) -> usize {
        if self.echo.is_none() && self.has_echo {
            self.echo = Echo::open(now).ok().map(|echo| (echo, Vec::new()));
            self.has_echo = self.echo.is_some();
        }
        let Some((echo, last)) = &mut self.echo else { return 0 };
        if last.iter().all(|(origin, _)| *origin != source.origin) {
            last.push((source.origin, source.last.clone()));
        }
        echo.take(source.descriptor(), source.origin, time, bytes)
    }

    /// When [`settle`](Self::settle) is due.
    pub fn due(&self) -> Option<Millis> {
        self.echo.as_ref().map(|(echo, _)| echo.due())
    }

    /// Keeps for good what was only referred to: before anything else is added, and before anybody looks.
    pub fn settle(&mut self, buffer: &mut [u8]) {
        let Some((echo, last)) = self.echo.take() else { return };
        let last_of = |origin| last.iter().find(|(known, _)| *known == origin).map(|(_, last)| last);
        let mut ring = self.shared.ring();
        for origin in echo.torn() {
            ring.forget(origin.0, origin.1);
            last_of(*origin).into_iter().for_each(|last| last.forget(origin.0, origin.1));
        }
        echo.settle(buffer, |Part { origin, time, .. }, bytes| {
            ring.add(origin.0, origin.1, time, bytes);
            last_of(origin).into_iter().for_each(|last| last.add(origin.0, origin.1, time, bytes));
        });
    }
}
