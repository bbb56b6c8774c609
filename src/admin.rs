//! The daemon's own HTTP side: `/metrics`, `/healthz`, `/readyz`, the API under `/api`, the status page.
//!
//! In: requests. Out: what the board, the store and the metrics know; changes go to the pipeline by a channel. Invariant: nothing
//! changes without the bearer token, and no client can make the pipeline wait.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router, middleware,
    routing::{delete, get, post},
};
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc, oneshot, watch},
};

use crate::{
    alert::{Level, view::AlertView},
    metrics::Metrics,
    route::{Silence, SilenceError, SilenceRequest},
    store::Store,
};

mod api;
mod guard;
mod page;
mod server;
pub mod status;
mod stream;

pub use guard::Token;
pub use status::Board;

/// Where it listens unless the config says otherwise.
pub const ADDRESS: &str = "127.0.0.1:9464";
/// Changes that wait for the pipeline; more are refused with 503.
pub const COMMANDS: usize = 16;

const SAMPLE_EVERY: Duration = Duration::from_secs(2);
const SAMPLES: usize = 90;

/// The key `admin` of the config.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port. The page shows what alerts say: listen beyond loopback only inside a network that you trust.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// What a request that changes something must send as `Authorization: Bearer …`. Without it nothing can be changed.
    #[serde(default)]
    pub token: Option<Token>,
}

fn default_listen() -> SocketAddr {
    ADDRESS.parse().expect("a constant address")
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: default_listen(), token: None }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("admin.listen: {listen}: {detail}; stop what listens there, or configure another port")]
    Listen { listen: SocketAddr, detail: String },
}

/// A change that a person asked for. The pipeline answers each; a dropped answer is told as 503.
#[derive(Debug)]
pub enum Command {
    AddSilence(SilenceRequest, Reply<Result<Silence, SilenceError>>),
    EndSilence(String, Reply<Result<Silence, SilenceError>>),
    /// By incident key; false: unknown or over.
    Acknowledge(String, Reply<bool>),
    Resolve(String, Reply<bool>),
    /// The sinks that it went to.
    TestAlert {
        level: Level,
        pillar: Option<String>,
        reply: Reply<Vec<String>>,
    },
    /// By the letter's id; false: unknown.
    ReplayLetter(String, Reply<bool>),
    /// By the record's id; what was found in it.
    ReplayQuarantined(String, Reply<Option<Replayed>>),
}

pub type Reply<T> = oneshot::Sender<Told<T>>;

/// What a command led to.
#[derive(Debug)]
pub enum Told<T> {
    Done(T),
    /// It is written down, and the worker that delivers will carry it out. It has not yet.
    Later,
    /// Why it was not carried out, and won't be.
    Refused(String),
}

/// What became of a quarantined record that was decoded again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    pub events: u64,
    pub findings: u64,
    /// Why it still can't be decoded; it stays in quarantine then.
    pub still: Option<String>,
}

/// What the handlers work from.
pub struct Admin {
    pub board: Arc<Board>,
    pub store: Arc<dyn Store>,
    pub metrics: Arc<Metrics>,
    /// Alerts as delivery takes them up.
    pub live: broadcast::Sender<Arc<AlertView>>,
    pub commands: mpsc::Sender<Command>,
    token: Option<Token>,
    /// Listens on this machine alone, so that the host name in a request must be this machine's.
    loopback: bool,
    samples: Mutex<VecDeque<u64>>,
    stop: watch::Receiver<bool>,
}

impl Admin {
    pub fn new(
        config: &Config,
        board: Arc<Board>,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        live: broadcast::Sender<Arc<AlertView>>,
        commands: mpsc::Sender<Command>,
        stop: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let loopback = config.listen.ip().is_loopback();
        Arc::new(Self { board, store, metrics, live, commands, token: config.token.clone(), loopback, samples: Mutex::default(), stop })
    }

    /// Events judged since the start.
    fn events(&self) -> u64 {
        let e = &self.metrics.events;
        e.matched.get() + e.unmatched.get() + e.duplicate.get() + e.quarantined.get()
    }

    fn sample(&self) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back(self.events());
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    /// Events a second, oldest first, one number for each two seconds.
    fn rates(&self) -> Vec<f64> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = samples.iter().zip(samples.iter().skip(1));
        pairs.map(|(before, after)| after.saturating_sub(*before) as f64 / SAMPLE_EVERY.as_secs_f64()).collect()
    }
}

/// Takes the port; returns the address, as port 0 in the config means any.
pub async fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), AdminError> {
    let wrong = |e: std::io::Error| AdminError::Listen { listen: config.listen, detail: e.to_string() };
    let listener = TcpListener::bind(config.listen).await.map_err(wrong)?;
    let address = listener.local_addr().map_err(wrong)?;
    Ok((listener, address))
}

/// Serves until the stop signal given to `Admin::new` turns true.
pub async fn serve(admin: Arc<Admin>, listener: TcpListener) {
    let router = router(admin.clone());
    let sampler = admin.clone();
    let sampling = tokio::spawn(async move {
        loop {
            sampler.sample();
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    });
    server::serve(listener, router, &admin).await;
    sampling.abort();
}

fn router(admin: Arc<Admin>) -> Router {
    let changes = Router::new()
        .route("/api/silences", post(api::add_silence))
        .route("/api/silences/{id}", delete(api::end_silence))
        .route("/api/incidents/{key}/acknowledge", post(api::acknowledge))
        .route("/api/incidents/{key}/resolve", post(api::resolve))
        .route("/api/test-alert", post(api::test_alert))
        .route("/api/dead-letters/{id}/replay", post(api::replay_letter))
        .route("/api/quarantine/{id}/replay", post(api::replay_quarantined))
        .layer(middleware::from_fn_with_state(admin.clone(), guard::require_token));
    Router::new()
        .route("/", get(page::page))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::js))
        .route("/part/{name}", get(page::part))
        .route("/metrics", get(api::metrics))
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz))
        .route("/api/status", get(api::status))
        .route("/api/alerts", get(api::alerts))
        .route("/api/alerts/stream", get(stream::alerts))
        .route("/api/incidents", get(api::incidents))
        .route("/api/shards", get(api::shards))
        .route("/api/rules", get(api::rules))
        .route("/api/sinks", get(api::sinks))
        .route("/api/silences", get(api::silences))
        .route("/api/dead-letters", get(api::letters))
        .route("/api/dead-letters/{id}", get(api::letter))
        .route("/api/quarantine", get(api::quarantine))
        .route("/api/quarantine/{id}", get(api::quarantined))
        .merge(changes)
        .fallback(api::not_found)
        .layer(middleware::from_fn_with_state(admin.clone(), guard::protect))
        .with_state(admin)
}

/// Milliseconds since the epoch.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
