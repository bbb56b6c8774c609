//! Delivery and the admin server, running, without a stream behind them.
//!
//! In: sinks as YAML. Out: an address, a store whose outbox is drained. Invariant: loopback only; it ends with the test.
#![allow(dead_code)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
};
use trailwarden::{
    admin::{
        self, Admin, Board, Replayed,
        status::{QueueView, RuleSetView, RuleView, ShardView},
    },
    alert::{Alert, Level},
    deliver::{self, Delivering, Desk},
    metrics::Metrics,
    pipeline::{
        control::{self, Control},
        daemon::Again,
    },
    route,
    sink::{self, Shared, Sink, http::Http},
    store::{MemoryStore, Store, outbox_row},
};

pub const TOKEN: &str = "a-token-of-the-test";

pub struct Daemon {
    pub address: SocketAddr,
    pub board: Arc<Board>,
    pub store: Arc<dyn Store>,
    pub desk: Arc<Desk>,
    pub metrics: Arc<Metrics>,
    pub stop: watch::Sender<bool>,
}

pub async fn start(sinks: &[(&str, String)], routing: &str) -> Daemon {
    start_as(sinks, routing, true).await
}

/// One of a fleet, of which no other worker delivers either: the desk does only what the test has it do.
pub async fn start_idle(sinks: &[(&str, String)]) -> Daemon {
    start_as(sinks, "{}", false).await
}

async fn start_as(sinks: &[(&str, String)], routing: &str, delivers: bool) -> Daemon {
    let metrics = Arc::new(Metrics::new());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let shared = Shared { http: Http::new(), page_url: None };
    let mut open = Vec::new();
    for (name, yaml) in sinks {
        let config: sink::Config = serde_saphyr::from_str(yaml).unwrap();
        open.push(Sink::open(name, &config, &shared).await.unwrap());
    }
    let routing: route::Config = serde_saphyr::from_str(routing).unwrap();
    let mut delivery = deliver::Config::default();
    delivery.account_names.insert("111122223333".into(), "production".into());
    let desk = Arc::new(Desk::open(store.clone(), open, &routing, delivery, metrics.clone()).unwrap());
    let (stop, stopped) = watch::channel(false);
    let config: admin::Config = serde_saphyr::from_str(&format!("{{ listen: '127.0.0.1:0', token: {TOKEN} }}")).unwrap();
    let (listener, address) = admin::listen(&config).await.unwrap();
    let board = Board::new(now_ms());
    let (commands, received) = mpsc::channel(admin::COMMANDS);
    let server = Admin::new(&config, board.clone(), store.clone(), metrics.clone(), desk.live(), commands, stopped.clone());
    tokio::spawn(admin::serve(server, listener));
    let delivering = if delivers { Delivering::here(desk.clone()) } else { watch::channel(Delivering::default()).1 };
    if delivers {
        tokio::spawn(deliver::run(desk.clone(), shared.http, stopped.clone()));
    }
    let (replays, mut again) = mpsc::channel::<Again>(1);
    tokio::spawn(async move {
        while let Some(again) = again.recv().await {
            let _ = again.answer.send(Replayed { events: 0, findings: 0, still: Some("still no JSON".into()) });
        }
    });
    let parts = Control { delivering, live: desk.live(), board: board.clone(), store: store.clone(), metrics: metrics.clone(), replays };
    tokio::spawn(control::serve(parts, received, stopped));
    Daemon { address, board, store, desk, metrics, stop }
}

impl Daemon {
    pub fn put(&self, alerts: &[Alert]) {
        self.store.commit(alerts.iter().map(|a| outbox_row(a).unwrap()).collect()).unwrap();
        self.desk.wake();
    }

    /// The board as a busy daemon fills it.
    pub fn fill_board(&self) {
        let now = now_ms();
        self.board.worker.store(Arc::new("task-7f3a".into()));
        let shard = |n: u32, ours: bool, lag_ms: i64| ShardView {
            shard: format!("audit/shardId-{n:012}"),
            owner: if ours { "task-7f3a".into() } else { "task-91bc".into() },
            ours,
            lag_ms: ours.then_some(lag_ms),
            checkpoint_age_ms: ours.then_some(180),
            records: 1_284_113,
            state: "reading".into(),
        };
        self.board.shards.store(Arc::new(vec![shard(0, true, 240), shard(1, true, 410), shard(2, false, 0), shard(3, true, 38_000)]));
        let rule = |n: u64, level: Level, title: &str, findings: u64| RuleView {
            id: format!("7c1d3c52-0000-4000-8000-{n:012}"),
            title: title.into(),
            level,
            tags: vec!["pillar.backup".into(), "attack.t1490".into()],
            kind: if n.is_multiple_of(3) { "event_count".into() } else { "rule".into() },
            matches: findings * 3,
            findings,
            last_fired_ms: (findings > 0).then_some(now - 64_000),
            cost_ms: n as f64 * 1.7,
        };
        self.board.rules.store(Arc::new(vec![
            rule(1, Level::Critical, "Snapshots purged", 4),
            rule(2, Level::High, "Key policy opened to a foreign account", 1),
            rule(3, Level::High, "Brute force, then a login", 0),
            rule(4, Level::Medium, "Secret read by a new principal", 12),
            rule(5, Level::Low, "Rotation switched off", 0),
        ]));
        let set = RuleSetView { hash: "b41f09c2d7e3a865".into(), rules: 5, loaded_ms: now - 3_600_000, reload_error: None, reload_error_ms: None };
        self.board.rule_set.store(Arc::new(set));
        self.board.queues.store(Arc::new(vec![QueueView { name: "decoded".into(), items: 12, bytes: 3 << 20, capacity_bytes: 64 << 20 }]));
        self.board.set_rules_loaded(true);
        self.board.set_leases_held(true);
        self.board.pulse(now);
        for (stage, ms) in [("fetch", 12), ("detect", 4), ("correlate", 2), ("commit", 9)] {
            (1..100).for_each(|n| self.metrics.stage(stage).record(Duration::from_micros(ms * n * 20)));
        }
    }

    /// Status line and body of one request.
    pub async fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{length}{headers}\r\n", self.address);
        socket.write_all((head + body).as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, head.to_owned(), body.to_owned())
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.request("GET", path, "", "").await;
        (status, body)
    }
}

pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}
