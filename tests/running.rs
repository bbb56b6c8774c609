//! The real daemon from config to drain: a test alert through every kind of sink, records that can't be decoded, people's answers.
//!
//! In: `trailwarden run` on the embedded stream, one server that speaks for all services. Out: what each sink got, the commands' words,
//! exit codes. Invariant: loopback only; the daemon ends by its own id.
#![cfg(feature = "demo")]

#[path = "support/fault.rs"]
mod fault;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use fault::{Fault, FaultServer, Seen};
use serde_json::Value;
use trailwarden::demo::endpoint::{Endpoint, Options};

const TOKEN: &str = "a-token-of-the-test";
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

fn config(stream: &str, sink: &str, folder: &str, port: u16) -> String {
    format!(
        "kinesis: {{ streams: [audit], endpoint: '{stream}', poll_interval_ms: 200 }}
state: {{ path: '{folder}/state.redb' }}
sinks:
  pager: {{ pagerduty: {{ routing_key: k, endpoint: '{sink}' }} }}
  alertmanager: {{ alertmanager: {{ urls: ['{sink}'] }} }}
  chat: {{ slack: {{ url: '{sink}/chat' }} }}
  hook: {{ webhook: {{ url: '{sink}/hook', hmac_secret: s }} }}
  topic: {{ sns: {{ topic_arn: 'arn:aws:sns:eu-west-1:111122223333:alerts', endpoint: '{sink}' }} }}
  archive: {{ cloudwatch_logs: {{ log_group: alerts, region: eu-west-1, endpoint: '{sink}' }} }}
  file: {{ file: {{ path: '{folder}/alerts.ndjson' }} }}
  stdout: {{ stdout: {{ form: text }} }}
delivery: {{ account_names: {{ '111122223333': production }} }}
admin: {{ listen: '127.0.0.1:{port}', token: {TOKEN} }}
"
    )
}

struct Running {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
    sink: FaultServer,
    endpoint: Endpoint,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start() -> Running {
    let endpoint = Endpoint::start(Options::default()).await.unwrap();
    endpoint.create_stream("audit", 1).unwrap();
    let sink = FaultServer::start(yes).await;
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = folder.path().join("trailwarden.yml");
    fs::write(&file, config(endpoint.url(), &sink.url, &folder.path().display().to_string(), port)).unwrap();
    let out = fs::File::create(folder.path().join("out")).unwrap();
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let mut command = trailwarden(&["run", "--config", &file.display().to_string()], port);
    let child = command.stdout(out).stderr(log).stdin(Stdio::null()).spawn().unwrap();
    let running = Running { child, port, folder, sink, endpoint };
    running.until("readiness", |r| r.get("/readyz").0 == 200).await;
    running
}

fn trailwarden(arguments: &[&str], port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trailwarden"));
    command.args(arguments).env("TRAILWARDEN_TOKEN", TOKEN).env("TRAILWARDEN_ADDRESS", format!("127.0.0.1:{port}"));
    command.envs([("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y"), ("AWS_REGION", "eu-west-1")]);
    command
}

impl Running {
    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path)
    }

    /// Status 0: nobody answers.
    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let talk = || -> std::io::Result<String> {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            let head = format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 0\r\n\r\n");
            socket.write_all(head.as_bytes())?;
            let mut text = String::new();
            socket.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = talk().unwrap_or_default();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or(("", ""));
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), body.to_owned())
    }

    async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        for _ in 0..600 {
            if is(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no {what}; the log says:\n{}", self.read("log"));
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(Path::new(self.folder.path()).join(name)).unwrap_or_default()
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let out = trailwarden(arguments, self.port).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    }

    /// What this kind of sink was given, as text.
    fn given(&self, kind: &str) -> Vec<String> {
        let is = |seen: &Seen| match kind {
            "pager" => seen.path.ends_with("/enqueue"),
            "alertmanager" => seen.path == "/api/v2/alerts",
            "chat" | "hook" => seen.path == format!("/{kind}"),
            "topic" => seen.body.contains("Action=Publish"),
            _ => seen.header("x-amz-target").is_some_and(|target| target.ends_with("PutLogEvents")),
        };
        match kind {
            "file" => self.read("alerts.ndjson").lines().map(str::to_owned).collect(),
            "stdout" => self.read("out").lines().map(str::to_owned).collect(),
            _ => self.sink.seen().into_iter().filter(is).map(|seen| seen.body).collect(),
        }
    }

    /// PagerDuty events, each as (action, dedup_key, summary).
    fn pages(&self) -> Vec<(String, String, String)> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let page = |body: &String| {
            let event: Value = serde_json::from_str(body).unwrap();
            (word(&event["event_action"]), word(&event["dedup_key"]), word(&event["payload"]["summary"]))
        };
        self.given("pager").iter().map(page).collect()
    }

    fn put(&self, text: &str) {
        self.endpoint.put("audit", [("k".to_owned(), Bytes::from(text.to_owned()))]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_test_alert_rings_at_every_kind_of_sink() {
    let mut running = start().await;
    let (code, said) = running.run(&["alert", "test", "--level", "critical", "--pillar", "backup"]);
    assert_eq!((code, said.trim()), (0, format!("a critical test alert is on its way to {}", KINDS.join(", ")).as_str()));
    for kind in KINDS {
        let marked = |r: &Running| r.given(kind).iter().any(|text| text.replace("%20", " ").replace('+', " ").contains("TEST ALERT"));
        running.until(&format!("test alert at {kind}"), marked).await;
    }
    println!("a test alert was seen at {}", KINDS.join(", "));

    // From the stop signal on the daemon is not ready, and what is on its way still goes out.
    running.run(&["alert", "test"]);
    let hooks = running.given("hook").len();
    assert!(Command::new("kill").arg(running.child.id().to_string()).status().unwrap().success());
    let mut answers = Vec::new();
    while running.child.try_wait().unwrap().is_none() {
        answers.push(running.get("/readyz"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(answers.iter().any(|(status, why)| *status == 503 && why.contains("draining")), "{answers:?}");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
    assert!(running.given("hook").len() > hooks, "what was queued went out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_that_cannot_be_decoded_are_an_alert_and_are_kept() {
    let running = start().await;
    for n in 0..6 {
        running.put(&format!("{{\"oops {n}\": password='hunter2' "));
    }
    running.until("page", |r| r.pages().iter().any(|(.., summary)| summary.contains("could not be decoded"))).await;
    let pages = running.pages();
    println!("{}", pages[0].2);
    assert!(pages[0].2.starts_with("Records can't be decoded: audit: "), "{pages:?}");
    let (_, listed) = running.run(&["quarantine", "list"]);
    assert!(listed.lines().count() >= 6 && listed.contains("audit/shardId-000000000000"), "{listed}");
    let id = listed.split_whitespace().next().unwrap();
    let (_, shown) = running.run(&["quarantine", "show", id]);
    assert!(shown.contains("oops") && !shown.contains("hunter2"), "{shown}");
    let (code, said) = running.run(&["quarantine", "replay", id]);
    assert!(code == 1 && said.contains("still can't be decoded"), "{said}");

    // The page is answered: the same key throughout.
    let key = pages[0].1.clone();
    for verb in ["acknowledge", "resolve"] {
        assert_eq!(running.ask("POST", &format!("/api/incidents/{key}/{verb}")).0, 200, "{verb}");
        running.until(verb, |r| r.pages().iter().any(|(action, of, _)| action == verb && *of == key)).await;
    }
    let (_, metrics) = running.get("/metrics");
    let value =
        |name: &str| -> u64 { metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_else(|| panic!("{name}")) };
    let outcomes = ["matched", "unmatched", "duplicate", "quarantined"].map(|o| value(&format!("trailwarden_events_total{{outcome=\"{o}\"}}")));
    assert_eq!(outcomes.iter().sum::<u64>(), value("trailwarden_events_read_total{source=\"kinesis\"}"));
    assert_eq!(outcomes[3], 6);
}
