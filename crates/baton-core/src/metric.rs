//! The metric gate: what a Prometheus server measures must stay within bounds while a release is rolled out.
//!
//! A release may look healthy to every probe and still answer one request in twenty with an error. The gate stops it: a query is
//! asked again and again, and so many answers out of bounds in a row are a failure of the release. What is not known is no
//! failure and no success: the rollout waits.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use crate::ids::{ReleaseId, ServiceName};
use crate::units::Millis;

/// Longest query, in bytes: a screen full.
pub const QUERY_BYTES_MAX: usize = 4096;
/// Most answers in a row: more than that is a mistake.
pub const FAILURES_MAX: u32 = 100;
/// How often it may be asked.
pub const INTERVAL_MIN: Millis = Millis::from_secs(1);
/// How seldom: a rollout waits as long for every answer.
pub const INTERVAL_MAX: Millis = Millis::from_secs(60 * 60);
/// How long an answer may take: a Prometheus that is busy takes longer than the shortest interval.
pub const ANSWER_MAX: Millis = Millis::from_secs(5);
/// An answer counts for this many intervals, and for as long as it may take: one may be lost.
const FRESH_INTERVALS: u64 = 2;
/// What a number is counted in.
const ONE: f64 = 1_000_000.0;

/// A measured number, in millionths: thresholds are compared in integers, so every server decides alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Measure(i64);

impl Measure {
    /// So many millionths.
    pub const fn of_millionths(millionths: i64) -> Self {
        Self(millionths)
    }

    /// In millionths.
    pub const fn millionths(self) -> i64 {
        self.0
    }
}

/// A text that is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("that is no number")]
pub struct NoNumber;

impl FromStr for Measure {
    type Err = NoNumber;

    /// Reads a decimal number, as Prometheus writes it. What is too large to be counted is the largest that can be.
    fn from_str(text: &str) -> Result<Self, NoNumber> {
        let number: f64 = text.trim().parse().map_err(|_| NoNumber)?;
        if number.is_nan() {
            return Err(NoNumber);
        }
        let half = if number < 0.0 { -0.5 } else { 0.5 };
        // A conversion that does not fit ends at the bound.
        Ok(Self((number * ONE + half) as i64))
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000);
        let digits = format!("{part:06}");
        match digits.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            part => write!(f, "{sign}{whole}.{part}"),
        }
    }
}

/// What must stay within bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricGate {
    /// The query, in the language of Prometheus.
    pub query: String,
    /// The least that is allowed.
    pub min: Option<Measure>,
    /// The most that is allowed.
    pub max: Option<Measure>,
    /// How often it is asked.
    pub interval: Millis,
    /// So many answers out of bounds in a row are a failure.
    pub failures: u32,
}

/// Why a gate cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGate {
    /// The query is empty or too long.
    #[error("the query of the metric has {0} bytes: write 1 to {QUERY_BYTES_MAX}")]
    Query(usize),
    /// It lets everything through, or nothing.
    #[error("the metric needs min or max, and min may not be above max")]
    Bounds,
    /// It is asked too often or too seldom.
    #[error("the metric is asked every {0}: choose {INTERVAL_MIN} to {INTERVAL_MAX}")]
    Interval(Millis),
    /// No answers, or too many.
    #[error("the metric fails after {0} answers: choose 1 to {FAILURES_MAX}")]
    Failures(u32),
}

impl MetricGate {
    /// How often it is asked where nothing else is said.
    pub const INTERVAL: Millis = Millis::from_secs(10);
    /// How many answers fail it where nothing else is said: one may be chance.
    pub const FAILURES: u32 = 3;

    /// Whether it can be.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn check(&self) -> Result<(), InvalidGate> {
        if self.query.is_empty() || self.query.len() > QUERY_BYTES_MAX {
            return Err(InvalidGate::Query(self.query.len()));
        }
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&self.interval) {
            return Err(InvalidGate::Interval(self.interval));
        }
        if !(1..=FAILURES_MAX).contains(&self.failures) {
            return Err(InvalidGate::Failures(self.failures));
        }
        match (self.min, self.max) {
            (None, None) => Err(InvalidGate::Bounds),
            (Some(min), Some(max)) if min > max => Err(InvalidGate::Bounds),
            (Some(_), _) | (_, Some(_)) => Ok(()),
        }
    }

    /// The query for a release of a service: `$service` and `$release` stand for them.
    pub fn query_for(&self, service: &ServiceName, release: ReleaseId) -> String {
        self.query.replace("$service", service.as_str()).replace("$release", &release.to_string())
    }

    /// Whether a value is allowed.
    pub fn allows(&self, value: Measure) -> bool {
        self.min.is_none_or(|min| min <= value) && self.max.is_none_or(|max| value <= max)
    }

    fn bounds(&self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{min} to {max} is allowed"),
            (Some(min), None) => format!("{min} at least is allowed"),
            (None, Some(max)) => format!("{max} at most is allowed"),
            (None, None) => "everything is allowed".to_string(),
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When it was asked for.
    pub at: Millis,
    /// What was answered, or why nothing that can be judged.
    pub found: Result<Measure, String>,
}

/// What the answers of a rollout say so far. Those from before its first slot say nothing about it, and are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples {
    last: Option<Sample>,
    /// The last one that was a number.
    known: Option<(Millis, Measure)>,
    /// How many numbers in a row were out of bounds, up to the last one.
    outside: u32,
}

impl Samples {
    /// Takes in the next answer. One that was asked for before the last one says nothing that is not known better by now.
    pub fn add(&mut self, gate: &MetricGate, sample: Sample) {
        if self.last.as_ref().is_some_and(|last| sample.at <= last.at) {
            return;
        }
        if let Ok(value) = sample.found {
            self.known = Some((sample.at, value));
            self.outside = if gate.allows(value) { 0 } else { self.outside.saturating_add(1) };
        }
        self.last = Some(sample);
    }

    /// What follows from them now. `since` is the moment from when on an answer must be.
    pub fn judge(&self, gate: &MetricGate, since: Millis, now: Millis) -> Judgement {
        if let Some((_, value)) = self.known.filter(|_| self.outside > 0) {
            let outside = Outside { value, bounds: gate.bounds(), times: self.outside, of: gate.failures };
            return match self.outside >= gate.failures {
                true => Judgement::Failed(outside),
                false => Judgement::Waits(Unsure::Outside(outside)),
            };
        }
        // What counts is when it was asked for, and it may come late.
        let fresh = Millis(FRESH_INTERVALS * gate.interval.0 + ANSWER_MAX.0);
        let known = self.known.map(|(at, _)| at).filter(|at| *at >= since);
        match (known.map(|at| now.since(at)), &self.last) {
            (Some(age), _) if age <= fresh => Judgement::Within,
            (_, Some(Sample { found: Err(why), .. })) => Judgement::Waits(Unsure::Unknown(why.clone())),
            (Some(age), _) => Judgement::Waits(Unsure::Unknown(format!("the last answer is {age} old"))),
            (None, _) => Judgement::Waits(Unsure::Unasked),
        }
    }
}

/// The answers of one rollout, and from when on they count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    samples: Samples,
    /// When the first member was seen to have the release.
    begun: Option<Millis>,
    proven: u32,
    /// When another member was seen to have proven it.
    proven_at: Millis,
}

impl Measured {
    /// Takes in how far the rollout is: whether anybody has got a slot, and how many have proven the release.
    pub fn see(&mut self, has_begun: bool, proven: u32, now: Millis) {
        if has_begun && self.begun.is_none() {
            self.begun = Some(now);
        }
        if self.proven != proven {
            (self.proven, self.proven_at) = (proven, now);
        }
    }

    /// Takes in an answer, unless it was asked for before anybody had the release.
    pub fn add(&mut self, gate: &MetricGate, sample: Sample) {
        if self.begun.is_some_and(|begun| begun <= sample.at) {
            self.samples.add(gate, sample);
        }
    }

    /// Whether the rollout may go on to further members: at once to the first ones, about whom nothing can be known.
    pub fn may_go_on(&self, gate: &MetricGate, now: Millis) -> Judgement {
        match self.begun {
            None => Judgement::Within,
            Some(begun) => self.samples.judge(gate, begun, now),
        }
    }

    /// Whether it may end: an answer is needed from after the last member has proven the release.
    pub fn may_end(&self, gate: &MetricGate, now: Millis) -> Judgement {
        self.samples.judge(gate, self.proven_at, now)
    }
}

/// What follows from what was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Judgement {
    /// The rollout goes on.
    Within,
    /// Nobody new gets a slot, and it does not end.
    Waits(Unsure),
    /// The release has failed.
    Failed(Outside),
}

/// Why a rollout waits for its metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsure {
    /// Nothing was answered yet that counts.
    Unasked,
    /// What is answered cannot be judged, or nobody answers.
    Unknown(String),
    /// It is out of bounds, and not for long enough to say that the release has failed.
    Outside(Outside),
}

/// A value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// The last one.
    pub value: Measure,
    /// What is allowed, in words.
    pub bounds: String,
    /// How many answers in a row.
    pub times: u32,
    /// How many fail the release.
    pub of: u32,
}

impl Outside {
    /// A stable word for the API.
    pub const fn code(&self) -> &'static str {
        "metric-failed"
    }
}

impl Unsure {
    /// A stable word for the API.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unasked => "metric-unasked",
            Self::Unknown(_) => "metric-unknown",
            Self::Outside(_) => "metric-outside",
        }
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, bounds, times, of } = self;
        write!(f, "the metric is {value}, and {bounds}: {times} of {of} answers in a row")
    }
}

impl fmt::Display for Unsure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unasked => {
                f.write_str("the metric was not measured yet since members have got the release")
            }
            Self::Unknown(why) => write!(f, "the metric is not known: {why}"),
            Self::Outside(outside) => outside.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gate() -> MetricGate {
        MetricGate {
            query: "up".to_string(),
            min: None,
            max: Some("0.05".parse().unwrap()),
            interval: Millis::from_secs(10),
            failures: 3,
        }
    }

    fn samples(gate: &MetricGate, answers: &[(u64, Option<&str>)]) -> Samples {
        let mut samples = Samples::default();
        for (second, answer) in answers {
            let found = answer.map(|answer| answer.parse().unwrap()).ok_or("nobody answers".to_string());
            samples.add(gate, Sample { at: Millis::from_secs(*second), found });
        }
        samples
    }

    #[test]
    fn p10_an_older_answer_that_comes_late_counts_for_nothing() {
        let gate = gate();
        let now = Millis::from_secs(15);
        let on_time = samples(&gate, &[(4, Some("0.9"))]);
        assert!(matches!(on_time.judge(&gate, Millis::ZERO, now), Judgement::Waits(Unsure::Outside(_))));
        assert_eq!(samples(&gate, &[(4, Some("0.9")), (0, Some("0"))]), on_time);
        assert_eq!(samples(&gate, &[(4, Some("0.9")), (4, Some("0"))]), on_time);
    }

    #[test]
    fn numbers_are_read_as_prometheus_writes_them() {
        for (text, millionths, shown) in [
            ("0.05", 50_000, "0.05"),
            ("1", 1_000_000, "1"),
            ("-0.29", -290_000, "-0.29"),
            ("1.5e-05", 15, "0.000015"),
            ("+Inf", i64::MAX, "9223372036854.775807"),
            ("-Inf", i64::MIN, "-9223372036854.775808"),
        ] {
            let measure: Measure = text.parse().unwrap();
            assert_eq!((measure.millionths(), measure.to_string().as_str()), (millionths, shown), "{text}");
        }
        for bad in ["NaN", "", "0,05", "ten"] {
            assert_eq!(bad.parse::<Measure>(), Err(NoNumber), "{bad}");
        }
    }

    #[test]
    fn f81_so_many_answers_out_of_bounds_in_a_row_are_a_failure_and_one_less_is_a_wait() {
        let gate = gate();
        let judged = |answers: &[(u64, Option<&str>)]| {
            let last = answers.last().map_or(0, |(second, _)| *second);
            samples(&gate, answers).judge(&gate, Millis::ZERO, Millis::from_secs(last))
        };
        assert_eq!(judged(&[(0, Some("0.05"))]), Judgement::Within, "the bound itself is allowed");
        let outside = |answers: &[(u64, Option<&str>)]| match judged(answers) {
            Judgement::Waits(Unsure::Outside(outside)) => (outside.times, false),
            Judgement::Failed(outside) => (outside.times, true),
            other => panic!("{other:?}"),
        };
        assert_eq!(outside(&[(0, Some("0.2")), (10, Some("0.2"))]), (2, false));
        assert_eq!(outside(&[(0, Some("0.2")), (10, Some("0.2")), (20, Some("0.06"))]), (3, true));
        // One good answer in between, and it begins anew.
        assert_eq!(outside(&[(0, Some("0.2")), (10, Some("0.01")), (20, Some("0.2"))]), (1, false));
        // An answer that is missing is neither.
        assert_eq!(outside(&[(0, Some("0.2")), (10, None), (20, Some("0.2")), (30, Some("0.2"))]), (3, true));
        assert_eq!(judged(&[(0, Some("0.2")), (10, Some("0"))]), Judgement::Within);
    }

    #[test]
    fn f81_what_is_not_known_lets_nobody_go_and_is_no_failure() {
        let gate = gate();
        let judge = |answers: &[(u64, Option<&str>)], since, now| {
            samples(&gate, answers).judge(&gate, Millis::from_secs(since), Millis::from_secs(now))
        };
        let unknown = Judgement::Waits(Unsure::Unknown("nobody answers".to_string()));
        assert_eq!(judge(&[], 0, 0), Judgement::Waits(Unsure::Unasked));
        let away: [(u64, Option<&str>); 50] = core::array::from_fn(|second| (second as u64, None));
        assert_eq!(judge(&away, 0, 50), unknown, "however often");
        let good = [(10, Some("0"))];
        assert_eq!(judge(&good, 0, 35), Judgement::Within);
        let old = Judgement::Waits(Unsure::Unknown("the last answer is 26 s old".to_string()));
        assert_eq!(judge(&good, 0, 36), old);
        assert_eq!(
            judge(&good, 11, 12),
            Judgement::Waits(Unsure::Unasked),
            "from before what is asked about"
        );
        assert_eq!(judge(&[(10, Some("0")), (20, None)], 0, 35), Judgement::Within, "one may be lost");
        assert_eq!(judge(&[(10, Some("0")), (20, None)], 0, 36), unknown);
    }

    #[test]
    fn f81_answers_that_take_longer_than_two_intervals_are_waited_for_and_count() {
        let gate = MetricGate { interval: INTERVAL_MIN, ..gate() };
        let mut samples = Samples::default();
        // Each comes 4 s after it was asked for, and before that the one of a second earlier is what is known.
        for second in 0..10 {
            samples.add(&gate, Sample { at: Millis::from_secs(second), found: Ok(Measure(0)) });
            let comes = Millis::from_secs(second + 4);
            for now in [comes, Millis(comes.0 + 999)] {
                assert_eq!(samples.judge(&gate, Millis::ZERO, now), Judgement::Within, "{now}");
            }
        }
    }

    proptest! {
        /// Worse information never speeds a rollout up, and is no failure: whatever was answered, when answers stay away, nobody
        /// goes who would have waited, and nothing fails that has not failed.
        #[test]
        fn p10_f81_answers_that_stay_away_let_nobody_go_and_fail_nothing(
            answers in proptest::collection::vec((0..15_u64, 0..3_u8), 0..12), away in 1..40_u64,
        ) {
            let gate = gate();
            let (mut at, mut all) = (0, alloc::vec::Vec::new());
            for (later, answer) in answers {
                at += later;
                all.push((at, [Some("0"), Some("1"), None][usize::from(answer)]));
            }
            let judge = |answers: &[(u64, Option<&str>)], now| {
                samples(&gate, answers).judge(&gate, Millis::ZERO, Millis::from_secs(now))
            };
            let before = judge(&all, at);
            all.extend((1..=away).map(|second| (at + second, None)));
            let after = judge(&all, at + away);
            prop_assert!(after != Judgement::Within || before == Judgement::Within, "{before:?} {after:?}");
            let failed = |judgement: &Judgement| matches!(judgement, Judgement::Failed(_));
            prop_assert_eq!(failed(&after), failed(&before));
        }
    }

    #[test]
    fn f81_the_first_members_wait_for_no_answer_and_the_last_ones_for_one_about_them() {
        let gate = gate();
        let at = Millis::from_secs;
        let good = |second| Sample { at: at(second), found: Ok(Measure(0)) };
        let waits = |judgement: Judgement| matches!(judgement, Judgement::Waits(_));
        let mut measured = Measured::default();
        measured.see(false, 0, at(0));
        measured.add(&gate, good(0));
        assert_eq!(measured.may_go_on(&gate, at(1)), Judgement::Within, "nobody has it yet");
        measured.see(true, 0, at(2));
        assert!(waits(measured.may_go_on(&gate, at(2))), "what was answered before says nothing about it");
        measured.add(&gate, good(3));
        assert_eq!(measured.may_go_on(&gate, at(3)), Judgement::Within);
        measured.see(true, 4, at(5));
        assert_eq!(measured.may_go_on(&gate, at(5)), Judgement::Within);
        assert!(waits(measured.may_end(&gate, at(5))));
        measured.add(&gate, good(6));
        measured.see(true, 4, at(7));
        assert_eq!(measured.may_end(&gate, at(7)), Judgement::Within);
    }

    #[test]
    fn gates_that_say_nothing_or_are_mistakes_are_refused() {
        let wrong = |change: fn(&mut MetricGate)| {
            let mut gate = gate();
            change(&mut gate);
            gate.check().unwrap_err()
        };
        assert!(gate().check().is_ok());
        assert_eq!(wrong(|gate| gate.query.clear()), InvalidGate::Query(0));
        assert_eq!(wrong(|gate| gate.max = None), InvalidGate::Bounds);
        assert_eq!(wrong(|gate| gate.min = Some(Measure(60_000))), InvalidGate::Bounds);
        assert_eq!(wrong(|gate| gate.interval = Millis(999)), InvalidGate::Interval(Millis(999)));
        assert_eq!(wrong(|gate| gate.failures = 0), InvalidGate::Failures(0));
    }

    #[test]
    fn a_query_names_the_service_and_the_release() {
        let gate = MetricGate { query: "errors{s=\"$service\",r=\"$release\"}".to_string(), ..gate() };
        let release = ReleaseId::from_bytes([0xab; 32]);
        let query = gate.query_for(&"web".parse().unwrap(), release);
        assert_eq!(query, format!("errors{{s=\"web\",r=\"{release}\"}}"));
    }
}
