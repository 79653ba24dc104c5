//! Moments, for people.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Milliseconds since 1970, by this machine's clock.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment in milliseconds since 1970, to the second and in UTC: `2026-11-20T21:19:27Z`.
pub fn stamp(ms: u64) -> String {
    match i64::try_from(ms / 1000).map(Timestamp::from_second) {
        Ok(Ok(moment)) => moment.to_string(),
        Ok(Err(_)) | Err(_) => "after the year 9999".to_owned(),
    }
}

/// How long ago a moment was, in its greatest unit: `12s`, `5m`, `3h`, `40d`. Clocks differ: what is in the
/// future was just now.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..172_800 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_utc_to_the_second() {
        assert_eq!(stamp(1_795_209_567_999), "2026-11-20T21:19:27Z");
        assert_eq!(stamp(u64::MAX), "after the year 9999");
        // Where 32 bits end, and around a leap second, which no clock counts.
        assert_eq!(stamp(2_147_483_648_000), "2038-01-19T03:14:08Z");
        assert_eq!(
            [stamp(1_483_228_799_999), stamp(1_483_228_800_000)],
            ["2016-12-31T23:59:59Z", "2017-01-01T00:00:00Z"]
        );
    }

    #[test]
    fn the_past_is_told_in_its_greatest_unit() {
        for (seconds, text) in
            [(0, "0s ago"), (59, "59s ago"), (60, "1m ago"), (7200, "2h ago"), (172_800, "2d ago")]
        {
            assert_eq!(ago(0, seconds * 1000), text);
        }
        assert_eq!(ago(5000, 0), "0s ago");
    }
}
