//! Whether a reload under load loses anything.

use alloc::format;
use alloc::vec::Vec;

use super::finding::{Finding, Topic};
use super::kind::kind_of;
use super::seen::{Place, ReloadEnd, Seen, Traffic};
use crate::run::RunSettings;

pub(super) fn findings(run: &RunSettings, seen: &Seen) -> Vec<Finding> {
    let Some(reload) = &seen.reload else { return Vec::new() };
    let found = match &reload.end {
        ReloadEnd::Refused(why) => refused(run, seen, why),
        ReloadEnd::Proven => match &reload.traffic {
            Some(traffic) => proven(seen, traffic),
            None => Finding::fine(
                Topic::Reload,
                "the new generation took over and stayed healthy",
                if run.listen.is_empty() {
                    "what it was working on at that moment was not seen: that is up to how it stops"
                } else {
                    "no requests were sent meanwhile: it does not answer HTTP"
                },
            ),
        },
    };
    Vec::from([found])
}

fn refused(run: &RunSettings, seen: &Seen, why: &str) -> Finding {
    let finding = Finding::bad(
        Topic::Reload,
        format!("the new generation was refused: {why}"),
        "the first one starts alone, but a second one does not start beside it",
    );
    let other = seen.listening.iter().find(|place| match place {
        Place::Tcp(address) => run.listen.iter().all(|listen| listen.address.port() != Some(address.port())),
        Place::Unix(_) => true,
    });
    match other {
        Some(place) => finding.set(format!("{place} must not be the same for both: see other-listeners")),
        None => finding
            .set("no pid file, lock or other file with a fixed name: two live side by side for a while"),
    }
}

fn proven(seen: &Seen, traffic: &Traffic) -> Finding {
    let Traffic { answered, lost, idle_closes, first_lost } = traffic;
    let kind = kind_of(&seen.processes);
    if *lost > 0 {
        let first = first_lost.as_ref().map(|first| format!(" (the first: {first})")).unwrap_or_default();
        return Finding::bad(
            Topic::Reload,
            format!("{lost} of {} requests were lost{first}", answered + lost),
            "every deploy would lose some",
        )
        .set(kind.finish);
    }
    let seen = format!("0 of {answered} requests were lost; {idle_closes} met a connection just closed");
    match idle_closes {
        0 => Finding::fine(Topic::Reload, seen, "a deploy loses nothing under a load like this one"),
        _ => Finding::note(Topic::Reload, seen, "clients that keep connections send such a request again")
            .set(kind.last_request),
    }
}
