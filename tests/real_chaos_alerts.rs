//! A fleet of whole daemons under kills, zombies, steals, splits and merges: the alerts are those of a quiet evaluation.
//!
//! In: rounds of random trouble from a printed seed (`TRAILWARDEN_SEED`, `TRAILWARDEN_ROUNDS`), with calls throttled, failed and
//! answered in vain on the stream, the leases and the state. Out: the alert ids that the daemons told. Invariant: they equal those
//! that `scan` finds in the same events, and each lease's checkpoint only rises.
#![cfg(feature = "demo")]

mod support {
    pub mod proxy;
    pub mod servers;
    pub mod tools;
    pub mod trouble;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use support::{
    proxy::Spoil,
    servers,
    trouble::{FAILOVER_MS, Random, Scene, Worker, rows, trouble, watch},
};
use tokio::time::sleep;
use trailwarden::demo::endpoint::Endpoint;

const WORKERS: usize = 3;
/// Users at a time, and events of each: a sequence lasts for some seconds, so that troubles fall into it.
const USERS: usize = 20;
const EVENTS_OF_USER: usize = 12;
const LOAD_EVERY: Duration = Duration::from_millis(100);
const CATCH_UP: Duration = Duration::from_secs(90);

const RULES: &str = "
title: single
id: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0011
name: single
level: low
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: StopLogging}, condition: s}
---
title: one
id: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0012
name: one
level: low
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: DeleteDBSnapshot}, condition: s}
---
title: last
id: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0013
name: last
level: low
logsource: {product: aws, service: cloudtrail}
detection: {s: {eventName: DeleteDBCluster}, condition: s}
---
title: many
id: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0014
level: high
correlation: {type: event_count, rules: [one], group-by: [userIdentity.userName], timespan: 5m, condition: {gte: 4}}
---
title: addresses
id: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0015
level: high
correlation: {type: value_count, rules: [one, last], group-by: [userIdentity.userName], timespan: 5m, condition: {field: sourceIPAddress, gte: 4}}
---
title: then
id: 6f2b0a5e-7a0c-4a3f-9a55-0d1c7e1f0016
level: high
correlation: {type: temporal_ordered, rules: [one, last], group-by: [userIdentity.userName], timespan: 5m}
";

/// One worker as it is installed, its config and log in the folder.
fn start_worker(number: usize, kinesis: &str, dynamodb: &str, folder: &Path) -> Worker {
    let config = folder.join(format!("{number}.yml"));
    let text = format!(
        "kinesis: {{streams: [s], endpoint: '{kinesis}', start: trim_horizon, poll_interval_ms: 250}}\n\
         leases: {{table: app, endpoint: '{dynamodb}', failover_ms: {FAILOVER_MS}}}\n\
         rules: {{folders: ['{0}/rules']}}\n\
         sinks: {{lines: {{file: {{path: '{0}/alerts'}}}}}}\n\
         routing: {{storm: {{incidents: 100000}}}}\n\
         admin: {{listen: '127.0.0.1:0'}}\n",
        folder.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trailwarden"));
    command.args(["run", "--config"]).arg(config).stdout(Stdio::null()).stderr(File::create(folder.join(format!("{number}.log"))).unwrap());
    command.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")]);
    command.env("HOSTNAME", format!("w{number}"));
    Worker { child: command.spawn().unwrap() }
}

/// Users take turns: event `n` of all.
fn event(n: usize, random: &mut Random) -> String {
    let user = n % USERS + n / (USERS * EVENTS_OF_USER) * USERS;
    let name = ["StopLogging", "DeleteDBSnapshot", "DeleteDBSnapshot", "DeleteDBCluster"][random.below(4)];
    let (address, time) = (random.below(6), jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"));
    format!(
        r#"{{"eventVersion":"1.08","userIdentity":{{"type":"IAMUser","accountId":"111122223333","userName":"u{user}"}},"eventTime":"{time}","eventSource":"rds.amazonaws.com","eventName":"{name}","awsRegion":"us-east-1","sourceIPAddress":"198.51.100.{address}","eventID":"00000000-0000-4000-8000-{n:012}","eventType":"AwsApiCall","recipientAccountId":"111122223333"}}"#
    )
}

/// Puts events, one a record, until told to stop, and notes them.
async fn load(endpoint: Arc<Endpoint>, put: Arc<Mutex<Vec<String>>>, seed: u64, stop: Arc<AtomicBool>) {
    let mut random = Random(seed);
    while !stop.load(Ordering::Relaxed) {
        let first = put.lock().unwrap().len();
        let events: Vec<String> = (first..first + 2).map(|n| event(n, &mut random)).collect();
        endpoint.put("s", events.iter().zip(first..).map(|(text, n)| (n.to_string(), Bytes::from(text.clone())))).unwrap();
        put.lock().unwrap().extend(events);
        sleep(LOAD_EVERY).await;
    }
}

fn ids(lines: &str) -> BTreeMap<String, u32> {
    let mut ids = BTreeMap::new();
    for line in lines.lines().filter(|line| line.ends_with('}')) {
        let alert: serde_json::Value = serde_json::from_str(line).unwrap();
        *ids.entry(alert["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    ids
}

/// What one quiet process finds in the same events.
fn expected(events: &[String], folder: &Path) -> BTreeSet<String> {
    let path = folder.join("events.jsonl");
    fs::write(&path, events.join("\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trailwarden"));
    let found = command.args(["scan", "--format", "json", "--rules"]).arg(folder.join("rules")).arg(path).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    ids(&String::from_utf8_lossy(&found.stdout)).into_keys().collect()
}

/// Keeps the workers' logs where the test fails.
struct Logs(PathBuf);

impl Drop for Logs {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos-logs");
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir_all(&kept).unwrap();
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten().filter(|e| e.path().extension().is_some_and(|x| x == "log")) {
            fs::copy(entry.path(), kept.join(entry.file_name())).unwrap();
        }
        println!("the workers' logs: {}", kept.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_alerts_are_those_of_a_quiet_evaluation() {
    let Some(dynamodb) = servers::dynamodb() else { return };
    let Scene { seed, rounds, mut random, endpoint, table, proxy, folder } =
        Scene::new(&dynamodb.url, Spoil { throttled: 30, failed: 10, lost: 20 }).await;
    let _logs = Logs(folder.path().to_owned());
    fs::create_dir(folder.path().join("rules")).unwrap();
    fs::write(folder.path().join("rules/all.yml"), RULES).unwrap();
    let mut number = 0;
    let mut start = || {
        number += 1;
        start_worker(number, endpoint.url(), &proxy.url, folder.path())
    };
    let mut workers: Vec<Worker> = (0..WORKERS).map(|_| start()).collect();
    let (put, stop, done) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let loading = tokio::spawn(load(Arc::clone(&endpoint), Arc::clone(&put), seed, Arc::clone(&stop)));
    let watching = tokio::spawn(watch(table.clone(), Arc::clone(&done)));
    for round in 0..rounds {
        sleep(Duration::from_millis(500 + random.below(1500) as u64)).await;
        let name = trouble(&mut random, &endpoint, &table, &mut workers, &mut start).await;
        println!("round {round}: {name}, {} put", put.lock().unwrap().len());
        assert!(!watching.is_finished(), "see the watcher's panic");
        for worker in &mut workers {
            let ended = worker.child.try_wait().unwrap();
            assert!(ended.is_none(), "a worker ended by itself: {ended:?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    loading.await.unwrap();
    let events = put.lock().unwrap().clone();
    let (expected, since) = (expected(&events, folder.path()), Instant::now());
    let told = || ids(&fs::read_to_string(folder.path().join("alerts")).unwrap_or_default());
    while told().len() < expected.len() && since.elapsed() < CATCH_UP {
        sleep(Duration::from_millis(250)).await;
    }
    done.store(true, Ordering::Relaxed);
    watching.await.unwrap();
    let told = told();
    let again: u32 = told.values().map(|n| n - 1).sum();
    println!("{} events, {} alert ids, {again} written again, caught up in {:?}", events.len(), expected.len(), since.elapsed());
    let missing: Vec<_> = expected.iter().filter(|id| !told.contains_key(*id)).collect();
    let unexpected: Vec<_> = told.keys().filter(|id| !expected.contains(*id)).collect();
    assert!(
        missing.is_empty() && unexpected.is_empty(),
        "seed {seed}: {} of {} missing, {} unexpected: {:?}; leases: {:#?}",
        missing.len(),
        expected.len(),
        unexpected.len(),
        unexpected.iter().take(5).collect::<Vec<_>>(),
        rows(&table).await
    );
}

/// ECS sends SIGTERM and kills 30 s later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_ends_in_time_though_its_state_and_leases_answer_no_more() {
    let Some(dynamodb) = servers::dynamodb() else { return };
    let Scene { endpoint, proxy, folder, .. } = Scene::new(&dynamodb.url, Spoil::default()).await;
    fs::create_dir(folder.path().join("rules")).unwrap();
    fs::write(folder.path().join("rules/all.yml"), RULES).unwrap();
    let mut worker = start_worker(1, endpoint.url(), &proxy.url, folder.path());
    let mut random = Random(1);
    let mut put = |n: usize| drop(endpoint.put("s", [(n.to_string(), Bytes::from(event(n, &mut random)))]).unwrap());
    (0..12).for_each(&mut put);
    let since = Instant::now();
    while fs::read_to_string(folder.path().join("alerts")).unwrap_or_default().is_empty() {
        assert!(since.elapsed() < CATCH_UP, "no alert comes");
        sleep(Duration::from_millis(100)).await;
    }
    proxy.spoil(Spoil { failed: 1000, ..Spoil::default() });
    (12..50).for_each(&mut put);
    sleep(Duration::from_millis(500)).await;
    let (ended, took) = worker.terminate().await;
    println!("ended with {ended} after {took:?}");
    assert!(ended.success());
}
