//! What a monitoring system reads.

use std::collections::BTreeMap;

use crate::rollout::settled;

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_a_help_text_a_type_a_prefix_and_the_right_numbers() {
    let (server, _fleet, first) = settled(2).await;
    let text = server.call("GET", "/metrics", None).await.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["#", "TYPE", name, kind] => {
                types.insert((*name).to_owned(), (*kind).to_owned());
            }
            ["#", ..] => {}
            [sample, value] => {
                samples.insert((*sample).to_owned(), value.parse::<f64>().unwrap());
            }
            _ => panic!("{line}"),
        }
    }
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
    ] {
        assert_eq!(types.get(name).map(String::as_str), Some(kind), "{text}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
    assert_eq!(types.len(), 10, "{types:?}");
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
        assert_eq!(samples.get(sample), Some(&value), "{sample}: {text}");
    }
    assert_eq!(server.call("GET", "/healthz", None).await.text(), "ok\n");
    server.stop().await;
}
