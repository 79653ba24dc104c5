//! The metric of a policy.

use baton_core::metric::{Measure, MetricGate, NoNumber};
use baton_core::units::Millis;
use serde::{Deserialize, Serialize};

/// What a Prometheus server measures, and its bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricView {
    /// The query; `$service` and `$release` stand for those of the deploy.
    pub query: String,
    /// The least that is allowed, as a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<String>,
    /// The most that is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
    /// How often it is asked.
    pub interval_ms: u64,
    /// So many answers out of bounds in a row are a failure.
    pub failures: u32,
}

impl MetricView {
    /// Of a gate.
    pub fn of(gate: &MetricGate) -> Self {
        Self {
            query: gate.query.clone(),
            min: gate.min.as_ref().map(ToString::to_string),
            max: gate.max.as_ref().map(ToString::to_string),
            interval_ms: gate.interval.0,
            failures: gate.failures,
        }
    }

    /// The gate.
    ///
    /// # Errors
    /// A bound is no number.
    pub fn gate(&self) -> Result<MetricGate, NoNumber> {
        let bound = |text: &Option<String>| text.as_deref().map(str::parse::<Measure>).transpose();
        Ok(MetricGate {
            query: self.query.clone(),
            min: bound(&self.min)?,
            max: bound(&self.max)?,
            interval: Millis(self.interval_ms),
            failures: self.failures,
        })
    }
}
