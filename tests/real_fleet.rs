//! Two daemons, as they are installed, on one stream, one lease table and one state table.
//!
//! In: records that each make an alert, and sequences that only together make one; SIGTERM, SIGKILL. Out: the alerts that the daemons
//! post. Invariant: the survivor reads on within the promised time, no record goes unalerted, and nothing is told twice.
#![cfg(feature = "demo")]

mod support {
    pub mod servers;
    pub mod tools;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use support::servers::{self, free_port};
use tokio::time::sleep;
use trailwarden::demo::endpoint::{Endpoint, Limits, Options};

const FAILOVER_MS: u64 = 3000;
const EXPIRED: &str = "trailwarden_lease_events_total{event=\"expired\"}";
const TOKEN: &str = "a-token-of-the-test";
const SIGTERM_BOUND: Duration = Duration::from_secs(2);
/// Sequences that straddle one hand-over.
const SEQUENCES: u32 = 8;

/// Bodies of what the daemons post, by a sink of their own kind: a webhook.
fn webhook() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, posted) = (format!("http://{}/", listener.local_addr().unwrap()), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&posted);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || serve(socket, &kept));
        }
    });
    (url, posted)
}

fn serve(mut socket: TcpStream, kept: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        kept.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
        if socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

struct Daemon {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}:\n{}", self.log.display(), std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Daemon {
    fn start(folder: &Path, name: &str, kinesis: &str, dynamodb: &str, hook: &str) -> Self {
        let port = free_port();
        let folder = folder.join(name);
        std::fs::create_dir_all(folder.join("rules")).unwrap();
        std::fs::write(folder.join("rules/any.yml"), RULE).unwrap();
        let config = format!(
            "kinesis: {{streams: [s], endpoint: '{kinesis}', start: trim_horizon, poll_interval_ms: 200}}\n\
             leases: {{table: app, endpoint: '{dynamodb}', failover_ms: {FAILOVER_MS}, worker: trailwarden-{name}}}\n\
             rules: {{folders: ['{0}/rules']}}\n\
             sinks: {{hook: {{webhook: {{url: '{hook}'}}}}}}\n\
             routing: {{storm: {{incidents: 100000}}}}\n\
             admin: {{listen: '127.0.0.1:{port}', token: {TOKEN}}}\n",
            folder.display()
        );
        std::fs::write(folder.join("c.yml"), config).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_trailwarden"))
            .args(["run", "--config"])
            .arg(folder.join("c.yml"))
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port, log: folder.join("log") }
    }

    fn get(&self, path: &str) -> Option<String> {
        self.ask("GET", path, "")
    }

    /// The whole answer, its status line first.
    fn ask(&self, method: &str, path: &str, body: &str) -> Option<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(12))).ok()?;
        let head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n", self.port);
        let head = format!("{head}authorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n", body.len());
        socket.write_all((head + body).as_bytes()).ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// A gauge of `/metrics`; none before the daemon serves it.
    fn gauge(&self, series: &str) -> Option<f64> {
        self.get("/metrics")?.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// Waits until it holds `count` leases; how long that took.
    async fn holds(&self, count: u32) -> Duration {
        let since = Instant::now();
        while self.gauge("trailwarden_leases{state=\"held\"}") != Some(f64::from(count)) {
            assert!(since.elapsed() < Duration::from_secs(30), "port {} never held {count}", self.port);
            sleep(Duration::from_millis(25)).await;
        }
        since.elapsed()
    }

    /// Status and JSON.
    fn json(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let text = self.ask(method, path, body).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }
}

const RULE: &str = "title: Any\nid: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0001\nstatus: test\nlevel: high\ndescription: Any snapshot deletion\n\
logsource: {product: aws, service: cloudtrail}\ndetection:\n  selection: {eventName: DeleteDBSnapshot}\n  condition: selection\n\
---\ntitle: One\nname: one\nid: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0002\nstatus: test\nlevel: low\ndescription: One cluster deletion\n\
logsource: {product: aws, service: cloudtrail}\ndetection:\n  selection: {eventName: DeleteDBCluster}\n  condition: selection\n\
---\ntitle: Four\nid: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0003\nstatus: test\nlevel: critical\ndescription: Four of them\n\
correlation: {type: event_count, rules: [one], group-by: [recipientAccountId], timespan: 10m, condition: {gte: 4}}\n";

/// The account tells the record's number, hence so does the alert.
fn record(n: u32) -> (String, Bytes) {
    event("DeleteDBSnapshot", n, n, jiff::Timestamp::now())
}

/// Two of the four events of each sequence: the first half or the second. Their keys spread them over the shards.
fn halves(kind: u32, second: bool, time: jiff::Timestamp) -> impl Iterator<Item = (String, Bytes)> {
    let half = move |at: u32| 2 * u32::from(second) + at;
    (0..SEQUENCES).flat_map(move |n| (0..2).map(move |at| event("DeleteDBCluster", kind + n, 10 * (kind + n) + half(at), time)))
}

fn event(name: &str, account: u32, n: u32, time: jiff::Timestamp) -> (String, Bytes) {
    let event = format!(
        r#"{{"Records":[{{"eventVersion":"1.08","userIdentity":{{"type":"IAMUser","accountId":"{account:012}","userName":"u"}},"eventTime":"{}","eventSource":"rds.amazonaws.com","eventName":"{name}","awsRegion":"us-east-1","sourceIPAddress":"198.51.100.7","requestParameters":{{"dBSnapshotIdentifier":"s{n}"}},"eventID":"00000000-0000-4000-8000-{n:012}","eventType":"AwsApiCall","recipientAccountId":"{account:012}"}}]}}"#,
        time.strftime("%Y-%m-%dT%H:%M:%SZ")
    );
    (n.to_string(), Bytes::from(event))
}

/// Waits until every record below `total` was alerted on.
async fn alerted(posted: &Mutex<Vec<String>>, total: u32) {
    let since = Instant::now();
    loop {
        let text = posted.lock().unwrap().join("\n");
        let missing: BTreeSet<u32> = (0..total).filter(|n| !text.contains(&format!("{n:012}"))).collect();
        if missing.is_empty() {
            println!("{total} records alerted on after {:?}", since.elapsed());
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{} of {total} never alerted: {missing:?}", missing.len());
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until every sequence of `kind` was told; each must be one alert of one incident, posted once.
async fn told_once(posted: &Mutex<Vec<String>>, kind: u32) {
    let since = Instant::now();
    loop {
        let notices: Vec<Value> = posted.lock().unwrap().iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        let mut told: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for notice in notices.iter().filter(|n| n["rule"]["title"] == "Four" && n["action"] == "trigger") {
            let text = |name: &str| notice[name].as_str().unwrap().to_owned();
            told.entry(text("account")).or_default().push((text("id"), text("incident")));
        }
        let of_kind: Vec<_> = (kind..kind + SEQUENCES).filter_map(|n| told.get(&format!("{n:012}"))).collect();
        if of_kind.len() == SEQUENCES as usize {
            assert!(of_kind.iter().all(|told| told.len() == 1), "told more than once: {told:#?}");
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{} of {SEQUENCES} sequences told: {told:#?}", of_kind.len());
        sleep(Duration::from_millis(50)).await;
    }
}

/// Every single alert was posted once: an id twice would be a second page.
fn posted_once(posted: &Mutex<Vec<String>>) {
    let mut count: BTreeMap<String, u32> = BTreeMap::new();
    for body in posted.lock().unwrap().iter() {
        let notice: Value = serde_json::from_str(body).unwrap();
        *count.entry(notice["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let twice: Vec<_> = count.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "{} of {} alerts were posted more than once", twice.len(), count.len());
}

#[tokio::test]
async fn a_daemon_takes_over_from_one_that_ends_and_from_one_that_dies() {
    let Some(dynamodb) = servers::dynamodb() else { return };
    let endpoint = Endpoint::start(Options { limits: Limits::NONE, ..Options::default() }).await.unwrap();
    endpoint.create_stream("s", 4).unwrap();
    let (hook, posted) = webhook();
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str| Daemon::start(folder.path(), name, endpoint.url(), &dynamodb.url, &hook);
    let mut a = start("a");
    a.holds(4).await;
    let b = start("b");
    b.holds(2).await;
    a.holds(2).await;
    // One time for all: one cell, hence one alert a sequence.
    let time = jiff::Timestamp::now();
    endpoint.put("s", halves(2_000, false, time).chain((0..40).map(record))).unwrap();
    alerted(&posted, 40).await;
    let shards = b.get("/api/shards").unwrap();
    assert_eq!(["trailwarden-a", "trailwarden-b"].map(|owner| shards.matches(owner).count()), [2, 2], "{shards}");

    let (since, expired) = (Instant::now(), b.gauge(EXPIRED));
    a.signal("-TERM");
    endpoint.put("s", halves(2_000, true, time).chain((40..80).map(record))).unwrap();
    b.holds(4).await;
    println!("takeover after SIGTERM: {:?}", since.elapsed());
    assert!(since.elapsed() < SIGTERM_BOUND, "{:?}", since.elapsed());
    assert_eq!(b.gauge(EXPIRED), expired);
    assert!(a.child.wait().unwrap().success());
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    alerted(&posted, 80).await;
    told_once(&posted, 2_000).await;

    let c = start("c");
    c.holds(2).await;
    b.holds(2).await;
    endpoint.put("s", halves(3_000, false, time)).unwrap();
    sleep(Duration::from_secs(1)).await;
    let since = Instant::now();
    b.signal("-KILL");
    endpoint.put("s", halves(3_000, true, time).chain((80..120).map(record))).unwrap();
    c.holds(4).await;
    println!("takeover after SIGKILL: {:?} with a failover time of {FAILOVER_MS} ms", since.elapsed());
    assert!(since.elapsed() < Duration::from_millis(FAILOVER_MS) + Duration::from_secs(2), "{:?}", since.elapsed());
    alerted(&posted, 120).await;
    told_once(&posted, 3_000).await;
    posted_once(&posted);
    c.signal("-TERM");
}

/// Waits until `found` gives something; how long that took goes with it.
async fn until<T>(what: &str, found: impl Fn() -> Option<T>) -> (T, Duration) {
    let since = Instant::now();
    loop {
        if let Some(found) = found() {
            return (found, since.elapsed());
        }
        assert!(since.elapsed() < Duration::from_secs(20), "no {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// `state list|show` on the table of a fleet that runs.
async fn people_see_the_state(config: &Path, dynamodb: &str) {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trailwarden"));
        command.arg("state").args(arguments).envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")]);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let config = config.to_str().unwrap();
    let listed = || {
        let (code, out, err) = run(&["list", "--config", config]);
        assert_eq!(code, 0, "{err}");
        (out.matches("recipientAccountId=").count() == SEQUENCES as usize).then_some(out)
    };
    let (listed, _) = until("group of each sequence", listed).await;
    println!("{listed}");
    let rules = config.replace("c.yml", "rules");
    let (_, by_name, _) = run(&["list", "--table", "app-State", "--endpoint", dynamodb, "--region", "us-east-1", "--rules", &rules]);
    // Positions go on meanwhile.
    let groups = |text: &str| text.lines().filter(|line| line.contains("recipientAccountId=")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(groups(&by_name), groups(&listed));
    for text in [&listed, &by_name] {
        assert!(text.starts_with("position  shardId-000000000000  ") && text.contains("position  shardId-000000000001  "), "{text}");
        assert!(text.contains("\noutbox    0 alerts on their way\n"), "{text}");
    }
    let line = listed.lines().find(|line| line.contains("recipientAccountId=000000002000")).unwrap();
    assert!(line.contains("  Four  000000002000 recipientAccountId=000000002000  2 items, "), "{line}");
    let (code, shown, err) = run(&["show", &line[..12], "--config", config]);
    assert!(code == 0 && shown.matches("rds.amazonaws.com DeleteDBCluster 00000000-0000-4000-8000-0000000200").count() == 2, "{shown}{err}");
    for (arguments, expected) in [
        (&["list", "--table", "nosuch", "--endpoint", dynamodb][..], "there is no such table"),
        (&["list", "--table", "app", "--endpoint", dynamodb], "not a Trailwarden state"),
        (&["list"], "whose state?"),
        (&["list", "--endpoint", dynamodb], "--table"),
    ] {
        let (code, _, err) = run(arguments);
        assert!(code == 2 && err.contains(expected), "{arguments:?}: {code} {err}");
    }
}

/// What people ask of the worker that doesn't deliver: each thing is done, told truly, and done once where the other dies meanwhile.
#[tokio::test]
async fn commands_work_on_any_worker() {
    let Some(dynamodb) = servers::dynamodb() else { return };
    let endpoint = Endpoint::start(Options { limits: Limits::NONE, ..Options::default() }).await.unwrap();
    endpoint.create_stream("s", 2).unwrap();
    let (hook, posted) = webhook();
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str| Daemon::start(folder.path(), name, endpoint.url(), &dynamodb.url, &hook);
    let delivering = start("a");
    delivering.holds(2).await;
    let other = start("b");
    other.holds(1).await;
    assert_eq!(other.json("GET", "/api/status", "").1["delivers"], "trailwarden-a");
    endpoint.put("s", halves(2_000, false, jiff::Timestamp::now()).chain((0..1).map(record))).unwrap();
    alerted(&posted, 1).await;
    assert!(other.get("/").unwrap().contains("Worker trailwarden-a delivers; its own page shows the sinks."));
    people_see_the_state(&folder.path().join("b/c.yml"), &dynamodb.url).await;

    let request = json!({"match": {"accounts": ["000000000001"]}, "seconds": 600, "reason": "drill <b>"}).to_string();
    let since = Instant::now();
    let (status, silence) = other.json("POST", "/api/silences", &request);
    println!("a silence set on another worker: {:?}", since.elapsed());
    assert!(status == 201 && since.elapsed() < Duration::from_secs(3), "{status} {silence} {:?}", since.elapsed());
    for worker in [&delivering, &other] {
        assert_eq!(worker.json("GET", "/api/silences", "").1, json!([silence]));
        assert!(worker.get("/").unwrap().contains("drill &lt;b&gt;"), "on the page too");
    }
    let mut tail = Command::new(env!("CARGO_BIN_EXE_trailwarden"))
        .args(["tail", "--address", &format!("127.0.0.1:{}", other.port)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines().map_while(Result::ok);
    // What was there before; the rest comes by the stream.
    lines.next().unwrap();
    endpoint.put("s", (1..3).map(record)).unwrap();
    let told = |account: &str| posted.lock().unwrap().iter().any(|body| body.contains(account));
    until("alert on account 2", || told("000000000002").then_some(())).await;
    let since = Instant::now();
    assert!(lines.by_ref().take(10).any(|line| line.contains("000000000002")), "tail on the other worker");
    println!("tail on the other worker: {:?} after the notice", since.elapsed());
    tail.kill().unwrap();
    tail.wait().unwrap();
    let quiet = || other.get("/api/alerts").unwrap().contains(r#""outcome":"silenced""#).then_some(());
    until("silenced alert", quiet).await;
    assert!(!told("000000000001"), "account 1 is silenced");
    assert_eq!(other.json("POST", "/api/silences", "{}").0, 400);
    let path = format!("/api/silences/{}", silence["id"].as_str().unwrap());
    assert_eq!(other.json("DELETE", &path, ""), (200, json!({ "ended": silence })));
    assert_eq!(other.json("DELETE", &path, "").0, 404);
    assert_eq!(delivering.json("GET", "/api/silences", "").1, json!([]));

    let incident = other.json("GET", "/api/incidents", "").1[0]["key"].as_str().unwrap().to_owned();
    for action in ["acknowledge", "resolve"] {
        assert_eq!(other.json("POST", &format!("/api/incidents/{incident}/{action}"), ""), (200, json!({"done": true})), "{action}");
    }
    assert_eq!(other.json("POST", &format!("/api/incidents/{incident}/resolve"), "").0, 404, "it is over");
    let resolved = || posted.lock().unwrap().iter().any(|b| b.contains(&incident) && b.contains(r#""action":"resolve""#)).then_some(());
    until("notice of the resolve", resolved).await;
    let tested = Command::new(env!("CARGO_BIN_EXE_trailwarden"))
        .args(["alert", "test", "--level", "low", "--address", &format!("127.0.0.1:{}", other.port)])
        .env("TRAILWARDEN_TOKEN", TOKEN)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&tested.stdout), "a low test alert is on its way to hook\n", "{tested:?}");

    // Nobody delivers for longer than the answer waits.
    delivering.signal("-STOP");
    let (status, answer) = other.json("POST", "/api/test-alert", r#"{"level": "high"}"#);
    println!("while the worker that delivers is stopped: {status} {answer}");
    let tests = || posted.lock().unwrap().iter().filter(|body| body.contains("TEST ALERT") && body.contains(r#""level":"high""#)).count();
    assert!(status == 200 || status == 202 && answer["accepted"].as_str().unwrap().contains("written down"), "{status} {answer}");
    let (_, took) = until("test alert", || (tests() > 0).then_some(())).await;
    println!("the test alert came {took:?} later");
    delivering.signal("-CONT");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(tests(), 1, "the worker that woke up does it no second time");
    delivering.signal("-TERM");
    other.signal("-TERM");
}
