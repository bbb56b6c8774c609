//! Delivery's tasks: a planner, a lane for each sink, the heartbeat.
//!
//! In: a desk, a stop signal. Out: nothing until the signal or a failure of the store. Invariant: this and `heartbeat` are the
//! only places here that read a clock.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::watch, task::JoinSet};

use super::{Desk, HeartbeatConfig, Lane};
use crate::{
    sink::http::{Answer, Http},
    store::{StoreError, blocking},
};

/// The outbox is looked at so often without a wake.
const PLAN_EVERY: Duration = Duration::from_millis(200);
const SWEEP_EVERY_MS: i64 = 10_000;
/// Orders of other workers are looked for so often.
const ORDERS_EVERY_MS: i64 = 1_000;
/// After the stop signal lanes go on so long, as far as something waits; the rest is told after the restart.
const DRAIN: Duration = Duration::from_secs(3);
/// No heartbeat when the pipeline has shown no sign of life for so long.
const PULSE_MS: i64 = 300_000;

/// Runs until `stop` turns true, or the store fails.
pub async fn run(desk: Arc<Desk>, http: Http, stop: watch::Receiver<bool>) -> Result<(), StoreError> {
    let mut tasks = JoinSet::new();
    tasks.spawn(plan_loop(desk.clone(), stop.clone()));
    let seed = u64::from(std::process::id()) ^ now_ms().cast_unsigned();
    for lane in Lane::all(&desk, seed) {
        tasks.spawn(lane_loop(lane, stop.clone()));
    }
    if let Some(config) = desk.config.heartbeat.clone() {
        tasks.spawn(heartbeat_loop(desk, config, http, stop));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    }
    Ok(())
}

async fn plan_loop(desk: Arc<Desk>, mut stop: watch::Receiver<bool>) -> Result<(), StoreError> {
    let (mut next_sweep_ms, mut next_orders_ms) = (0, 0);
    loop {
        let now_ms = now_ms();
        let planned = blocking(|| {
            let planned = desk.plan(now_ms)? + desk.tick(now_ms)?;
            if now_ms >= next_orders_ms {
                desk.take_orders(now_ms)?;
                next_orders_ms = now_ms + ORDERS_EVERY_MS;
            }
            if now_ms >= next_sweep_ms {
                desk.sweep(now_ms)?;
                next_sweep_ms = now_ms + SWEEP_EVERY_MS;
            }
            Ok::<usize, StoreError>(planned)
        })?;
        if planned > 0 {
            // Lanes get their turn between batches.
            tokio::task::yield_now().await;
            continue;
        }
        if *stop.borrow() {
            return Ok(());
        }
        tokio::select! {
            () = desk.planner.notified() => {}
            () = tokio::time::sleep(PLAN_EVERY) => {}
            _ = stop.changed() => {}
        }
    }
}

async fn lane_loop(mut lane: Lane, mut stop: watch::Receiver<bool>) -> Result<(), StoreError> {
    loop {
        let now = now_ms();
        let next_ms = lane.step(now).await?;
        if *stop.borrow() {
            return drain(lane).await;
        }
        // A wake during the pause between requests changes nothing, so it is not waited for.
        let pause = Duration::from_millis(u64::try_from(next_ms.saturating_sub(now)).unwrap_or(0).min(60_000));
        let idle = lane.is_idle(now);
        tokio::select! {
            () = lane.woken(), if idle => {}
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => {}
        }
    }
}

/// Sends what goes through at once.
async fn drain(mut lane: Lane) -> Result<(), StoreError> {
    let until = tokio::time::Instant::now() + DRAIN;
    while tokio::time::Instant::now() < until {
        let now = now_ms();
        let next_ms = lane.step(now).await?;
        if next_ms > now + i64::try_from(DRAIN.as_millis()).unwrap_or(0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(u64::try_from(next_ms - now).unwrap_or(0))).await;
    }
    Ok(())
}

async fn heartbeat_loop(desk: Arc<Desk>, config: HeartbeatConfig, http: Http, mut stop: watch::Receiver<bool>) -> Result<(), StoreError> {
    while !*stop.borrow() {
        desk.beat(&config, &http, now_ms()).await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(config.every_seconds.max(1))) => {}
            _ = stop.changed() => {}
        }
    }
    Ok(())
}

impl Desk {
    /// One sign of life, unless the pipeline stands still.
    async fn beat(&self, config: &HeartbeatConfig, http: &Http, now_ms: i64) {
        let pulse_ms = self.pulse_ms.load(Ordering::Relaxed);
        let metrics = &self.metrics.delivery;
        if pulse_ms != 0 && now_ms.saturating_sub(pulse_ms) > PULSE_MS {
            tracing::error!("no heartbeat: the pipeline has made no progress for {} s", (now_ms - pulse_ms) / 1000);
            metrics.heartbeats_failed.inc();
            return;
        }
        let body = serde_json::json!({ "status": "alive", "time": crate::sink::form::rfc3339(now_ms), "version": env!("CARGO_PKG_VERSION") });
        match http.post_json(&config.url, &[], body.to_string().into_bytes()).await.and_then(Answer::judge) {
            Ok(_) => metrics.heartbeats_ok.inc(),
            Err(error) => {
                tracing::warn!(%error, "the heartbeat was not taken");
                metrics.heartbeats_failed.inc();
            }
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
