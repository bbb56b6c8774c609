//! One sink's queue, drained: the most urgent first, then the oldest.
//!
//! In: rows that wait for the sink, the time. Out: requests, one at a time; rows gone, kept, or dead letters. Invariant: after a
//! failure that may pass, nothing overtakes the row that failed.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Desk,
    backoff::Backoff,
    ledger::{self, Incident, Pending, ToldState, What},
    plan::Draft,
};
use crate::{
    alert::Level,
    sink::{Action, Notice, SendError, alertmanager},
    store::{KvOp, StoreError, blocking},
};

/// Rows copied to the fallback in one step, while the sink is down.
const MIRRORED: usize = 50;

pub struct Lane {
    desk: Arc<Desk>,
    place: usize,
    backoff: Backoff,
    /// Not before this.
    next_ms: i64,
    failing_since_ms: Option<i64>,
    next_assertion_ms: i64,
    /// After a batch was refused its rows go one by one, to find the one.
    singles: usize,
}

/// A row and what it says now.
struct Head {
    key: Vec<u8>,
    pending: Pending,
    notice: Notice,
}

impl Lane {
    /// One for each sink of the desk. `seed`: anything that differs between processes.
    pub fn all(desk: &Arc<Desk>, seed: u64) -> Vec<Self> {
        let lane = |place: usize| Self {
            desk: desk.clone(),
            place,
            backoff: Backoff::new(seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(place as u64 + 1))),
            next_ms: 0,
            failing_since_ms: None,
            next_assertion_ms: 0,
            singles: 0,
        };
        (0..desk.sinks.len()).map(lane).collect()
    }

    /// Returns once something may wait for the sink.
    pub async fn woken(&self) {
        self.desk.sinks[self.place].wake.notified().await;
    }

    /// Not in a pause that a failure or the service's pace asked for.
    pub fn is_idle(&self, now_ms: i64) -> bool {
        self.next_ms <= now_ms
    }

    /// Sends one batch, if it is time and something waits. Returns when to call again, in milliseconds since the epoch; a
    /// wake may come first.
    pub async fn step(&mut self, now_ms: i64) -> Result<i64, StoreError> {
        if now_ms < self.next_ms {
            return Ok(self.next_ms);
        }
        let (desk, place) = (self.desk.clone(), self.place);
        let post = &desk.sinks[place];
        let limit = if self.singles > 0 { 1 } else { post.sink.max_batch() };
        let heads = blocking(|| desk.heads(place, limit))?;
        if heads.is_empty() {
            return self.reassert(now_ms).await;
        }
        let notices: Vec<Notice> = heads.iter().map(|head| head.notice.clone()).collect();
        let started = Instant::now();
        let result = post.sink.send(&notices, now_ms).await;
        post.metrics.request.record(started.elapsed());
        let after_ms = now_ms.saturating_add(i64::try_from(started.elapsed().as_millis()).unwrap_or(0));
        let paused = match result {
            Ok(()) => {
                self.singles = self.singles.saturating_sub(1);
                blocking(|| desk.settle(place, &heads, after_ms))?;
                self.succeeded();
                i64::try_from(post.sink.pace().as_millis()).unwrap_or(0)
            }
            Err(SendError::Refused { why }) => {
                self.refused(&heads, &why, after_ms)?;
                0
            }
            Err(SendError::Retry { why, after, .. }) => {
                post.metrics.retried.inc_by(heads.len() as u64);
                self.failed(why, after, now_ms)?
            }
        };
        // A wait counts from the answer, but in tests time stands still meanwhile.
        self.next_ms = now_ms.saturating_add(paused);
        self.note_pause(if self.backoff.failures() > 0 { self.next_ms } else { 0 });
        Ok(self.next_ms)
    }

    fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.failing_since_ms = None;
        let post = &self.desk.sinks[self.place];
        post.metrics.up.set(1);
        post.standing.lock().unwrap_or_else(PoisonError::into_inner).last_error = None;
    }

    fn failed(&mut self, why: String, after: Option<Duration>, now_ms: i64) -> Result<i64, StoreError> {
        let post = &self.desk.sinks[self.place];
        post.metrics.up.set(0);
        tracing::warn!(sink = %post.sink.name, why, "an alert was not taken; it is tried again");
        post.standing.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(why);
        let since_ms = *self.failing_since_ms.get_or_insert(now_ms);
        let patience_ms = i64::try_from(self.desk.config.fallback_after_seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
        if now_ms.saturating_sub(since_ms) >= patience_ms {
            blocking(|| self.desk.mirror(self.place, now_ms))?;
        }
        Ok(self.backoff.failed(after))
    }

    fn refused(&mut self, heads: &[Head], why: &str, now_ms: i64) -> Result<(), StoreError> {
        if heads.len() > 1 {
            self.singles = heads.len();
            return Ok(());
        }
        self.singles = self.singles.saturating_sub(1);
        let post = &self.desk.sinks[self.place];
        tracing::error!(sink = %post.sink.name, why, "an alert was refused for good; it is a dead letter now");
        post.metrics.up.set(0);
        post.standing.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(why.to_owned());
        for head in heads {
            blocking(|| self.desk.bury(self.place, &head.key, &head.pending, &head.notice, why, now_ms))?;
        }
        Ok(())
    }

    fn note_pause(&self, until_ms: i64) {
        self.desk.sinks[self.place].standing.lock().unwrap_or_else(PoisonError::into_inner).paused_until_ms = until_ms;
    }

    /// Tells incidents that last once more, where the sink forgets.
    async fn reassert(&mut self, now_ms: i64) -> Result<i64, StoreError> {
        let (desk, place) = (self.desk.clone(), self.place);
        let post = &desk.sinks[place];
        let Some(reassert) = post.sink.reassert() else { return Ok(i64::MAX) };
        if now_ms < self.next_assertion_ms {
            return Ok(self.next_assertion_ms);
        }
        let every_ms = i64::try_from(reassert.every.as_millis()).unwrap_or(60_000);
        self.next_assertion_ms = now_ms.saturating_add(every_ms);
        let notices = blocking(|| desk.lasting(place))?;
        for batch in notices.chunks(alertmanager::BATCH) {
            match post.sink.send(batch, now_ms).await {
                Ok(()) => self.succeeded(),
                Err(error) => {
                    self.next_assertion_ms = now_ms.saturating_add(self.failed(error.to_string(), None, now_ms)?);
                    break;
                }
            }
        }
        Ok(self.next_assertion_ms)
    }
}

impl Desk {
    /// The first rows that wait for the sink. Rows whose incident is gone are left out and removed.
    fn heads(&self, place: usize, limit: usize) -> Result<Vec<Head>, StoreError> {
        let mut heads = Vec::new();
        let mut gone = Vec::new();
        for (key, value) in self.store.kv_first(ledger::PENDING, &ledger::lane(&self.sinks[place].sink.name), limit)? {
            let pending: Pending = ledger::read(ledger::PENDING, &value)?;
            let notice = match &pending.what {
                What::Own(notice) => Some((**notice).clone()),
                What::Incident { key, action, note } => {
                    ledger::get::<Incident>(&*self.store, ledger::INCIDENT, key)?.map(|incident| incident.notice(*action, note.clone()))
                }
            };
            match notice {
                Some(notice) => heads.push(Head { key, pending, notice }),
                None => gone.push(KvOp::Delete { namespace: ledger::PENDING, key }),
            }
        }
        if !gone.is_empty() {
            self.store.kv_write(&gone)?;
        }
        Ok(heads)
    }

    /// The sink took these.
    fn settle(&self, place: usize, heads: &[Head], now_ms: i64) -> Result<(), StoreError> {
        let post = &self.sinks[place];
        let mut state = self.state();
        let mut draft = Draft::default();
        for head in heads {
            draft.ops.push(KvOp::Delete { namespace: ledger::PENDING, key: head.key.clone() });
            if let What::Incident { key, action: Action::Trigger, .. } = &head.pending.what
                && let Some(incident) = self.load(&mut draft, key)?
                && let Some(told) = incident.told.get_mut(&*post.sink.name)
            {
                told.alerts = head.notice.alerts;
                told.at_ms = now_ms;
                if told.state == ToldState::Queued {
                    told.state = ToldState::Told;
                }
            }
        }
        self.commit(&mut state, draft, now_ms)?;
        let (deliver, age) = (self.metrics.stage("deliver"), self.metrics.record_to_alert());
        for head in heads {
            post.metrics.delivered.inc();
            if head.notice.alert.arrived_ms > 0 && head.notice.action == Action::Trigger {
                age.record(Duration::from_millis(u64::try_from(now_ms - head.notice.alert.arrived_ms).unwrap_or(0)));
            }
            deliver.record(Duration::from_millis(u64::try_from(now_ms - head.pending.queued_ms).unwrap_or(0)));
        }
        Ok(())
    }

    /// Copies what is urgent to the fallback while the sink is down.
    fn mirror(&self, place: usize, now_ms: i64) -> Result<(), StoreError> {
        let Some(fallback) = self.fallback.filter(|f| *f != place) else { return Ok(()) };
        let name = &self.sinks[place].sink.name;
        let mut state = self.state();
        let mut draft = Draft::default();
        for (key, value) in self.store.kv_first(ledger::PENDING, &ledger::lane(name), MIRRORED)? {
            let mut pending: Pending = ledger::read(ledger::PENDING, &value)?;
            let What::Incident { key: incident, action: Action::Trigger, .. } = &pending.what else { continue };
            if pending.mirrored {
                continue;
            }
            let Some(row) = self.load(&mut draft, incident)?.filter(|i| i.alert.rule.level >= Level::High) else { continue };
            let note = Some(format!("sink {name} is down; it gets this too once it is back"));
            let notice = row.notice(Action::Trigger, note);
            self.queue_own(&mut state, &mut draft, fallback, notice, now_ms)?;
            self.sinks[fallback].metrics.fallback.inc();
            pending.mirrored = true;
            draft.ops.push(ledger::put(ledger::PENDING, key, &pending)?);
        }
        if draft.ops.is_empty() { Ok(()) } else { self.commit(&mut state, draft, now_ms).map(|_| ()) }
    }

    /// Open incidents that the sink knows.
    fn lasting(&self, place: usize) -> Result<Vec<Notice>, StoreError> {
        let name = &*self.sinks[place].sink.name;
        let lasts = |incident: &Incident| !incident.resolved && incident.told.get(name).is_some_and(|t| t.state == ToldState::Told);
        let rows = ledger::all::<Incident>(&*self.store, ledger::INCIDENT)?;
        Ok(rows.into_iter().filter(|(_, incident)| lasts(incident)).map(|(_, incident)| incident.notice(Action::Trigger, None)).collect())
    }
}
