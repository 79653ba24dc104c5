//! `baton events`: what happened.

use std::collections::VecDeque;
use std::time::Duration;

use baton_core::ids::ServiceName;
use baton_wire::api::EventView;

use crate::args::Events;
use crate::context::Context;
use crate::failure::Failure;
use crate::patience::ask;
use crate::reader;
use crate::render::lists;

/// How long one question waits for an event: shorter than what proxies allow.
const QUESTION: Duration = Duration::from_secs(25);

/// Prints the last events, and those that follow if wanted.
pub fn run(args: &Events, context: &Context) -> Result<(), Failure> {
    let service = args.service.as_ref();
    if let Some(service) = service {
        // One that nobody knows has no events, and is a mistake all the same.
        context.client.service(service)?;
    }
    let (past, end) = last(args.last, service, context)?;
    if args.follow {
        reader::end_without()?;
        print_each(&past, context)?;
        return follow(end, service, context);
    }
    context.ui.result(&past, |past| past.iter().map(|event| lists::event(event, context.ui.width)).collect())
}

/// The last `count` events, and the number after which new ones come.
fn last(
    count: usize,
    service: Option<&ServiceName>,
    context: &Context,
) -> Result<(Vec<EventView>, u64), Failure> {
    let (mut kept, mut end) = (VecDeque::new(), 0);
    loop {
        let events = context.client.events(service, end, Duration::ZERO)?;
        let Some(newest) = events.last() else {
            return Ok((kept.into(), end));
        };
        end = newest.sequence;
        kept.extend(events);
        kept.drain(..kept.len().saturating_sub(count));
    }
}

/// Prints events as they happen, until Ctrl-C. When the server was away, it goes on after the last one that was
/// printed.
fn follow(mut after: u64, service: Option<&ServiceName>, context: &Context) -> Result<(), Failure> {
    loop {
        let events = ask(&context.ui, || context.client.events(service, after, QUESTION), || {})?;
        after = events.last().map_or(after, |event| event.sequence);
        print_each(&events, context)?;
    }
}

fn print_each(events: &[EventView], context: &Context) -> Result<(), Failure> {
    events
        .iter()
        .try_for_each(|event| context.ui.result(event, |event| lists::event(event, context.ui.width)))
}
