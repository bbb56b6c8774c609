//! The daemon on a stream: `cargo bench --bench stream [-- EVENTS]`.
//!
//! In: the seeded corpus as gz envelopes, an embedded Kinesis endpoint in this process. Out: the pull rate with its shares and the
//! ratio to the core's, then eight shards at 2 MB/s each. Invariant: the daemon is the release binary with all built-in detectors, and
//! rates count its CPU time, not the endpoint's; every figure of a ratio is from this one run.

#[path = "stream/daemon.rs"]
mod daemon;
#[allow(dead_code)]
#[path = "core/rows.rs"]
mod rows;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use daemon::{Daemon, Reading};
use md5::{Digest as _, Md5};
use rows::{Input, Work};
use serde_json::Value;
use trailwarden::{
    demo::endpoint::{Endpoint, Limits, Options},
    lease::{Notices, local::Local},
    metrics::Metrics,
    pipeline::Detectors,
    position::Position,
    rule,
    source::kinesis::{self, Config, Consumer, Start},
};

const SEED: u64 = 20_260_302;
const ROUNDS: usize = 5;
const STREAM: &str = "bench";
/// Nothing is to pace the readers in the first part.
const UNPACED: u64 = 4_000_000_000;

const SHARDS: u32 = 8;
const SHARD_BYTES_PER_S: f64 = 2_000_000.0;
/// A reader at its shard's very limit could never make up for a hiccup: both sides get this much more.
const HEADROOM: f64 = 1.1;
const FLOW: Duration = Duration::from_secs(40);
const BEAT: Duration = Duration::from_millis(20);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [role, url, records] = words.as_slice()
        && role == "--drop"
    {
        return drop_all(url, records.parse().expect("a count"));
    }
    let events = words.iter().find_map(|word| word.parse().ok()).unwrap_or(300_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let input = Input::of(SEED, events);
    let (n, plain, gz) = (input.records.len(), input.plain_bytes as f64 / 1e6, input.gz_bytes as f64 / 1e6);
    println!("corpus: seed {SEED}, {} events, {plain:.0} MB plain, {gz:.0} MB as {n} gz envelopes", input.events);
    pull_rate(&runtime, &input);
    for mode in ["fan_out", "polling"] {
        eight_shards(&runtime, &input, mode);
    }
}

fn detectors() -> Arc<Detectors> {
    let loaded = rule::load(&[rule::Input::Builtin], &rule::Options::default());
    Arc::new(Detectors::new(&loaded.set).unwrap_or_else(|errors| panic!("{errors:?}")))
}

fn endpoint(runtime: &tokio::runtime::Runtime, shards: u32, limits: Limits, retain_bytes: usize) -> Endpoint {
    let endpoint = runtime.block_on(Endpoint::start(Options { limits, retain_bytes, ..Options::default() })).expect("loopback");
    endpoint.create_stream(STREAM, shards).expect("a new name");
    endpoint
}

/// Seconds of CPU that a piece of work took of the whole corpus: the best round.
fn best(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(f64::INFINITY, f64::min)
}

fn pull_rate(runtime: &tokio::runtime::Runtime, input: &Input) {
    let detectors = detectors();
    println!(
        "\npull: one shard, polling, {} detectors, one worker; CPU time of the whole process",
        detectors.rules.len() + detectors.correlations.len()
    );
    let work = [Work::gunzip(), Work::kept("core", &detectors)];
    let (mut cores, mut gunzips, mut drops, mut pulls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut best_pull: Option<Pull> = None;
    for _ in 0..ROUNDS {
        let measured = rows::run(input, &work, 1);
        gunzips.push(input.events as f64 / measured[0].events_per_s);
        cores.push(input.events as f64 / measured[1].events_per_s);
        drops.push(fetch_only(runtime, input));
        let pull = pull(runtime, input);
        pulls.push(pull.cpu_s);
        if best_pull.as_ref().is_none_or(|best| pull.cpu_s < best.cpu_s) {
            best_pull = Some(pull);
        }
    }
    let (core, sdk, whole) = (best(&cores), best(&drops), best(&pulls));
    let rate = |seconds: f64| input.events as f64 / seconds / 1e3;
    let row = |name: &str, seconds: f64| println!("  {name:<44} {:>6.0} k events/s", rate(seconds));
    row("gunzip only", best(&gunzips));
    row("core: decode, detect and keep from memory", core);
    row("SDK: the same reader, records dropped", sdk);
    row("end to end", whole);
    row("end to end less the SDK", whole - sdk);
    println!("  end to end less the SDK to the core: {:.0} % (bar: 75)", 100.0 * core / (whole - sdk));
    println!("  end to end to core plus SDK: {:.0} %", 100.0 * (core + sdk) / whole);
    best_pull.iter().for_each(Pull::print);
}

/// What one run of the daemon over the corpus took.
struct Pull {
    cpu_s: f64,
    wall_s: f64,
    events: u64,
    threads: BTreeMap<String, f64>,
    stages: BTreeMap<String, f64>,
    status: Value,
    peak_bytes: u64,
}

fn difference(after: BTreeMap<String, f64>, before: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    after.into_iter().map(|(name, seconds)| (name.clone(), seconds - before.get(&name).unwrap_or(&0.0))).collect()
}

fn put_all(endpoint: &Endpoint, input: &Input) {
    let records = input.records.iter().enumerate().map(|(n, record)| (n.to_string(), Bytes::copy_from_slice(record)));
    endpoint.put(STREAM, records).expect("the stream is there");
}

fn pull(runtime: &tokio::runtime::Runtime, input: &Input) -> Pull {
    let endpoint = endpoint(runtime, 1, Limits::NONE, usize::MAX);
    let daemon = Daemon::start(&Reading { url: endpoint.url(), stream: STREAM, mode: "polling", shard_bytes_per_s: UNPACED, workers: 1 });
    std::thread::sleep(Duration::from_millis(300));
    let (threads, stages, started) = (daemon.cpu_seconds(), daemon.stage_seconds(), Instant::now());
    put_all(&endpoint, input);
    while daemon.events() < input.events {
        assert!(started.elapsed() < Duration::from_secs(60), "only {} events", daemon.events());
        std::thread::sleep(Duration::from_millis(20));
    }
    let wall_s = started.elapsed().as_secs_f64();
    let threads = difference(daemon.cpu_seconds(), &threads);
    let stages = difference(daemon.stage_seconds(), &stages);
    let cpu_s = threads.values().sum();
    Pull { cpu_s, wall_s, events: input.events, threads, stages, status: daemon.status(), peak_bytes: daemon.peak_bytes() }
}

impl Pull {
    /// A worker's time divides by its stages' histograms; what other threads did is theirs alone.
    fn print(&self) {
        let stage = |name: &str| self.stages.get(name).copied().unwrap_or(0.0);
        let thread = |name: &str| self.threads.get(name).copied().unwrap_or(0.0);
        let (worker, keeper) = (thread("worker"), thread("keeper"));
        let decode = worker * stage("decode") / (stage("decode") + stage("detect"));
        let correlate = stage("correlate").min(keeper);
        let fetch = self.cpu_s - worker - keeper;
        let shares =
            [("fetch and deliver", fetch), ("decode", decode), ("detect", worker - decode), ("correlate", correlate), ("commit", keeper - correlate)];
        print!("  shares of CPU:");
        shares.iter().for_each(|(name, seconds)| print!(" {name} {:.0} %", 100.0 * seconds / self.cpu_s));
        println!("; {:.0} MB resident", self.peak_bytes as f64 / 1e6);
        println!("  by the wall clock, on both cores: {:.0} k events/s", self.events as f64 / self.wall_s / 1e3);
        print_latency(&self.status, &["fetch", "decode", "detect", "correlate", "commit"]);
    }
}

fn print_latency(status: &Value, stages: &[&str]) {
    for stage in status["latency"].as_array().into_iter().flatten() {
        let Some(name) = stage["stage"].as_str().filter(|name| stages.contains(name)) else { continue };
        let ms = |key: &str| stage[key].as_f64().unwrap_or(f64::NAN);
        println!("  {name:<20} p50 {:>8.2} ms, p99 {:>8.2} ms, max {:>8.2} ms of {}", ms("p50_ms"), ms("p99_ms"), ms("max_ms"), stage["count"]);
    }
}

/// CPU seconds of a process that only fetches.
fn fetch_only(runtime: &tokio::runtime::Runtime, input: &Input) -> f64 {
    let endpoint = endpoint(runtime, 1, Limits::NONE, usize::MAX);
    let mut child = Command::new(std::env::current_exe().expect("Linux tells"))
        .args(["--drop", endpoint.url(), &input.records.len().to_string()])
        .envs([("AWS_ACCESS_KEY_ID", "bench"), ("AWS_SECRET_ACCESS_KEY", "bench")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is running");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    put_all(&endpoint, input);
    let spent = lines.next().and_then(|line| line.parse().ok()).expect("the child says its time");
    child.wait().expect("it was started");
    spent
}

/// The child's part: the daemon's own reader, whose records nobody looks at.
fn drop_all(url: &str, expected: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let spent = runtime.block_on(async {
        let config = Config {
            streams: vec![STREAM.to_owned()],
            region: Some("us-east-1".to_owned()),
            endpoint: Some(url.to_owned()),
            start: Start(Position::TrimHorizon),
            shard_bytes_per_s: UNPACED,
            ..Config::default()
        };
        let client = kinesis::client(&config).await;
        let (notices, _told) = Notices::channel(8);
        let local = Local::start(&client, &config.streams, &config.start.0, BTreeMap::new(), &notices);
        let (_consumer, mut batches) = Consumer::start(config, client, local.grants(), notices, &Metrics::new());
        batches.recv().await.expect("a shard's first batch is empty");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before: f64 = daemon::cpu_seconds(std::process::id()).values().sum();
        println!("ready");
        let mut taken = 0;
        while taken < expected {
            taken += batches.recv().await.expect("the consumer runs").records.len();
        }
        daemon::cpu_seconds(std::process::id()).values().sum::<f64>() - before
    });
    println!("{spent}");
}

/// A partition key of each shard: shards divide the hash's range evenly.
fn keys() -> Vec<String> {
    let shard_of = |key: &str| u128::from_be_bytes(Md5::digest(key.as_bytes()).into()) / (u128::MAX / u128::from(SHARDS) + 1);
    let key_of = |shard: u32| (0..10_000).map(|n| format!("k{n}")).find(|key| shard_of(key) == u128::from(shard));
    (0..SHARDS).map(|shard| key_of(shard).expect("among ten thousand")).collect()
}

fn eight_shards(runtime: &tokio::runtime::Runtime, input: &Input, mode: &str) {
    let limits = Limits { read_bytes_per_s: SHARD_BYTES_PER_S * HEADROOM, ..Limits::AWS };
    let endpoint = endpoint(runtime, SHARDS, limits, 32 << 20);
    let shard_bytes_per_s = (SHARD_BYTES_PER_S * HEADROOM) as u64;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let daemon = Daemon::start(&Reading { url: endpoint.url(), stream: STREAM, mode, shard_bytes_per_s, workers });
    let records: Vec<Bytes> = input.records.iter().map(|record| Bytes::copy_from_slice(record)).collect();
    let (over, cpu_before) = (AtomicBool::new(false), daemon.cpu_seconds());
    let (mut lags, mut put_bytes) = (Vec::new(), 0.0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&endpoint, &records, &over));
        while started.elapsed() < FLOW {
            std::thread::sleep(Duration::from_secs(1));
            lags.push(daemon.lag_seconds());
        }
        over.store(true, Ordering::Relaxed);
        put_bytes = producer.join().expect("the producer ends");
    });
    let elapsed = started.elapsed().as_secs_f64();
    let cpu: f64 = difference(daemon.cpu_seconds(), &cpu_before).values().sum();
    let third = lags.len() / 3;
    let median = |part: &[f64]| {
        let mut part = part.to_vec();
        part.sort_by(f64::total_cmp);
        part[part.len() / 2]
    };
    println!("\n{SHARDS} shards at {:.1} MB/s each, {mode}, {elapsed:.0} s, {workers} workers", put_bytes / elapsed / f64::from(SHARDS) / 1e6);
    println!("  {:.0} k events/s; {:.2} cores of the daemon's", daemon.events() as f64 / elapsed / 1e3, cpu / elapsed);
    let (first, last) = (median(&lags[..third]), median(&lags[lags.len() - third..]));
    println!(
        "  lag of the slowest shard: first third {first:.2} s, last third {last:.2} s, greatest {:.2} s (bar: not growing)",
        lags.iter().copied().fold(0.0, f64::max)
    );
    println!("  {:.0} MB resident at most (bar: 250)", daemon.peak_bytes() as f64 / 1e6);
    print_latency(&daemon.status(), &["record to finding", "commit"]);
}

/// Puts every shard's share at each beat until `over`; returns the bytes.
fn produce(endpoint: &Endpoint, records: &[Bytes], over: &AtomicBool) -> f64 {
    let keys = keys();
    let mut sent = vec![0.0; keys.len()];
    let mut next = records.iter().cycle();
    let started = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let due = started.elapsed().as_secs_f64() * SHARD_BYTES_PER_S;
        let mut fresh = Vec::new();
        for (key, sent) in keys.iter().zip(&mut sent) {
            while *sent < due {
                let record = next.next().expect("it never ends");
                *sent += record.len() as f64;
                fresh.push((key.clone(), record.clone()));
            }
        }
        endpoint.put(STREAM, fresh).expect("the stream is there");
        std::thread::sleep(BEAT);
    }
    sent.iter().sum()
}
