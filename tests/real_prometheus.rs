//! Debian's Prometheus accepts what the daemon exports.
//!
//! In: the text of `/metrics`. Out: promtool's verdict. Invariant: without promtool the tests pass and say `left out`.

#[path = "support/tools.rs"]
mod tools;

use std::{
    io::Write,
    process::{Command, Stdio},
};

use trailwarden::metrics::Metrics;

/// Every family with at least one series.
fn busy_metrics() -> Metrics {
    let metrics = Metrics::new();
    metrics.source("audit").records.inc();
    metrics.quarantined("gzip").inc();
    metrics.rule("d7a4", "high").findings.inc();
    metrics.shard("audit/shardId-000000000000", 0).lag.set(0.25);
    metrics.queue("decoded", 1 << 20).bytes.set(512);
    metrics.memory("state", 1 << 28).set(1 << 20);
    metrics.sink("page").delivered.inc();
    metrics.aws_call("dynamodb", "UpdateItem").ok.inc();
    metrics
}

#[test]
fn promtool_finds_no_fault_with_the_metrics() {
    let Some(promtool) = tools::tool("promtool") else { return };
    let text = busy_metrics().render(60_000);
    let mut child =
        Command::new(promtool).args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.trim().is_empty(), "{said}");
}
