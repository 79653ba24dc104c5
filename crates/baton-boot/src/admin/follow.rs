//! Whoever follows the output: `baton-boot logs -f`.

use std::io;
use std::time::Duration;

use baton_core::output::ring::Cursor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::status::logs;
use crate::output::Outlet;

/// How often it is looked for what is new: no time for a reader, and each look goes through all that is kept.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the bootloader's end waits for readers to take the last lines.
const LAST_LINES: Duration = Duration::from_millis(100);

/// All that follow.
#[derive(Debug)]
pub struct Followers(watch::Sender<()>);

impl Followers {
    /// None yet. What is returned too tells each of them of the end.
    pub fn none() -> (Self, watch::Receiver<()>) {
        let (ending, ended) = watch::channel(());
        (Self(ending), ended)
    }

    /// Gives them the last lines, if they take them.
    pub async fn end(self) {
        let _ = self.0.send(());
        // One is with whoever waits for the next to come.
        if self.0.receiver_count() > 1 {
            let _ = tokio::time::timeout(LAST_LINES, self.0.closed()).await;
        }
    }
}

/// Sends the last lines, and what is written from then on, until the bootloader ends or nobody reads any more.
pub async fn follow(
    client: &mut UnixStream,
    outlet: &Outlet,
    lines: u32,
    mut ended: watch::Receiver<()>,
) -> io::Result<()> {
    let (mut from, mut to) = client.split();
    let (mut last, mut cursor) = outlet.ring().tail(lines as usize);
    // What has no end yet comes when it has.
    last.retain(|line| !line.open);
    to.write_all(format!("{}\n", logs(&last)).as_bytes()).await?;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut nothing = [0];
        let is_last = tokio::select! {
            _ = looks.tick() => false,
            _ = ended.changed() => true,
            read = from.read(&mut nothing) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        if let Some(news) = news(outlet, &mut cursor) {
            to.write_all(format!("{news}\n").as_bytes()).await?;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// What was written since; none, if that is nothing. `missed`: so much that some of it is lost.
fn news(outlet: &Outlet, cursor: &mut Cursor) -> Option<Value> {
    let mut ring = outlet.ring();
    let missed = ring.has_lost(*cursor);
    let (lines, next) = ring.since(*cursor);
    *cursor = next;
    if lines.is_empty() && !missed {
        return None;
    }
    let mut news = logs(&lines);
    news["missed"] = missed.into();
    Some(news)
}
