//! Debian's Prometheus takes what the daemon exports: promtool's verdicts, a real server that scrapes a run, its rules that fire, and
//! every query of the dashboard.
//!
//! In: `/metrics` of a running daemon, `deploy/prometheus`, `deploy/grafana`. Out: Prometheus' answers. Invariant: without the tools
//! the tests pass and say `left out`; the server is ended by its own id.

#![cfg(feature = "demo")]

#[path = "support/fault.rs"]
mod fault;
#[path = "support/running.rs"]
mod running;
#[path = "support/tools.rs"]
mod tools;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fault::{Fault, FaultServer};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use trailwarden::{
    demo::{
        corpus::{Corpus, story::Story, wrap::Envelope},
        endpoint::Endpoint,
    },
    metrics::Metrics,
};

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
    let said = check_metrics(&promtool, &busy_metrics().render(60_000));
    assert!(said.is_empty(), "{said}");
}

/// What promtool has against the text; nothing, if it is clean.
fn check_metrics(promtool: &Path, text: &str) -> String {
    let mut child =
        Command::new(promtool).args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    if out.status.success() { said.trim().to_owned() } else { format!("{}: {said}", out.status) }
}

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

#[test]
fn shipped_rules_pass_their_unit_tests() {
    let Some(promtool) = tools::tool("promtool") else { return };
    for arguments in [&["check", "rules", "rules.yml"][..], &["test", "rules", "rules.test.yml"], &["check", "config", "--syntax-only", "scrape.yml"]]
    {
        let out = Command::new(&promtool).args(arguments).current_dir(deploy("prometheus")).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    }
}

/// Every alerting rule has a unit test, and every metric that rules and dashboard name is one that the daemon exports.
#[test]
fn rules_and_dashboard_name_real_metrics() {
    let rules = fs::read_to_string(deploy("prometheus/rules.yml")).unwrap();
    let tests = fs::read_to_string(deploy("prometheus/rules.test.yml")).unwrap();
    for name in rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {name}")), "{name} has no unit test");
    }
    let exported = busy_metrics().render(0);
    let dashboard = fs::read_to_string(deploy("grafana/trailwarden.json")).unwrap();
    let named = regex::Regex::new(r"\b(?:trailwarden|process)_[a-z0-9_]+").unwrap();
    for name in named.find_iter(&rules).chain(named.find_iter(&dashboard)).map(|m| m.as_str()) {
        assert!(exported.contains(name), "{name} is not exported");
    }
}

struct Prometheus {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Scrapes `target` every second; rules wait for nothing, so that a test sees them fire.
    fn start(binary: &Path, target: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = fs::read_to_string(deploy("prometheus/rules.yml")).unwrap();
        let prompt = regex::Regex::new(r"(?m)^        for: .*$").unwrap();
        fs::write(folder.path().join("rules.yml"), prompt.replace_all(&rules, "        for: 0s").as_ref()).unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [rules.yml]\n\
             scrape_configs: [{{ job_name: trailwarden, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
        );
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(binary)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address, _folder: folder }
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let mut socket = TcpStream::connect(&self.address).await.ok()?;
        socket.write_all(format!("GET {path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.address).as_bytes()).await.ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await.ok()?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }

    async fn query(&self, expression: &str) -> Value {
        let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
        self.get(&format!("/api/v1/query?query={encoded}")).await.unwrap_or_else(|| panic!("no answer to {expression}"))
    }
}

/// The expressions of all panels, as Grafana would send them.
fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_slice(&fs::read(deploy("grafana/trailwarden.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|p| p["targets"].as_array().into_iter().flatten().map(move |t| (&p["title"], &t["expr"])));
    let sent = |expr: &str| expr.replace("$job", ".+").replace("$__rate_interval", "1m");
    targets.map(|(title, expr)| (title.as_str().unwrap().to_owned(), sent(expr.as_str().unwrap()))).collect()
}

/// Panels that are rightly empty while all is well.
const EMPTY_IN_PEACE: [&str; 2] = ["Calls to AWS that fail", "Rules that fire most"];

/// Half a minute of an estate at work with the demo's attack in it, quickly.
fn feed(endpoint: &Endpoint) {
    let start_ms = now_ms();
    let (mut corpus, mut story) = (Corpus::benign_day(1, 1).starting_at(start_ms).events_per_second(500), Story::new(1));
    let steps: Vec<u64> = story.steps().map(|step| step.at_ms).collect();
    let (mut event, mut told) = (Vec::new(), 0);
    for second in 0..25 {
        let mut envelope = Envelope::default();
        for _ in 0..500 {
            event.clear();
            let time_ms = corpus.next_event(&mut event);
            envelope.push(time_ms, &event);
        }
        while told < steps.len() && steps[told] <= second * 1_000 {
            event.clear();
            story.write(told, start_ms + steps[told] as i64, &mut event);
            envelope.push(start_ms + steps[told] as i64, &event);
            told += 1;
        }
        let mut record = Vec::new();
        envelope.finish(&mut record);
        endpoint.put("audit", [("k".to_owned(), Bytes::from(record))]).unwrap();
        std::thread::sleep(Duration::from_millis(700));
    }
}

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Names and sinks of what fires.
async fn firing(prometheus: &Prometheus) -> Vec<(String, String)> {
    let Some(answer) = prometheus.get("/api/v1/alerts").await else { return Vec::new() };
    let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
    let word = |alert: &Value, label: &str| alert["labels"][label].as_str().unwrap_or_default().to_owned();
    let mut firing: Vec<_> = alerts.iter().filter(|a| a["state"] == "firing").map(|a| (word(a, "alertname"), word(a, "sink"))).collect();
    firing.sort_unstable();
    firing
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_real_prometheus_scrapes_a_run_and_its_rules_fire() {
    let (Some(binary), Some(promtool)) = (tools::tool("prometheus"), tools::tool("promtool")) else { return };
    let pager = FaultServer::always(202, "").await;
    let broken = Arc::new(AtomicBool::new(false));
    let refuse = broken.clone();
    let answer = move || if refuse.load(Ordering::Relaxed) { Fault::Answer(400, "invalid_payload") } else { Fault::Answer(200, "ok") };
    let chat = FaultServer::start(move |_, _| answer()).await;
    let sinks = format!("  pager: {{ pagerduty: {{ routing_key: k, endpoint: '{}' }} }}\n  chat: {{ slack: {{ url: '{}' }} }}", pager.url, chat.url);
    let running = running::start(&sinks).await;
    let prometheus = Prometheus::start(&binary, &format!("127.0.0.1:{}", running.port));
    let endpoint = running.endpoint.clone();
    let feeding = std::thread::spawn(move || feed(&endpoint));
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(firing(&prometheus).await, [], "an attack that is told is no trouble of the daemon");
    broken.store(true, Ordering::Relaxed);
    let refused = [("TrailwardenAlertsRefused", "chat"), ("TrailwardenSinkDown", "chat")].map(|(name, sink)| (name.to_owned(), sink.to_owned()));
    let mut fires = Vec::new();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fires = firing(&prometheus).await;
        if fires == refused && feeding.is_finished() {
            break;
        }
    }
    assert_eq!(fires, refused, "the sink that refuses, and nothing else");
    let mut run = 0;
    for (panel, expression) in dashboard_queries() {
        let answer = prometheus.query(&expression).await;
        assert_eq!(answer["status"], "success", "{panel}: {expression}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap().len();
        assert!(series > 0 || EMPTY_IN_PEACE.contains(&panel.as_str()) || expression.contains(" > 0"), "{panel} shows nothing: {expression}");
        run += 1;
    }
    let metrics = running.get("/metrics").1;
    let said = check_metrics(&promtool, &metrics);
    assert!(said.is_empty(), "{said}");
    let aged = metrics.lines().find_map(|line| line.strip_prefix("trailwarden_record_age_seconds_count{at=\"alert\"} ")?.parse::<u64>().ok());
    assert!(aged > Some(0), "alerts are timed from their records' arrival");
    let samples = metrics.lines().filter(|line| !line.starts_with('#')).count();
    println!(
        "{run} queries of the dashboard ran against a real Prometheus that scraped a run; its rules fired: {fires:?}; promtool: {samples} samples are clean"
    );
}
