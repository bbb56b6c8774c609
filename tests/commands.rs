//! The commands that speak to a running daemon: healthcheck, alert test, tail, quarantine, dead-letter.
//!
//! In: a daemon of the test's own. Out: exit codes and output of the real binary. Invariant: a missing token or daemon is said, with
//! what to do.

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/fault.rs"]
mod fault;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
    time::Duration,
};

use daemon::{Daemon, TOKEN};
use fault::FaultServer;
use trailwarden::{alert::Level, store::quarantine::QuarantinedRecord};

fn command(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trailwarden"));
    command.args(arguments).env("TRAILWARDEN_ADDRESS", daemon.address.to_string()).env("TRAILWARDEN_TOKEN", TOKEN);
    command
}

async fn run(daemon: &Daemon, arguments: &[&str]) -> (i32, String) {
    let mut command = command(daemon, arguments);
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (status.code().unwrap(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthcheck_says_0_or_1() {
    let daemon = daemon::start(&[], "{}").await;
    assert_eq!(run(&daemon, &["healthcheck"]).await.0, 0);
    let (code, said) = run(&daemon, &["healthcheck", "--ready"]).await;
    assert!(code == 1 && said.contains("no rules are loaded yet"), "{said}");
    daemon.fill_board();
    assert_eq!(run(&daemon, &["healthcheck", "--ready"]).await.0, 0);
    let (code, said) = run(&daemon, &["healthcheck", "--address", "127.0.0.1:9"]).await;
    assert!(code == 1 && said.contains("no daemon answers on 127.0.0.1:9"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alert_test_rings_the_pager() {
    let server = FaultServer::always(202, "").await;
    let pager = ("pager", format!("pagerduty: {{ routing_key: k, endpoint: '{}' }}", server.url));
    let daemon = daemon::start(&[pager], "routes: [{ match: { min_level: high }, sinks: [pager] }]").await;
    let (code, said) = run(&daemon, &["alert", "test", "--level", "critical"]).await;
    assert_eq!((code, said.as_str()), (0, "a critical test alert is on its way to pager\n"));
    let (code, said) = run(&daemon, &["alert", "test", "--level", "low"]).await;
    assert!(code == 1 && said.contains("no route takes a low alert"), "{said}");
    let mut without = command(&daemon, &["alert", "test"]);
    without.env_remove("TRAILWARDEN_TOKEN");
    let out = without.output().unwrap();
    assert!(out.status.code() == Some(2) && String::from_utf8_lossy(&out.stderr).contains("TRAILWARDEN_TOKEN"));
    for _ in 0..100 {
        if !server.seen().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(server.seen()[0].body.contains("TEST ALERT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_prints_what_was_and_what_comes() {
    let daemon = daemon::start(&[], "{}").await;
    let mut hostile = alerts::alert(1, Level::High);
    hostile.summary = "\u{1b}[2Jcleared".into();
    daemon.put(&[hostile]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut child = command(&daemon, &["tail"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.by_ref().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    let wait = Duration::from_secs(10);
    let first = received.recv_timeout(wait).unwrap();
    assert!(first.starts_with("HIGH Snapshots purged: [2Jcleared  [production eu-west-1 "), "{first:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    daemon.put(&[alerts::alert(2, Level::Critical)]);
    let second = received.recv_timeout(wait).unwrap();
    assert!(second.starts_with("CRITICAL Snapshots purged: user mallory deleted 12 snapshots"), "{second:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_things_are_listed_shown_and_replayed() {
    let server = FaultServer::start(|number, _| fault::Fault::Answer(if number == 0 { 400 } else { 202 }, "bad key")).await;
    let pager = ("pager", format!("pagerduty: {{ routing_key: k, endpoint: '{}' }}", server.url));
    let daemon = daemon::start(&[pager], "{}").await;
    daemon.put(&[alerts::alert(1, Level::High)]);
    let record = QuarantinedRecord::new(5, 1, "audit/shardId-0", "495", "not JSON", b"password='hunter2' {");
    daemon.store.kv_write(&[record.keep().unwrap()]).unwrap();
    for _ in 0..100 {
        if !daemon.desk.letters().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (code, listed) = run(&daemon, &["dead-letter", "list"]).await;
    assert!(code == 0 && listed.contains("pager") && listed.contains("answered 400: bad key"), "{listed}");
    let id = listed.split_whitespace().next().unwrap().to_owned();
    assert!(run(&daemon, &["dead-letter", "show", &id]).await.1.contains("\"incident\":"));
    assert_eq!(run(&daemon, &["dead-letter", "replay", &id]).await, (0, format!("{id}  queued for its sink again\n")));
    assert_eq!(run(&daemon, &["dead-letter", "replay", &id]).await.0, 1);
    let (_, listed) = run(&daemon, &["quarantine", "list"]).await;
    assert!(listed.contains("audit/shardId-0  495  20  not JSON"), "{listed}");
    let (_, shown) = run(&daemon, &["quarantine", "show", &record.id]).await;
    assert!(!shown.contains("hunter2") && shown.contains("password="), "{shown}");
    let (code, said) = run(&daemon, &["quarantine", "replay", "--all"]).await;
    assert!(code == 1 && said.contains("still can't be decoded: still no JSON"), "{said}");
}

/// In a fleet the answer of a worker that doesn't deliver is true also when none does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_carries_out_yet_is_said_to_wait() {
    let sink = || ("chat", format!("slack: {{ url: '{}' }}", "http://127.0.0.1:9/hook"));
    let daemon = daemon::start_idle(&[sink()]).await;
    let (code, said) = run(&daemon, &["alert", "test"]).await;
    assert!(code == 0 && said.starts_with("the high test alert is written down, but not in force yet: "), "{code} {said}");
    let silence = r#"{"match": {"rules": ["r"]}, "seconds": 60, "reason": "drill"}"#;
    let token = format!("authorization: Bearer {}\r\n", daemon::TOKEN);
    let (status, _, answer) = daemon.request("POST", "/api/silences", &token, silence).await;
    assert!(status == 202 && answer.starts_with(r#"{"accepted":"written down"#), "{status} {answer}");
    assert_eq!(daemon.get("/api/silences").await.1, "[]");
    assert_eq!(daemon.desk.take_orders(daemon::now_ms()).unwrap(), 2);
    assert!(daemon.get("/api/silences").await.1.contains("drill"));
    assert!(daemon.get("/api/alerts").await.1.contains(r#""outcome":"sent""#));
}
