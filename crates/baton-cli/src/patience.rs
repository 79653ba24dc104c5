//! Patience with a server that is away: it may be restarting.

use std::time::Duration;

use baton_core::backoff;

use crate::client::ClientError;
use crate::escape::escape;
use crate::ui::Ui;

/// The longest pause between two attempts: somebody is looking on.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The pauses between attempts, each longer than the one before.
#[derive(Debug, Default)]
pub struct Pauses {
    taken: u32,
}

impl Pauses {
    /// Takes the next one, or as much of it as the limit allows.
    pub fn take(&mut self, limit: Duration) {
        self.taken = self.taken.saturating_add(1);
        pause(Duration::from_millis(backoff::delay(self.taken).0).min(PAUSE_MAX).min(limit));
    }
}

#[expect(clippy::disallowed_methods, reason = "a pause between attempts waits for nothing but time")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Asks until control answers, however long it is away, and says so on standard error. Before it does,
/// `interrupted` may end what is being drawn on the screen.
///
/// # Errors
/// An answer that asking again would not change.
pub fn ask<T>(
    ui: &Ui,
    question: impl Fn() -> Result<T, ClientError>,
    interrupted: impl FnOnce(),
) -> Result<T, ClientError> {
    let lost = match question() {
        Err(error) if error.is_away() => error,
        answer => return answer,
    };
    interrupted();
    ui.complain(
        "unreachable",
        &escape(&format!("lost the connection to control, trying again: {}", lost.cause())),
    );
    let mut pauses = Pauses::default();
    loop {
        pauses.take(PAUSE_MAX);
        match question() {
            Err(error) if error.is_away() => {}
            answer => {
                ui.remark("control answers again");
                return answer;
            }
        }
    }
}
