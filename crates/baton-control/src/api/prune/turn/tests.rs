#[expect(dead_code, reason = "the tests of the state store need more of it")]
#[path = "../../../../../baton-store/tests/redis/server.rs"]
mod redis_server;

use baton_core::units::Millis;
use baton_store::state::{Pruning, RedisStore};

use self::redis_server::Redis;
use super::*;

/// Longer than anything here takes, and shorter than a turn that nobody renews.
const LIMIT: Duration = Duration::from_secs(30);

fn states(redis: &Redis) -> Arc<dyn StateStore> {
    Arc::new(RedisStore::new(redis.address().parse().unwrap(), Millis::ZERO).unwrap())
}

async fn begin(states: &Arc<dyn StateStore>) -> Turn {
    let states = Arc::clone(states);
    blocking(move || Turn::begin(states)).await.unwrap().unwrap()
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn p28_a_turn_holds_for_as_long_as_somebody_looks_what_is_needed() {
    let redis = Redis::start();
    let turn = begin(&states(&redis)).await;
    let half = PRUNE_TURN.as_millis() as u64 / 2;
    redis.cli(&["PEXPIRE", "{baton}:prune-turn", &half.to_string()]);
    let left = || redis.cli(&["PTTL", "{baton}:prune-turn"]).trim().parse::<i64>().unwrap();
    until("it is renewed while nothing is removed", || left() > half as i64).await;
    tokio::task::spawn_blocking(|| turn.end()).await.unwrap();
    assert_eq!(left(), -2, "it is not there any more");
}

#[tokio::test]
async fn who_drops_a_turn_does_not_wait_for_its_end() {
    let redis = Redis::start();
    let states = states(&redis);
    let turn = begin(&states).await;
    redis.freeze();
    // On the only thread there is: who waited would do so until the connection is given up.
    drop(turn);
    redis.thaw();
    let ended = || states.pruning().is_ok_and(|now| now == Pruning { begun: 1, is_taken: false });
    until("it ends all the same", ended).await;
}
