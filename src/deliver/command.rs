//! What people do to delivery: silences, acknowledging, resolving, test alerts; and what they get to see of it.
//!
//! In: requests that the admin API has let through. Out: durable rows, queued notices, views. Invariant: a change is durable
//! before it is answered.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use super::{
    Desk,
    ledger::{self, Incident, Pending, ToldState, What},
    plan::Draft,
};
use crate::{
    alert::{
        Alert, Level, RuleInfo,
        view::{AlertView, Fate, RECENT, SinkView},
    },
    route::{Silence, SilenceError, SilenceRequest},
    sink::{Action, Notice},
    store::{KvOp, StoreError},
};

/// Silences in force at once; more are refused.
const SILENCES: usize = 1_000;

impl Desk {
    pub fn add_silence(&self, request: SilenceRequest, now_ms: i64) -> Result<Silence, SilenceError> {
        let mut state = self.state();
        if state.silences.len() >= SILENCES {
            return Err(SilenceError::Store(format!("{SILENCES} silences are in force; end some")));
        }
        let id = format!("{now_ms:x}-{:x}", state.next_sequence());
        let silence = Silence::new(id, request, now_ms)?;
        let row = ledger::put(ledger::SILENCE, silence.id.as_str(), &silence).map_err(stored)?;
        self.store.kv_write(&[row]).map_err(stored)?;
        state.silences.push(silence.clone());
        self.metrics.delivery.silences_active.set((state.silences.len() + state.router.windows_open(now_ms)) as i64);
        Ok(silence)
    }

    pub fn end_silence(&self, id: &str) -> Result<Silence, SilenceError> {
        let mut state = self.state();
        let place = state.silences.iter().position(|s| s.id == id).ok_or_else(|| SilenceError::Unknown(id.to_owned()))?;
        self.store.kv_write(&[KvOp::Delete { namespace: ledger::SILENCE, key: id.as_bytes().to_vec() }]).map_err(stored)?;
        let ended = state.silences.remove(place);
        self.metrics.delivery.silences_active.set(state.silences.len() as i64);
        Ok(ended)
    }

    pub fn silences(&self) -> Vec<Silence> {
        self.state().silences.clone()
    }

    /// Resolves an incident by hand; false where it is unknown or over.
    pub fn resolve(&self, incident: &str, now_ms: i64) -> Result<bool, StoreError> {
        let mut state = self.state();
        let mut draft = Draft::default();
        let closed = self.close(&mut state, &mut draft, incident, None, now_ms)?;
        if closed {
            self.commit(&mut state, draft, now_ms)?;
        }
        Ok(closed)
    }

    /// Tells the pagers that somebody is at it; false where the incident is unknown or over.
    pub fn acknowledge(&self, incident: &str, now_ms: i64) -> Result<bool, StoreError> {
        let mut state = self.state();
        let mut draft = Draft::default();
        let Some(row) = self.load(&mut draft, incident)?.filter(|i| !i.resolved) else { return Ok(false) };
        row.acknowledged = true;
        let told: Vec<String> = row.told.iter().filter(|(_, t)| t.state != ToldState::Ended).map(|(name, _)| name.clone()).collect();
        let urgency = ledger::urgency(row.alert.rule.level, Action::Acknowledge);
        for place in told.iter().filter_map(|name| self.place_of(name)).filter(|place| self.sinks[*place].sink.kind_word() == "pagerduty") {
            let what = What::Incident { key: incident.to_owned(), action: Action::Acknowledge, note: None };
            self.queue(&mut state, &mut draft, place, urgency, what, now_ms)?;
        }
        self.commit(&mut state, draft, now_ms)?;
        Ok(true)
    }

    /// Sends a marked alert the way that a real one of that level and pillar would go. Returns the sinks, empty where no route
    /// takes it.
    pub fn test_alert(&self, level: Level, pillar: Option<&str>, now_ms: i64) -> Result<Vec<String>, StoreError> {
        let mut state = self.state();
        let alert = test_alert(level, pillar, now_ms, state.next_sequence());
        let places = state.router.route(&alert);
        let mut draft = Draft::default();
        for place in &places {
            let notice = Notice { test: true, ..Notice::trigger(alert.clone()) };
            self.queue_own(&mut state, &mut draft, *place, notice, now_ms)?;
        }
        let sinks: Vec<String> = places.iter().map(|place| self.sinks[*place].sink.name.to_string()).collect();
        let fate = if sinks.is_empty() { Fate::Unrouted } else { Fate::Sent };
        let incident = alert.incident.clone();
        let view = AlertView { fate, seen_ms: now_ms, incident, account_name: None, sinks: sinks.clone(), test: true, alert };
        let key = [&ledger::time_bytes(now_ms)[..], &state.next_sequence().to_be_bytes()].concat();
        draft.ops.push(ledger::put(RECENT, key, &view)?);
        self.commit(&mut state, draft, now_ms)?;
        let _ = self.live.send(Arc::new(view));
        Ok(sinks)
    }

    /// Open and recently resolved incidents, newest first.
    pub fn incidents(&self) -> Result<Vec<Incident>, StoreError> {
        let mut rows: Vec<Incident> = ledger::all(&*self.store, ledger::INCIDENT)?.into_iter().map(|(_, row)| row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.last_ms));
        Ok(rows)
    }

    /// How each sink stands.
    pub fn sink_views(&self, now_ms: i64) -> Result<Vec<SinkView>, StoreError> {
        let mut waiting: BTreeMap<Vec<u8>, (usize, i64)> = BTreeMap::new();
        for (key, value) in self.store.kv_scan(ledger::PENDING, &[])? {
            let pending: Pending = ledger::read(ledger::PENDING, &value)?;
            let lane = key.split(|b| *b == 0).next().unwrap_or_default().to_vec();
            let entry = waiting.entry(lane).or_insert((0, now_ms));
            entry.0 += 1;
            entry.1 = entry.1.min(pending.queued_ms);
        }
        let view = |post: &super::Post| {
            let standing = post.standing.lock().unwrap_or_else(PoisonError::into_inner);
            let (pending, oldest) = waiting.get(post.sink.name.as_bytes()).copied().unwrap_or((0, now_ms));
            let took = post.metrics.request.percentiles();
            SinkView {
                name: post.sink.name.to_string(),
                kind: post.sink.kind_word(),
                up: post.metrics.up.get() == 1,
                last_error: standing.last_error.clone(),
                pending,
                oldest_ms: now_ms - oldest,
                delivered: post.metrics.delivered.get(),
                retried: post.metrics.retried.get(),
                rejected: post.metrics.rejected.get(),
                dead_letters: u64::try_from(post.metrics.dead_letters.get()).unwrap_or(0),
                paused_until_ms: standing.paused_until_ms,
                request_p50_ms: took.p50_ms,
                request_p99_ms: took.p99_ms,
            }
        };
        Ok(self.sinks.iter().map(view).collect())
    }
}

fn test_alert(level: Level, pillar: Option<&str>, now_ms: i64, sequence: u64) -> Alert {
    let id = format!("{:016x}{sequence:016x}", now_ms.cast_unsigned());
    let rule = RuleInfo {
        id: "trailwarden-test".into(),
        title: "Test of the alert route".into(),
        level,
        tags: pillar.map(|p| format!("pillar.{p}")).into_iter().collect(),
        description: "A person asked for this alert to see whether it arrives.".into(),
        false_positives: vec![],
        next: Some("Nothing happened. Acknowledge it, and tell whoever asked that it came.".into()),
        resolve_after_ms: None,
    };
    Alert {
        incident: id.clone(),
        id,
        time_ms: now_ms,
        rule: Arc::new(rule),
        account: String::new(),
        region: String::new(),
        group: vec![],
        summary: "a TEST ALERT, sent by `trailwarden alert test`; no event is behind it".into(),
        events: vec![],
        count: 0,
        late: false,
        resolved: false,
        arrived_ms: 0,
    }
}

fn stored(error: StoreError) -> SilenceError {
    SilenceError::Store(error.to_string())
}
