//! Drains the outbox: every alert reaches its sinks, urgent ones first, and people are told of incidents rather than alerts.
//!
//! In: outbox rows of the store, commands of people, the time. Out: requests of the sinks, rows that survive a crash. Invariant: an
//! alert leaves the outbox in the very transaction that queues what is to be told; it leaves a queue only when a sink took it,
//! or as a dead letter.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicI64},
};

use serde::Deserialize;
use tokio::sync::{Notify, broadcast};

use crate::{
    alert::view::AlertView,
    metrics::{Metrics, SinkMetrics},
    route::{self, RouteError, Router, Silence, StormControl},
    sink::{Sink, SinkError, http::Endpoint},
    store::{Store, StoreError},
};

mod backoff;
mod claimed;
mod command;
mod lane;
mod ledger;
mod letters;
pub mod order;
mod plan;
mod run;
mod timer;

pub use claimed::{Delivering, DeliveringView, run_claimed};
pub use lane::Lane;
pub use ledger::{DeadLetter, Incident};
pub use run::run;

/// Live views that a slow reader may miss before it is told that it did.
const LIVE_VIEWS: usize = 1_024;
/// An incident that nothing happens to is forgotten; its next alert opens another.
const INCIDENT_KEEP_MS: i64 = 7 * 24 * 3_600_000;
/// A process queues fewer notices than two to the power of this.
const SEQUENCE_BITS: u32 = 40;

/// The key `delivery` of the config.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Account id → the name that people know it by.
    #[serde(default)]
    pub account_names: BTreeMap<String, String>,
    /// The sink that gets what another refused for good, and urgent alerts while another is down.
    #[serde(default)]
    pub fallback: Option<String>,
    /// A sink counts as down for the fallback's purposes after so long.
    #[serde(default = "default_fallback_after_seconds")]
    pub fallback_after_seconds: u64,
    /// A dead man's switch: some service that raises the alarm when this stops.
    #[serde(default)]
    pub heartbeat: Option<HeartbeatConfig>,
    /// Where people reach the status page; alerts link there.
    #[serde(default)]
    pub page_url: Option<String>,
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatConfig {
    /// Gets a POST of `{"status":"alive",…}` while records flow or the stream is known to be quiet.
    pub url: Endpoint,
    /// From one POST to the next.
    #[serde(default = "default_heartbeat_seconds")]
    pub every_seconds: u64,
}

fn default_fallback_after_seconds() -> u64 {
    900
}

fn default_heartbeat_seconds() -> u64 {
    60
}

impl Default for Config {
    fn default() -> Self {
        Self {
            account_names: BTreeMap::new(),
            fallback: None,
            fallback_after_seconds: default_fallback_after_seconds(),
            heartbeat: None,
            page_url: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error("delivery.fallback: no sink is called `{0}`")]
    Fallback(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl DeliverError {
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Everything that delivery knows. The lock is held for a batch's bookkeeping, never while a sink is spoken to.
pub struct Desk {
    store: Arc<dyn Store>,
    sinks: Vec<Post>,
    config: Config,
    update_ms: i64,
    fallback: Option<usize>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    live: broadcast::Sender<Arc<AlertView>>,
    planner: Notify,
    /// When the pipeline last showed that it lives; 0: it is not watched.
    pulse_ms: AtomicI64,
}

/// One sink and what is kept beside it.
struct Post {
    sink: Sink,
    metrics: SinkMetrics,
    /// Something may wait.
    wake: Notify,
    standing: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    last_error: Option<String>,
    paused_until_ms: i64,
}

struct State {
    router: Router,
    storms: StormControl,
    silences: Vec<Silence>,
    /// When incidents want to be looked at again, in the order of time.
    timers: BTreeSet<(i64, String)>,
    due: HashMap<String, i64>,
    /// Keeps apart rows of one millisecond, also those of an earlier process: starts in the high bits.
    sequence: u64,
}

impl Desk {
    /// Reads what an earlier process left. Sinks keep their order; their names are distinct.
    pub fn open(
        store: Arc<dyn Store>,
        sinks: Vec<Sink>,
        routing: &route::Config,
        config: Config,
        metrics: Arc<Metrics>,
    ) -> Result<Self, DeliverError> {
        let names: Vec<Arc<str>> = sinks.iter().map(|s| s.name.clone()).collect();
        let router = Router::new(routing, &names)?;
        let fallback = match &config.fallback {
            Some(name) => Some(names.iter().position(|n| **n == **name).ok_or_else(|| DeliverError::Fallback(name.clone()))?),
            None => None,
        };
        let mut storms = StormControl::new(routing.storm.clone());
        for (key, row) in ledger::all(&*store, ledger::STORM)? {
            storms.restore(String::from_utf8_lossy(&key).into_owned(), row);
        }
        let starts = ledger::next_start(&*store)?;
        let state = State { router, storms, silences: Vec::new(), timers: BTreeSet::new(), due: HashMap::new(), sequence: starts << SEQUENCE_BITS };
        let post = |sink: Sink| Post { metrics: metrics.sink(&sink.name), sink, wake: Notify::new(), standing: Mutex::default() };
        let desk = Self {
            sinks: sinks.into_iter().map(post).collect(),
            update_ms: i64::try_from(routing.storm.update_seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000),
            fallback,
            state: Mutex::new(state),
            live: Self::channel(),
            planner: Notify::new(),
            pulse_ms: AtomicI64::new(0),
            store,
            config,
            metrics,
        };
        desk.state().silences = desk.read_silences()?;
        desk.restore_timers()?;
        desk.count_letters()?;
        Ok(desk)
    }

    fn read_silences(&self) -> Result<Vec<Silence>, StoreError> {
        Ok(ledger::all(&*self.store, ledger::SILENCE)?.into_iter().map(|(_, silence)| silence).collect())
    }

    /// Tells alerts on `live` instead of on a channel of its own: for a desk that others follow.
    #[must_use]
    pub fn telling(mut self, live: broadcast::Sender<Arc<AlertView>>) -> Self {
        self.live = live;
        self
    }

    /// A channel as `live` gives.
    pub fn channel() -> broadcast::Sender<Arc<AlertView>> {
        broadcast::channel(LIVE_VIEWS).0
    }

    /// Subscribe to it to get alerts as they are taken up.
    pub fn live(&self) -> broadcast::Sender<Arc<AlertView>> {
        self.live.clone()
    }

    /// The outbox has new rows.
    pub fn wake(&self) {
        self.planner.notify_one();
    }

    /// The pipeline makes progress, or knows that there is nothing to do. Once called, heartbeats depend on it.
    pub fn pulse(&self, now_ms: i64) {
        self.pulse_ms.store(now_ms, std::sync::atomic::Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in one place must not stop alerts elsewhere; rows are written whole or not at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn account_name(&self, account: &str) -> Option<String> {
        self.config.account_names.get(account).cloned()
    }

    fn place_of(&self, sink: &str) -> Option<usize> {
        self.sinks.iter().position(|post| *post.sink.name == *sink)
    }
}

impl State {
    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn set_timer(&mut self, incident: &str, due_ms: Option<i64>) {
        if let Some(old) = self.due.remove(incident) {
            self.timers.remove(&(old, incident.to_owned()));
        }
        if let Some(due_ms) = due_ms {
            self.due.insert(incident.to_owned(), due_ms);
            self.timers.insert((due_ms, incident.to_owned()));
        }
    }
}
