//! The keeper's thread: evidence, alerts and positions, committed together.
//!
//! In: worked batches. Out: commits. Invariant: a position is committed with all that its records led to, at least every
//! `COMMIT_EVENTS` events or `COMMIT_MS`; the frontier never passes what some open shard has yet to show.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use prometheus::IntGauge;

use super::daemon::{Committed, Done, Parts, Reread, Worked, now_ms};
use super::keeper::{AnyKeeper, TOLD_LATE_MS};
use super::replay::offer;
use super::showing::Showing;
use super::{Batch, Detectors, Quarantined, Tally};
use crate::admin::{Replayed, status::ShardView};
use crate::decode::Reason;
use crate::lease::ledger::{Ledger, Mark};
use crate::lease::{GrantsView, OpenShard};
use crate::metrics::{Metrics, RuleMetrics, ShardMetrics, SourceMetrics};
use crate::position::{Position, ShardId};
use crate::store::keeper::Counts;
use crate::store::quarantine::QuarantinedRecord;
use crate::store::{Store, StoreError};

const COMMIT_EVENTS: u64 = 1_000;
const COMMIT_MS: u64 = 100;

pub(super) struct Keeping {
    /// Always there except while rules are exchanged.
    keeper: Option<AnyKeeper>,
    store: Arc<dyn Store>,
    detectors: Arc<Detectors>,
    grants: GrantsView,
    /// No fleet counts the leases.
    alone: bool,
    ledger: Ledger,
    committed: Committed,
    metrics: Arc<Metrics>,
    meters: Meters,
    showing: Showing,
    /// Per open shard: how far its arrival times have been read.
    read_to: BTreeMap<ShardId, ReadTo>,
    /// Not yet committed.
    marks: BTreeMap<ShardId, Mark>,
    fresh: Tally,
    total: Tally,
    since: Option<Instant>,
    known: Vec<bool>,
    /// Numbers the records kept aside.
    set_aside: u64,
    reload: Reload,
}

#[derive(Clone, Copy)]
struct ReadTo {
    /// All records that arrived before this have been offered; `i64::MIN` before the first.
    through_ms: i64,
    caught_up: bool,
    records: u64,
}

/// An exchange of rules: batches of workers that have switched wait for those that have not.
struct Reload {
    workers: usize,
    switched: usize,
    next: Option<Arc<Detectors>>,
    waiting: VecDeque<Done>,
}

struct Meters {
    source: SourceMetrics,
    rules: BTreeMap<String, RuleMetrics>,
    evidence_bytes: IntGauge,
    /// What the counters have been told of.
    told: Counts,
    conflicts: u64,
    shards: BTreeMap<ShardId, ShardMetrics>,
}

/// Until the workers are gone.
pub(super) fn keep(mut keeping: Keeping, done: &mpsc::Receiver<Done>) -> Result<Tally, StoreError> {
    loop {
        let wait = keeping.since.map_or(Duration::from_millis(COMMIT_MS), |since| Duration::from_millis(COMMIT_MS).saturating_sub(since.elapsed()));
        match done.recv_timeout(wait) {
            Ok(done) => keeping.take(done)?,
            Err(mpsc::RecvTimeoutError::Timeout) => keeping.commit()?,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                keeping.commit()?;
                return Ok(keeping.total);
            }
        }
        if keeping.fresh.events >= COMMIT_EVENTS || keeping.since.is_some_and(|s| s.elapsed() >= Duration::from_millis(COMMIT_MS)) {
            keeping.commit()?;
        }
    }
}

impl Keeping {
    pub fn open(parts: &mut Parts, detectors: Arc<Detectors>, workers: usize, now_ms: i64) -> Result<Self, StoreError> {
        let keeper = AnyKeeper::open(detectors.plan.clone(), parts.store.clone(), now_ms, parts.limits, parts.overview.clone())?;
        let committed = std::mem::replace(&mut parts.committed, Box::new(|_, _| {}));
        let meters = Meters {
            source: parts.metrics.source("kinesis"),
            rules: rule_meters(&parts.metrics, &detectors),
            evidence_bytes: parts.metrics.memory("evidence", parts.limits.budget_bytes),
            told: Counts::default(),
            conflicts: 0,
            shards: BTreeMap::new(),
        };
        let showing = Showing::new(parts.board.clone(), &detectors, now_ms);
        parts.metrics.rules.loaded.set((detectors.rules.len() + detectors.correlations.len()) as i64);
        parts.metrics.rules.last_reload_ok.set(1);
        parts.metrics.rules.last_reload_timestamp.set(now_ms as f64 / 1e3);
        Reason::ALL.iter().for_each(|reason| drop(parts.metrics.quarantined(reason.name())));
        Ok(Self {
            keeper: Some(keeper),
            store: parts.store.clone(),
            detectors,
            grants: parts.grants.clone(),
            alone: parts.overview.is_none(),
            ledger: parts.ledger.clone(),
            committed,
            metrics: parts.metrics.clone(),
            meters,
            showing,
            read_to: BTreeMap::new(),
            marks: BTreeMap::new(),
            fresh: Tally::default(),
            total: Tally::default(),
            since: None,
            known: Vec::new(),
            set_aside: 0,
            reload: Reload { workers, switched: 0, next: None, waiting: VecDeque::new() },
        })
    }

    fn keeper(&mut self) -> &mut AnyKeeper {
        self.keeper.as_mut().expect("there except while rules are exchanged")
    }

    fn take(&mut self, done: Done) -> Result<(), StoreError> {
        match done {
            // Whoever holds the lease now reads and counts these records.
            Done::Found(worked) if self.ledger.is_lost(&worked.shard, worked.counter) => Ok(()),
            Done::Reloaded(detectors) => {
                self.reload.switched += 1;
                self.reload.next = Some(detectors);
                if self.reload.switched == self.reload.workers { self.exchange() } else { Ok(()) }
            }
            Done::Found(worked) if Arc::ptr_eq(&worked.detectors, &self.detectors) => self.worked(*worked),
            Done::Again(reread) if Arc::ptr_eq(&reread.detectors, &self.detectors) => self.reread(*reread),
            Done::Found(_) | Done::Again(_) => {
                self.reload.waiting.push_back(done);
                Ok(())
            }
        }
    }

    /// All workers have switched: the keeper follows, with the evidence of unchanged rules.
    fn exchange(&mut self) -> Result<(), StoreError> {
        self.commit()?;
        self.reload.switched = 0;
        let Some(next) = self.reload.next.take() else { return Ok(()) };
        if let Some(keeper) = self.keeper.take() {
            self.keeper = Some(keeper.replan(next.plan.clone(), now_ms())?);
        }
        for info in &self.detectors.infos {
            if !next.infos.iter().any(|i| i.id == info.id) {
                self.metrics.remove_rule(&info.id, crate::alert::level_word(info.level));
            }
        }
        self.meters.rules = rule_meters(&self.metrics, &next);
        self.metrics.rules.loaded.set((next.rules.len() + next.correlations.len()) as i64);
        self.showing.rules_loaded(&next, now_ms());
        self.detectors = next;
        std::mem::take(&mut self.reload.waiting).into_iter().try_for_each(|done| self.take(done))
    }

    fn worked(&mut self, mut worked: Worked) -> Result<(), StoreError> {
        let now_ms = now_ms();
        self.since.get_or_insert_with(Instant::now);
        self.keep_quarantined(&worked, now_ms)?;
        self.offer(&mut worked.found)?;
        if let Some(arrival_ms) = worked.found.found_arrival_ms.filter(|ms| *ms > 0) {
            self.metrics.record_to_finding().record(Duration::from_millis(now_ms.saturating_sub(arrival_ms).max(0) as u64));
        }
        let shard = self.meters.shards.entry(worked.shard.clone()).or_insert_with(|| self.metrics.shard(&worked.shard.0, now_ms));
        if let Some(behind_ms) = worked.behind_ms {
            shard.lag.set(behind_ms as f64 / 1e3);
        }
        let (before, records) = self.read_to.get(&worked.shard).map_or((i64::MIN, 0), |r| (r.through_ms, r.records));
        let records = records + worked.found.tally.records;
        let through_ms = before.max(worked.newest_arrival_ms.unwrap_or(i64::MIN)).max(worked.caught_up_ms.unwrap_or(i64::MIN));
        if worked.shard_end {
            self.read_to.remove(&worked.shard);
            self.keeper().ended(&worked.shard);
        } else {
            self.read_to.insert(worked.shard.clone(), ReadTo { through_ms, caught_up: worked.caught_up_ms.is_some(), records });
        }
        let bytes = self.marks.get(&worked.shard).map_or(0, |m| m.bytes) + worked.found.tally.bytes;
        let mark = Mark { shard: worked.shard.clone(), counter: worked.counter, position: worked.through, bytes };
        self.marks.insert(worked.shard, mark);
        Ok(())
    }

    /// What a record of the quarantine holds after all: told and durable before the answer. Bytes that still can't be read are
    /// not kept again, nor counted.
    fn reread(&mut self, Reread { mut found, answer, .. }: Reread) -> Result<(), StoreError> {
        found.tally.quarantined = 0;
        self.offer(&mut found)?;
        self.commit()?;
        let still = found.quarantined.first().map(|q| q.reason.to_string());
        // Whoever asked may have left; what was found stands.
        let _ = answer.send(Replayed { events: found.tally.events, findings: found.tally.matched + found.tally.duplicate, still });
        Ok(())
    }

    /// Hands over a batch's matches and counts what became of its events.
    fn offer(&mut self, found: &mut Batch) -> Result<(), StoreError> {
        let mut known = std::mem::take(&mut self.known);
        let (started, has_found) = (Instant::now(), found.has_found());
        let duplicates = offer(self.keeper(), found, &mut known)?;
        if has_found {
            self.metrics.stage("correlate").record(started.elapsed());
        }
        if found.tally.records > 0 {
            self.metrics.stage("decode").record(found.took.decode);
            self.metrics.stage("detect").record(found.took.detect);
        }
        self.known = known;
        found.tally.matched -= duplicates;
        found.tally.duplicate += duplicates;
        self.fresh.add(&found.tally);
        let meter = |rule: usize| self.detectors.infos.get(rule).and_then(|info| self.meters.rules.get(&info.id));
        for (rule, matches) in found.rule_matches.iter().enumerate().filter(|(_, matches)| **matches > 0) {
            meter(rule).into_iter().for_each(|meter| meter.matches.inc_by(*matches));
        }
        for (rule, cost) in &found.rule_costs {
            meter(*rule as usize).into_iter().for_each(|meter| meter.cost_seconds.inc_by(cost.as_secs_f64()));
        }
        Ok(())
    }

    /// Up to which arrival time each shard has been read.
    fn read_to(&mut self) -> Vec<(ShardId, i64)> {
        let grants = self.grants.borrow().clone();
        let metrics = &self.metrics;
        self.meters.shards.retain(|shard, _| {
            let held = grants.contains_key(shard);
            if !held {
                metrics.remove_shard(&shard.0);
            }
            held
        });
        self.read_to.retain(|shard, _| grants.contains_key(shard));
        grants.keys().map(|shard| (shard.clone(), self.read_to.get(shard).map_or(i64::MIN, |r| r.through_ms))).collect()
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let started = Instant::now();
        let now_ms = now_ms();
        let read_to = self.read_to();
        self.keeper().advance(&read_to)?;
        self.since = None;
        self.show(now_ms);
        if self.marks.is_empty() && self.keeper().pending() == 0 && self.fresh == Tally::default() {
            return Ok(());
        }
        let marks: Vec<Mark> = std::mem::take(&mut self.marks).into_values().collect();
        let positions: Vec<_> = marks.iter().map(|m| (m.shard.clone(), m.position.clone())).collect();
        let committed = self.keeper().commit(&positions);
        let alerts = committed.inspect_err(|_| self.metrics.state.commit_failures.inc())?;
        let fresh = std::mem::take(&mut self.fresh);
        self.total.add(&fresh);
        self.measure(&fresh, started, now_ms, &positions);
        self.showing.fired(&alerts);
        for alert in &alerts {
            if let Some(meter) = self.meters.rules.get(&alert.rule.id) {
                meter.findings.inc();
            }
        }
        (self.committed)(&marks, &fresh);
        Ok(())
    }

    fn show(&mut self, now_ms: i64) {
        if !self.showing.is_due(now_ms) {
            return;
        }
        if self.alone {
            self.metrics.set_leases(self.grants.borrow().len(), 0, 0);
        }
        (self.committed)(&[], &Tally::default());
        let mut shards: Vec<ShardView> = self.read_to.iter().map(|(shard, read)| self.own_shard(shard, read, now_ms)).collect();
        let open = self.keeper.as_ref().map(AnyKeeper::open_shards).unwrap_or_default();
        let others = open.into_iter().filter(|(open, _)| !self.read_to.contains_key(&open.shard));
        shards.extend(others.map(|(open, through_ms)| other_shard(open, through_ms, now_ms)));
        shards.sort_by(|a, b| a.shard.cmp(&b.shard));
        self.showing.show(&self.detectors, &self.meters.rules, shards, now_ms);
    }

    fn own_shard(&self, shard: &ShardId, read: &ReadTo, now_ms: i64) -> ShardView {
        ShardView {
            shard: shard.0.to_string(),
            owner: self.ledger.worker().to_owned(),
            ours: true,
            lag_ms: Some(if read.caught_up { 0 } else { now_ms.saturating_sub(read.through_ms).max(0) }),
            checkpoint_age_ms: self.ledger.checkpointed_ms(shard).map(|at_ms| now_ms.saturating_sub(at_ms).max(0)),
            records: read.records,
            state: "reading".to_owned(),
        }
    }

    fn measure(&mut self, fresh: &Tally, started: Instant, now_ms: i64, positions: &[(ShardId, Position)]) {
        let (events, source) = (&self.metrics.events, &self.meters.source);
        events.matched.inc_by(fresh.matched);
        events.unmatched.inc_by(fresh.unmatched);
        events.duplicate.inc_by(fresh.duplicate);
        events.quarantined.inc_by(fresh.quarantined);
        self.metrics.events_skewed.inc_by(fresh.skewed);
        self.metrics.events_undated.inc_by(fresh.undated);
        source.records.inc_by(fresh.records);
        source.bytes.inc_by(fresh.bytes);
        source.events.inc_by(fresh.read());
        self.metrics.stage("commit").record(started.elapsed());
        self.metrics.state.commits.inc();
        for (shard, _) in positions {
            if let Some(meter) = self.meters.shards.get(shard) {
                meter.checkpointed(now_ms);
            }
        }
        self.measure_state();
    }

    fn measure_state(&mut self) {
        let keeper = self.keeper();
        let (held, counts, meters, conflicts) = (keeper.held(), keeper.counts(), keeper.take_meters(), keeper.conflicts());
        let told = std::mem::replace(&mut self.meters.told, counts);
        for (rule, did) in meters {
            if let Some(meter) = self.meters.rules.get(&rule) {
                meter.matches.inc_by(did.matches);
                meter.quota_hits.inc_by(did.lost);
                meter.cost_seconds.inc_by(did.cost.as_secs_f64());
            }
        }
        self.metrics.events_late.inc_by(counts.expired - told.expired);
        self.meters.evidence_bytes.set(held.memory_bytes as i64);
        let state = &self.metrics.state;
        state.evidence_rows.set(held.items as i64);
        state.groups.set(held.groups as i64);
        state.store_bytes.set(held.store_bytes as i64);
        state.evictions.inc_by(counts.evicted - told.evicted);
        state.spills.inc_by(counts.spilled - told.spilled);
        state.conflicts.inc_by(conflicts - std::mem::replace(&mut self.meters.conflicts, conflicts));
    }

    /// Bytes that could not be understood are kept aside before their record counts as past.
    fn keep_quarantined(&mut self, worked: &Worked, now_ms: i64) -> Result<(), StoreError> {
        let mut rows = Vec::with_capacity(worked.found.quarantined.len());
        for Quarantined { reason, at, bytes } in &worked.found.quarantined {
            tracing::warn!(shard = %worked.shard, at, "a record could not be decoded and is kept aside: {reason}");
            self.metrics.quarantined(reason.name()).inc();
            self.set_aside += 1;
            let position = format!("{:?} at {at}", worked.through);
            rows.extend(QuarantinedRecord::new(now_ms, self.set_aside, &worked.shard.0, &position, reason.name(), bytes).keep());
        }
        if rows.is_empty() { Ok(()) } else { self.store.kv_write(&rows) }
    }
}

/// A shard that another worker reads, or nobody.
fn other_shard(open: OpenShard, through_ms: Option<i64>, now_ms: i64) -> ShardView {
    let state = match (&open.reader, open.ready) {
        (_, false) => "waiting for its parents",
        (None, true) => "waiting for a worker",
        (Some(_), true) => "read by another worker",
    };
    ShardView {
        shard: open.shard.0.to_string(),
        owner: open.reader.unwrap_or_default(),
        lag_ms: through_ms.map(|ms| now_ms.saturating_sub(ms.saturating_add(TOLD_LATE_MS)).max(0)),
        state: state.to_owned(),
        ..ShardView::default()
    }
}

fn rule_meters(metrics: &Metrics, detectors: &Detectors) -> BTreeMap<String, RuleMetrics> {
    let nodes = detectors.plan.nodes.iter().map(|n| (n.rule.clone(), n.meta.level));
    let rules = detectors.infos.iter().map(|i| (i.id.clone(), i.level)).chain(nodes);
    rules.map(|(id, level)| (id.clone(), metrics.rule(&id, crate::alert::level_word(level)))).collect()
}
