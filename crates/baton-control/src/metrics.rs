//! What a monitoring system reads: everything from the board, so that a restart loses nothing.

use std::fmt::Error;
use std::sync::atomic::AtomicU64;

use baton_core::deploy::Kind;
use baton_core::ids::ServiceName;
use baton_core::rollout::Rollout;
use baton_core::units::Millis;
use baton_wire::access::GuardView;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::board::{Board, Posted};
use crate::view;

/// The media type of the text.
pub(crate) const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds in seconds: from a rollback within a member's start to a careful rollout over a day.
const ROLLOUT_SECONDS: [f64; 12] =
    [1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 86_400.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: String,
}

impl ServiceLabel {
    fn of(name: &str) -> Self {
        Self { service: name.to_owned() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PresenceLabels {
    service: String,
    presence: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReleaseLabels {
    service: String,
    release: String,
    standing: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    service: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GuardLabels {
    guard: String,
    service: String,
}

/// A gauge of a fraction.
type Fraction = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CostLabels {
    service: String,
    release: String,
}

/// The metrics of one moment.
struct Metrics {
    members: Family<PresenceLabels, Gauge>,
    releases: Family<ReleaseLabels, Gauge>,
    proven: Family<ServiceLabel, Fraction>,
    startup: Family<CostLabels, Fraction>,
    handover: Family<CostLabels, Fraction>,
    deploys: Family<KindLabels, Counter>,
    sessions: Family<ServiceLabel, Gauge>,
    seconds: Family<KindLabels, Histogram>,
    chunk_bytes: Counter,
    guards_off: Family<GuardLabels, Gauge>,
    needs_person: Family<ServiceLabel, Gauge>,
    locked: Family<ServiceLabel, Gauge>,
    pending: Family<ServiceLabel, Gauge>,
    store_trouble: Gauge,
    clock_ahead: Fraction,
}

/// What is told beside the board.
pub(crate) struct Beside<'a> {
    /// How much was sent since this server began.
    pub chunk_bytes: u64,
    /// By how much this server's clock is ahead of that of the state store.
    pub clock_ahead_ms: i64,
    /// The guards that are switched off.
    pub off: &'a [GuardView],
    /// The services of the deploys that wait for a second person, one for each.
    pub pending: &'a [ServiceName],
}

/// All metrics as text.
///
/// # Errors
/// None that is known: it is written to memory.
pub(crate) fn text(board: &Board, now: Millis, beside: &Beside<'_>) -> Result<String, Error> {
    let metrics = Metrics {
        members: Family::default(),
        releases: Family::default(),
        proven: Family::default(),
        startup: Family::default(),
        handover: Family::default(),
        deploys: Family::default(),
        sessions: Family::default(),
        seconds: Family::new_with_constructor(|| Histogram::new(ROLLOUT_SECONDS)),
        chunk_bytes: Counter::default(),
        guards_off: Family::default(),
        needs_person: Family::default(),
        locked: Family::default(),
        pending: Family::default(),
        store_trouble: Gauge::default(),
        clock_ahead: Fraction::default(),
    };
    for GuardView { guard, service, .. } in beside.off {
        let service = service.clone().unwrap_or_default();
        metrics.guards_off.get_or_create(&GuardLabels { guard: guard.clone(), service }).inc();
    }
    metrics.chunk_bytes.inc_by(beside.chunk_bytes);
    metrics.store_trouble.set(board.trouble.is_some().into());
    metrics.clock_ahead.set(beside.clock_ahead_ms as f64 / 1e3);
    for (name, posted) in &board.services {
        metrics.begin(name.as_str());
        metrics.add(name.as_str(), posted, now);
        // Also one that is a flavor of what is locked takes no release.
        let is_locked = posted.service.history().lock().is_some() || board.lock_above(name).is_some();
        metrics.locked.get_or_create(&ServiceLabel::of(name.as_str())).set(is_locked.into());
    }
    // Also of a service of which nobody has heard otherwise: its first deploy waits.
    for service in beside.pending {
        metrics.pending.get_or_create(&ServiceLabel::of(service.as_str())).inc();
    }
    let mut text = String::new();
    encode(&mut text, &metrics.registry())?;
    Ok(text)
}

impl Metrics {
    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("baton");
        registry.register("members", "Members by whether they can be heard", self.members.clone());
        registry.register(
            "member_releases",
            "Members by the release that serves and how far they are with the deploy in force",
            self.releases.clone(),
        );
        registry.register(
            "rollout_proven_ratio",
            "Share of the members that have proven the release of the deploy in force",
            self.proven.clone(),
        );
        registry.register_with_unit(
            "release_startup",
            "How long after its launch the release of the deploy in force is healthy, the middle one of its members",
            Unit::Seconds,
            self.startup.clone(),
        );
        registry.register_with_unit(
            "release_handover",
            "How long after that was known it has the new connections of the release before it, the middle one",
            Unit::Seconds,
            self.handover.clone(),
        );
        registry.register("deploys", "Deploys that were accepted", self.deploys.clone());
        registry.register("sessions", "Members that are connected", self.sessions.clone());
        registry.register(
            "guards_off",
            "Guards that are switched off, of a service or of all",
            self.guards_off.clone(),
        );
        registry.register(
            "rollout_needs_person",
            "Control has stopped a rollout by itself and does nothing more until somebody decides what follows",
            self.needs_person.clone(),
        );
        registry.register(
            "service_locked",
            "The service takes no new release before it is unlocked, or what it is a flavor of",
            self.locked.clone(),
        );
        registry.register(
            "pending_deploys",
            "Deploys of a protected service that wait for a second person",
            self.pending.clone(),
        );
        registry.register(
            "state_store_trouble",
            "Nothing is decided, since the state store cannot be used",
            self.store_trouble.clone(),
        );
        registry.register_with_unit(
            "clock_ahead",
            "By how much this server's clock is ahead of that of the state store, below 0: behind it",
            Unit::Seconds,
            self.clock_ahead.clone(),
        );
        registry.register_with_unit(
            "chunks_sent",
            "Content of releases that this server has sent, compressed; what members read from a bucket is not in it",
            Unit::Bytes,
            self.chunk_bytes.clone(),
        );
        registry.register_with_unit(
            "rollout",
            "Time from the acceptance of a deploy until it was switched",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry
    }

    /// What is counted of a service is there from the beginning, as 0: what first appears as 1 has not increased to that.
    fn begin(&self, name: &str) {
        let service = || name.to_owned();
        for kind in view::KINDS {
            self.deploys.get_or_create(&KindLabels { service: service(), kind }).inc_by(0);
        }
        // A halt has no end that would take time.
        for kind in view::KINDS.into_iter().filter(|kind| *kind != "halt") {
            drop(self.seconds.get_or_create(&KindLabels { service: service(), kind }));
        }
        for presence in view::member::PRESENCES {
            self.members.get_or_create(&PresenceLabels { service: service(), presence }).set(0);
        }
        for gauge in [&self.needs_person, &self.locked, &self.pending] {
            gauge.get_or_create(&ServiceLabel::of(name)).set(0);
        }
    }

    fn add(&self, name: &str, posted: &Posted, now: Millis) {
        let service = || name.to_owned();
        let fleet = posted.service.fleet();
        for (_, member) in fleet.members() {
            let presence = view::member::presence(member, now);
            self.members.get_or_create(&PresenceLabels { service: service(), presence }).inc();
            let running = member.report().and_then(|report| report.running);
            let release = running.map_or_else(|| "none".to_owned(), |release| release.short());
            let standing = view::member::standing(fleet, member).map_or("behind", |standing| standing.word());
            self.releases.get_or_create(&ReleaseLabels { service: service(), release, standing }).inc();
        }
        if let Some(rollout) = Rollout::of(fleet, now) {
            let counts = rollout.counts();
            let ratio = f64::from(counts.proven) / f64::from(counts.present().max(1));
            self.proven.get_or_create(&ServiceLabel::of(name)).set(ratio);
            let learnt = rollout.learnt();
            let labels = CostLabels { service: service(), release: rollout.deploy().release.short() };
            if let Some(startup) = learnt.startup {
                self.startup.get_or_create(&labels).set(startup.median.0 as f64 / 1e3);
            }
            if let Some(handover) = learnt.handover {
                self.handover.get_or_create(&labels).set(handover.0 as f64 / 1e6);
            }
        }
        if posted.service.history().stuck().is_some() {
            self.needs_person.get_or_create(&ServiceLabel::of(name)).set(1);
        }
        let sessions = i64::try_from(posted.sessions).unwrap_or(i64::MAX);
        self.sessions.get_or_create(&ServiceLabel::of(name)).set(sessions);
        for past in posted.service.history().past() {
            let deploy = &past.deploy;
            let labels = KindLabels { service: service(), kind: view::kind(deploy.kind) };
            self.deploys.get_or_create(&labels).inc();
            if let (Some(at), Kind::Rollout | Kind::Rollback { .. }) =
                (posted.service.milestones(deploy.id).switched, deploy.kind)
            {
                let seconds = Millis(at).since(Millis(deploy.created)).0 as f64 / 1000.0;
                self.seconds.get_or_create(&labels).observe(seconds);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_the_state_store_cannot_be_used_and_what_waits_of_a_service_that_is_not_known_is_told() {
        let pending = ["web", "api", "web"].map(|service| service.parse().unwrap());
        let beside = Beside { chunk_bytes: 7, clock_ahead_ms: -1500, off: &[], pending: &pending };
        for (trouble, number) in [(None, 0), (Some("it is away".to_owned()), 1)] {
            let board = Board { trouble, ..Board::default() };
            let text = text(&board, Millis(0), &beside).unwrap();
            for sample in [
                &format!("baton_state_store_trouble {number}\n"),
                "baton_chunks_sent_bytes_total 7\n",
                "baton_clock_ahead_seconds -1.5\n",
                "baton_pending_deploys{service=\"web\"} 2\n",
                "baton_pending_deploys{service=\"api\"} 1\n",
            ] {
                assert!(text.contains(sample), "{sample}: {text}");
            }
        }
    }
}
