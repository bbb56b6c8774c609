//! Delivery against sinks that fail: nothing lost, nothing twice, urgent first, storms counted, silences kept.
//!
//! In: alerts in a store's outbox, a fault server, simulated time. Out: what the server saw. Invariant: the tests' clock is a
//! number; only the storm's latency is measured in real time.

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/fault.rs"]
mod fault;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use fault::{Fault, FaultServer};
use trailwarden::{
    alert::{Alert, Level},
    deliver::{
        self, Desk, Lane,
        order::{Order, Outcome},
    },
    metrics::Metrics,
    route,
    sink::{self, Shared, Sink, http::Http},
    store::{MemoryStore, Store, outbox_row},
};

const START_MS: i64 = alerts::TIME_MS;

struct Bench {
    store: Arc<dyn Store>,
    desk: Arc<Desk>,
    lanes: Vec<Lane>,
    metrics: Arc<Metrics>,
    now_ms: i64,
}

impl Bench {
    async fn new(store: Arc<dyn Store>, sinks: &[(&str, String)], routing: &str, delivery: &str) -> Self {
        let metrics = Arc::new(Metrics::new());
        let shared = Shared { http: Http::new(), page_url: None };
        let mut open = Vec::new();
        for (name, yaml) in sinks {
            let config: sink::Config = serde_saphyr::from_str(yaml).unwrap();
            open.push(Sink::open(name, &config, &shared).await.unwrap());
        }
        let routing: route::Config = serde_saphyr::from_str(routing).unwrap();
        let delivery: deliver::Config = serde_saphyr::from_str(delivery).unwrap();
        let desk = Arc::new(Desk::open(store.clone(), open, &routing, delivery, metrics.clone()).unwrap());
        Self { lanes: Lane::all(&desk, 7), store, desk, metrics, now_ms: START_MS }
    }

    fn put(&self, alerts: &[Alert]) {
        self.store.commit(alerts.iter().map(|a| outbox_row(a).unwrap()).collect()).unwrap();
    }

    fn plan(&self) {
        while self.desk.plan(self.now_ms).unwrap() + self.desk.tick(self.now_ms).unwrap() > 0 {}
    }

    /// Lets `span_ms` pass: lanes and timers run whenever they are due, at most every `step_ms`.
    async fn pass(&mut self, span_ms: i64, step_ms: i64) {
        let until_ms = self.now_ms + span_ms;
        loop {
            self.plan();
            for lane in &mut self.lanes {
                while lane.step(self.now_ms).await.unwrap() <= self.now_ms {}
            }
            if self.now_ms >= until_ms {
                return;
            }
            self.now_ms = (self.now_ms + step_ms).min(until_ms);
        }
    }
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::default())
}

fn pagerduty(server: &FaultServer) -> String {
    format!("pagerduty: {{ routing_key: k, endpoint: '{}' }}", server.url)
}

fn of_rule(n: u64, level: Level, rule: &str) -> Alert {
    Alert { rule: alerts::rule(rule, level), ..alerts::alert(n, level) }
}

/// dedup_key → how often it was accepted, and the order of severities.
fn keys(server: &FaultServer, action: &str) -> Vec<(String, String)> {
    let events = server.seen().into_iter().map(|s| s.json()).filter(|e| e["event_action"] == action);
    events.map(|e| (e["dedup_key"].as_str().unwrap().to_owned(), e["payload"]["severity"].as_str().unwrap_or_default().to_owned())).collect()
}

/// The bar: a sink is down for two hours, then answers 429 for a while.
#[tokio::test]
async fn two_hours_of_outage_lose_nothing() {
    const LEVELS: [Level; 4] = [Level::Critical, Level::High, Level::Medium, Level::Low];
    const HOUR_MS: i64 = 3_600_000;
    let clock = Arc::new(AtomicI64::new(START_MS));
    let now = clock.clone();
    let accepted = Arc::new(std::sync::Mutex::new(Vec::<usize>::new()));
    let log = accepted.clone();
    let server = FaultServer::start(move |number, _| match now.load(Ordering::Relaxed) - START_MS {
        ..7_200_000 => [Fault::Answer(503, ""), Fault::Reset, Fault::Answer(500, "")][number % 3].clone(),
        // Three of four are refused for a minute after that.
        7_200_000..7_260_000 if number % 4 != 0 => Fault::AnswerWith(429, "retry-after: 2", ""),
        _ => {
            log.lock().unwrap().push(number);
            Fault::Answer(202, "{}")
        }
    })
    .await;
    let mut bench = Bench::new(memory(), &[("pager", pagerduty(&server))], "{}", "{}").await;
    let mut made = 0;
    // 200 alerts of 100 rules spread over the outage.
    for minute in 0..120 {
        for _ in 0..(if minute % 3 == 0 { 5 } else { 0 }) {
            let level = LEVELS[made as usize % 4];
            bench.put(&[of_rule(made, level, &format!("rule-{}", made / 2))]);
            made += 1;
        }
        clock.store(bench.now_ms, Ordering::Relaxed);
        bench.pass(60_000, 5_000).await;
    }
    let tries_down = server.seen().len();
    for _ in 0..3_000 {
        clock.store(bench.now_ms, Ordering::Relaxed);
        bench.pass(100, 100).await;
    }
    let seen = server.seen();
    let accepted: Vec<_> = accepted.lock().unwrap().iter().map(|n| seen[*n].json()).collect();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    accepted.iter().for_each(|e| *counts.entry(e["dedup_key"].as_str().unwrap()).or_default() += 1);
    let order: Vec<&str> = accepted.iter().map(|e| e["payload"]["severity"].as_str().unwrap()).collect();
    let rank = |severity: &&str| ["critical", "error", "warning", "info"].iter().position(|s| s == severity).unwrap();
    assert_eq!(counts.len() as u64, made, "every alert arrives");
    assert!(counts.values().all(|n| *n == 1), "none twice: {counts:?}");
    assert!(order.is_sorted_by_key(rank), "urgent first: {order:?}");
    assert!(tries_down < 2 * 3_600 / 30 + 20, "{tries_down} tries in two hours are no hammering");
    println!(
        "outage of {} h, then 429s: {made} alerts, {} delivered once per dedup_key, in order of severity; {tries_down} tries while down, {} in all",
        2 * HOUR_MS / HOUR_MS,
        accepted.len(),
        seen.len()
    );
}

/// The bar: 100,000 matches of one rule in a minute, beside another rule's alerts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_is_few_pages_with_an_exact_count() {
    let quiet = other_rules_latency(0).await;
    let storm = other_rules_latency(100_000).await;
    println!(
        "100,000 alerts of one rule in a minute: {} pages, count told {}; p99 of other rules' alerts {:?} beside the storm, {:?} without",
        storm.pages, storm.counted, storm.p99, quiet.p99
    );
    assert!(storm.pages <= 10, "{} pages", storm.pages);
    assert_eq!(storm.counted, 100_000);
    assert_eq!(storm.others, quiet.others, "every alert of the other rule arrives");
    // What the storm may add is a batch's bookkeeping; the service's own promise is 2 s.
    assert!(storm.p99 <= quiet.p99 + Duration::from_millis(500), "{:?} and {:?}", storm.p99, quiet.p99);
}

struct Measured {
    pages: usize,
    counted: u64,
    others: usize,
    p99: Duration,
}

async fn other_rules_latency(storm: u64) -> Measured {
    const MINUTE_MS: u64 = 60_000;
    let server = FaultServer::always(202, "{}").await;
    let mut bench = Bench::new(memory(), &[("pager", pagerduty(&server))], "{}", "{}").await;
    let mut put_at = HashMap::new();
    // One second of the minute at a time: the storm's share, and one other alert of a rule of its own.
    for second in 0..60 {
        let from = storm * second / 60;
        let alerts: Vec<Alert> = (from..storm * (second + 1) / 60).map(|n| of_rule(n, Level::Critical, "stormy")).collect();
        bench.put(&alerts);
        let other = of_rule(1_000_000 + second, Level::High, &format!("calm-{second}"));
        put_at.insert(other.incident.clone(), Instant::now());
        bench.put(&[other]);
        bench.pass((MINUTE_MS / 60) as i64, 125).await;
    }
    let at_once = keys(&server, "trigger").iter().filter(|(key, _)| !put_at.contains_key(key)).count();
    // The storm ends; its last count is told.
    bench.pass(120_000, 1_000).await;
    let seen = server.seen();
    let mut latencies: Vec<Duration> = Vec::new();
    let mut counted = BTreeMap::new();
    for request in &seen {
        let event = request.json();
        let key = event["dedup_key"].as_str().unwrap().to_owned();
        match put_at.get(&key) {
            Some(at) => latencies.push(request.at - *at),
            None => drop(counted.insert(key, event["payload"]["custom_details"]["alerts"].as_u64().unwrap())),
        }
    }
    latencies.sort();
    let p99 = latencies[latencies.len() * 99 / 100];
    Measured { pages: at_once, counted: counted.values().sum(), others: latencies.len(), p99 }
}

#[tokio::test]
async fn growth_joins_its_incident_and_is_told_with_its_count() {
    let server = FaultServer::always(202, "{}").await;
    let mut bench = Bench::new(memory(), &[("pager", pagerduty(&server))], "{}", "{}").await;
    let grown: Vec<Alert> = (1..=4).map(|n| Alert { incident: alerts::alert(1, Level::High).id, ..alerts::alert(n, Level::High) }).collect();
    bench.put(&grown[..1]);
    bench.pass(1_000, 200).await;
    bench.put(&grown[1..]);
    bench.pass(10_000, 500).await;
    assert_eq!(server.seen().len(), 1, "growth right after a page waits");
    bench.pass(60_000, 1_000).await;
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].json()["dedup_key"], seen[0].json()["dedup_key"]);
    assert_eq!(seen[1].json()["payload"]["custom_details"]["alerts"], 4);
}

#[tokio::test]
async fn rates_resolve_when_quiet_and_deeds_do_not() {
    let server = FaultServer::always(202, "{}").await;
    let mut bench = Bench::new(memory(), &[("pager", pagerduty(&server))], "{}", "{}").await;
    let mut rate = alerts::alert(1, Level::High);
    Arc::make_mut(&mut rate.rule).resolve_after_ms = Some(600_000);
    let deed = of_rule(2, Level::High, "deed");
    let absent = of_rule(3, Level::High, "absence");
    bench.put(&[rate.clone(), deed, absent.clone()]);
    bench.pass(5_000, 200).await;
    // The absent feed is back.
    bench.put(&[Alert { id: format!("{:032x}", 4), resolved: true, ..absent.clone() }]);
    bench.pass(700_000, 10_000).await;
    let resolved: Vec<String> = keys(&server, "resolve").into_iter().map(|(key, _)| key).collect();
    assert_eq!(resolved, [absent.incident, rate.incident.clone()]);
    // Anew after the quiet: a new trigger under the old key opens a new incident at PagerDuty.
    bench.put(&[Alert { id: format!("{:032x}", 5), ..rate.clone() }]);
    bench.pass(5_000, 200).await;
    assert_eq!(keys(&server, "trigger").iter().filter(|(key, _)| *key == rate.incident).count(), 2);
}

#[tokio::test]
async fn silenced_alerts_are_archived_and_page_nobody() {
    let server = FaultServer::always(202, "{}").await;
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("all.ndjson");
    let sinks = [("pager", pagerduty(&server)), ("archive", format!("file: {{ path: '{}' }}", archive.display()))];
    let window = "{ maintenance: [{ reason: patching, match: { rules: [patched] }, starts: '2025-11-24T00:00:00Z', ends: '2025-11-25T00:00:00Z' }] }";
    let mut bench = Bench::new(memory(), &sinks, window, "{}").await;
    let request = serde_json::from_value(serde_json::json!({"match": {"rules": ["noisy"]}, "seconds": 60, "reason": "known", "by": "ana"}));
    let silence = route::Silence::new("1".into(), request.unwrap(), bench.now_ms).unwrap();
    bench.desk.carry_out(&Order::AddSilence(silence.clone()), bench.now_ms).unwrap();
    let restarted = Bench::new(bench.store.clone(), &sinks, window, "{}").await;
    assert_eq!(restarted.desk.silences(), [silence], "a silence survives a restart");
    bench.put(&[of_rule(1, Level::Critical, "noisy"), of_rule(2, Level::Critical, "patched"), of_rule(3, Level::Critical, "other")]);
    bench.pass(1_000, 100).await;
    assert_eq!(keys(&server, "trigger").len(), 1);
    assert_eq!(std::fs::read_to_string(&archive).unwrap().lines().count(), 3);
    assert!(bench.metrics.render(0).contains("trailwarden_alerts_total{outcome=\"silenced\",sink=\"pager\"} 2"));
    bench.pass(60_000, 1_000).await;
    bench.put(&[of_rule(4, Level::Critical, "noisy")]);
    bench.pass(1_000, 100).await;
    assert_eq!(keys(&server, "trigger").len(), 2, "it ends by itself");
}

#[tokio::test]
async fn a_refused_alert_is_a_dead_letter_goes_elsewhere_and_can_be_replayed() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let refuse = broken.clone();
    let pager =
        FaultServer::start(move |_, _| if refuse.load(Ordering::Relaxed) { Fault::Answer(400, "bad key") } else { Fault::Answer(202, "") }).await;
    let chat = FaultServer::always(200, "ok").await;
    let sinks = [("pager", pagerduty(&pager)), ("chat", format!("slack: {{ url: '{}' }}", chat.url))];
    let mut bench = Bench::new(memory(), &sinks, "routes: [{ sinks: [pager] }]", "fallback: chat").await;
    bench.put(&[alerts::alert(1, Level::Critical)]);
    bench.pass(5_000, 500).await;
    assert_eq!((pager.seen().len(), chat.seen().len()), (1, 1));
    assert!(chat.seen()[0].body.contains("sink pager refused it: answered 400: bad key"));
    let letters = bench.desk.letters().unwrap();
    assert_eq!(letters.len(), 1);
    assert!(bench.metrics.render(0).contains("trailwarden_dead_letters{sink=\"pager\"} 1"));
    broken.store(false, Ordering::Relaxed);
    let replay = |id: &str| bench.desk.carry_out(&Order::ReplayLetter(id.into()), bench.now_ms).unwrap();
    assert_eq!(replay("no such"), Outcome::Done(false));
    assert_eq!(replay(&letters[0].id), Outcome::Done(true));
    bench.pass(5_000, 500).await;
    assert_eq!(pager.seen().len(), 2);
    assert!(bench.desk.letters().unwrap().is_empty());
}

#[tokio::test]
async fn urgent_alerts_take_the_second_channel_while_the_first_is_down() {
    let pager = FaultServer::always(503, "").await;
    let chat = FaultServer::always(200, "ok").await;
    let sinks = [("pager", pagerduty(&pager)), ("chat", format!("slack: {{ url: '{}' }}", chat.url))];
    let mut bench = Bench::new(memory(), &sinks, "routes: [{ sinks: [pager] }]", "{ fallback: chat, fallback_after_seconds: 300 }").await;
    bench.put(&[of_rule(1, Level::Critical, "a"), of_rule(2, Level::Low, "b")]);
    bench.pass(200_000, 5_000).await;
    bench.desk.sweep(bench.now_ms).unwrap();
    let metrics = bench.metrics.render(0);
    assert!(metrics.contains("trailwarden_outbox_alerts 2\n") && metrics.contains("trailwarden_outbox_oldest_age_seconds 200\n"), "{metrics}");
    assert_eq!(chat.seen().len(), 0);
    bench.pass(400_000, 5_000).await;
    assert_eq!(chat.seen().len(), 1, "the critical one, once");
    assert!(chat.seen()[0].body.contains("sink pager is down"));
}

#[tokio::test]
async fn a_restart_loses_and_repeats_nothing() {
    let store = memory();
    let down = FaultServer::always(503, "").await;
    let mut first = Bench::new(store.clone(), &[("pager", pagerduty(&down))], "{}", "{}").await;
    first.put(&[of_rule(1, Level::High, "a"), of_rule(2, Level::Critical, "b")]);
    first.pass(2_000, 500).await;
    first.put(&[of_rule(3, Level::High, "c")]);
    drop(first);
    let up = FaultServer::always(202, "").await;
    let mut second = Bench::new(store, &[("pager", pagerduty(&up))], "{}", "{}").await;
    second.pass(5_000, 125).await;
    let delivered: Vec<String> = keys(&up, "trigger").into_iter().map(|(key, _)| key).collect();
    assert_eq!(delivered, [2, 1, 3].map(|n: u64| format!("{n:032x}")));
    second.pass(300_000, 5_000).await;
    assert_eq!(up.seen().len(), 3);
}

#[tokio::test]
async fn alertmanager_is_told_again_until_the_incident_ends() {
    let server = FaultServer::always(200, "").await;
    let am = format!("alertmanager: {{ urls: ['{}'], reassert_seconds: 30, hold_seconds: 300 }}", server.url);
    let mut bench = Bench::new(memory(), &[("am", am)], "{}", "{}").await;
    bench.put(&[alerts::alert(1, Level::High)]);
    bench.pass(290_000, 1_000).await;
    let before = server.seen().len();
    assert!((9..=12).contains(&before), "{before} assertions in 290 s");
    bench.pass(60_000, 1_000).await;
    let last = server.seen().last().unwrap().json();
    assert!(last[0]["endsAt"].as_str().unwrap() < last[0]["startsAt"].as_str().unwrap().replace("16:00", "16:06").as_str());
    let quiet = server.seen().len();
    bench.pass(120_000, 1_000).await;
    assert_eq!(server.seen().len(), quiet, "a resolved incident is not told again");
}

#[tokio::test]
async fn a_test_alert_takes_the_route_of_a_real_one() {
    let (pager, chat) = (FaultServer::always(202, "").await, FaultServer::always(200, "ok").await);
    let sinks = [("pager", pagerduty(&pager)), ("chat", format!("slack: {{ url: '{}' }}", chat.url))];
    let routing = "routes: [{ match: { min_level: high }, sinks: [pager], stop: true }, { sinks: [chat] }]";
    let mut bench = Bench::new(memory(), &sinks, routing, "{}").await;
    let test = |level| bench.desk.carry_out(&Order::TestAlert { level, pillar: None }, bench.now_ms).unwrap().sinks();
    assert_eq!(test(Level::Critical), ["pager"]);
    assert_eq!(test(Level::Low), ["chat"]);
    bench.pass(3_000, 500).await;
    assert!(pager.seen()[0].json()["payload"]["summary"].as_str().unwrap().starts_with("TEST ALERT: "));
    assert!(chat.seen()[0].body.contains("TEST ALERT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heartbeat_stops_while_the_pipeline_stands_still() {
    let now_ms = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let server = FaultServer::always(200, "").await;
    let delivery = format!("heartbeat: {{ url: '{}/beat', every_seconds: 1 }}", server.url);
    let bench = Bench::new(memory(), &[], "{}", &delivery).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(deliver::run(bench.desk.clone(), Http::new(), stopped));
    let beats = async |more_than: usize| {
        for _ in 0..100 {
            if server.seen().len() > more_than {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no beat after {more_than}");
    };
    beats(0).await;
    assert_eq!((server.seen()[0].path.as_str(), &server.seen()[0].json()["status"]), ("/beat", &"alive".into()));
    bench.desk.pulse(now_ms() - 400_000);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = server.seen().len();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(server.seen().len(), before, "whoever waits for it raises the alarm");
    assert!(bench.metrics.delivery.heartbeats_failed.get() >= 2);
    bench.desk.pulse(now_ms());
    beats(before).await;
    stop.send(true).unwrap();
    running.await.unwrap().unwrap();
}
