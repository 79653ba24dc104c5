//! Forwarding that tells clients of a program which was replaced to come back on another connection.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;

use crate::stream::Stream;
use rustix::net::{Shutdown, shutdown};

use super::exchange::Exchange;
use super::splice::{copy, until_both_end};

/// Moves bytes both ways until both sides have ended, as [`splice`](super::splice) does; but they are read on their way,
/// so they are copied. `leaving`: the client should be told.
pub async fn both_ways(client: &Stream, server: &Stream, leaving: impl Fn() -> bool) -> io::Result<()> {
    let exchange = RefCell::new(Exchange::default());
    let there = one_way(client, server, |bytes| {
        exchange.borrow_mut().asked(bytes);
        Cow::Borrowed(bytes)
    });
    let back = one_way(server, client, |bytes| exchange.borrow_mut().answered(bytes, leaving()));
    until_both_end([client, server], there, back).await
}

async fn one_way(
    from: &Stream,
    to: &Stream,
    mut change: impl FnMut(&[u8]) -> Cow<'_, [u8]>,
) -> io::Result<()> {
    loop {
        from.readable().await?;
        if copy(from, to, &mut change).await? {
            // A side that has gone meanwhile needs not be told.
            let _ = shutdown(to, Shutdown::Write);
            return Ok(());
        }
    }
}
