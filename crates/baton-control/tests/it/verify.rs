//! What the artefact store has is read and compared with its names.

use std::fs;

use baton_core::ids::{PackId, ReleaseId};
use baton_wire::api::{Verified, Verify};

use crate::running::{Running, rollout};

/// Asks until everything was checked.
async fn verify(server: &Running) -> Verified {
    let mut all = Verified::default();
    loop {
        let answer = server.post("/v1/releases/verify", &Verify { after: all.next.take() }).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let part: Verified = answer.json();
        all.packs += part.packs;
        all.releases += part.releases;
        all.damaged.extend(part.damaged);
        all.next = part.next;
        if all.next.is_none() {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f43_a_release_that_a_deploy_or_a_tag_names_is_missed_where_nothing_of_it_is_left() {
    let server = Running::start();
    let (first, second, other) = (server.push(1).await, server.push(2).await, server.push(3).await);
    server.deploy(&rollout(first, 0)).await;
    server.deploy(&rollout(second, 1)).await;
    assert_eq!(verify(&server).await.damaged, []);
    for release in [first, second, other] {
        fs::remove_file(server.data_dir().join(format!("artefacts/manifests/{release}"))).unwrap();
    }
    let found = verify(&server).await;
    let missed = |release: ReleaseId| found.damaged.iter().find(|damaged| damaged.id == release.to_string());
    assert!(missed(second).unwrap().why.contains("in force in web"), "{:?}", found.damaged);
    assert!(missed(first).is_some(), "where it goes back to");
    assert_eq!(missed(other), None, "nobody needs it");
    assert_eq!(found.damaged.len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f43_what_is_damaged_in_the_store_is_named_and_the_next_push_heals_it() {
    let server = Running::start();
    let (one, two) = (server.push(1).await, server.push(2).await);
    let well = verify(&server).await;
    assert_eq!((well.packs, well.releases, well.damaged.len()), (2, 2, 0));

    let packs = server.data_dir().join("artefacts/packs");
    let path = fs::read_dir(&packs).unwrap().next().unwrap().unwrap().path();
    let id: PackId = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let mut content = fs::read(&path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(&path, content).unwrap();
    let found = verify(&server).await;
    let named: Vec<(&str, &str)> =
        found.damaged.iter().map(|damaged| (damaged.what.as_str(), damaged.id.as_str())).collect();
    let (one_text, two_text, pack) = (one.to_string(), two.to_string(), id.to_string());
    assert_eq!(named[0], ("pack", pack.as_str()));
    assert!(
        named[1..] == [("release", one_text.as_str())] || named[1..] == [("release", two_text.as_str())],
        "{named:?}"
    );
    // It was set aside, so a push brings it again.
    assert!(!path.exists());
    server.push(1).await;
    server.push(2).await;
    assert_eq!(verify(&server).await.damaged, []);

    // A pack that is gone is missed by whoever needs it.
    fs::remove_file(packs.join(&pack)).unwrap();
    let found = verify(&server).await;
    assert_eq!((found.packs, found.damaged.len()), (1, 1));
    assert!(found.damaged[0].why.contains("manifest cannot be read"), "{:?}", found.damaged);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_releases_are_looked_up_in_several_answers_and_each_once() {
    let server = Running::start();
    for number in 0..40 {
        server.push(number).await;
    }
    let well = verify(&server).await;
    assert_eq!((well.packs, well.releases, well.damaged.len()), (40, 40, 0));
    let first: Verified = server.post("/v1/releases/verify", &Verify { after: None }).await.json();
    assert!(first.releases < 40 && first.next.is_some());
    let astray = server.post("/v1/releases/verify", &Verify { after: Some("there".into()) }).await;
    assert_eq!(astray.status, 400, "{}", astray.text());
    server.stop().await;
}
