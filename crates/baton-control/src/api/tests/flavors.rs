//! What is told of a flavor when that of which it is one is locked or protected.

use baton_wire::access::ProtectionView;
use baton_wire::api::{LockView, Refused, Unlocked};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::effects::Asked;
use super::*;

async fn json<T: DeserializeOwned>(answer: Response) -> T {
    let body = axum::body::to_bytes(answer.into_body(), 100_000).await.unwrap();
    serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_unlocks_a_flavor_is_told_which_service_locks_it_all_the_same() {
    let asked = Asked::new(TempDir::new().unwrap());
    let admin = asked.bare.shown(Role::Admin);
    let post = async |path: &str, body: Value| asked.answer(&admin, &Method::POST, path, &body).await;
    for service in ["web", "web.beat"] {
        let release = asked.release_of(service).to_string();
        let deploy = json!({ "wanted": "rollout", "release": release });
        assert_eq!(post(&format!("/v1/services/{service}/deploys"), deploy).await.status(), 201);
    }
    for (service, reason) in [("web.beat", "mine"), ("web", "freeze")] {
        let locked = post(&format!("/v1/services/{service}/lock"), json!({ "reason": reason })).await;
        assert_eq!(locked.status(), 200);
    }
    let unlock = "/v1/services/web.beat/unlock";
    let Unlocked { was, still } = json(post(unlock, json!({})).await).await;
    assert_eq!((was.reason.as_str(), was.service), ("mine", None));
    let still = still.unwrap();
    assert_eq!((still.reason.as_str(), still.service.as_deref()), ("freeze", Some("web")));
    let refused = post(unlock, json!({})).await;
    assert_eq!(refused.status(), 422);
    let Refused { code, message } = json(refused).await;
    assert_eq!(code, "nothing-to-do");
    assert!(message.contains("web is locked by") && message.contains("freeze"), "{message}");
    assert!(message.contains("`baton unlock --service web`"), "{message}");
    // Who knows the answer as it was before reads it all the same.
    let was: Option<LockView> = json(post("/v1/services/web/unlock", json!({})).await).await;
    assert_eq!(was.unwrap().reason, "freeze");
    let Refused { message, .. } = json(post(unlock, json!({})).await).await;
    assert!(!message.contains("web is locked"), "{message}");
}

#[tokio::test]
async fn p40_who_ends_the_protection_of_a_flavor_is_told_which_service_protects_it_all_the_same() {
    let asked = Asked::new(TempDir::new().unwrap());
    let admin = asked.bare.shown(Role::Admin);
    for (service, protected, by) in [
        ("web.beat.a", false, None),
        ("web", true, None),
        ("web.beat", true, None),
        ("web.beat.a", false, Some("web.beat")),
        ("web.beat", false, Some("web")),
        ("web.beat.a", false, Some("web")),
        ("api", false, None),
        ("web", false, None),
        ("web.beat", false, None),
    ] {
        let path = format!("/v1/services/{service}/protection");
        let answer = asked.answer(&admin, &Method::PUT, &path, &json!({ "protected": protected })).await;
        let expected = ProtectionView { protected, by: by.map(str::to_owned) };
        assert_eq!(json::<ProtectionView>(answer).await, expected, "{service}");
    }
}
