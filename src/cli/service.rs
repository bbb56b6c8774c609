//! The daemon as a whole: what `run` and `demo` start.
//!
//! In: a config, rules, a stop signal. Out: an orderly end. Invariant: after the signal reading stops first, then everything
//! read is committed, then delivery drains; a failing store ends it with an error.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use delivery::Delivery;
#[cfg(feature = "demo")]
use tokio::sync::broadcast;
use tokio::sync::{mpsc, watch};

use crate::admin::{self, Admin, Board};
#[cfg(feature = "demo")]
use crate::alert::view::AlertView;
use crate::config::Config;
use crate::deliver::DeliverError;
use crate::lease::ledger::Leases;
use crate::lease::local::Local;
use crate::lease::manager::Manager;
use crate::lease::row::Naming;
use crate::lease::{NoticeKind, Notices};
use crate::metrics::Metrics;
use crate::pipeline::control::{self, Control};
use crate::pipeline::daemon::{self, Parts};
use crate::pipeline::{Detectors, Tally, Unreadable};
use crate::source::kinesis::{self, Consumer};
use crate::store::Store;

mod delivery;
mod state;

/// Notices about streams that wait to be told.
const NOTICES: usize = 64;
/// Records of the quarantine that wait to be read again.
const REPLAYS: usize = 8;

/// From the stop signal to the end, however slow the calls are: what is left undone by then was never committed, and is read again.
const END: Duration = Duration::from_secs(8);
/// Of that, for what was read to be committed. After it the leases are given up all the same: checkpoints that come later are refused.
const COMMIT: Duration = Duration::from_secs(3);

/// A daemon that is running.
pub struct Service {
    /// Alerts as delivery takes them up.
    #[cfg(feature = "demo")]
    pub live: broadcast::Sender<Arc<AlertView>>,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
    /// Where the status page is.
    pub address: SocketAddr,
    consumer: Consumer,
    leases: Leases,
    daemon: tokio::task::JoinHandle<Result<Tally, crate::store::StoreError>>,
    delivery: tokio::task::JoinHandle<Result<(), DeliverError>>,
    stop: watch::Sender<bool>,
    /// Ends the page and the probes, last: until then they say that the daemon drains.
    close: watch::Sender<bool>,
}

impl Service {
    /// # Errors
    /// What the config's sinks, the state or the rules say.
    pub async fn start(config: Config, detectors: watch::Receiver<Arc<Detectors>>) -> anyhow::Result<Self> {
        let (listener, address) = admin::listen(&config.admin).await?;
        let metrics = Arc::new(Metrics::new());
        let store = state::open(&config, &detectors, &metrics).await?;
        let board = Board::new(daemon::now_ms());
        let (notices, to_tell) = Notices::channel(NOTICES);
        let client = kinesis::client(&config.kinesis).await;
        let leases = leases(&config, &client, store.as_ref(), &notices, &metrics).await?;
        board.worker.store(Arc::new(leases.ledger().worker().to_owned()));
        let (stop, stopped) = watch::channel(false);
        let fleet = config.leases.as_ref().map(|fleet| (fleet, leases.ledger()));
        let Delivery { delivering, live, task: delivery } = delivery::start(&config, fleet, &store, &metrics, &stopped).await?;
        tokio::spawn(super::notices::tell(to_tell, store.clone(), delivering.clone()));
        let (unread, streams) = (notices.clone(), config.kinesis.streams.join(", "));
        let mut unreadable = Unreadable::default();
        let (consumer, batches) = Consumer::start(config.kinesis.clone(), client, leases.grants(), notices, &metrics);
        let workers = config.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let (marks, told) = (leases.ledger(), delivering.clone());
        let (commands, wishes) = mpsc::channel(admin::COMMANDS);
        let (close, closed) = watch::channel(false);
        let site = Admin::new(&config.admin, board.clone(), store.clone(), metrics.clone(), live.clone(), commands, closed);
        tokio::spawn(admin::serve(site, listener));
        let (replays, again) = mpsc::channel(REPLAYS);
        let parts = Control { delivering, live: live.clone(), board: board.clone(), store: store.clone(), metrics: metrics.clone(), replays };
        tokio::spawn(control::serve(parts, wishes, stopped.clone()));
        let parts = Parts {
            detectors,
            store,
            board: board.clone(),
            limits: config.state.limits(),
            metrics: metrics.clone(),
            workers,
            flow_format: config.logs.flow_format.clone(),
            grants: leases.grants(),
            overview: leases.overview(),
            ledger: leases.ledger(),
            replays: again,
            committed: Box::new(move |committed, tally| {
                marks.mark(committed);
                let now_ms = daemon::now_ms();
                if let Some(message) = unreadable.note(tally, now_ms) {
                    unread.raise(NoticeKind::Unreadable, &streams, message);
                }
                if let Some(desk) = &told.borrow().desk {
                    desk.pulse(now_ms);
                    desk.wake();
                }
            }),
        };
        let daemon = tokio::spawn(daemon::run(parts, batches));
        Ok(Self {
            #[cfg(feature = "demo")]
            live,
            metrics,
            board,
            address,
            consumer,
            leases,
            daemon,
            delivery,
            stop,
            close,
        })
    }

    /// Runs until `until` is done or something fails, then ends in order.
    ///
    /// # Errors
    /// The store's failure, which lost nothing that was committed.
    pub async fn finish(self, until: impl Future<Output = ()>) -> anyhow::Result<Tally> {
        let Self { consumer, leases, mut daemon, mut delivery, stop, close, board, .. } = self;
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
        tracing::info!("asked to end: what was read is committed");
        let in_order = async move {
            let tally = match early {
                Some(ended) => Some(ended),
                None => tokio::time::timeout(COMMIT, daemon).await.ok().transpose().context("the pipeline")?,
            };
            if tally.is_none() {
                tracing::warn!("what was read could not be committed within {COMMIT:?}: whoever comes next reads it again");
            }
            // Others may go on while delivery drains.
            leases.end().await;
            let _ = stop.send(true);
            let tally = tally.transpose().context("the state can't be kept; nothing after the last commit counts")?;
            if !delivery.is_finished() {
                delivery.await.context("delivery")??;
            }
            anyhow::Ok(tally.unwrap_or_default())
        };
        let tally = tokio::time::timeout(END, in_order).await.ok().transpose()?;
        let _ = close.send(true);
        Ok(tally.unwrap_or_else(|| {
            tracing::warn!("not ended in order within {END:?}: leases expire, and alerts that wait are sent by whoever comes next");
            Tally::default()
        }))
    }
}

/// By a table where the config names one, else this process for itself.
async fn leases(
    config: &Config,
    client: &aws_sdk_kinesis::Client,
    store: &dyn Store,
    notices: &Notices,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Leases> {
    let (streams, start) = (&config.kinesis.streams, &config.kinesis.start.0);
    let Some(fleet) = &config.leases else {
        return Ok(Leases::alone(Local::start(client, streams, start, store.positions()?, notices)));
    };
    let naming = Naming::resolve(client, streams).await.context("the streams' names")?;
    let dynamodb = fleet.client().await;
    let manager = Manager::start(fleet.clone(), dynamodb, client.clone(), naming, start.clone(), notices.clone(), metrics.clone()).await;
    Ok(Leases::fleet(manager.with_context(|| format!("joining the fleet of `{}`", fleet.table))?))
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
