//! A real browser opens the status page: an alert arrives live, is opened, filtered, silenced; axe finds nothing; pictures are taken.
//!
//! In: a running daemon, `tests/page.cjs`. Out: its steps, and pictures in `target/page`. Invariant: without Chromium, Node or the npm
//! packages the test passes and says `left out`.

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/fault.rs"]
mod fault;
#[path = "support/tools.rs"]
mod tools;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use fault::FaultServer;
use trailwarden::alert::{Alert, Level};

/// A quiet day's worth, for the pictures.
fn earlier() -> Vec<Alert> {
    let told = |n: u64, level: Level, title: &str, summary: &str, tags: [&str; 3]| {
        let mut alert = Alert { summary: summary.into(), time_ms: daemon::now_ms() - 60_000 * n as i64, ..alerts::alert(n, level) };
        let rule = Arc::make_mut(&mut alert.rule);
        (rule.id, rule.title) = (format!("rule-{n}"), title.into());
        rule.tags = tags.iter().map(|t| (*t).to_owned()).collect();
        alert
    };
    vec![
        told(
            11,
            Level::Low,
            "Automatic rotation switched off",
            "user deploy cancelled the rotation of prod/orders from 198.51.100.4",
            ["attack.t1098", "pillar.identity", "service.secretsmanager"],
        ),
        told(
            12,
            Level::Medium,
            "Secret read by a new principal",
            "role ci-runner read prod/orders for the first time, from 198.51.100.4",
            ["attack.t1552", "pillar.identity", "service.secretsmanager"],
        ),
        told(
            13,
            Level::High,
            "Key policy opened to a foreign account",
            "user mallory let account 999988887777 use key orders-db from 203.0.113.7",
            ["attack.t1222", "pillar.encryption", "service.kms"],
        ),
        told(
            14,
            Level::High,
            "Snapshot shared with a foreign account",
            "user mallory shared snapshot orders-2025-11-24 with 999988887777 from 203.0.113.7",
            ["attack.t1537", "pillar.backup", "service.rds"],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_can_use_the_page() {
    let (Some(node), Some(chromium)) = (tools::tool("node"), tools::tool("chromium")) else { return };
    let (Some(_), Some(_)) = (tools::node_package("playwright-core"), tools::node_package("axe-core")) else { return };
    let (pager, chat) = (FaultServer::always(202, "").await, FaultServer::always(200, "ok").await);
    let sinks =
        [("pager", format!("pagerduty: {{ routing_key: k, endpoint: '{}' }}", pager.url)), ("chat", format!("slack: {{ url: '{}' }}", chat.url))];
    let daemon = daemon::start(&sinks, "{}").await;
    daemon.fill_board();
    daemon.put(&earlier());
    let board = daemon.board.clone();
    let metrics = daemon.metrics.clone();
    let beating = tokio::spawn(async move {
        for n in 0_u64.. {
            board.pulse(daemon::now_ms());
            metrics.events.unmatched.inc_by(400 + (n * 37) % 150);
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    tokio::time::sleep(std::time::Duration::from_secs(9)).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
    std::fs::create_dir_all(&folder).unwrap();
    let mut child = Command::new(node)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page.cjs"))
        .args([&format!("http://{}/", daemon.address), daemon::TOKEN])
        .arg(&folder)
        .env("NODE_PATH", tools::tools().join("node_modules"))
        .env("CHROMIUM", chromium)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        for line in lines.map_while(Result::ok) {
            if line == "ready" {
                daemon.put(&[Alert { time_ms: daemon::now_ms(), ..alerts::alert(1, Level::Critical) }]);
            }
            said += &(line + "\n");
        }
        said
    })
    .await
    .unwrap();
    beating.abort();
    let status = child.wait().unwrap();
    println!("{said}pictures: {}", folder.display());
    assert!(status.success(), "{said}");
}
