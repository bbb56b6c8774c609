//! From a condition that holds to an alert: id, incident, events, one line of text.
//!
//! In: rule, group and cell (or value, or silence). Out: rows that say the id is issued, alerts, items for parents. Invariant:
//! an id is issued once and stands in exactly one incident, which never changes.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    Id, Item, Keeper, Mode, Node, Place, Result, Table, cell_of, digest, hex, number, place, push_value,
    rows::{self, Fired, Payload, RunsRow},
};
use crate::{
    alert::{Alert, EventRef, RuleInfo},
    correlate::{
        FeedId, HOUR_MS, Head, Kind, cell_id,
        plan::{By, Origin, Values},
        read_values,
        window::Window,
    },
};

/// Events that an alert lists.
const MAX_EVENTS: usize = 100;
/// An issued id is remembered this long behind the frontier: by then every copy of the event has come.
const REMEMBER_MS: i64 = 24 * HOUR_MS;

/// A finding that is yet to be told.
pub(super) struct Firing {
    node: usize,
    group: Id,
    scope: String,
    tuple: Vec<u8>,
    id: Id,
    incident: Id,
    cell: i64,
    /// End of the window that fired.
    at_ms: i64,
    late: bool,
    /// Of kinds that live on runs: the value and the one event.
    run: Option<(Vec<u8>, Vec<u8>)>,
    /// The silence is over.
    resolved: bool,
    /// As `Alert::arrived_ms`.
    arrived_ms: i64,
}

/// The rule's half of a stateful alert.
pub(super) fn info(node: &Node) -> RuleInfo {
    let meta = &node.meta;
    // A rate is over after a cell without it, when it would page anew; a sequence or a first is a deed.
    let rate = !matches!(
        node.kind,
        Kind::Distinct { by: By::Rule, .. } | Kind::Expression { .. } | Kind::Ordered { .. } | Kind::NewValue { .. } | Kind::Drop | Kind::Absence
    );
    RuleInfo {
        id: node.rule.clone(),
        title: meta.title.value.clone(),
        level: meta.level,
        tags: meta.tags.iter().map(|t| t.value.clone()).collect(),
        description: meta.description.clone(),
        false_positives: meta.false_positives.clone(),
        next: meta.ext.next.clone(),
        resolve_after_ms: rate.then(|| 2 * node.cell_ms.unsigned_abs()),
    }
}

impl Keeper {
    /// Marks an id as issued and gives its incident: that of its group's same or adjacent cell, else one of its own.
    pub(super) fn issue(&mut self, id: &Id, group: Option<Id>, at_ms: i64) -> Result<Id> {
        let now_ms = if self.ended { self.newest_ms } else { self.frontier_ms };
        let mut incident = *id;
        let expires_ms = now_ms.max(at_ms).saturating_add(REMEMBER_MS);
        if let Some(group) = group {
            let cell = cell_of(at_ms, HOUR_MS);
            incident = self.incident(&group, cell)?.unwrap_or(*id);
            self.rows.put(Table::Fired, &rows::cell_key(&group, cell), rows::fired_row(&Fired { expires_ms, incident }));
        }
        self.rows.put(Table::Fired, &rows::id_key(id), rows::fired_row(&Fired { expires_ms, incident }));
        self.counts.incidents += u64::from(incident == *id);
        Ok(incident)
    }

    /// An issued id or an owned cell, unless it is past its keeping: a store may hold the row for longer.
    pub(super) fn fired(&self, key: &[u8]) -> Result<Option<Fired>> {
        let row = self.rows.get(Table::Fired, key)?;
        let is_kept = |fired: &Fired| self.mode == Mode::Replay || fired.expires_ms >= self.frontier_ms;
        Ok(row.as_deref().and_then(rows::read_fired).filter(is_kept))
    }

    /// Who owns the cell, the one before or the one after.
    fn incident(&self, group: &Id, cell: i64) -> Result<Option<Id>> {
        for near in [cell, cell.saturating_sub(1), cell.saturating_add(1)] {
            if let Some(fired) = self.fired(&rows::cell_key(group, near))? {
                return Ok(Some(fired.incident));
            }
        }
        Ok(None)
    }

    /// A window that ends at `at_ms` holds, the first of its cell.
    pub(super) fn fire_cell(&mut self, place: &Place, node: &Node, cell: i64, at_ms: i64, late: bool) -> Result<()> {
        if let Some(loaded) = self.hot.get(&place.group) {
            loaded.fired.push(cell);
        }
        // A group whose items have all expired begins anew, but its cells may have fired.
        if self.fired(&rows::cell_key(&place.group, cell))?.is_some() {
            return Ok(());
        }
        let id = cell_id(&node.rule, place.scope, place.tuple, cell);
        let incident = self.incident(&place.group, cell)?.unwrap_or(id);
        let end_ms = cell.saturating_add(2).saturating_mul(node.cell_ms);
        let expires_ms = end_ms.saturating_add(node.timespan_ms + self.limits.lateness_ms + self.limits.settle_ms * node.depth);
        self.rows.put(Table::Fired, &rows::cell_key(&place.group, cell), rows::fired_row(&Fired { expires_ms, incident }));
        self.counts.incidents += u64::from(incident == id);
        self.firings.push(Firing { arrived_ms: self.arrived_ms, ..firing(place, id, incident, cell, at_ms, late) });
        Ok(())
    }

    /// Gives a window's end to the parents: one item per (id, end).
    pub(super) fn feed_cell(&mut self, place: &Place, node: &Node, cell: i64, at_ms: i64) -> Result<()> {
        if !node.chained() {
            return Ok(());
        }
        let id = cell_id(&node.rule, place.scope, place.tuple, cell);
        self.feed_parents(place, node, &id, at_ms)
    }

    /// A value never seen, or a silence.
    pub(super) fn fire_run(&mut self, place: &Place, node: &Node, id: Id, at_ms: i64, row: &RunsRow) -> Result<()> {
        if !node.alerts || self.fired(&rows::id_key(&id))?.is_some() {
            return Ok(());
        }
        let incident = self.issue(&id, Some(place.group), at_ms)?;
        // A value's id is remembered as long as the value.
        let kept = at_ms.saturating_add(node.timespan_ms + self.limits.lateness_ms + REMEMBER_MS);
        self.rows.put(Table::Fired, &rows::id_key(&id), rows::fired_row(&Fired { expires_ms: kept, incident }));
        let mut firing = firing(place, id, incident, cell_of(at_ms, node.cell_ms), at_ms, false);
        firing.run = Some((row.tuple.clone(), row.payload.clone()));
        firing.arrived_ms = self.arrived_ms;
        self.firings.push(firing);
        Ok(())
    }

    /// A group whose silence was told is back: its incident is over.
    pub(super) fn back(&mut self, place: &Place, node: &Node, row: &RunsRow) -> Result<()> {
        if row.judged_ms == i64::MIN || !node.alerts || self.mode == Mode::Replay {
            return Ok(());
        }
        let id = crate::correlate::silence_id(&node.rule, place.scope, place.tuple, row.judged_ms);
        let (Some(fired), Some(now_ms)) = (self.fired(&rows::id_key(&id))?, row.runs.newest()) else { return Ok(()) };
        let mut firing = firing(place, digest(&[b"resolved", &id]), fired.incident, 0, now_ms, false);
        firing.run = Some((Vec::new(), row.payload.clone()));
        firing.resolved = true;
        self.firings.push(firing);
        Ok(())
    }

    pub(super) fn feed_parents(&mut self, at: &Place, node: &Node, id: &Id, time_ms: i64) -> Result<()> {
        if !node.chained() {
            return Ok(());
        }
        let plan = std::sync::Arc::clone(&self.plan);
        let values = read_values(at.tuple);
        let pick = |places: &[usize]| {
            let mut tuple = Vec::new();
            places.iter().for_each(|p| push_value(&mut tuple, values.get(*p).and_then(|v| v.as_deref())));
            tuple
        };
        for link in &node.parents {
            let parent = &plan.nodes[link.node];
            let tuple = pick(&link.group_by);
            let value = match parent.values {
                Values::None => [0; 16],
                // A null is no value, as in an event.
                _ if link.values.iter().any(|p| values.get(*p).is_none_or(Option::is_none)) => continue,
                Values::Tuple => digest(&[&pick(&link.values)]),
                Values::Number => match super::number_of(&pick(&link.values)) {
                    Some(number) => number::to_bytes(number),
                    None => {
                        self.counts.unusable += 1;
                        continue;
                    }
                },
            };
            let place = place(parent, link.node, at.scope, &tuple);
            let text = hex(id);
            let head = Head {
                feed: FeedId(0),
                time_ms,
                arrival_ms: time_ms,
                identity: *id,
                account: if at.scope == super::ORGANIZATION { "" } else { at.scope },
                region: "",
                event_id: &text,
                source: "correlation",
                name: &node.meta.title.value,
                summary: "",
            };
            let item = Item { time_ms, identity: *id, tag: link.tag, value };
            self.item(&place, parent, &item, rows::payload(&head))?;
        }
        Ok(())
    }

    /// Turns findings to alerts. In a replay all at its end, from complete evidence, so that the order of input can't show.
    pub(super) fn tell(&mut self) -> Result<()> {
        let mut firings = std::mem::take(&mut self.firings);
        if self.mode == Mode::Replay {
            self.settle_ends(&mut firings)?;
        }
        for firing in &firings {
            let mut alert = self.told(firing)?;
            alert.redact();
            self.push_alert(alert);
        }
        Ok(())
    }

    /// The first window of each fired cell, from all of the group's rows.
    fn settle_ends(&self, firings: &mut [Firing]) -> Result<()> {
        firings.sort_by_key(|f| (f.group, f.cell));
        let mut windows: HashMap<Id, Window> = HashMap::new();
        for firing in firings.iter_mut().filter(|f| f.run.is_none()) {
            let node = &self.plan.nodes[firing.node];
            if !windows.contains_key(&firing.group) {
                // Sorted by group: one window at a time is enough.
                windows.clear();
                let mut window = Window::new(node);
                self.rows.scan(Table::Evidence, &firing.group, &[], &mut |key, _| {
                    if let Some(item) = rows::read_evidence_key(key) {
                        window.insert(node, &item);
                    }
                    std::ops::ControlFlow::Continue(())
                })?;
                windows.insert(firing.group, window);
            }
            let from = firing.cell.saturating_mul(node.cell_ms);
            let first = windows.get(&firing.group).and_then(|w| w.first_in(node, from, from.saturating_add(node.cell_ms - 1)));
            firing.at_ms = first.unwrap_or(firing.at_ms);
        }
        Ok(())
    }

    fn told(&self, firing: &Firing) -> Result<Alert> {
        let node = &self.plan.nodes[firing.node];
        let evidence = self.evidence(firing, node)?;
        let mut group: Vec<(String, String)> =
            node.group_by.iter().cloned().zip(read_values(&firing.tuple).into_iter().map(Option::unwrap_or_default)).collect();
        if let Some((tuple, _)) = &firing.run {
            group.extend(node.fields.iter().cloned().zip(read_values(tuple).into_iter().map(Option::unwrap_or_default)));
        }
        let newest = &evidence.newest;
        Ok(Alert {
            id: hex(&firing.id),
            incident: hex(&firing.incident),
            time_ms: evidence.newest_ms,
            rule: std::sync::Arc::clone(&self.infos[firing.node]),
            account: if firing.scope == super::ORGANIZATION { newest.account.clone() } else { firing.scope.clone() },
            region: newest.region.clone(),
            summary: summary(node, &group, evidence.count, newest, firing.resolved),
            group,
            events: evidence.events,
            count: evidence.count,
            late: firing.late,
            resolved: firing.resolved,
            arrived_ms: firing.arrived_ms,
        })
    }

    fn evidence(&self, firing: &Firing, node: &Node) -> Result<Evidence> {
        if let Some((_, payload)) = &firing.run {
            let newest = rows::read_payload(payload).unwrap_or_default();
            return Ok(Evidence { events: vec![event(&newest, firing.at_ms)], count: 1, newest_ms: firing.at_ms, newest });
        }
        let until = match self.mode {
            Mode::Replay => firing.cell.saturating_add(1).saturating_mul(node.cell_ms).saturating_sub(1),
            Mode::Live { .. } => firing.at_ms,
        };
        let from = rows::evidence_from(&firing.group, firing.at_ms.saturating_sub(node.timespan_ms));
        let mut told = Evidence { events: Vec::new(), count: 0, newest_ms: firing.at_ms, newest: Payload::default() };
        let mut identities = HashSet::new();
        let mut last = Vec::new();
        self.rows.scan(Table::Evidence, &firing.group, &from, &mut |key, value| {
            let Some(item) = rows::read_evidence_key(key).filter(|item| item.time_ms <= until) else {
                return std::ops::ControlFlow::Break(());
            };
            told.newest_ms = item.time_ms;
            value.clone_into(&mut last);
            if identities.insert(item.identity) && told.events.len() < MAX_EVENTS {
                told.events.push(event(&rows::read_payload(value).unwrap_or_default(), item.time_ms));
            }
            std::ops::ControlFlow::Continue(())
        })?;
        told.count = identities.len() as u64;
        told.newest = rows::read_payload(&last).unwrap_or_default();
        Ok(told)
    }
}

struct Evidence {
    events: Vec<EventRef>,
    count: u64,
    newest_ms: i64,
    newest: Payload,
}

fn firing(place: &Place, id: Id, incident: Id, cell: i64, at_ms: i64, late: bool) -> Firing {
    Firing {
        node: place.node,
        group: place.group,
        scope: place.scope.to_owned(),
        tuple: place.tuple.to_vec(),
        id,
        incident,
        cell,
        at_ms,
        late,
        run: None,
        resolved: false,
        arrived_ms: 0,
    }
}

fn event(payload: &Payload, time_ms: i64) -> EventRef {
    EventRef { id: payload.event_id.clone(), time: rfc3339(time_ms), source: payload.source.clone(), name: payload.name.clone() }
}

fn rfc3339(time_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(time_ms).map_or_else(|_| format!("{time_ms} ms"), |t| t.to_string())
}

/// The rule's line with `{name}` replaced by the group's values, `{count}` and `{last}`, the newest event's own line; an event's own line for kinds that tell of one.
fn summary(node: &Node, group: &[(String, String)], count: u64, newest: &Payload, resolved: bool) -> String {
    let title = &node.meta.title.value;
    let pairs = group.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ");
    if resolved {
        return format!("Over: {title} ({pairs})");
    }
    if !newest.summary.is_empty() && matches!(node.origin, Origin::Rule(_)) {
        return newest.summary.clone();
    }
    let Some(template) = &node.meta.ext.summary else {
        let events = if count == 1 { "1 event".into() } else { format!("{count} events") };
        return if pairs.is_empty() { format!("{title}: {events}") } else { format!("{title}: {pairs}, {events}") };
    };
    let mut names: BTreeMap<&str, String> = group.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    names.insert("count", count.to_string());
    names.insert("last", newest.summary.clone());
    fill(&template.value, &names)
}

/// Unknown names stay as they are, so that a slip of the pen is seen.
fn fill(template: &str, names: &BTreeMap<&str, String>) -> String {
    let mut out = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        out.push_str(text);
        match after.split_once('}') {
            Some((name, tail)) if names.contains_key(name) => {
                out.push_str(&names[name]);
                rest = tail;
            }
            _ => {
                out.push('{');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}
