//! What a monitoring system reads.

use std::collections::BTreeMap;

use crate::rollout::settled;
use crate::running::Running;

/// The types and the samples of all metrics.
async fn scrape(server: &Running) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
    let text = server.call("GET", "/metrics", None).await.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["#", "TYPE", name, kind] => {
                assert!(text.contains(&format!("# HELP {name} ")), "{name}");
                types.insert((*name).to_owned(), (*kind).to_owned());
            }
            ["#", ..] => {}
            [sample, value] => {
                samples.insert((*sample).to_owned(), value.parse::<f64>().unwrap());
            }
            _ => panic!("{line}"),
        }
    }
    (types, samples)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_happened_yet_is_0_and_not_absent() {
    let (server, _fleet, _) = settled(2).await;
    let (_, samples) = scrape(&server).await;
    for sample in [
        r#"baton_deploys_total{service="web",kind="halt"}"#,
        r#"baton_deploys_total{service="web",kind="rollback"}"#,
        r#"baton_rollout_seconds_count{service="web",kind="rollback"}"#,
        r#"baton_members{service="web",presence="silent"}"#,
        r#"baton_members{service="web",presence="gone"}"#,
        r#"baton_members{service="web",presence="unheard"}"#,
        r#"baton_rollout_needs_person{service="web"}"#,
        r#"baton_service_locked{service="web"}"#,
        r#"baton_pending_deploys{service="web"}"#,
        "baton_state_store_trouble",
        "baton_clock_ahead_seconds",
    ] {
        assert_eq!(samples.get(sample), Some(&0.0), "{sample}: {samples:#?}");
    }
    assert!(!samples.contains_key(r#"baton_rollout_seconds_count{service="web",kind="halt"}"#));
    let why = serde_json::json!({ "reason": "fire" });
    assert_eq!(server.post("/v1/services/web/lock", &why).await.status, 200);
    let (_, samples) = scrape(&server).await;
    assert_eq!(samples.get(r#"baton_service_locked{service="web"}"#), Some(&1.0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_a_help_text_a_type_a_prefix_and_the_right_numbers() {
    let (server, _fleet, first) = settled(2).await;
    let (types, samples) = scrape(&server).await;
    for (name, kind) in [
        ("baton_members", "gauge"),
        ("baton_member_releases", "gauge"),
        ("baton_rollout_proven_ratio", "gauge"),
        ("baton_release_startup_seconds", "gauge"),
        ("baton_release_handover_seconds", "gauge"),
        ("baton_deploys", "counter"),
        ("baton_sessions", "gauge"),
        ("baton_chunks_sent_bytes", "counter"),
        ("baton_rollout_seconds", "histogram"),
        ("baton_rollout_needs_person", "gauge"),
        ("baton_guards_off", "gauge"),
        ("baton_service_locked", "gauge"),
        ("baton_pending_deploys", "gauge"),
        ("baton_state_store_trouble", "gauge"),
        ("baton_clock_ahead_seconds", "gauge"),
    ] {
        assert_eq!(types.get(name).map(String::as_str), Some(kind), "{name}");
    }
    assert_eq!(types.len(), 15, "{types:?}");
    for (sample, value) in [
        (r#"baton_members{service="web",presence="live"}"#, 2.0),
        (
            &format!(
                r#"baton_member_releases{{service="web",release="{}",standing="proven"}}"#,
                first.short()
            ),
            2.0,
        ),
        (r#"baton_rollout_proven_ratio{service="web"}"#, 1.0),
        (&format!(r#"baton_release_startup_seconds{{service="web",release="{}"}}"#, first.short()), 1.5),
        (
            &format!(r#"baton_release_handover_seconds{{service="web",release="{}"}}"#, first.short()),
            0.000_25,
        ),
        (r#"baton_deploys_total{service="web",kind="rollout"}"#, 1.0),
        (r#"baton_sessions{service="web"}"#, 2.0),
        ("baton_chunks_sent_bytes_total", 0.0),
        (r#"baton_rollout_seconds_count{service="web",kind="rollout"}"#, 1.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample}: {samples:#?}");
    }
    assert_eq!(server.call("GET", "/healthz", None).await.text(), "ok\n");
    server.stop().await;
}
