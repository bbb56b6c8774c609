//! What is given up: what no window can need any more, and, where a quota is full, what a flood is made of.
//!
//! In: the frontier, the counts of the index. Out: deleted rows, an alert where evidence was lost. Invariant: without a full
//! quota nothing is deleted that a window within the allowed lateness could still contain.

use std::{ops::ControlFlow, sync::Arc};

use super::{Id, Keeper, Node, Place, Result, Single, Table, cell_of, rows};
use crate::{
    alert::{Alert, Level, RuleInfo},
    correlate::{HOUR_MS, Kind, digest},
};

/// Between two sweeps, by the frontier.
const SWEEP_MS: i64 = 300_000;
/// Groups, and issued ids, that one sweep takes away at most.
const SWEEP_GROUPS: usize = 10_000;
/// Items of one group, where rows are shared.
const SHARED_GROUP_ITEMS: u64 = 10_000;
/// A silent group is remembered so long after it was told.
const SILENT_MS: i64 = 24 * HOUR_MS;
/// The built-in finding that evidence was lost.
const QUOTA_RULE: &str = "trailwarden-state-quota";
/// What an indexed group costs at worst (`index`).
const GROUP_BYTES: u64 = 58;

impl Keeper {
    /// Takes away what lies behind the frontier.
    pub(super) fn sweep(&mut self) -> Result<()> {
        if self.swept_ms != i64::MIN && self.frontier_ms < self.swept_ms.saturating_add(SWEEP_MS) {
            return Ok(());
        }
        self.swept_ms = self.frontier_ms;
        let plan = Arc::clone(&self.plan);
        let keep_from = |node: usize| {
            let node = &plan.nodes[node];
            let silent_ms = if matches!(node.kind, Kind::Absence) { SILENT_MS } else { 0 };
            self.horizon(node).saturating_sub(silent_ms)
        };
        for group in self.index.expired(SWEEP_GROUPS, keep_from) {
            let keys = self.keys(&group)?;
            self.drop_group(&group, &keys);
        }
        self.forget_values()?;
        let mut gone = Vec::new();
        let now_ms = self.frontier_ms;
        self.rows.scan(Table::Fired, &[], &[], &mut |key, value| {
            if rows::read_fired(value).is_none_or(|fired| fired.expires_ms < now_ms) {
                gone.push(key.to_vec());
            }
            if gone.len() < SWEEP_GROUPS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        gone.iter().for_each(|key| self.rows.delete(Table::Fired, key));
        Ok(())
    }

    /// Values unseen for longer than their memory, in groups that live on.
    fn forget_values(&mut self) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let mut gone: Vec<Vec<u8>> = Vec::new();
        let new_values: Vec<Id> = plan.nodes.iter().filter(|n| matches!(n.kind, Kind::NewValue { .. })).map(|n| n.state).collect();
        if new_values.is_empty() {
            return Ok(());
        }
        let mut groups = Vec::new();
        self.rows.scan(Table::Groups, &[], &[], &mut |key, value| {
            if let Some(state) = value.first_chunk::<16>()
                && new_values.contains(state)
            {
                groups.push((key.to_vec(), *state));
            }
            ControlFlow::Continue(())
        })?;
        for (group, state) in groups {
            let Some(node) = self.by_state.get(&state) else { continue };
            let from = self.horizon(&plan.nodes[*node]);
            gone.clear();
            self.rows.scan(Table::Evidence, &group, &[], &mut |key, value| {
                if rows::RunsRow::read(value).is_some_and(|row| row.runs.newest().is_some_and(|newest| newest < from)) {
                    gone.push(key.to_vec());
                }
                ControlFlow::Continue(())
            })?;
            if let (Ok(group), false) = (Id::try_from(group.as_slice()), gone.is_empty()) {
                self.forget(&group, &gone);
            }
        }
        Ok(())
    }

    /// Cuts a busy group's dead beginning off, once that is longer than a timespan.
    pub(super) fn trim(&mut self, place: &Place, node: &Node) -> Result<()> {
        let horizon = self.horizon(node);
        let Some(loaded) = self.hot.get(&place.group) else { return Ok(()) };
        if horizon == i64::MIN || loaded.oldest_ms >= horizon.saturating_sub(node.timespan_ms) {
            return Ok(());
        }
        let mut gone = Vec::new();
        self.rows.scan(Table::Evidence, &place.group, &[], &mut |key, _| match rows::read_evidence_key(key) {
            Some(item) if item.time_ms < horizon => {
                gone.push(key.to_vec());
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        })?;
        self.forget(&place.group, &gone);
        self.hot.remove(&place.group);
        self.load(place, node, false)
    }

    /// Frees a tenth of a full quota, and says so in an alert of its own.
    pub(super) fn hold_quota(&mut self, place: &Place, time_ms: i64) -> Result<()> {
        if self.shared {
            return self.hold_group(place, time_ms);
        }
        let bucket = self.index.bucket(place.node, place.scope);
        let full = self.index.buckets()[bucket as usize].items > self.limits.quota_items;
        let crowded = self.index.groups() as u64 > self.limits.budget_bytes / 2 / GROUP_BYTES;
        let bucket = match (full, crowded) {
            (true, _) => bucket,
            (false, true) => self.index.largest().unwrap_or(bucket),
            _ => return Ok(()),
        };
        let (held, flooded) = (self.index.buckets()[bucket as usize].items, self.index.buckets()[bucket as usize].node);
        for (group, half) in self.index.victims(bucket, (held.min(self.limits.quota_items) / 10).max(1)) {
            let mut keys = self.keys(&group)?;
            if half {
                keys.truncate(keys.len() / 2);
                self.forget(&group, &keys);
                self.hot.remove(&group);
            } else {
                self.drop_group(&group, &keys);
            }
            self.counts.evicted += keys.len() as u64;
            self.meters[flooded].lost += keys.len() as u64;
        }
        let lost = self.index.buckets()[bucket as usize].clone();
        let plan = Arc::clone(&self.plan);
        let flooded = &plan.nodes[lost.node];
        self.tell_loss(&lost.scope, &flooded.rule, &flooded.meta.title.value, time_ms, self.limits.quota_items)
    }

    /// Where rows are shared nobody counts an account's items, and no disk fills; but a group is read whole for each batch, so what
    /// one group may hold is bounded.
    fn hold_group(&mut self, place: &Place, time_ms: i64) -> Result<()> {
        let most = self.limits.quota_items.min(SHARED_GROUP_ITEMS);
        let mut keys = self.keys(&place.group)?;
        if keys.len() as u64 <= most {
            return Ok(());
        }
        keys.truncate(super::judge::SHARED_FORGET);
        self.forget(&place.group, &keys);
        self.hot.remove(&place.group);
        self.counts.evicted += keys.len() as u64;
        self.meters[place.node].lost += keys.len() as u64;
        let plan = Arc::clone(&self.plan);
        let node = &plan.nodes[place.node];
        self.tell_loss(place.scope, &node.rule, &node.meta.title.value, time_ms, most)
    }

    /// Evidence keys of a group, the older first.
    fn keys(&self, group: &Id) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        self.rows.scan(Table::Evidence, group, &[], &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        Ok(keys)
    }

    fn drop_group(&mut self, group: &Id, keys: &[Vec<u8>]) {
        keys.iter().for_each(|key| self.rows.delete(Table::Evidence, key));
        self.rows.delete(Table::Groups, group);
        self.index.remove(group, keys.len() as u64);
        self.hot.remove(group);
    }

    fn tell_loss(&mut self, scope: &str, rule: &str, title: &str, time_ms: i64, quota: u64) -> Result<()> {
        let cell = cell_of(time_ms, HOUR_MS);
        let alert = Alert {
            id: String::new(),
            incident: String::new(),
            time_ms,
            rule: Arc::new(RuleInfo {
                id: QUOTA_RULE.into(),
                title: "Evidence was lost to a full quota".into(),
                level: Level::High,
                tags: vec!["attack.t1499".into(), "pillar.monitoring".into()],
                description: "A rule holds as many items for one account as its quota allows, so the oldest of the flood were given up.".into(),
                false_positives: vec!["A group-by field with a new value for every event.".into()],
                next: Some("See what floods this rule in this account, then narrow the rule or raise `state.quota_items`.".into()),
                resolve_after_ms: Some(2 * HOUR_MS.unsigned_abs()),
            }),
            account: scope.to_owned(),
            region: String::new(),
            group: vec![("rule".into(), rule.to_owned())],
            summary: format!("Rule \"{title}\" dropped evidence of account {scope}: its quota of {quota} items is full"),
            events: Vec::new(),
            count: self.counts.evicted,
            late: false,
            resolved: false,
            arrived_ms: 0,
        };
        let identity = digest(&[rule.as_bytes(), &cell.to_be_bytes()]);
        if self.fired(&rows::id_key(&crate::correlate::single_id(QUOTA_RULE, scope, &identity)))?.is_none() {
            self.alert(Single { alert, identity, organization: false })?;
        }
        Ok(())
    }
}
