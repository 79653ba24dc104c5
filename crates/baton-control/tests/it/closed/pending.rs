//! What waits for a second person: who signs it, what overtakes it, and who takes it back.

use std::sync::Arc;

use baton_core::access::Role;
use baton_core::ids::{Epoch, KeyId, SignatureBytes};
use baton_core::trust::{Bounds, Signature, Signed, Warrant};
use baton_wire::access::{Approving, PendingView, Protection};
use baton_wire::api::{DeployName, DeployView, Preview, Propose, Refused};
use tempfile::TempDir;

use super::{Asker, start};
use crate::running::{Running, rollout};

/// What somebody asks for, signed as it would be deployed now.
async fn signed(asker: &Asker, asked: &Propose, keys: &[u8]) -> Propose {
    let looked = Propose { dry_run: true, ..asked.clone() };
    let preview: Preview = asker.post("/v1/services/web/deploys", &looked).await.json();
    let would_be = preview.deploy.unwrap();
    let mut signed = Signed::new(Warrant {
        service: would_be.service.parse().unwrap(),
        epoch: Epoch(would_be.epoch),
        release: would_be.release.parse().unwrap(),
        fallback: would_be.fallback.map(|fallback| fallback.parse().unwrap()),
        bounds: Bounds::of(&would_be.policy.policy().unwrap()),
        expires: 4_102_444_800_000,
    });
    for &key in keys {
        let bytes = SignatureBytes::from_bytes([key; 64]);
        signed.add(Signature { key: KeyId::from_bytes([key; 32]), bytes });
    }
    Propose { parent: would_be.parent, warrant: Some(signed.to_text()), ..asked.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn p40_what_needs_a_signature_waits_for_nobody_before_it_has_one() {
    let server = Running::start_closed(Arc::new(TempDir::new().unwrap()));
    let admin = Asker::new(&server, Some(server.first_token()));
    let deployer = admin.give(&server, 1, Role::Deployer, &["web"]).await;
    let release = deployer.push("web").await.unwrap();
    let (deploys, asked) = ("/v1/services/web/deploys", rollout(release, 0));
    let first = signed(&deployer, &asked, &[1]).await;
    let accepted = deployer.post(deploys, &first).await;
    assert_eq!(accepted.status, 201, "{}", accepted.text());
    let protection = Some(serde_json::to_vec(&Protection { protected: true }).unwrap());
    assert_eq!(admin.call("PUT", "/v1/services/web/protection", protection).await.status, 200);

    let refused: Refused = deployer.post(deploys, &asked).await.json();
    assert_eq!(refused.code, "unsigned", "{refused:?}");
    let pending: Vec<PendingView> = admin.call("GET", "/v1/pending", None).await.json();
    assert_eq!(pending, []);
    // Who gives signatures up says so, and asks a second person.
    let held: Refused = deployer.post(deploys, &Propose { unsigned: true, ..asked }).await.json();
    assert_eq!(held.code, "needs-approval", "{held:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p40_what_fewer_keys_have_signed_than_before_is_not_used_up_unless_they_are_enough() {
    let server = start();
    let admin = Asker::new(&server, Some(server.first_token()));
    let deployer = admin.give(&server, 1, Role::Deployer, &["web"]).await;
    let approver = admin.give(&server, 2, Role::Approver, &["web"]).await;
    let release = deployer.push("web").await.unwrap();
    let (deploys, asked) = ("/v1/services/web/deploys", rollout(release, 0));
    let first = signed(&deployer, &asked, &[1, 2]).await;
    assert_eq!(deployer.post(deploys, &first).await.status, 201);
    let protection = Some(serde_json::to_vec(&Protection { protected: true }).unwrap());
    assert_eq!(admin.call("PUT", "/v1/services/web/protection", protection).await.status, 200);

    let waits = async |asked: &Propose| {
        let held: Refused = deployer.post(deploys, asked).await.json();
        let how = format!("--key KEY --release {}`", release.short());
        assert!(held.code == "needs-approval" && held.message.contains(&how), "{held:?}");
        let waits: Vec<PendingView> = approver.get("/v1/pending").await;
        assert_eq!(waits.len(), 1, "{waits:#?}");
        format!("/v1/services/web/pending/{}", waits[0].id)
    };
    let path = waits(&signed(&deployer, &asked, &[1]).await).await;
    for body in [None, Some(b"{}".to_vec())] {
        let refused: Refused = approver.call("POST", &path, body).await.json();
        assert!(
            refused.code == "too-few-signatures" && refused.message.contains("--as-signed"),
            "{refused:?}"
        );
    }
    let Propose { warrant, .. } = signed(&deployer, &asked, &[2]).await;
    let begun = approver.post(&path, &Approving { warrant, as_signed: false }).await;
    assert_eq!(begun.status, 201, "it waits as before: {}", begun.text());

    let path = waits(&signed(&deployer, &asked, &[1]).await).await;
    let begun = approver.post(&path, &Approving { warrant: None, as_signed: true }).await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p40_what_was_overtaken_says_by_what_and_who_has_asked_takes_it_back() {
    let server = start();
    let admin = Asker::new(&server, Some(server.first_token()));
    let deployer = admin.give(&server, 1, Role::Deployer, &["web"]).await;
    let other = admin.give(&server, 2, Role::Deployer, &["web"]).await;
    let asked = rollout(deployer.push("web").await.unwrap(), 0);
    let protect = async |protected| {
        let protection = Some(serde_json::to_vec(&Protection { protected }).unwrap());
        assert_eq!(admin.call("PUT", "/v1/services/web/protection", protection).await.status, 200);
    };
    let waiting = async || -> Vec<PendingView> { other.get("/v1/pending").await };
    protect(true).await;
    assert_eq!(deployer.post("/v1/services/web/deploys", &asked).await.status, 403);
    let waits = waiting().await;
    assert_eq!((waits.len(), &waits[0].overtaken_by), (1, &None));
    protect(false).await;
    let deploy: DeployView = other.post("/v1/services/web/deploys", &asked).await.json();
    let DeployView { id, epoch, kind, release, actor, .. } = deploy;
    let by = DeployName { id, epoch, kind, release, actor };
    assert_eq!(waiting().await[0].overtaken_by, Some(by));
    let metrics = admin.call("GET", "/metrics", None).await.text();
    assert!(metrics.contains("baton_pending_deploys{service=\"web\"} 0"), "{metrics}");

    let path = format!("/v1/services/web/pending/{}", waits[0].id);
    let refused: Refused = other.call("DELETE", &path, None).await.json();
    assert!(refused.code == "not-allowed" && refused.message.contains("deployer-1 has asked"), "{refused:?}");
    assert_eq!(deployer.call("DELETE", &path, None).await.status, 200);
    assert_eq!(waiting().await, []);
    server.stop().await;
}
