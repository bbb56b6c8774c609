//! The real daemon from config to drain: a test alert through every kind of sink, records that can't be decoded, people's answers.
//!
//! In: `trailwarden run` on the embedded stream, one server that speaks for all services. Out: what each sink got, the commands' words,
//! exit codes. Invariant: loopback only; the daemon ends by its own id.
#![cfg(feature = "demo")]

#[path = "support/fault.rs"]
mod fault;

#[path = "support/running.rs"]
mod running;

use std::{process::Command, time::Duration};

use fault::{Fault, FaultServer, Seen};
use running::Running;
use serde_json::Value;

const KINDS: [&str; 8] = ["alertmanager", "archive", "chat", "file", "hook", "pager", "stdout", "topic"];

/// Every service's yes.
fn yes(_: usize, seen: &Seen) -> Fault {
    match seen.path.as_str() {
        _ if seen.header("x-amz-target").is_some() => Fault::AnswerWith(200, "content-type: application/x-amz-json-1.1", "{}"),
        "/" if seen.body.starts_with("Action=Publish") || seen.body.contains("&Action=Publish") => {
            Fault::Answer(200, "<PublishResponse><PublishResult><MessageId>m</MessageId></PublishResult></PublishResponse>")
        }
        "/chat" => Fault::Answer(200, "ok"),
        "/hook" => Fault::Delayed(Duration::from_millis(400), 200, ""),
        path if path.ends_with("/enqueue") => Fault::Answer(202, "{}"),
        _ => Fault::Answer(200, ""),
    }
}

fn sinks(sink: &str) -> String {
    format!(
        "  pager: {{ pagerduty: {{ routing_key: k, endpoint: '{sink}' }} }}
  alertmanager: {{ alertmanager: {{ urls: ['{sink}'] }} }}
  chat: {{ slack: {{ url: '{sink}/chat' }} }}
  hook: {{ webhook: {{ url: '{sink}/hook', hmac_secret: s }} }}
  topic: {{ sns: {{ topic_arn: 'arn:aws:sns:eu-west-1:111122223333:alerts', endpoint: '{sink}' }} }}
  archive: {{ cloudwatch_logs: {{ log_group: alerts, region: eu-west-1, endpoint: '{sink}' }} }}
  file: {{ file: {{ path: '{{folder}}/alerts.ndjson' }} }}
  stdout: {{ stdout: {{ form: text }} }}"
    )
}

/// What this kind of sink was given, as text.
fn given(running: &Running, sink: &FaultServer, kind: &str) -> Vec<String> {
    let is = |seen: &Seen| match kind {
        "pager" => seen.path.ends_with("/enqueue"),
        "alertmanager" => seen.path == "/api/v2/alerts",
        "chat" | "hook" => seen.path == format!("/{kind}"),
        "topic" => seen.body.contains("Action=Publish"),
        _ => seen.header("x-amz-target").is_some_and(|target| target.ends_with("PutLogEvents")),
    };
    match kind {
        "file" => running.read("alerts.ndjson").lines().map(str::to_owned).collect(),
        "stdout" => running.read("out").lines().map(str::to_owned).collect(),
        _ => sink.seen().into_iter().filter(is).map(|seen| seen.body).collect(),
    }
}

/// PagerDuty events, each as (action, dedup_key, summary).
fn pages(running: &Running, sink: &FaultServer) -> Vec<(String, String, String)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let page = |body: &String| {
        let event: Value = serde_json::from_str(body).unwrap();
        (word(&event["event_action"]), word(&event["dedup_key"]), word(&event["payload"]["summary"]))
    };
    given(running, sink, "pager").iter().map(page).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_test_alert_rings_at_every_kind_of_sink() {
    let sink = FaultServer::start(yes).await;
    let mut running = running::start(&sinks(&sink.url)).await;
    let (code, said) = running.run(&["alert", "test", "--level", "critical", "--pillar", "backup"]);
    assert_eq!((code, said.trim()), (0, format!("a critical test alert is on its way to {}", KINDS.join(", ")).as_str()));
    for kind in KINDS {
        let marked = |r: &Running| given(r, &sink, kind).iter().any(|text| text.replace("%20", " ").replace('+', " ").contains("TEST ALERT"));
        running.until(&format!("test alert at {kind}"), marked).await;
    }
    println!("a test alert was seen at {}", KINDS.join(", "));

    // From the stop signal on the daemon is not ready, and what is on its way still goes out.
    running.run(&["alert", "test"]);
    let hooks = given(&running, &sink, "hook").len();
    assert!(Command::new("kill").arg(running.child.id().to_string()).status().unwrap().success());
    let mut answers = Vec::new();
    while running.child.try_wait().unwrap().is_none() {
        answers.push(running.get("/readyz"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(answers.iter().any(|(status, why)| *status == 503 && why.contains("draining")), "{answers:?}");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
    assert!(given(&running, &sink, "hook").len() > hooks, "what was queued went out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_that_cannot_be_decoded_are_an_alert_and_are_kept() {
    let sink = FaultServer::start(yes).await;
    let running = running::start(&sinks(&sink.url)).await;
    for n in 0..6 {
        running.put(&format!("{{\"oops {n}\": password='hunter2' "));
    }
    running.until("page", |r| pages(r, &sink).iter().any(|(.., summary)| summary.contains("could not be decoded"))).await;
    let told = pages(&running, &sink);
    println!("{}", told[0].2);
    assert!(told[0].2.starts_with("Records can't be decoded: audit: "), "{told:?}");
    let (_, listed) = running.run(&["quarantine", "list"]);
    assert!(listed.lines().count() >= 6 && listed.contains("audit/shardId-000000000000"), "{listed}");
    let id = listed.split_whitespace().next().unwrap();
    let (_, shown) = running.run(&["quarantine", "show", id]);
    assert!(shown.contains("oops") && !shown.contains("hunter2"), "{shown}");
    let (code, said) = running.run(&["quarantine", "replay", id]);
    assert!(code == 1 && said.contains("still can't be decoded"), "{said}");

    // The page is answered: the same key throughout.
    let key = told[0].1.clone();
    for verb in ["acknowledge", "resolve"] {
        assert_eq!(running.ask("POST", &format!("/api/incidents/{key}/{verb}")).0, 200, "{verb}");
        running.until(verb, |r| pages(r, &sink).iter().any(|(action, of, _)| action == verb && *of == key)).await;
    }
    let (_, metrics) = running.get("/metrics");
    let value =
        |name: &str| -> u64 { metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_else(|| panic!("{name}")) };
    let outcomes = ["matched", "unmatched", "duplicate", "quarantined"].map(|o| value(&format!("trailwarden_events_total{{outcome=\"{o}\"}}")));
    assert_eq!(outcomes.iter().sum::<u64>(), value("trailwarden_events_read_total{source=\"kinesis\"}"));
    assert_eq!(outcomes[3], 6);
}
