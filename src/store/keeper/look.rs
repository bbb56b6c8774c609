//! A look at what is remembered: for `trailwarden state list|show`.
//!
//! In: a store. Out: its groups and their items as people read them. Invariant: reads only.

use std::ops::ControlFlow;

use super::{Result, Table, rows};
use crate::{
    correlate::{Id, hex, number, plan::Values, read_values},
    store::Store,
};

/// A group with evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// 32 hex digits.
    pub group: String,
    /// Which rule's state; compare with `correlate::Node::state`.
    pub state: Id,
    /// Account, or `organization`.
    pub scope: String,
    /// In the order of the rule's group-by; `None` is null.
    pub values: Vec<Option<String>>,
    pub items: u64,
    /// Event times, milliseconds since the epoch; for runs of sightings their first and last.
    pub oldest_ms: i64,
    pub newest_ms: i64,
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemView {
    pub time_ms: i64,
    /// Place of the rule among the correlation's.
    pub tag: u16,
    /// A number, a seen value, or nothing.
    pub value: Option<String>,
    pub event_id: String,
    pub source: String,
    pub name: String,
}

/// At most `limit` groups, in the order of their hashes.
pub fn groups(store: &dyn Store, limit: usize) -> Result<Vec<GroupView>> {
    let mut found = Vec::new();
    store.scan(Table::Groups, &[], &[], &mut |key, value| {
        if let (Ok(group), Some(row)) = (Id::try_from(key), rows::read_group(value)) {
            found.push((group, row));
        }
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let mut views = Vec::new();
    for (group, row) in found.into_iter().take(limit) {
        let (mut oldest_ms, mut newest_ms, mut items) = (i64::MAX, i64::MIN, 0);
        store.scan(Table::Evidence, &group, &[], &mut |key, value| {
            items += 1;
            let (first, last) = match rows::read_evidence_key(key) {
                Some(item) => (item.time_ms, item.time_ms),
                None => {
                    rows::RunsRow::read(value).and_then(|row| Some((row.runs.iter().next()?.0, row.runs.newest()?))).unwrap_or((i64::MAX, i64::MIN))
                }
            };
            oldest_ms = oldest_ms.min(first);
            newest_ms = newest_ms.max(last);
            ControlFlow::Continue(())
        })?;
        views.push(GroupView {
            group: hex(&group),
            state: row.state,
            scope: row.scope,
            values: read_values(&row.tuple),
            items,
            oldest_ms,
            newest_ms,
        });
    }
    Ok(views)
}

/// At most `limit` items of a group. `values` is its rule's way of keeping values.
pub fn items(store: &dyn Store, group: &Id, values: Values, limit: usize) -> Result<Vec<ItemView>> {
    let mut views = Vec::new();
    store.scan(Table::Evidence, group, &[], &mut |key, value| {
        let (time_ms, tag, text, payload) = match rows::read_evidence_key(key) {
            Some(item) => {
                let text = (values == Values::Number).then(|| number::text(number::from_bytes(item.value)));
                (item.time_ms, item.tag, text, rows::read_payload(value))
            }
            None => match rows::RunsRow::read(value) {
                Some(row) => {
                    let text = read_values(&row.tuple).into_iter().flatten().collect::<Vec<_>>().join(", ");
                    (row.runs.newest().unwrap_or(i64::MIN), 0, Some(text), rows::read_payload(&row.payload))
                }
                None => return ControlFlow::Continue(()),
            },
        };
        let payload = payload.unwrap_or_default();
        views.push(ItemView { time_ms, tag, value: text, event_id: payload.event_id, source: payload.source, name: payload.name });
        if views.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(views)
}
