//! People's commands carried out, and delivery's standing put on the board.
//!
//! In: commands that the admin API let through. Out: their answers; every second fresh sinks on the board, and of a fleet's other
//! workers their news. Invariant: a command is
//! answered after what it changed is durable, and no later than others while an order waits for another worker.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinSet,
};

use super::{daemon::Again, follow::Follow, orders};
use crate::{
    admin::{Board, Command, Replayed, Told, status::QueueView},
    alert::view::AlertView,
    deliver::DeliveringView,
    metrics::{Metrics, QueueMetrics},
    store::{Store, StoreError, blocking, quarantine},
};

const SHOW_EVERY: Duration = Duration::from_secs(1);
/// People whose orders wait for another worker at once.
const ORDERS: usize = 16;

/// What commands are carried out with.
pub struct Control {
    pub delivering: DeliveringView,
    /// Alerts as delivery takes them up, here or on another worker.
    pub live: broadcast::Sender<Arc<AlertView>>,
    pub board: Arc<Board>,
    pub store: Arc<dyn Store>,
    pub metrics: Arc<Metrics>,
    pub replays: mpsc::Sender<Again>,
}

/// Runs until `stop` turns true, or the store fails.
pub async fn serve(parts: Control, mut commands: mpsc::Receiver<Command>, mut stop: watch::Receiver<bool>) -> Result<(), StoreError> {
    let Control { delivering, live, board, store, metrics, replays } = parts;
    let mut show = tokio::time::interval(SHOW_EVERY);
    let (mut waiting, mut follow) = (JoinSet::new(), Follow::default());
    loop {
        let command = tokio::select! {
            _ = show.tick() => None,
            Some(_) = waiting.join_next() => continue,
            command = commands.recv() => match command {
                Some(command) => Some(command),
                None => return Ok(()),
            },
            _ = stop.wait_for(|stopped| *stopped) => return Ok(()),
        };
        let now = delivering.borrow().clone();
        match command {
            None if now.desk.is_none() => blocking(|| follow.look(&*store, &live, now_ms()))?,
            None => follow.pause(),
            // Whoever asked may have left; then nobody hears the answer, and the change stands.
            Some(Command::ReplayQuarantined(id, reply)) => drop(reply.send(Told::Done(replay_kept(&id, &*store, &replays).await?))),
            Some(command) => match (orders::of(command, now_ms()), &now.desk) {
                (None, _) => {}
                (Some((order, reply)), Some(desk)) => reply(orders::told(blocking(|| desk.carry_out(&order, now_ms()))?)),
                (Some((order, reply)), None) if waiting.len() < ORDERS => {
                    waiting.spawn(orders::pass_on(store.clone(), order, reply));
                }
                (Some((_, reply)), None) => reply(Told::Refused(orders::BUSY.into())),
            },
        }
        board.delivers.store(Arc::new(now.worker));
        let sinks = now.desk.map_or(Ok(Vec::new()), |desk| blocking(|| desk.sink_views(now_ms())))?;
        board.sinks.store(Arc::new(sinks));
        board.queues.store(Arc::new(queues(&metrics)));
    }
}

fn queues(metrics: &Metrics) -> Vec<QueueView> {
    let number = |gauge: &prometheus::IntGauge| u64::try_from(gauge.get()).unwrap_or(0);
    let view = |(name, capacity_bytes, queue): (&str, u64, QueueMetrics)| QueueView {
        name: name.to_owned(),
        items: number(&queue.items),
        bytes: number(&queue.bytes),
        capacity_bytes,
    };
    metrics.queues().into_iter().map(view).collect()
}

/// A record is decoded again by the worker that was asked.
async fn replay_kept(id: &str, store: &dyn Store, replays: &mpsc::Sender<Again>) -> Result<Option<Replayed>, StoreError> {
    let Some(record) = blocking(|| quarantine::get(store, id))? else { return Ok(None) };
    let replayed = replay(&record, replays).await;
    if replayed.still.is_none() {
        blocking(|| store.kv_write(&[quarantine::release(id)]))?;
    }
    Ok(Some(replayed))
}

/// Decodes a quarantined record again, by the rules in force; what it holds is judged, alerted and committed before the answer.
async fn replay(record: &quarantine::QuarantinedRecord, replays: &mpsc::Sender<Again>) -> Replayed {
    let still = |reason: &str| Replayed { events: 0, findings: 0, still: Some(reason.to_owned()) };
    let Some(data) = record.whole() else { return still("only the beginning of the record was kept") };
    let (answer, answered) = oneshot::channel();
    let again = Again { source: record.source.clone(), data, arrival_ms: record.at_ms, answer };
    if replays.send(again).await.is_err() {
        return still("the pipeline has ended");
    }
    answered.await.unwrap_or_else(|_| still("the pipeline has ended"))
}

pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
