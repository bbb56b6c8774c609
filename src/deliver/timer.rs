//! What happens to incidents without a new alert: their count is told, they resolve, they are forgotten.
//!
//! In: the time. Out: queued notices, removed rows. Invariant: every incident has one timer, set from its row alone, so that a
//! restart finds the same.

use super::{
    Desk, INCIDENT_KEEP_MS,
    ledger::{self, Incident, ToldState, What},
    plan::Draft,
};
use crate::{
    alert::view::{RECENT, RECENT_ALERTS},
    sink::Action,
    store::{KvOp, StoreError, quarantine},
};

/// Incidents looked at in one transaction.
const TICK_INCIDENTS: usize = 200;

impl Desk {
    pub(super) fn restore_timers(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        for (key, incident) in ledger::all::<Incident>(&*self.store, ledger::INCIDENT)? {
            let due = self.next_due(&incident, incident.last_ms);
            state.set_timer(&String::from_utf8_lossy(&key), due);
        }
        Ok(())
    }

    /// When the incident next wants something, given that nothing comes in.
    pub(super) fn next_due(&self, incident: &Incident, now_ms: i64) -> Option<i64> {
        let mut due = incident.last_ms.saturating_add(INCIDENT_KEEP_MS);
        if incident.resolved {
            return Some(due);
        }
        if let Some(at) = resolve_at(incident) {
            due = due.min(at);
        }
        for (name, told) in &incident.told {
            if told.state != ToldState::Told {
                continue;
            }
            if told.alerts < incident.alerts {
                due = due.min(told.at_ms.saturating_add(self.update_ms));
            }
            if let Some(at) = self.hold_ends(name, incident) {
                due = due.min(at);
            }
        }
        Some(due.max(now_ms))
    }

    fn hold_ends(&self, sink: &str, incident: &Incident) -> Option<i64> {
        let reassert = self.sinks[self.place_of(sink)?].sink.reassert()?;
        let hold_ms = i64::try_from(reassert.hold.as_millis()).unwrap_or(i64::MAX / 2);
        Some(incident.last_ms.saturating_add(hold_ms))
    }

    /// Looks at the incidents whose time has come; returns how many there were.
    pub fn tick(&self, now_ms: i64) -> Result<usize, StoreError> {
        let mut state = self.state();
        let keys: Vec<String> = state.timers.iter().take_while(|(due, _)| *due <= now_ms).take(TICK_INCIDENTS).map(|(_, key)| key.clone()).collect();
        if keys.is_empty() {
            return Ok(0);
        }
        let mut draft = Draft::default();
        for key in &keys {
            state.set_timer(key, None);
            let Some(incident) = self.load(&mut draft, key)? else { continue };
            if incident.last_ms.saturating_add(INCIDENT_KEEP_MS) <= now_ms {
                draft.incidents.remove(key);
                draft.ops.push(KvOp::Delete { namespace: ledger::INCIDENT, key: key.as_bytes().to_vec() });
                continue;
            }
            if !incident.resolved && resolve_at(incident).is_some_and(|at| at <= now_ms) {
                self.close(&mut state, &mut draft, key, None, now_ms)?;
                continue;
            }
            let told: Vec<usize> = incident.told.keys().filter_map(|name| self.place_of(name)).collect();
            let behind = |place: &usize| {
                let told = incident.told.get(&*self.sinks[*place].sink.name);
                told.is_some_and(|t| t.state == ToldState::Told && t.alerts < incident.alerts)
            };
            let behind: Vec<usize> = told.iter().copied().filter(behind).collect();
            let held: Vec<usize> =
                told.into_iter().filter(|p| self.hold_ends(&self.sinks[*p].sink.name, incident).is_some_and(|at| at <= now_ms)).collect();
            self.end_hold(&mut draft, key, &held, &mut state, now_ms)?;
            self.tell(&mut state, &mut draft, key, &behind, now_ms)?;
        }
        self.commit(&mut state, draft, now_ms)?;
        Ok(keys.len())
    }

    fn end_hold(&self, draft: &mut Draft, key: &str, places: &[usize], state: &mut super::State, now_ms: i64) -> Result<(), StoreError> {
        for place in places {
            let Some(incident) = draft.incidents.get_mut(key) else { return Ok(()) };
            let Some(told) = incident.told.get_mut(&*self.sinks[*place].sink.name).filter(|t| t.state == ToldState::Told) else { continue };
            told.state = ToldState::Ended;
            let urgency = ledger::urgency(incident.alert.rule.level, Action::Resolve);
            let what = What::Incident { key: key.to_owned(), action: Action::Resolve, note: None };
            self.queue(state, draft, *place, urgency, what, now_ms)?;
        }
        Ok(())
    }

    /// Drops what is past its keeping: the oldest views, ended silences, answers that nobody came for. Gauges are brought up to date on
    /// the way, and so are the silences: in a fleet a worker that has just ceased to deliver may have been the one to change them.
    pub fn sweep(&self, now_ms: i64) -> Result<(), StoreError> {
        let recent = self.store.kv_scan(RECENT, &[])?;
        let over = recent.len().saturating_sub(RECENT_ALERTS);
        let mut ops: Vec<KvOp> = recent.into_iter().take(over).map(|(key, _)| KvOp::Delete { namespace: RECENT, key }).collect();
        ops.extend(self.stale_answers(now_ms)?);
        let mut state = self.state();
        state.silences = self.read_silences()?;
        state.silences.retain(|silence| {
            if silence.ends_ms <= now_ms {
                ops.push(KvOp::Delete { namespace: ledger::SILENCE, key: silence.id.as_bytes().to_vec() });
            }
            silence.ends_ms > now_ms
        });
        let active = state.silences.len() + state.router.windows_open(now_ms);
        drop(state);
        self.metrics.delivery.silences_active.set(active as i64);
        self.count_waiting(now_ms)?;
        if !ops.is_empty() {
            self.store.kv_write(&ops)?;
        }
        Ok(())
    }
}

impl Desk {
    fn count_waiting(&self, now_ms: i64) -> Result<(), StoreError> {
        let rows = self.store.kv_scan(ledger::PENDING, &[])?;
        let oldest_ms = rows.iter().filter_map(|(key, _)| ledger::queued_at(key)).min().unwrap_or(now_ms);
        self.metrics.delivery.outbox.set((self.store.outbox_len()? + rows.len()) as i64);
        self.metrics.delivery.outbox_oldest_age.set((now_ms - oldest_ms).max(0) as f64 / 1000.0);
        self.metrics.delivery.quarantine_records.set(quarantine::sweep(&*self.store)? as i64);
        Ok(())
    }
}

/// A storm is a person's business; a rate or an absence ends by itself.
fn resolve_at(incident: &Incident) -> Option<i64> {
    let after_ms = incident.alert.rule.resolve_after_ms.filter(|_| !incident.storm)?;
    Some(incident.last_ms.saturating_add(i64::try_from(after_ms).unwrap_or(i64::MAX)))
}
