//! The status page and API over real connections: contents, refusals, limits, hostile text.
//!
//! In: alerts in the outbox, requests. Out: answers. Invariant: nothing changes without the token, and a slow client slows nobody.

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/fault.rs"]
mod fault;

use std::time::{Duration, Instant};

use daemon::{Daemon, TOKEN};
use fault::FaultServer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use trailwarden::alert::Level;

async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..200 {
        if let Some(found) = probe().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("no {what} within 5 s");
}

fn bearer() -> String {
    format!("authorization: Bearer {TOKEN}\r\n")
}

async fn json_of(daemon: &Daemon, path: &str) -> Value {
    let (status, body) = daemon.get(path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_tell_the_truth() {
    let daemon = daemon::start(&[], "{}").await;
    for (expected, step) in [
        (503, Box::new(|_: &Daemon| {}) as Box<dyn Fn(&Daemon)>),
        (503, Box::new(|d| d.board.set_rules_loaded(true))),
        (200, Box::new(|d| d.board.set_leases_held(true))),
        (503, Box::new(|d| d.board.drain())),
    ] {
        step(&daemon);
        assert_eq!(daemon.get("/readyz").await.0, expected, "{:?}", daemon.board.readiness());
    }
    assert_eq!(daemon.get("/healthz").await.0, 200);
    daemon.board.pulse(daemon::now_ms() - 120_000);
    assert_eq!(daemon.get("/healthz").await.0, 503, "a pipeline that stands still is not healthy");
    let (status, text) = daemon.get("/metrics").await;
    assert!(status == 200 && text.contains("trailwarden_build_info"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_is_listed_streamed_and_shown() {
    let sink = FaultServer::always(202, "").await;
    let pager = ("pager", format!("pagerduty: {{ routing_key: k, endpoint: '{}' }}", sink.url));
    let daemon = daemon::start(&[pager], "{}").await;
    daemon.fill_board();
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let head = format!("GET /api/alerts/stream HTTP/1.1\r\nhost: {}\r\n\r\n", daemon.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains(": watching") {
        read_some(&mut stream, &mut seen).await;
    }
    daemon.put(&[alerts::alert(1, Level::Critical)]);
    let put = Instant::now();
    while !seen.contains("mallory") {
        read_some(&mut stream, &mut seen).await;
    }
    assert!(put.elapsed() < Duration::from_secs(2), "{:?}", put.elapsed());
    assert!(seen.contains("event: alert\ndata: {\"outcome\":\"sent\""), "{seen}");
    let listed = json_of(&daemon, "/api/alerts").await;
    assert_eq!(listed[0]["alert"]["id"], format!("{:032x}", 1));
    assert_eq!(listed[0]["account_name"], "production");
    assert_eq!(json_of(&daemon, "/api/alerts?min_level=critical&limit=5").await.as_array().unwrap().len(), 1);
    assert_eq!(json_of(&daemon, "/api/alerts?rule=other").await, json!([]));
    let (_, page) = daemon.get("/").await;
    for part in [
        "Snapshots purged",
        "user mallory deleted 12 snapshots",
        "Ask the principal&#39;s owner",
        "shardId-000000000003",
        "task-7f3a",
        "never",
        "b41f09c2d7e3",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("{{"), "a placeholder is left");
    until("delivery", async || (json_of(&daemon, "/api/sinks").await[0]["delivered"] == 1).then_some(())).await;
    assert_eq!(json_of(&daemon, "/api/incidents").await[0]["alerts"], 1);
    assert_eq!(json_of(&daemon, "/api/status").await["readiness"]["ready"], true);
    assert_eq!(json_of(&daemon, "/api/shards").await.as_array().unwrap().len(), 4);
    assert_eq!(json_of(&daemon, "/api/rules").await.as_array().unwrap().len(), 5);
}

async fn read_some(stream: &mut TcpStream, into: &mut String) {
    let mut buffer = [0; 8192];
    let n = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.expect("an event").unwrap();
    assert!(n > 0, "the stream ended: {into}");
    into.push_str(&String::from_utf8_lossy(&buffer[..n]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_need_the_token() {
    let daemon = daemon::start(&[], "{}").await;
    let silence = r#"{"match":{"rules":["r"]},"seconds":60,"reason":"drill"}"#;
    for (method, path, body) in [
        ("POST", "/api/silences", silence),
        ("DELETE", "/api/silences/x", ""),
        ("POST", "/api/incidents/x/resolve", ""),
        ("POST", "/api/incidents/x/acknowledge", ""),
        ("POST", "/api/test-alert", r#"{"level":"high"}"#),
        ("POST", "/api/dead-letters/x/replay", ""),
        ("POST", "/api/quarantine/x/replay", ""),
    ] {
        for (header, expected) in [("", 401), ("authorization: Bearer wrong-token-1\r\n", 403), ("authorization: Basic eDp5\r\n", 401)] {
            assert_eq!(daemon.request(method, path, header, body).await.0, expected, "{method} {path} {header}");
        }
    }
    let (status, _, made) = daemon.request("POST", "/api/silences", &bearer(), silence).await;
    assert_eq!(status, 201, "{made}");
    let id = serde_json::from_str::<Value>(&made).unwrap()["id"].as_str().unwrap().to_owned();
    until("silence", async || (json_of(&daemon, "/api/silences").await[0]["id"] == id.as_str()).then_some(())).await;
    for (body, expected) in [
        (r#"{"match":{},"seconds":60,"reason":"x"}"#, "say what the silence covers"),
        (r#"{"match":{"rules":["r"]},"seconds":60,"reason":""}"#, "say why"),
        (r#"{"match":{"rulez":["r"]},"seconds":60,"reason":"x"}"#, "unknown field `rulez`"),
        ("{", "EOF"),
    ] {
        let (status, _, answer) = daemon.request("POST", "/api/silences", &bearer(), body).await;
        assert!(status == 400 && answer.contains(expected), "{status} {answer}");
    }
    assert_eq!(daemon.request("DELETE", &format!("/api/silences/{id}"), &bearer(), "").await.0, 200);
    assert_eq!(daemon.request("DELETE", &format!("/api/silences/{id}"), &bearer(), "").await.0, 404);
    assert_eq!(daemon.request("POST", "/api/test-alert", &bearer(), r#"{"level":"high"}"#).await.2, r#"{"sinks":[]}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_sites_get_nothing() {
    let daemon = daemon::start(&[], "{}").await;
    let mut socket = TcpStream::connect(daemon.address).await.unwrap();
    socket.write_all(b"GET /api/alerts HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 421"), "{text}");
    let (_, head, _) = daemon.request("GET", "/", "", "").await;
    for header in
        ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "referrer-policy: no-referrer", "cache-control: no-store"]
    {
        assert!(head.contains(header), "{header} in {head}");
    }
    assert!(!head.contains("access-control-allow-origin"));
    for path in ["/../etc/passwd", "/part/../../x", "/api/nothing", "/part/page.html"] {
        assert_eq!(daemon.get(path).await.0, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_text_is_inert_on_the_page_and_in_the_api() {
    let daemon = daemon::start(&[], "{}").await;
    let hostile = "\u{1b}[2J<script>alert(1)</script>\"onmouseover=\"x\u{202e}{{rules}}&\n# HELP owned x\nowned 1";
    let mut alert = alerts::alert(1, Level::High);
    alert.summary = hostile.into();
    alert.account = hostile.into();
    alert.incident = hostile.into();
    alert.group = vec![(hostile.into(), hostile.into())];
    alert.events[0].name = hostile.into();
    alert.events[0].id = hostile.into();
    daemon.put(&[alert]);
    until("alert", async || (!json_of(&daemon, "/api/alerts").await.as_array().unwrap().is_empty()).then_some(())).await;
    for path in ["/", "/part/alerts", "/api/alerts", "/metrics"] {
        let (_, text) = daemon.get(path).await;
        for live in ["\u{1b}", "\u{202e}"] {
            assert!(!text.contains(live), "{path}");
        }
        if !path.starts_with("/api") {
            assert!(!text.contains("<script>alert") && !text.contains("\"onmouseover=\"") && !text.lines().any(|l| l == "owned 1"), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slow_clients_slow_nobody() {
    let sink = FaultServer::always(202, "").await;
    let pager = ("pager", format!("pagerduty: {{ routing_key: k, endpoint: '{}' }}", sink.url));
    let daemon = daemon::start(&[pager], "{}").await;
    let mut slow = Vec::new();
    for _ in 0..1_000 {
        let Ok(mut socket) = TcpStream::connect(daemon.address).await else { continue };
        let _ = socket.write_all(b"GET / HTTP/1.1\r\nhost: loc").await;
        slow.push(socket);
    }
    let put = Instant::now();
    daemon.put(&[alerts::alert(1, Level::Critical)]);
    until("page", async || (!sink.seen().is_empty()).then_some(())).await;
    assert!(put.elapsed() < Duration::from_secs(2), "{:?}", put.elapsed());
    // Heads that don't come are given up after five seconds, and the places are free again.
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert!(daemon.metrics.admin_request("limited").get() > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quarantined_records_are_listed_and_shown_without_secrets() {
    let daemon = daemon::start(&[], "{}").await;
    let bytes = b"{\"broken\": ALTER USER app IDENTIFIED BY 'hunter2'";
    let record = trailwarden::store::quarantine::QuarantinedRecord::new(5, 1, "audit/shardId-0", "495", "not JSON", bytes);
    daemon.store.kv_write(&[record.keep().unwrap()]).unwrap();
    let listed = json_of(&daemon, "/api/quarantine").await;
    assert_eq!(listed[0]["reason"], "not JSON");
    let id = listed[0]["id"].as_str().unwrap();
    let shown = json_of(&daemon, &format!("/api/quarantine/{id}")).await;
    let text = shown["text"].as_str().unwrap();
    assert!(text.contains("IDENTIFIED BY") && !text.contains("hunter2"), "{text}");
    let (status, _, replayed) = daemon.request("POST", &format!("/api/quarantine/{id}/replay"), &bearer(), "").await;
    assert!(status == 200 && replayed.contains("still no JSON"), "{replayed}");
    assert_eq!(json_of(&daemon, "/api/quarantine").await.as_array().unwrap().len(), 1);
}
