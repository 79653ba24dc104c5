//! How long a rollout takes if nothing fails.

use crate::units::Millis;

/// The time for `wanted` members, phase by phase, each with its slots and its bake: a slot is taken for as long as a
/// start and a bake take, and then given to the next member. Fetching comes before, draining after it. None where a
/// phase has no slots, and so never ends.
pub fn forecast(phases: &[(u32, Millis)], wanted: u32, startup: Millis) -> Option<Millis> {
    let (mut time, mut left) = (Millis::ZERO, wanted);
    for (index, &(slots, bake)) in phases.iter().enumerate() {
        let is_last = index + 1 == phases.len();
        let members = if is_last { left } else { left.min(slots) };
        if members == 0 {
            break;
        }
        let rounds = u64::from(members.div_ceil(slots.max(1)));
        if slots == 0 {
            return None;
        }
        time = time + Millis((startup + bake).0.saturating_mul(rounds));
        left -= members;
    }
    Some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{self, End, Scenario, Trouble};

    #[test]
    fn each_slot_is_used_again_and_again() {
        let secs = Millis::from_secs;
        let safe = [(1, secs(10)), (12, secs(5)), (60, secs(5))];
        assert_eq!(forecast(&safe, 240, secs(2)), Some(secs(12 + 7 + 4 * 7)));
        assert_eq!(forecast(&safe, 1, secs(2)), Some(secs(12)));
        assert_eq!(forecast(&safe, 0, secs(2)), Some(Millis::ZERO));
        assert_eq!(forecast(&[(0, secs(1))], 3, secs(2)), None);
    }

    /// Members of the simulation take 0.3 to 3 s to start, after up to 3 s to fetch and before up to 5 s to drain; a lost
    /// message costs some seconds.
    #[test]
    fn what_is_simulated_takes_about_as_long() {
        for (seed, members) in (0..40).zip([10, 40, 240, 1000].into_iter().cycle()) {
            let mut scenario = Scenario::drawn(seed, members).with(Trouble::None);
            scenario.policy.limits = crate::limits::Limits::default();
            let expected = forecast(&simulate::phases(&scenario), members, Millis(1650)).unwrap();
            let outcome = simulate::run(seed, &scenario);
            assert_eq!(outcome.end, End::Switched);
            let (least, most) = (Millis(expected.0 * 3 / 4), Millis(expected.0 * 2) + Millis::from_secs(60));
            assert!(
                (least..=most).contains(&outcome.took),
                "{scenario}: {} and not {expected}",
                outcome.took
            );
        }
    }
}
