//! How a program gets its sockets, and where else it listens.

use alloc::format;
use alloc::vec::Vec;

use super::finding::{Finding, Topic};
use super::seen::{Given, Place, Seen};
use crate::run::RunSettings;

pub(super) fn findings(run: &RunSettings, seen: &Seen) -> Vec<Finding> {
    let given = seen.given.iter().map(|(name, given)| socket(name, given));
    let others = seen.listening.iter().filter(|place| !is_listener(run, place)).map(other);
    given.chain(others).chain(port(seen)).collect()
}

/// The sockets that it could not have.
pub(super) fn refused(seen: &Seen) -> impl Iterator<Item = Finding> {
    let refused = seen.given.iter().filter(|(_, given)| matches!(given, Given::Refused(_)));
    refused.map(|(name, given)| socket(name, given))
}

fn socket(name: &str, given: &Given) -> Finding {
    match given {
        Given::Bound(asked) => Finding::fine(
            Topic::Socket,
            format!("it bound {asked} and was given the socket of listener {name:?}"),
            "two generations of it can live side by side, and nothing in it has to change",
        ),
        Given::Took => Finding::fine(
            Topic::Socket,
            format!("it took the open socket of listener {name:?}"),
            "two generations of it can live side by side, on any kernel",
        ),
        Given::Relayed => Finding::note(
            Topic::Socket,
            format!("it could not be given the socket of listener {name:?}, and listens on $PORT"),
            "the bootloader accepts and forwards: that costs a hop, and its clients all seem to be 127.0.0.1",
        ),
        Given::Proxied => Finding::fine(
            Topic::Socket,
            format!("the bootloader accepts for listener {name:?}, and forwards"),
            "as handover = \"proxy\" wants it; \"auto\" would save the hop",
        ),
        Given::Refused(why) => Finding::bad(
            Topic::Socket,
            format!("it could not have listener {name:?}: {why}"),
            "it does not listen where its clients are",
        )
        .set("the address of the listener, so that it is the one that the program binds"),
        Given::Nobody => Finding::bad(
            Topic::Socket,
            format!("nobody accepts at listener {name:?}"),
            "its clients are connected and never answered",
        )
        .set("leave the listener out, or its address: the one that the program binds"),
    }
}

fn is_listener(run: &RunSettings, place: &Place) -> bool {
    match place {
        // With a private port it listens on the loopback address; which one is the bootloader's business.
        Place::Tcp(address) => run
            .listen
            .iter()
            .any(|listen| listen.address.port() == Some(address.port()) || !listen.handover.passes_socket()),
        Place::Unix(path) => run.listen.iter().any(|listen| match listen.address.path() {
            // What it was given has a private name, which begins like the public one.
            Some(public) if listen.handover.passes_socket() => path.starts_with(public.as_str()),
            _ => !listen.handover.passes_socket() && path.ends_with(&format!("/{}.sock", listen.name)),
        }),
    }
}

fn other(place: &Place) -> Finding {
    match place {
        Place::Tcp(address) => Finding::note(
            Topic::OtherListeners,
            format!("it listens on {address} too"),
            "baton.toml does not say so: a second generation beside it cannot bind it, and nobody hands it over",
        )
        .set(format!("[[run.listen]] with name = \"other\" and address = \"{address}\"")),
        Place::Unix(path) => Finding::note(
            Topic::OtherListeners,
            format!("it listens on the Unix socket {path}"),
            "baton.toml does not say so: two generations want the same name for a while, and nobody hands it over",
        )
        .set(format!(
            "[[run.listen]] with name = \"other\" and address = \"unix:{path}\"; or, for the program's own use, a path \
             beneath $BATON_SCRATCH, which each generation has for itself"
        )),
    }
}

fn port(seen: &Seen) -> Option<Finding> {
    Some(match seen.follows_port.as_ref()? {
        Ok(()) => Finding::fine(
            Topic::Port,
            "with another $PORT it listened there",
            "several members can run on one machine, and it can be relayed to where bind cannot be answered",
        ),
        Err(why) => Finding::note(
            Topic::Port,
            format!("with another $PORT it was not healthy there: {why}"),
            "one member at a time on a machine, and only where the system lets a bind be answered",
        )
        .set("let it bind $PORT, or write {port:NAME} where run.command names the port"),
    })
}
