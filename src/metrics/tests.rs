//! Series as Prometheus reads them.

use std::time::Duration;

use super::*;

#[test]
fn series_stand_at_zero_from_the_start() {
    let metrics = Metrics::new();
    metrics.rule("r1", "high");
    metrics.sink("page");
    let text = metrics.render(0);
    for line in [
        "trailwarden_events_total{outcome=\"quarantined\"} 0",
        "trailwarden_findings_total{level=\"high\",rule=\"r1\"} 0",
        "trailwarden_alerts_total{outcome=\"rejected\",sink=\"page\"} 0",
        "trailwarden_sink_request_seconds_count{sink=\"page\"} 0",
        "trailwarden_stage_seconds_bucket{stage=\"detect\",le=\"+Inf\"} 0",
        "trailwarden_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nnot in\n{text}");
    }
}

#[test]
fn checkpoint_age_is_that_of_the_scrape() {
    let metrics = Metrics::new();
    let shard = metrics.shard("s/shardId-0", 1_000);
    assert!(metrics.render(4_000).contains("trailwarden_shard_checkpoint_age_seconds{shard=\"s/shardId-0\"} 3\n"));
    shard.checkpointed(3_500);
    assert!(metrics.render(4_000).contains("trailwarden_shard_checkpoint_age_seconds{shard=\"s/shardId-0\"} 0.5\n"));
    metrics.remove_shard("s/shardId-0");
    assert!(!metrics.render(4_000).contains("shardId-0"));
}

#[test]
fn buckets_are_cumulative_and_percentiles_exact() {
    let metrics = Metrics::new();
    let stage = metrics.stage("commit");
    for ms in [1, 3, 3, 40, 7_200_000] {
        stage.record(Duration::from_millis(ms));
    }
    let text = metrics.render(0);
    for (le, count) in [("0.0025", 1), ("0.005", 3), ("0.05", 4), ("600", 4), ("+Inf", 5)] {
        let line = format!("trailwarden_stage_seconds_bucket{{stage=\"commit\",le=\"{le}\"}} {count}");
        assert!(text.lines().any(|l| l == line), "{line}\nnot in\n{text}");
    }
    let p = stage.percentiles();
    assert_eq!(p.count, 5);
    assert!((2.97..3.04).contains(&p.p50_ms), "{p:?}");
}

#[test]
fn a_removed_rule_leaves_no_series() {
    let metrics = Metrics::new();
    metrics.rule("gone", "low").matches.inc();
    metrics.remove_rule("gone", "low");
    assert!(!metrics.render(0).contains("gone"));
}
