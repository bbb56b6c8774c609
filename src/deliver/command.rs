//! What people do to delivery: silences, acknowledging, resolving, test alerts; and what they get to see of it.
//!
//! In: orders that the admin API has let through, here or on another worker. Out: durable rows, queued notices, views. Invariant: a
//! change is durable before it is answered, and an order that was written down is carried out once.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use super::{
    Desk, State,
    ledger::{self, DeadLetter, Incident, Pending, ToldState, What},
    order::{Order, Outcome, Taken},
    plan::Draft,
};
use crate::{
    alert::{
        Alert, Level, RuleInfo,
        view::{AlertView, Fate, SinkView},
    },
    route::Silence,
    sink::{Action, Notice},
    store::{KvOp, StoreError},
};

/// Silences in force at once; more are refused.
const SILENCES: usize = 1_000;

impl Desk {
    /// # Errors
    /// What the store says.
    pub fn carry_out(&self, order: &Order, now_ms: i64) -> Result<Outcome, StoreError> {
        Ok(self.carry_out_taken(order, None, now_ms)?.0)
    }

    /// `taken`: the row that the order was written down in; it goes with the change, and the outcome is noted for who asked. False:
    /// the row was gone, and nothing was changed.
    pub(super) fn carry_out_taken(&self, order: &Order, taken: Option<Taken>, now_ms: i64) -> Result<(Outcome, bool), StoreError> {
        let mut state = self.state();
        let mut draft = Draft::default();
        let outcome = self.draft(&mut state, &mut draft, order, now_ms)?;
        if outcome.is_nothing() {
            draft = Draft::default();
            if taken.is_none() {
                return Ok((outcome, true));
            }
        }
        if let Some(taken) = taken {
            taken.settle(&mut draft, &outcome, now_ms)?;
        }
        if !self.commit(&mut state, draft, now_ms)? {
            return Ok((outcome, false));
        }
        match (order, &outcome) {
            (Order::AddSilence(_), Outcome::Silence(silence)) => state.silences.push(silence.clone()),
            (Order::EndSilence(id), Outcome::Silence(_)) => state.silences.retain(|silence| silence.id != *id),
            (Order::ReplayLetter(_), Outcome::Done(true)) => self.count_letters()?,
            _ => {}
        }
        self.metrics.delivery.silences_active.set((state.silences.len() + state.router.windows_open(now_ms)) as i64);
        Ok((outcome, true))
    }

    fn draft(&self, state: &mut State, draft: &mut Draft, order: &Order, now_ms: i64) -> Result<Outcome, StoreError> {
        Ok(match order {
            Order::AddSilence(silence) if state.silences.len() >= SILENCES => {
                Outcome::Refused(format!("{SILENCES} silences are in force, so `{}` is not; end some", silence.id))
            }
            Order::AddSilence(silence) => {
                draft.ops.push(ledger::put(ledger::SILENCE, silence.id.as_str(), silence)?);
                Outcome::Silence(silence.clone())
            }
            Order::EndSilence(id) => match state.silences.iter().find(|silence| silence.id == *id) {
                Some(silence) => {
                    draft.ops.push(KvOp::Delete { namespace: ledger::SILENCE, key: id.as_bytes().to_vec() });
                    Outcome::Silence(silence.clone())
                }
                None => Outcome::Done(false),
            },
            Order::Acknowledge(incident) => Outcome::Done(self.acknowledge(state, draft, incident, now_ms)?),
            Order::Resolve(incident) => Outcome::Done(self.close(state, draft, incident, None, now_ms)?),
            Order::TestAlert { level, pillar } => Outcome::Sinks(self.test_alert(state, draft, *level, pillar.as_deref(), now_ms)?),
            Order::ReplayLetter(id) => Outcome::Done(self.replay_letter(state, draft, id, now_ms)?),
        })
    }

    pub fn silences(&self) -> Vec<Silence> {
        self.state().silences.clone()
    }

    /// Tells the pagers that somebody is at it; false where the incident is unknown or over.
    fn acknowledge(&self, state: &mut State, draft: &mut Draft, incident: &str, now_ms: i64) -> Result<bool, StoreError> {
        let Some(row) = self.load(draft, incident)?.filter(|i| !i.resolved) else { return Ok(false) };
        row.acknowledged = true;
        let told: Vec<String> = row.told.iter().filter(|(_, t)| t.state != ToldState::Ended).map(|(name, _)| name.clone()).collect();
        let urgency = ledger::urgency(row.alert.rule.level, Action::Acknowledge);
        for place in told.iter().filter_map(|name| self.place_of(name)).filter(|place| self.sinks[*place].sink.kind_word() == "pagerduty") {
            let what = What::Incident { key: incident.to_owned(), action: Action::Acknowledge, note: None };
            self.queue(state, draft, place, urgency, what, now_ms)?;
        }
        Ok(true)
    }

    /// Sends a marked alert the way that a real one of that level and pillar would go. Returns the sinks, empty where no route
    /// takes it.
    fn test_alert(&self, state: &mut State, draft: &mut Draft, level: Level, pillar: Option<&str>, now_ms: i64) -> Result<Vec<String>, StoreError> {
        let alert = test_alert(level, pillar, now_ms, state.next_sequence());
        let places = state.router.route(&alert);
        for place in &places {
            let notice = Notice { test: true, ..Notice::trigger(alert.clone()) };
            self.queue_own(state, draft, *place, notice, now_ms)?;
        }
        let sinks: Vec<String> = places.iter().map(|place| self.sinks[*place].sink.name.to_string()).collect();
        let fate = if sinks.is_empty() { Fate::Unrouted } else { Fate::Sent };
        let incident = alert.incident.clone();
        draft.views.push(AlertView { fate, seen_ms: now_ms, incident, account_name: None, sinks: sinks.clone(), test: true, alert });
        self.list_recent(state, draft)?;
        Ok(sinks)
    }

    /// Queues the letter's notice for its sink again; false where no letter has the id, or its sink is configured no more.
    fn replay_letter(&self, state: &mut State, draft: &mut Draft, id: &str, now_ms: i64) -> Result<bool, StoreError> {
        let found = ledger::all::<DeadLetter>(&*self.store, ledger::DEAD)?.into_iter().find(|(_, letter)| letter.id == id);
        let Some((key, letter)) = found else { return Ok(false) };
        let Some(place) = self.place_of(&letter.sink) else { return Ok(false) };
        draft.ops.push(KvOp::Delete { namespace: ledger::DEAD, key });
        self.queue_own(state, draft, place, letter.notice, now_ms)?;
        Ok(true)
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
