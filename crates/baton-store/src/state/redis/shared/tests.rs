#[expect(dead_code, reason = "the other tests of Redis need more of it")]
#[path = "../../../../tests/redis/server.rs"]
mod redis_server;

use baton_core::ids::MemberId;
use baton_core::report::{Stamp, Standing};

use self::redis_server::Redis;
use super::*;

#[test]
fn who_cannot_look_does_not_know_that_anybody_is_silent_since() {
    let now = Millis::from_secs(100);
    for (since, until) in [(0, 100), (1, 100), (9, 100), (10, 90), (70, 30), (200, 0)] {
        assert_eq!(heard_until(now, Duration::from_secs(since)), Millis::from_secs(until), "{since}");
    }
}

#[test]
fn p10_who_could_not_look_for_a_lease_blames_nobody_for_the_silence_until_then() {
    let (web, now) = ("web".parse().unwrap(), Millis::from_secs(100));
    let member = |number: u64| format!("m-{number}").parse::<MemberId>().unwrap();
    for (since, is_there) in [(LEASE, true), (Millis(LEASE.0 - 1000), false)] {
        let redis = Redis::start();
        let mut shared = Shared::new(redis.address().parse().unwrap(), now).unwrap();
        shared.look(None).unwrap();
        // Long enough ago to be gone, while most are there.
        for (number, heard) in [(1, Millis::from_secs(30)), (2, now), (3, now), (4, now)] {
            let stamp = Stamp { life: 1, sequence: 1 };
            let report = Report::plain(member(number), stamp, Standing::Behind);
            assert_eq!(shared.hear(&web, News::Report(report), heard), Heard::News);
        }
        shared.looked = Instant::now().checked_sub(Duration::from_millis(since.0));
        shared.look(None).unwrap();
        let known = shared.held.look(&web, Millis(now.0 + 100));
        assert_eq!(known.fleet().member(&member(1)).is_some(), is_there, "{since:?}");
        assert_eq!(known.fleet().members().count(), 3 + usize::from(is_there), "{since:?}");
    }
}
