//! `run` as it is installed, on the embedded stream: where it starts, how it ends, how it loads rules anew.
//!
//! In: records that each make an alert, signals, a flood. Out: the alerts in a file. Invariant: every record from the start on is alerted on
//! once, whatever comes between.
#![cfg(feature = "demo")]

#[path = "support/servers.rs"]
mod servers;
#[path = "support/tools.rs"]
mod tools;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;
use tokio::time::sleep;
use trailwarden::demo::endpoint::{Endpoint, Limits, Options};

const WAIT: Duration = Duration::from_secs(60);

const RULE: &str = "title: Any\nid: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0001\nname: any\nlevel: high\n\
logsource: {product: aws, service: cloudtrail}\ndetection:\n  selection: {eventName: DeleteDBSnapshot}\n  condition: selection\n";

const THREE: &str = "title: Three\nid: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0003\nlevel: critical\n\
correlation:\n  type: event_count\n  generate: true\n  rules: [any]\n  group-by: [userIdentity.userName]\n  timespan: 1h\n  condition: {gte: 3}\n";

struct Daemon {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// `reading` are keys of `kinesis`; `name` has its rules, state and alerts to itself, and finds them again when it starts anew.
    async fn start(folder: &Path, name: &str, endpoint: &Endpoint, reading: &str) -> Self {
        let (folder, port) = (folder.join(name), servers::free_port());
        std::fs::create_dir_all(folder.join("rules")).unwrap();
        if !folder.join("rules/any.yml").exists() {
            std::fs::write(folder.join("rules/any.yml"), RULE).unwrap();
        }
        let config = format!(
            "kinesis: {{streams: [s], endpoint: '{}', {reading}, poll_interval_ms: 200, shard_bytes_per_s: 200000000}}\n\
             rules: {{folders: ['{1}/rules']}}\nstate: {{path: '{1}/state.redb'}}\n\
             sinks: {{lines: {{file: {{path: '{1}/alerts'}}}}}}\nrouting: {{storm: {{incidents: 1000000}}}}\n\
             admin: {{listen: '127.0.0.1:{port}'}}\n",
            endpoint.url(),
            folder.display()
        );
        std::fs::write(folder.join("c.yml"), config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_trailwarden"))
            .args(["run", "--config"])
            .arg(folder.join("c.yml"))
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1"), ("TRAILWARDEN_LOG", "warn")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self { child, port, folder };
        until("ready", || daemon.get("/readyz").ends_with("ready\n")).await;
        daemon
    }

    /// The body, or nothing where nobody answers yet.
    fn get(&self, path: &str) -> String {
        let ask = || {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            write!(socket, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n\r\n", self.port).ok()?;
            let mut text = String::new();
            socket.read_to_string(&mut text).ok()?;
            Some(text.split_once("\r\n\r\n")?.1.to_owned())
        };
        ask().unwrap_or_default()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.get("/api/status")).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Numbers of the records that were alerted on by the rule of this title, each with how often.
    fn alerted(&self, title: &str) -> BTreeMap<u32, u32> {
        let mut found = BTreeMap::new();
        for line in std::fs::read_to_string(self.folder.join("alerts")).unwrap_or_default().lines() {
            // The last line may still be on its way.
            let Ok(alert) = serde_json::from_str::<Value>(line) else { continue };
            let is_told = alert["rule"]["title"] == title;
            let number =
                alert["events"].as_array().and_then(|all| all.last()).and_then(|event| event["id"].as_str()?.rsplit('-').next()?.parse().ok());
            if let (true, Some(number)) = (is_told, number) {
                *found.entry(number).or_insert(0) += 1;
            }
        }
        found
    }
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < WAIT, "not within {WAIT:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn endpoint(shards: u32) -> Endpoint {
    let endpoint = Endpoint::start(Options { limits: Limits::NONE, ..Options::default() }).await.unwrap();
    endpoint.create_stream("s", shards).unwrap();
    endpoint
}

/// Each record has an account of its own, hence an incident; the user is the same.
fn record(n: u32, name: &str) -> (String, Bytes) {
    let event = format!(
        r#"{{"Records":[{{"eventVersion":"1.08","userIdentity":{{"type":"IAMUser","accountId":"111122223333","userName":"u"}},"eventTime":"{}","eventSource":"rds.amazonaws.com","eventName":"{name}","awsRegion":"us-east-1","sourceIPAddress":"198.51.100.7","requestParameters":{{"dBSnapshotIdentifier":"s{n}"}},"eventID":"00000000-0000-4000-8000-{n:012}","eventType":"AwsApiCall","recipientAccountId":"111122223333"}}]}}"#,
        jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ")
    );
    (n.to_string(), Bytes::from(event))
}

fn put(endpoint: &Endpoint, numbers: std::ops::Range<u32>) {
    endpoint.put("s", numbers.map(|n| record(n, "DeleteDBSnapshot"))).unwrap();
}

fn once(numbers: std::ops::Range<u32>) -> BTreeMap<u32, u32> {
    numbers.map(|n| (n, 1)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_where_the_config_says() {
    let (endpoint, folder) = (endpoint(2).await, tempfile::tempdir().unwrap());
    put(&endpoint, 0..5);
    sleep(Duration::from_millis(20)).await;
    let time = jiff::Timestamp::from_millisecond(endpoint.now_ms() as i64).unwrap().to_string();
    sleep(Duration::from_millis(20)).await;
    put(&endpoint, 5..10);
    sleep(Duration::from_millis(20)).await;
    let starts = [("trim_horizon", 0), ("latest", 10), (time.as_str(), 5)];
    let mut daemons = Vec::new();
    for (number, (start, first)) in starts.into_iter().enumerate() {
        daemons.push((Daemon::start(folder.path(), &number.to_string(), &endpoint, &format!("start: '{start}'")).await, start, first));
    }
    put(&endpoint, 10..15);
    for (daemon, start, first) in &daemons {
        until("the last record", || daemon.alerted("Any").contains_key(&14)).await;
        until("every record", || daemon.alerted("Any").len() as u32 == 15 - first).await;
        assert_eq!(daemon.alerted("Any"), once(*first..15), "{start}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_within_ten_seconds_and_nothing_is_lost() {
    let (endpoint, folder) = (Arc::new(endpoint(2).await), tempfile::tempdir().unwrap());
    let (over, stored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let load = std::thread::spawn({
        let (endpoint, over, stored) = (endpoint.clone(), over.clone(), stored.clone());
        move || {
            while !over.load(Ordering::Relaxed) {
                let first = stored.fetch_add(2, Ordering::Relaxed);
                put(&endpoint, first..first + 2);
                endpoint.put("s", (0..300).map(|n| record(1_000_000 + first * 1000 + n, "DescribeDBInstances"))).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let mut first = Daemon::start(folder.path(), "a", &endpoint, "start: trim_horizon").await;
    until("alerts", || first.alerted("Any").len() > 20).await;
    first.signal("-TERM");
    let since = Instant::now();
    let status = first.child.wait().unwrap();
    assert!(status.success() && since.elapsed() < Duration::from_secs(10), "{status} after {:?}", since.elapsed());
    println!("SIGTERM under load: ended in {:?}", since.elapsed());
    let second = Daemon::start(folder.path(), "a", &endpoint, "start: trim_horizon").await;
    over.store(true, Ordering::Relaxed);
    load.join().unwrap();
    let total = stored.load(Ordering::Relaxed);
    until("every record", || second.alerted("Any").len() as u32 == total).await;
    assert_eq!(second.alerted("Any"), once(0..total));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_loads_rules_anew_with_their_evidence_and_no_broken_ones() {
    let (endpoint, folder) = (endpoint(1).await, tempfile::tempdir().unwrap());
    let rules = folder.path().join("a/rules");
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::write(rules.join("three.yml"), THREE).unwrap();
    let daemon = Daemon::start(folder.path(), "a", &endpoint, "start: trim_horizon").await;
    put(&endpoint, 0..2);
    until("two alerts", || daemon.alerted("Any").len() == 2).await;

    std::fs::write(rules.join("broken.yml"), "title: Broken\n").unwrap();
    daemon.signal("-HUP");
    until("the error", || daemon.status()["rule_set"]["reload_error"].as_str().is_some_and(|error| error.contains("broken.yml"))).await;
    std::fs::write(rules.join("broken.yml"), RULE.replace("0001", "0002").replace("any", "other").replace("Any", "Other")).unwrap();
    daemon.signal("-HUP");
    until("the new set", || daemon.status()["rule_set"]["rules"] == 3 && daemon.status()["rule_set"]["reload_error"].is_null()).await;
    put(&endpoint, 2..3);
    until("the third of three", || daemon.alerted("Three").len() == 1).await;
    until("the new rule", || daemon.alerted("Other") == once(2..3)).await;
}

/// Bytes that the process has or had at most in memory.
fn resident_bytes(daemon: &Daemon, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A build for tests detects far slower than fan-out pushes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_by_fan_out_stays_within_the_budget() {
    const BUDGET: u64 = 8 << 20;
    // The pushed event that each of four shards holds besides, as text and decoded; what is worked on; the allocator's slack.
    const BESIDES: u64 = 64 << 20;
    let (endpoint, folder) = (endpoint(4).await, tempfile::tempdir().unwrap());
    let event = String::from_utf8(record(0, "DescribeDBInstances").1.to_vec()).unwrap();
    let event = event.trim_start_matches("{\"Records\":[").trim_end_matches("]}");
    let big = Bytes::from(format!("{{\"Records\":[{}]}}", vec![event; 1000].join(",")));
    let records = (128 << 20) / big.len() as u32;
    let daemon = Daemon::start(folder.path(), "a", &endpoint, &format!("start: trim_horizon, mode: fan_out, budget_bytes: {BUDGET}")).await;
    let before = resident_bytes(&daemon, "VmRSS:");
    endpoint.put("s", (0..records).map(|n| (n.to_string(), big.clone()))).unwrap();
    put(&endpoint, 0..1);
    let done = || daemon.status()["events"]["unmatched"].as_u64() == Some(u64::from(records) * 1000) && daemon.alerted("Any") == once(0..1);
    let since = Instant::now();
    until("the flood is past", done).await;
    let grown = resident_bytes(&daemon, "VmHWM:") - before;
    println!("a flood of {} MB in {:?}: {} MB more memory", (records as usize * big.len()) >> 20, since.elapsed(), grown >> 20);
    assert!(grown < BUDGET + BESIDES, "{grown} bytes");
    let waits =
        daemon.get("/metrics").lines().find_map(|line| line.strip_prefix("trailwarden_queue_waits_total{queue=\"records\"} ")?.parse::<u64>().ok());
    assert!(waits.is_some_and(|waits| waits > 0), "the reading never waited: {waits:?}");
}
