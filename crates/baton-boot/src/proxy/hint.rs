//! Forwarding that tells clients of a program which was replaced to come back on another connection.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::sync::atomic::AtomicU64;

use super::exchange::Exchange;
use crate::copying;
use crate::forwarding::until_over;
use crate::stream::Stream;

/// Moves bytes both ways until the connection is [over](until_over), as [`splice`](super::splice) does; but they are read on
/// their way, so they are copied. `leaving`: the client should be told.
pub async fn both_ways(client: &Stream, server: &Stream, leaving: impl Fn() -> bool) -> io::Result<()> {
    let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let exchange = RefCell::new(Exchange::default());
    let there = copying::all(client, server, &asked, |bytes| {
        exchange.borrow_mut().asked(bytes);
        Cow::Borrowed(bytes)
    });
    let back =
        copying::all(server, client, &answered, |bytes| exchange.borrow_mut().answered(bytes, leaving()));
    until_over(client, server, &asked, there, back).await
}
