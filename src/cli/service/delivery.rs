//! Delivery as a daemon runs it: always, or in a fleet while this worker holds the claim on the outbox.
//!
//! In: the config's sinks and routes, a store. Out: a task, and who delivers. Invariant: sinks that can't be made stop the start,
//! whoever will deliver.

use std::sync::Arc;

use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use crate::alert::view::AlertView;
use crate::config::Config;
use crate::deliver::{self, DeliverError, Delivering, DeliveringView, Desk};
use crate::lease::config::Config as Fleet;
use crate::lease::ledger::Ledger;
use crate::metrics::Metrics;
use crate::sink::http::Http;
use crate::sink::{Shared, Sink, SinkError};
use crate::store::claim::Claim;
use crate::store::{Store, blocking};

/// What of the store the claim is on.
const OUTBOX: &str = "outbox";

pub struct Delivery {
    pub delivering: DeliveringView,
    /// Alerts as they are taken up here.
    pub live: broadcast::Sender<Arc<AlertView>>,
    pub task: JoinHandle<Result<(), DeliverError>>,
}

/// `fleet`: the config of it, and who this worker is.
///
/// # Errors
/// What the sinks or the store say.
pub async fn start(
    config: &Config,
    fleet: Option<(&Fleet, Ledger)>,
    store: &Arc<dyn Store>,
    metrics: &Arc<Metrics>,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<Delivery> {
    let http = Http::new();
    let opener = Arc::new(Opener {
        sinks: config.sinks.clone().into_iter().collect(),
        routing: config.routing.clone(),
        delivery: config.delivery.clone(),
        http: http.clone(),
        store: store.clone(),
        metrics: metrics.clone(),
        live: Desk::channel(),
    });
    let (live, sinks) = (opener.live.clone(), opener.sinks().await?);
    let Some((fleet, ledger)) = fleet else {
        let desk = opener.desk(sinks)?;
        let task = tokio::spawn(run_alone(desk.clone(), http, stopped.clone()));
        return Ok(Delivery { delivering: Delivering::here(desk), live, task });
    };
    drop(sinks);
    let claim_ms = i64::try_from(fleet.failover().as_millis()).unwrap_or(i64::MAX);
    let claim = Claim::new(store.clone(), OUTBOX, ledger.worker(), claim_ms);
    let (told, delivering) = watch::channel(Delivering::default());
    let open = move || {
        let opener = opener.clone();
        async move {
            let sinks = opener.sinks().await?;
            blocking(|| opener.desk(sinks))
        }
    };
    let task = tokio::spawn(deliver::run_claimed(claim, open, told, http, stopped.clone()));
    Ok(Delivery { delivering, live, task })
}

async fn run_alone(desk: Arc<Desk>, http: Http, stopped: watch::Receiver<bool>) -> Result<(), DeliverError> {
    Ok(deliver::run(desk, http, stopped).await?)
}

/// Opens a desk, as often as this worker comes to deliver.
struct Opener {
    sinks: Vec<(String, crate::sink::Config)>,
    routing: crate::route::Config,
    delivery: deliver::Config,
    http: Http,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    live: broadcast::Sender<Arc<AlertView>>,
}

impl Opener {
    async fn sinks(&self) -> Result<Vec<Sink>, SinkError> {
        let shared = Shared { http: self.http.clone(), page_url: self.delivery.page_url.clone() };
        let mut sinks = Vec::with_capacity(self.sinks.len());
        for (name, sink) in &self.sinks {
            sinks.push(Sink::open(name, sink, &shared).await?);
        }
        Ok(sinks)
    }

    fn desk(&self, sinks: Vec<Sink>) -> Result<Arc<Desk>, DeliverError> {
        let desk = Desk::open(self.store.clone(), sinks, &self.routing, self.delivery.clone(), self.metrics.clone())?;
        Ok(Arc::new(desk.telling(self.live.clone())))
    }
}
