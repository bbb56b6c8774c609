//! The daemon as a whole: what `run` and `demo` start.
//!
//! In: a config, rules, a store, a stop signal. Out: an orderly end. Invariant: after the signal reading stops first, then everything
//! read is committed, then delivery drains; a failing store ends it with an error.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{mpsc, watch};

use crate::admin::{self, Admin, Board};
use crate::config::Config;
use crate::deliver::{self, Desk};
use crate::lease::Notices;
use crate::lease::local::Local;
use crate::metrics::Metrics;
use crate::pipeline::daemon::{self, Parts};
use crate::pipeline::{Detectors, Tally, control};
use crate::sink::{self, Sink};
use crate::source::kinesis::{self, Consumer};
use crate::store::Store;

/// Notices about streams that wait to be told.
const NOTICES: usize = 64;
/// Records of the quarantine that wait to be read again.
const REPLAYS: usize = 8;

/// A daemon that is running.
pub struct Service {
    #[cfg(feature = "demo")]
    pub desk: Arc<Desk>,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
    /// Where the status page is.
    pub address: SocketAddr,
    consumer: Consumer,
    daemon: tokio::task::JoinHandle<Result<Tally, crate::store::StoreError>>,
    delivery: tokio::task::JoinHandle<Result<(), crate::store::StoreError>>,
    stop: watch::Sender<bool>,
}

impl Service {
    /// # Errors
    /// What the config's sinks, the store or the rules say.
    pub async fn start(config: Config, detectors: watch::Receiver<Arc<Detectors>>, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let (listener, address) = admin::listen(&config.admin).await?;
        let metrics = Arc::new(Metrics::new());
        let board = Board::new(daemon::now_ms());
        let (notices, mut told) = Notices::channel(NOTICES);
        // Notices are logged as they are raised; the copies are for alerts.
        tokio::spawn(async move { while told.recv().await.is_some() {} });
        let http = sink::http::Http::new();
        let shared = sink::Shared { http: http.clone(), page_url: config.delivery.page_url.clone() };
        let mut sinks = Vec::with_capacity(config.sinks.len());
        for (name, sink) in &config.sinks {
            sinks.push(Sink::open(name, sink, &shared).await?);
        }
        let desk = Arc::new(Desk::open(store.clone(), sinks, &config.routing, config.delivery.clone(), metrics.clone())?);
        let client = kinesis::client(&config.kinesis).await;
        let leases = Arc::new(Local::start(&client, &config.kinesis.streams, &config.kinesis.start.0, store.positions()?, &notices));
        let (consumer, batches) = Consumer::start(config.kinesis.clone(), client, leases.grants(), notices, &metrics);
        let workers = config.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let (grants, told_desk) = (leases.grants(), desk.clone());
        let (stop, stopped) = watch::channel(false);
        let (commands, wishes) = mpsc::channel(admin::COMMANDS);
        let site = Admin::new(&config.admin, board.clone(), store.clone(), metrics.clone(), desk.live(), commands, stopped.clone());
        tokio::spawn(admin::serve(site, listener));
        let (replays, again) = mpsc::channel(REPLAYS);
        tokio::spawn(control::serve(desk.clone(), board.clone(), store.clone(), wishes, replays, stopped.clone()));
        let parts = Parts {
            detectors,
            store,
            board: board.clone(),
            limits: config.state.limits(),
            metrics: metrics.clone(),
            workers,
            grants,
            replays: again,
            committed: Box::new(move |positions, _| {
                positions.iter().for_each(|(shard, position)| leases.committed(shard, position));
                told_desk.pulse(daemon::now_ms());
                told_desk.wake();
            }),
        };
        let delivery = tokio::spawn(deliver::run(desk.clone(), http, stopped));
        let daemon = tokio::spawn(daemon::run(parts, batches));
        Ok(Self {
            #[cfg(feature = "demo")]
            desk,
            metrics,
            board,
            address,
            consumer,
            daemon,
            delivery,
            stop,
        })
    }

    /// Runs until `until` is done or something fails, then ends in order.
    ///
    /// # Errors
    /// The store's failure, which lost nothing that was committed.
    pub async fn finish(self, until: impl Future<Output = ()>) -> anyhow::Result<Tally> {
        let Self { consumer, mut daemon, mut delivery, stop, board, .. } = self;
        let early = tokio::select! {
            () = until => None,
            ended = &mut daemon => Some(ended.context("the pipeline")?),
            ended = &mut delivery => {
                ended.context("delivery")?.context("delivery can't go on")?;
                None
            }
        };
        board.drain();
        drop(consumer);
        let tally = match early {
            Some(ended) => ended,
            None => daemon.await.context("the pipeline")?,
        };
        let _ = stop.send(true);
        let tally = tally.context("the state can't be kept; nothing after the last commit counts")?;
        if !delivery.is_finished() {
            delivery.await.context("delivery")??;
        }
        Ok(tally)
    }
}

/// SIGTERM or Ctrl-C.
pub async fn stop_signal() {
    let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}
