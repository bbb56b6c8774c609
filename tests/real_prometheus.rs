//! Debian's Prometheus takes what the daemon exports: promtool's verdicts, a real server that scrapes a run, its rules that fire, and
//! every query of the dashboard.
//!
//! In: `/metrics` of a running daemon, `deploy/prometheus`, `deploy/grafana`. Out: Prometheus' answers. Invariant: without the tools
//! the tests pass and say `left out`; the server is ended by its own id.

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/fault.rs"]
mod fault;
#[path = "support/tools.rs"]
mod tools;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use fault::{Fault, FaultServer};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use trailwarden::{alert::Level, metrics::Metrics};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_scrapes_a_run_and_its_rules_fire() {
    let Some(binary) = tools::tool("prometheus") else { return };
    let pager = FaultServer::always(202, "").await;
    let chat = FaultServer::start(|_, _| Fault::Answer(400, "invalid_payload")).await;
    let sinks =
        [("pager", format!("pagerduty: {{ routing_key: k, endpoint: '{}' }}", pager.url)), ("chat", format!("slack: {{ url: '{}' }}", chat.url))];
    let daemon = daemon::start(&sinks, "{}").await;
    daemon.fill_board();
    let metrics = daemon.metrics.clone();
    let rule = metrics.rule("7c1d3c52-0000-4000-8000-000000000001", "critical");
    let source = metrics.source("audit");
    let shard = metrics.shard("audit/shardId-000000000000", daemon::now_ms());
    metrics.queue("decoded", 1 << 20).bytes.set(512);
    metrics.memory("state", 1 << 28).set(1 << 20);
    metrics.quarantined("json").inc();
    metrics.aws_call("dynamodb", "UpdateItem").throttled.inc();
    metrics.record_to_finding().record(Duration::from_millis(40));
    let prometheus = Prometheus::start(&binary, &daemon.address.to_string());
    let mut firing = Vec::new();
    for second in 0..60 {
        source.events.inc_by(1_000);
        metrics.events.unmatched.inc_by(1_000);
        rule.findings.inc();
        rule.quota_hits.inc();
        shard.lag.set(0.2);
        shard.checkpointed(daemon::now_ms());
        if second == 8 {
            daemon.put(&[alerts::alert(1, Level::Critical)]);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(alerts) = prometheus.get("/api/v1/alerts").await else { continue };
        let alerts = alerts["data"]["alerts"].as_array().cloned().unwrap_or_default();
        firing = alerts.iter().filter(|a| a["state"] == "firing").map(|a| a["labels"].clone()).collect();
        if firing.iter().any(|labels| labels["alertname"] == "TrailwardenAlertsRefused") && second > 15 {
            break;
        }
    }
    let mut names: Vec<&str> = firing.iter().filter_map(|labels| labels["alertname"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["TrailwardenAlertsRefused", "TrailwardenSinkDown"], "{firing:?}");
    assert!(firing.iter().all(|labels| labels["sink"] == "chat"), "{firing:?}");
    let mut run = 0;
    for (panel, expression) in dashboard_queries() {
        let answer = prometheus.query(&expression).await;
        assert_eq!(answer["status"], "success", "{panel}: {expression}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap().len();
        assert!(series > 0 || EMPTY_IN_PEACE.contains(&panel.as_str()) || expression.contains(" > 0"), "{panel} shows nothing: {expression}");
        run += 1;
    }
    println!("{run} queries of the dashboard ran against a real Prometheus; its rules fired: {names:?}");
}
