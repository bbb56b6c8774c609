//! People's commands carried out, and delivery's standing put on the board.
//!
//! In: commands that the admin API let through. Out: their answers; every second fresh sinks and silences on the board. Invariant: a
//! command is answered after what it changed is durable.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{mpsc, watch};

use crate::{
    admin::{Board, Command, Replayed},
    deliver::Desk,
    store::{Store, StoreError, quarantine},
};

const SHOW_EVERY: Duration = Duration::from_secs(1);

/// Decodes a quarantined record again and runs what is in it through the detectors.
pub type Replay = Box<dyn Fn(&quarantine::QuarantinedRecord) -> Replayed + Send>;

/// Runs until `stop` turns true, or the store fails.
pub async fn serve(
    desk: Arc<Desk>,
    board: Arc<Board>,
    store: Arc<dyn Store>,
    mut commands: mpsc::Receiver<Command>,
    replay: Replay,
    mut stop: watch::Receiver<bool>,
) -> Result<(), StoreError> {
    let mut show = tokio::time::interval(SHOW_EVERY);
    loop {
        tokio::select! {
            _ = show.tick() => {}
            command = commands.recv() => match command {
                Some(command) => carry_out(&desk, &*store, &replay, command)?,
                None => return Ok(()),
            },
            _ = stop.wait_for(|stopped| *stopped) => return Ok(()),
        }
        board.sinks.store(Arc::new(desk.sink_views(now_ms())?));
        board.silences.store(Arc::new(desk.silences()));
    }
}

/// Whoever asked may have left; then nobody hears the answer, and the change stands.
fn carry_out(desk: &Desk, store: &dyn Store, replay: &Replay, command: Command) -> Result<(), StoreError> {
    let now_ms = now_ms();
    match command {
        Command::AddSilence(request, reply) => drop(reply.send(desk.add_silence(request, now_ms))),
        Command::EndSilence(id, reply) => drop(reply.send(desk.end_silence(&id))),
        Command::Acknowledge(incident, reply) => drop(reply.send(desk.acknowledge(&incident, now_ms)?)),
        Command::Resolve(incident, reply) => drop(reply.send(desk.resolve(&incident, now_ms)?)),
        Command::TestAlert { level, pillar, reply } => drop(reply.send(desk.test_alert(level, pillar.as_deref(), now_ms)?)),
        Command::ReplayLetter(id, reply) => drop(reply.send(desk.replay_letter(&id, now_ms)?.is_some())),
        Command::ReplayQuarantined(id, reply) => {
            let Some(record) = quarantine::get(store, &id)? else {
                drop(reply.send(None));
                return Ok(());
            };
            let replayed = replay(&record);
            if replayed.still.is_none() {
                store.kv_write(&[quarantine::release(&id)])?;
            }
            drop(reply.send(Some(replayed)));
        }
    }
    Ok(())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
