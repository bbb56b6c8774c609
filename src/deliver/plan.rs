//! From the outbox to the sinks' queues: who is told of an alert, and whether it makes a page, joins one, or is only archived.
//!
//! In: outbox rows. Out: one transaction that queues notices, updates incidents and empties the rows. Invariant: an alert
//! counts in exactly one incident, whatever the number of its sinks.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Desk, State,
    ledger::{self, Incident, Pending, Told, ToldState, What},
    order::Taken,
};
use crate::{
    alert::{
        Alert,
        view::{AlertView, Fate, RECENT, RECENT_ALERTS},
    },
    route::Verdict,
    sink::{Action, Notice},
    store::{KvOp, StoreError},
};

/// Alerts of one transaction.
const PLAN_ALERTS: usize = 500;
/// Of a storm, so many alerts are listed on the page; its incident counts all.
const LISTED_OF_STORM: u64 = 20;

/// What one transaction will change.
#[derive(Default)]
pub(super) struct Draft {
    pub ops: Vec<KvOp>,
    pub incidents: BTreeMap<String, Incident>,
    pub wakes: Vec<usize>,
    /// The order that it carries out; it counts only while that still waits.
    pub order: Option<Taken>,
    /// Of sinks: how many alerts joined something already queued or told.
    grouped: Vec<usize>,
    silenced: Vec<usize>,
    pub views: Vec<AlertView>,
}

impl Desk {
    /// Places some alerts of the outbox; returns how many. 0: it is empty.
    pub fn plan(&self, now_ms: i64) -> Result<usize, StoreError> {
        let rows = self.store.outbox_list(PLAN_ALERTS)?;
        let count = rows.len();
        if count == 0 {
            return Ok(0);
        }
        let mut state = self.state();
        let mut draft = Draft::default();
        let mut rules = Vec::new();
        for (key, mut alert) in rows {
            alert.redact();
            rules.push(alert.rule.id.clone());
            self.place(&mut state, &mut draft, alert, now_ms)?;
            draft.ops.push(KvOp::Remove(key));
        }
        rules.sort_unstable();
        rules.dedup();
        for rule in rules {
            if let Some(row) = state.storms.row(&rule) {
                draft.ops.push(ledger::put(ledger::STORM, rule.as_str(), row)?);
            }
        }
        self.list_recent(&mut state, &mut draft)?;
        self.commit(&mut state, draft, now_ms)?;
        Ok(count)
    }

    fn place(&self, state: &mut State, draft: &mut Draft, alert: Alert, now_ms: i64) -> Result<(), StoreError> {
        let (archives, pagers): (Vec<usize>, Vec<usize>) =
            state.router.route(&alert).into_iter().partition(|place| self.sinks[*place].sink.is_archive());
        for place in &archives {
            let notice = Notice { account_name: self.account_name(&alert.account), ..Notice::trigger(alert.clone()) };
            self.queue_own(state, draft, *place, notice, now_ms)?;
        }
        let mut key = alert.incident.clone();
        let fate = if alert.resolved {
            self.close(state, draft, &key, Some(&alert), now_ms)?;
            Fate::Resolved
        } else if archives.is_empty() && pagers.is_empty() {
            Fate::Unrouted
        } else if let Some(reason) = state.silenced(&alert, now_ms) {
            draft.silenced.extend(&pagers);
            Fate::Silenced { reason }
        } else if self.load(draft, &key)?.is_some_and(|known| !known.resolved) {
            self.grow(state, draft, &key, alert.clone(), &pagers, now_ms)?;
            Fate::Grouped
        } else {
            match state.storms.judge(&alert.rule.id, now_ms) {
                Verdict::Own => {
                    draft.incidents.insert(key.clone(), self.incident(&key, &alert, false, now_ms));
                    self.tell(state, draft, &key, &pagers, now_ms)?;
                    Fate::Sent
                }
                Verdict::Storm { key: storm } => {
                    if self.load(draft, &storm)?.is_some() {
                        self.grow(state, draft, &storm, alert.clone(), &pagers, now_ms)?;
                    } else {
                        draft.incidents.insert(storm.clone(), self.incident(&storm, &alert, true, now_ms));
                        self.tell(state, draft, &storm, &pagers, now_ms)?;
                    }
                    key = storm;
                    Fate::Storm
                }
            }
        };
        self.list(draft, alert, fate, key, &[archives, pagers].concat(), now_ms);
        Ok(())
    }

    fn incident(&self, key: &str, alert: &Alert, storm: bool, now_ms: i64) -> Incident {
        Incident {
            key: key.into(),
            alert: alert.clone(),
            alerts: 1,
            opened_ms: now_ms,
            last_ms: now_ms,
            storm,
            resolved: false,
            acknowledged: false,
            account_name: self.account_name(&alert.account),
            told: BTreeMap::new(),
        }
    }

    /// The incident as the draft has it, read from the store at first need.
    pub(super) fn load<'d>(&self, draft: &'d mut Draft, key: &str) -> Result<Option<&'d mut Incident>, StoreError> {
        if !draft.incidents.contains_key(key) {
            let Some(row) = ledger::get(&*self.store, ledger::INCIDENT, key)? else { return Ok(None) };
            draft.incidents.insert(key.to_owned(), row);
        }
        Ok(draft.incidents.get_mut(key))
    }

    fn grow(&self, state: &mut State, draft: &mut Draft, key: &str, alert: Alert, pagers: &[usize], now_ms: i64) -> Result<(), StoreError> {
        if let Some(incident) = draft.incidents.get_mut(key) {
            incident.alerts += 1;
            incident.last_ms = incident.last_ms.max(now_ms);
            if alert.time_ms >= incident.alert.time_ms {
                incident.alert = alert;
            }
        }
        self.tell(state, draft, key, pagers, now_ms)
    }

    /// Queues the incident for the sinks that don't know it, or not its count, unless that was told a moment ago.
    pub(super) fn tell(&self, state: &mut State, draft: &mut Draft, key: &str, pagers: &[usize], now_ms: i64) -> Result<(), StoreError> {
        let Some(incident) = draft.incidents.get_mut(key) else { return Ok(()) };
        let mut queue = Vec::new();
        for place in pagers {
            let name = self.sinks[*place].sink.name.to_string();
            match incident.told.get_mut(&name) {
                Some(told) if told.state == ToldState::Told && now_ms - told.at_ms >= self.update_ms => {
                    told.state = ToldState::Queued;
                    queue.push(*place);
                }
                Some(_) => draft.grouped.push(*place),
                None => {
                    incident.told.insert(name, Told { state: ToldState::Queued, alerts: 0, at_ms: now_ms });
                    queue.push(*place);
                }
            }
        }
        let urgency = ledger::urgency(incident.alert.rule.level, Action::Trigger);
        for place in queue {
            let what = What::Incident { key: key.to_owned(), action: Action::Trigger, note: None };
            self.queue(state, draft, place, urgency, what, now_ms)?;
        }
        Ok(())
    }

    /// Resolves an incident for all sinks that were told of it, or are about to be.
    pub(super) fn close(&self, state: &mut State, draft: &mut Draft, key: &str, newest: Option<&Alert>, now_ms: i64) -> Result<bool, StoreError> {
        let Some(incident) = self.load(draft, key)?.filter(|incident| !incident.resolved) else { return Ok(false) };
        incident.resolved = true;
        incident.last_ms = incident.last_ms.max(now_ms);
        if let Some(alert) = newest {
            incident.alert = alert.clone();
        }
        let mut places = Vec::new();
        for (name, told) in &mut incident.told {
            if told.state != ToldState::Ended {
                told.state = ToldState::Ended;
                places.extend(self.place_of(name));
            }
        }
        let urgency = ledger::urgency(incident.alert.rule.level, Action::Resolve);
        for place in places {
            let what = What::Incident { key: key.to_owned(), action: Action::Resolve, note: None };
            self.queue(state, draft, place, urgency, what, now_ms)?;
        }
        Ok(true)
    }

    pub(super) fn queue_own(&self, state: &mut State, draft: &mut Draft, place: usize, notice: Notice, now_ms: i64) -> Result<(), StoreError> {
        let urgency = ledger::urgency(notice.alert.rule.level, notice.action);
        self.queue(state, draft, place, urgency, What::Own(Box::new(notice)), now_ms)
    }

    pub(super) fn queue(&self, state: &mut State, draft: &mut Draft, place: usize, urgency: u8, what: What, now_ms: i64) -> Result<(), StoreError> {
        let unique = format!("{:016x}", state.next_sequence());
        let key = ledger::pending_key(&self.sinks[place].sink.name, urgency, now_ms, &unique);
        draft.ops.push(ledger::put(ledger::PENDING, key, &Pending { what, queued_ms: now_ms, mirrored: false })?);
        draft.wakes.push(place);
        Ok(())
    }

    fn list(&self, draft: &mut Draft, alert: Alert, fate: Fate, incident: String, places: &[usize], now_ms: i64) {
        let counted = draft.incidents.get(&incident).map_or(0, |i| i.alerts);
        let view = AlertView {
            seen_ms: now_ms,
            account_name: self.account_name(&alert.account),
            sinks: places.iter().map(|place| self.sinks[*place].sink.name.to_string()).collect(),
            test: false,
            incident,
            alert,
            fate,
        };
        if view.fate != Fate::Storm || counted <= LISTED_OF_STORM {
            draft.views.push(view);
        }
    }

    /// Keeps the newest views for the page.
    pub(super) fn list_recent(&self, state: &mut State, draft: &mut Draft) -> Result<(), StoreError> {
        let newest = draft.views.len().saturating_sub(RECENT_ALERTS);
        for view in &draft.views[newest..] {
            let key = [&ledger::time_bytes(view.seen_ms)[..], &state.next_sequence().to_be_bytes()].concat();
            draft.ops.push(ledger::put(RECENT, key, view)?);
        }
        Ok(())
    }

    /// Writes the draft, then does what follows from it. False: its order waits no more, and nothing was changed.
    pub(super) fn commit(&self, state: &mut State, mut draft: Draft, now_ms: i64) -> Result<bool, StoreError> {
        for (key, incident) in &draft.incidents {
            draft.ops.push(ledger::put(ledger::INCIDENT, key.as_str(), incident)?);
        }
        match &draft.order {
            None => self.store.kv_write(&draft.ops)?,
            Some(order) if order.commit(&*self.store, &draft.ops)? => {}
            Some(_) => return Ok(false),
        }
        for (key, incident) in &draft.incidents {
            let due = self.next_due(incident, now_ms);
            state.set_timer(key, due);
        }
        draft.grouped.iter().for_each(|place| self.sinks[*place].metrics.grouped.inc());
        draft.silenced.iter().for_each(|place| self.sinks[*place].metrics.silenced.inc());
        draft.wakes.sort_unstable();
        draft.wakes.dedup();
        draft.wakes.iter().for_each(|place| self.sinks[*place].wake.notify_one());
        for view in draft.views {
            // Nobody listening is no error.
            let _ = self.live.send(Arc::new(view));
        }
        Ok(true)
    }
}

impl State {
    /// Why the alert pages nobody now.
    fn silenced(&self, alert: &Alert, now_ms: i64) -> Option<String> {
        let silence = self.silences.iter().find(|silence| silence.covers(alert, now_ms)).map(|s| s.reason.as_str());
        silence.or_else(|| self.router.maintenance(alert, now_ms)).map(str::to_owned)
    }
}
