//! People's commands carried out, and delivery's standing put on the board.
//!
//! In: commands that the admin API let through. Out: their answers; every second fresh sinks and silences on the board. Invariant: a
//! command is answered after what it changed is durable.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::daemon::Again;
use crate::{
    admin::{Board, Command, Replayed, status::QueueView},
    deliver::{DeliveringView, Desk},
    metrics::{Metrics, QueueMetrics},
    store::{Store, StoreError, blocking, quarantine},
};

const SHOW_EVERY: Duration = Duration::from_secs(1);

/// Runs until `stop` turns true, or the store fails.
pub async fn serve(
    delivering: DeliveringView,
    board: Arc<Board>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    mut commands: mpsc::Receiver<Command>,
    replays: mpsc::Sender<Again>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), StoreError> {
    let mut show = tokio::time::interval(SHOW_EVERY);
    loop {
        let command = tokio::select! {
            _ = show.tick() => None,
            command = commands.recv() => match command {
                Some(command) => Some(command),
                None => return Ok(()),
            },
            _ = stop.wait_for(|stopped| *stopped) => return Ok(()),
        };
        if let Some(command) = command {
            carry_out(&delivering, &*store, &replays, command).await?;
        }
        let now = delivering.borrow().clone();
        board.delivers.store(Arc::new(now.worker));
        let (sinks, silences) = match now.desk {
            Some(desk) => (blocking(|| desk.sink_views(now_ms()))?, desk.silences()),
            None => Default::default(),
        };
        board.sinks.store(Arc::new(sinks));
        board.silences.store(Arc::new(silences));
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

async fn carry_out(delivering: &DeliveringView, store: &dyn Store, replays: &mpsc::Sender<Again>, command: Command) -> Result<(), StoreError> {
    if let Command::ReplayQuarantined(id, reply) = command {
        let Some(record) = blocking(|| quarantine::get(store, &id))? else {
            drop(reply.send(None));
            return Ok(());
        };
        let replayed = replay(&record, replays).await;
        if replayed.still.is_none() {
            blocking(|| store.kv_write(&[quarantine::release(&id)]))?;
        }
        drop(reply.send(Some(replayed)));
        return Ok(());
    }
    // Without a desk the answer is dropped: the worker that delivers is to be asked.
    let desk = delivering.borrow().desk.clone();
    desk.map_or(Ok(()), |desk| blocking(|| deliver(&desk, command)))
}

/// Whoever asked may have left; then nobody hears the answer, and the change stands.
fn deliver(desk: &Desk, command: Command) -> Result<(), StoreError> {
    let now_ms = now_ms();
    match command {
        Command::AddSilence(request, reply) => drop(reply.send(desk.add_silence(request, now_ms))),
        Command::EndSilence(id, reply) => drop(reply.send(desk.end_silence(&id))),
        Command::Acknowledge(incident, reply) => drop(reply.send(desk.acknowledge(&incident, now_ms)?)),
        Command::Resolve(incident, reply) => drop(reply.send(desk.resolve(&incident, now_ms)?)),
        Command::TestAlert { level, pillar, reply } => drop(reply.send(desk.test_alert(level, pillar.as_deref(), now_ms)?)),
        Command::ReplayLetter(id, reply) => drop(reply.send(desk.replay_letter(&id, now_ms)?.is_some())),
        // Needs no desk.
        Command::ReplayQuarantined(..) => {}
    }
    Ok(())
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

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
