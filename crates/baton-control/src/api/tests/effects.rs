//! What calls have come to, as the audit log is told, and what the last space on a full disk is for.

use std::io::Write;
use std::path::Path;

use axum::http::header::CONTENT_TYPE;
use baton_core::ids::ReleaseId;
use baton_core::release::outline::Outlined;
use baton_core::release::{Manifest, Provenance, Tree};
use baton_core::run::RunSettings;
use baton_release::manifest::pack_outline;
use serde_json::{Value, json};

use super::*;
use crate::access::doorman::effect;
use crate::audit::Effect::{self, Changed, Nothing};
use crate::audit::Note;
use crate::small_disk;

/// A server, and people who ask it.
pub(super) struct Asked {
    pub bare: Bare,
    router: Router,
}

impl Asked {
    pub fn new(dir: TempDir) -> Self {
        let bare = Bare::deciding(dir);
        let router = router(bare.shared.clone());
        Self { bare, router }
    }

    /// A release of `web` without files, which is there.
    fn release(&self) -> ReleaseId {
        self.release_of("web")
    }

    pub fn release_of(&self, service: &str) -> ReleaseId {
        let manifest = Manifest {
            service: service.parse().unwrap(),
            provenance: Provenance { created: 1, builder: "test".into(), commit: None },
            run: RunSettings::for_command(vec!["true".into()]),
            tree: Tree::of(Vec::new()).unwrap(),
        };
        let (id, text) = (manifest.id(), manifest.to_text());
        let store = &self.bare.shared.artefacts;
        store.put(&baton_release::pack::of(text.as_bytes()).unwrap()).unwrap();
        store.publish(id, &pack_outline(&Outlined::of(&text).top).unwrap()).unwrap();
        id
    }

    /// A token that makes members of `web`, or is somebody else's than that of all others.
    fn give(&self, seed: u8, holder: &str, role: Role, reusable: bool) -> String {
        let (hash, scope) =
            (TokenHash::of(&[seed; TOKEN_BYTES]), Scope::Only(["web".parse().unwrap()].into()));
        let (holder, created, expires) = (holder.parse().unwrap(), 1, None);
        let token = Token { hash, holder, role, scope, created, expires, member: None, reusable };
        self.bare.access.make(&token).unwrap();
        Shown::token(&[seed; TOKEN_BYTES], None).secret.reveal().to_owned()
    }

    /// What is answered to a request with this body.
    pub async fn answer(&self, who: &str, method: &Method, path: &str, body: &Value) -> Response {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {who}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// How a POST ends, and what it has come to.
    async fn post(&self, who: &str, path: &str, body: &Value) -> (u16, Effect) {
        let answer = self.answer(who, &Method::POST, path, body).await;
        (answer.status().as_u16(), effect(&answer))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p42_what_was_done_before_counts_as_nothing_and_a_refusal_that_leaves_something_as_a_change() {
    let asked = Asked::new(TempDir::new().unwrap());
    let [deployer, approver] = [(1, "ada", Role::Deployer), (2, "grace", Role::Approver)]
        .map(|(seed, holder, role)| asked.give(seed, holder, role, false));
    let (deploys, lock) = ("/v1/services/web/deploys", "/v1/services/web/lock");
    let rollout = |key: &str| json!({ "wanted": "rollout", "release": asked.release().to_string(), "idempotency_key": key });
    let halt = |key: &str| json!({ "wanted": "halt", "idempotency_key": key });
    let dry = json!({ "wanted": "rollout", "release": asked.release().to_string(), "dry_run": true });
    for (path, body, expected) in [
        (deploys, dry, (200, Nothing)),
        (deploys, rollout("a"), (201, Changed)),
        (deploys, rollout("a"), (201, Nothing)),
        (deploys, halt("b"), (201, Changed)),
        (deploys, halt("b"), (201, Nothing)),
        (deploys, halt("c"), (422, Nothing)),
        (lock, json!({ "reason": "fire" }), (200, Changed)),
        (lock, json!({ "reason": "fire" }), (200, Nothing)),
        (lock, json!({ "reason": "flood" }), (423, Nothing)),
        ("/v1/services/web/unlock", json!({}), (200, Changed)),
        ("/v1/services/web/unlock", json!({}), (422, Nothing)),
    ] {
        assert_eq!(asked.post(&deployer, path, &body).await, expected, "{path} {body}");
    }

    let (release, tag) = (asked.release().to_string(), "/v1/services/web/tags/production");
    let (put, delete) = (Method::PUT, Method::DELETE);
    for (method, path, body, expected) in [
        (&put, tag, json!({ "release": release }), (200, Changed)),
        (&put, tag, json!({ "release": "production" }), (200, Nothing)),
        (&put, tag, json!({ "release": "staging" }), (404, Nothing)),
        (&put, tag, json!({ "release": asked.release_of("api").to_string() }), (404, Nothing)),
        (&put, "/v1/services/web/tags/cafe", json!({ "release": release }), (400, Nothing)),
        (&delete, tag, json!({}), (200, Changed)),
        (&delete, tag, json!({}), (404, Nothing)),
    ] {
        let answer = asked.answer(&deployer, method, path, &body).await;
        assert_eq!((answer.status().as_u16(), effect(&answer)), expected, "{method} {path} {body}");
    }

    asked.bare.access.protect(&"web".parse().unwrap(), true).unwrap();
    let held = asked.answer(&deployer, &Method::POST, deploys, &rollout("d")).await;
    assert_eq!((held.status().as_u16(), effect(&held)), (403, Changed), "it is kept");
    let (id, _) = asked.bare.access.pending().pop().unwrap();
    assert!(held.extensions().get::<Note>().unwrap().0.contains(&id.to_string()));
    for key in ["d", "another"] {
        let again = asked.answer(&deployer, &Method::POST, deploys, &rollout(key)).await;
        assert_eq!((again.status().as_u16(), effect(&again)), (403, Nothing), "it waits already");
        let text = axum::body::to_bytes(again.into_body(), 10_000).await.unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains(&format!("baton pending approve {id}")), "{text}");
    }
    asked.bare.access.protect(&"web".parse().unwrap(), false).unwrap();
    assert_eq!(asked.post(&deployer, deploys, &rollout("e")).await.0, 201);
    let pending = format!("/v1/services/web/pending/{id}");
    assert_eq!(asked.post(&approver, &pending, &json!({})).await, (409, Changed), "it waits no more");
    assert_eq!(asked.post(&approver, &pending, &json!({})).await, (404, Nothing));
}

#[tokio::test]
async fn p42_who_joins_again_with_the_same_token_has_changed_nothing() {
    let asked = Asked::new(TempDir::new().unwrap());
    let [once, many] =
        [(1, false), (2, true)].map(|(seed, reusable)| asked.give(seed, "ada", Role::Join, reusable));
    let join = |member: &str| json!({ "service": "web", "member": member, "key": "k" });
    for (token, member, expected) in [
        (&once, "web-1", (200, Changed)),
        (&once, "web-1", (200, Nothing)),
        (&once, "web-2", (403, Nothing)),
        (&many, "web-3", (200, Changed)),
        // Who has made how many is known by the log alone.
        (&many, "web-3", (200, Changed)),
    ] {
        assert_eq!(asked.post(token, "/v1/join", &join(member)).await, expected, "{member}");
    }
}

#[tokio::test]
async fn p42_a_token_that_is_revoked_again_and_a_look_at_what_would_be_pruned_change_nothing() {
    let asked = Asked::new(TempDir::new().unwrap());
    let admin = asked.bare.token(1, Role::Admin, &[], None);
    let own = TokenHash::of(&[1; TOKEN_BYTES]).id();
    let mut others = asked.bare.access.tokens().into_iter().map(|held| held.token.id());
    let first = others.find(|id| *id != own).unwrap();
    for (id, expected) in [(first, (200, Changed)), (first, (200, Nothing)), (own, (422, Nothing))] {
        let answer = asked.answer(&admin, &Method::DELETE, &format!("/v1/tokens/{id}"), &json!({})).await;
        assert_eq!((answer.status().as_u16(), effect(&answer)), expected, "{id}");
    }
    for (dry_run, expected) in [(true, Nothing), (false, Changed)] {
        let body = json!({ "dry_run": dry_run, "keep": 0, "grace_ms": 0 });
        assert_eq!(asked.post(&admin, "/v1/releases/prune", &body).await, (200, expected), "{dry_run}");
    }
}

#[tokio::test]
async fn p42_the_last_space_of_a_full_disk_is_there_for_what_stops_harm() {
    let bare = Bare::new();
    let doors = bare.doors();
    let remedies = doors.iter().filter(|door| door.leaves == Leaves::Remedy).map(ToString::to_string);
    let expected = [
        "DELETE /v1/services/{service}/members/{member}/credential",
        "POST /v1/services/{service}/deploys",
        "POST /v1/services/{service}/lock",
        "DELETE /v1/tokens/{id}",
    ];
    assert_eq!(remedies.collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn p29_p42_who_may_deploy_does_not_use_up_the_space_that_a_halt_needs() {
    match small_disk::disk() {
        Some(disk) => on_full_disk(&disk).await,
        None => {
            let test =
                "api::tests::effects::p29_p42_who_may_deploy_does_not_use_up_the_space_that_a_halt_needs";
            small_disk::again(test, "size=8m");
        }
    }
}

async fn on_full_disk(disk: &Path) {
    let asked = Asked::new(TempDir::new_in(disk).unwrap());
    // Several, since one alone would be told that it asks too often.
    let thieves: Vec<String> =
        (11..=18).map(|seed| asked.bare.token(seed, Role::Deployer, &[], None)).collect();
    let (deployer, admin) = (asked.bare.shown(Role::Deployer), asked.bare.shown(Role::Admin));
    let stolen = asked.bare.token(19, Role::Viewer, &[], None);
    let (deploys, lock) = ("/v1/services/web/deploys", "/v1/services/web/lock");
    let rollout = json!({ "wanted": "rollout", "release": asked.release().to_string() });
    assert_eq!(asked.post(&deployer, deploys, &rollout).await.0, 201);
    let mut filler = std::fs::File::create(disk.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    let mut refused = None;
    for turn in 0..8000 {
        // A lock stops harm. Nobody locks what is locked, so it is unlocked in between.
        let path = if turn % 2 == 0 { lock } else { "/v1/services/web/unlock" };
        let body = json!({ "reason": "x" });
        let answer = asked.answer(&thieves[turn / 2 % thieves.len()], &Method::POST, path, &body).await;
        if answer.status() != StatusCode::OK {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("there is an end to it");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = axum::body::to_bytes(refused.into_body(), 10_000).await.unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("its disk is full") && text.contains("stops harm"), "{text}");
    for (path, body) in [("/v1/services/web/unlock", json!({})), (deploys, rollout)] {
        assert_eq!(asked.post(&deployer, path, &body).await, (503, Nothing), "{path}");
    }

    assert_eq!(asked.post(&deployer, deploys, &json!({ "wanted": "halt" })).await, (201, Changed));
    let token = format!("/v1/tokens/{}", TokenHash::of(&[19; TOKEN_BYTES]).id());
    let revoked = asked.answer(&admin, &Method::DELETE, &token, &json!({})).await;
    assert_eq!((revoked.status().as_u16(), effect(&revoked)), (200, Changed));
    assert!(
        asked.bare.access.tokens().iter().all(|held| held.token.hash != TokenHash::of(&[19; TOKEN_BYTES]))
    );
    assert_eq!(asked.post(&stolen, lock, &json!({ "reason": "x" })).await.0, 401);
    let log = std::fs::read_to_string(asked.bare._dir.path().join("audit.log")).unwrap();
    for written in ["halt of release", "DELETE /v1/tokens/"] {
        assert!(log.lines().any(|line| line.contains(written)), "{written}");
    }
}
