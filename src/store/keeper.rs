//! The one thread that correlates and commits: matches in, findings and their evidence out, in one transaction.
//!
//! In: batches of matches, single-event alerts, the frontier, positions. Out: alerts with their ids and incidents, in the
//! outbox and to the caller. Invariant: a position is committed with, never before, everything that the records up to it led
//! to; after a crash the same records lead to the same ids.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Result, Store, Table, outbox_row, overlay::Overlay, position_row, row_error, time_key};
use crate::{
    alert::{Alert, RuleInfo},
    correlate::{
        Entry, Head, Id, Inputs, Item, Kind, Node, ORGANIZATION, Plan, Scope, cell_of, digest, hex, number, plan::Values, push_value, read_values,
        single_id,
    },
    position::{Position, ShardId},
};

mod expire;
mod fire;
pub mod hot;
pub mod index;
mod judge;
mod look;
mod restore;
pub mod rows;
mod runs;
mod share;

pub use look::{GroupView, ItemView, groups, items};
pub use share::SharedKeeper;

use fire::Firing;
use hot::Hot;
use index::Index;

/// Groups that one event may belong to, and values that it may carry: arrays are cut there, and that is counted.
const MAX_GROUPS: usize = 64;
const MAX_VALUES: usize = 256;
/// In a replay, changes are handed to the store at this many; a replay has no position to keep them together with.
const REPLAY_CHANGES: usize = 20_000;

/// How time passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The frontier follows the clock; evidence expires behind it. Learning began at this time, unless the store knows better.
    Live { start_ms: i64 },
    /// The end of input is the frontier; nothing expires. Learning begins with a rule's first match.
    Replay,
}

/// Named bounds; the defaults are the documented ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory of the index and the windows in use.
    pub budget_bytes: u64,
    /// Items of one rule in one account.
    pub quota_items: u64,
    /// How late an event may come and still find its evidence.
    pub lateness_ms: i64,
    /// How long after its end a window is judged.
    pub settle_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { budget_bytes: 256 << 20, quota_items: 1_000_000, lateness_ms: 3_600_000, settle_ms: 300_000 }
    }
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub evidence: u64,
    /// Items that were there already.
    pub known: u64,
    /// Matches too old for any window that can still fire.
    pub expired: u64,
    /// Values that a numeric rule can't use.
    pub unusable: u64,
    /// Events whose groups or values were cut.
    pub clipped: u64,
    /// Items lost to a quota.
    pub evicted: u64,
    /// Windows that left memory; their rows stay in the store.
    pub spilled: u64,
    pub alerts: u64,
    pub incidents: u64,
}

/// What one correlation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    /// Items of evidence that it took: events, or findings of the rules that it chains on.
    pub matches: u64,
    /// Items lost to a quota.
    pub lost: u64,
    /// Of the keeper's thread; that of the correlations that chain on it included.
    pub cost: Duration,
}

/// What the keeper holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub groups: u64,
    pub items: u64,
    /// Index and windows.
    pub memory_bytes: u64,
    pub store_bytes: u64,
}

/// A single event's finding: `alert` without id and incident. Its group makes one incident of several; none, each its own.
#[derive(Debug, Clone)]
pub struct Single {
    pub alert: Alert,
    pub identity: Id,
    /// The rule says `scope: organization`.
    pub organization: bool,
}

/// The group that an item belongs to.
struct Place<'a> {
    node: usize,
    group: Id,
    scope: &'a str,
    tuple: &'a [u8],
}

pub struct Keeper {
    plan: Arc<Plan>,
    infos: Vec<Arc<RuleInfo>>,
    by_state: HashMap<Id, usize>,
    mode: Mode,
    limits: Limits,
    /// Alerts also go to the store's outbox.
    outbox: bool,
    /// Others change the same rows: see `share`.
    shared: bool,
    rows: Overlay,
    index: Index,
    hot: Hot,
    frontier_ms: i64,
    /// Of the match in hand: when its record reached the stream; 0 between matches, and in a replay.
    arrived_ms: i64,
    /// In a replay: the newest event, which ends the last silence.
    newest_ms: i64,
    /// Per node: end of learning; in a replay the first match.
    learnt_ms: Vec<i64>,
    /// No timer stands before this key.
    timer_cursor: Vec<u8>,
    /// Timers of rules that this keeper doesn't know, and leaves alone.
    strangers: HashSet<Box<[u8]>>,
    swept_ms: i64,
    ended: bool,
    firings: Vec<Firing>,
    alerts: Vec<Alert>,
    counts: Counts,
    /// Per node.
    meters: Vec<Meter>,
}

impl Keeper {
    /// Takes up what the store holds. `outbox`: whether alerts are also written to the outbox for delivery.
    pub fn open(plan: Arc<Plan>, store: Arc<dyn Store>, mode: Mode, limits: Limits, outbox: bool) -> Result<Self> {
        Self::open_as(plan, store, mode, limits, outbox, false)
    }

    fn open_as(plan: Arc<Plan>, store: Arc<dyn Store>, mode: Mode, limits: Limits, outbox: bool, shared: bool) -> Result<Self> {
        let mut keeper = Self {
            infos: plan.nodes.iter().map(|n| Arc::new(fire::info(n))).collect(),
            by_state: plan.nodes.iter().enumerate().map(|(i, n)| (n.state, i)).collect(),
            learnt_ms: vec![i64::MAX; plan.nodes.len()],
            meters: vec![Meter::default(); plan.nodes.len()],
            plan,
            mode,
            limits,
            outbox,
            shared,
            rows: Overlay::new(store),
            index: Index::default(),
            hot: Hot::new((limits.budget_bytes / 4) as usize),
            frontier_ms: i64::MIN,
            arrived_ms: 0,
            newest_ms: i64::MIN,
            timer_cursor: Vec::new(),
            strangers: HashSet::new(),
            swept_ms: i64::MIN,
            ended: false,
            firings: Vec::new(),
            alerts: Vec::new(),
            counts: Counts::default(),
        };
        keeper.restore()?;
        Ok(keeper)
    }

    /// Takes over edited rules. What is pending must have been committed; evidence of unchanged states stays.
    pub fn replan(self, plan: Arc<Plan>) -> Result<Self> {
        let mut keeper = Self::open(plan, Arc::clone(self.rows.store()), self.mode, self.limits, self.outbox)?;
        keeper.counts = self.counts();
        Ok(keeper)
    }

    /// Makes evidence of matches. `known` gets one entry a match: whether all that it adds was there already.
    pub fn offer(&mut self, inputs: &Inputs, known: &mut Vec<bool>) -> Result<()> {
        for entry in inputs.iter() {
            let was_known = self.offer_one(&entry)?;
            known.push(was_known);
            if self.mode == Mode::Replay && self.rows.changes() >= REPLAY_CHANGES {
                self.rows.commit()?;
            }
        }
        Ok(())
    }

    /// A single event's finding; true where its id was issued before.
    pub fn alert(&mut self, single: Single) -> Result<bool> {
        let Single { mut alert, identity, organization } = single;
        let scope = if organization { ORGANIZATION } else { alert.account.as_str() };
        let id = single_id(&alert.rule.id, scope, &identity);
        if self.fired(&rows::id_key(&id))?.is_some() {
            self.counts.known += 1;
            return Ok(true);
        }
        let group = (!alert.group.is_empty()).then(|| {
            let mut tuple = Vec::new();
            alert.group.iter().for_each(|(_, value)| push_value(&mut tuple, Some(value)));
            digest(&[b"single", alert.rule.id.as_bytes(), scope.as_bytes(), &tuple])
        });
        let incident = self.issue(&id, group, alert.time_ms)?;
        alert.id = hex(&id);
        alert.incident = hex(&incident);
        alert.redact();
        self.push_alert(alert);
        Ok(false)
    }

    /// Moves the frontier, never back, and judges what has become due.
    pub fn advance(&mut self, frontier_ms: i64) -> Result<()> {
        if self.mode == Mode::Replay && !self.ended {
            return Ok(());
        }
        self.judge_until(frontier_ms.max(self.frontier_ms))
    }

    /// End of input in a replay: every window is complete. `newest_ms`: the newest event of the whole input.
    pub fn finish(&mut self, newest_ms: i64) -> Result<()> {
        self.ended = true;
        self.newest_ms = self.newest_ms.max(newest_ms);
        self.advance(i64::MAX)
    }

    /// One transaction: evidence, incidents, outbox, positions. Returns the alerts that are new since the last commit
    /// (in a replay: after `finish`). After an error nothing of it counts: stop, and start again from the store.
    pub fn commit(&mut self, positions: &[(ShardId, Position)]) -> Result<Vec<Alert>> {
        if matches!(self.mode, Mode::Live { .. }) {
            self.judge_until(self.frontier_ms)?;
            self.sweep()?;
            self.rows.put(Table::Meta, restore::FRONTIER, time_key(self.frontier_ms));
        }
        if self.ended || matches!(self.mode, Mode::Live { .. }) {
            self.tell()?;
        }
        for (shard, position) in positions {
            self.rows.apply(position_row(shard, position));
        }
        self.rows.commit()?;
        Ok(std::mem::take(&mut self.alerts))
    }

    pub fn counts(&self) -> Counts {
        Counts { spilled: self.counts.spilled + self.hot.spilled, ..self.counts }
    }

    /// What correlations did since the last call, by id; those that did nothing are left out.
    pub fn take_meters(&mut self) -> Vec<(String, Meter)> {
        let meters = self.meters.iter_mut().map(std::mem::take);
        self.plan.nodes.iter().zip(meters).filter(|(_, meter)| *meter != Meter::default()).map(|(node, meter)| (node.rule.clone(), meter)).collect()
    }

    /// Changes that wait for the next commit.
    pub fn pending(&self) -> usize {
        self.rows.changes()
    }

    pub fn held(&self) -> Held {
        Held {
            groups: self.index.groups() as u64,
            items: self.index.items(),
            memory_bytes: self.index.bytes() + self.hot.bytes(),
            store_bytes: self.rows.store().bytes(),
        }
    }

    fn push_alert(&mut self, alert: Alert) {
        self.counts.alerts += 1;
        if self.outbox
            && let Some(row) = outbox_row(&alert)
        {
            self.rows.apply(row);
        }
        self.alerts.push(alert);
    }

    fn offer_one(&mut self, entry: &Entry) -> Result<bool> {
        let since = Instant::now();
        let plan = Arc::clone(&self.plan);
        let head = entry.head();
        let Some(feed) = plan.feed(head.feed) else { return Ok(false) };
        let node = &plan.nodes[feed.node];
        self.arrived_ms = if self.mode == Mode::Replay { 0 } else { head.arrival_ms };
        let (groups, cut) = tuples(entry, 0..feed.group_by.len(), MAX_GROUPS, true);
        let (values, cut_values) = tuples(entry, feed.group_by.len()..feed.group_by.len() + feed.values.len(), MAX_VALUES, false);
        self.counts.clipped += u64::from(cut || cut_values);
        let mut all_known = true;
        for tuple in &groups {
            let place = place(node, feed.node, head.account, tuple);
            for value in &values {
                all_known &= self.offer_value(&place, node, feed.tag, &head, value)?;
            }
        }
        self.arrived_ms = 0;
        self.meters[feed.node].cost += since.elapsed();
        Ok(all_known && !values.is_empty())
    }

    fn offer_value(&mut self, place: &Place, node: &Node, tag: u16, head: &Head, tuple: &[u8]) -> Result<bool> {
        let value = match node.values {
            Values::None => [0; 16],
            Values::Tuple => digest(&[tuple]),
            Values::Number => match number_of(tuple) {
                Some(number) => number::to_bytes(number),
                None => {
                    self.counts.unusable += 1;
                    return Ok(false);
                }
            },
        };
        let item = Item { time_ms: head.time_ms, identity: head.identity, tag, value };
        let known = match node.kind {
            Kind::NewValue { .. } => self.seen_value(place, node, &item, tuple, rows::payload(head))?,
            Kind::Absence => {
                let arrival = Item { time_ms: head.arrival_ms, ..item };
                self.seen_group(place, node, &arrival, rows::payload(head))?
            }
            _ => self.item(place, node, &item, rows::payload(head))?,
        };
        self.counts.known += u64::from(known);
        self.counts.evidence += u64::from(!known);
        Ok(known)
    }

    /// Adds an item and evaluates every window that contains it. True where it was stored already.
    fn item(&mut self, place: &Place, node: &Node, item: &Item, payload: Vec<u8>) -> Result<bool> {
        if item.time_ms < self.horizon(node) {
            self.counts.expired += 1;
            return Ok(false);
        }
        let key = rows::evidence_key(&place.group, item);
        let fresh = self.meet(place, node);
        let known = !fresh && self.rows.get(Table::Evidence, &key)?.is_some();
        self.load(place, node, fresh)?;
        if !known {
            self.meters[place.node].matches += 1;
            let bucket = self.index.bucket(place.node, place.scope);
            self.index.add(place.group, bucket, item.time_ms);
            self.rows.put(Table::Evidence, &key, payload);
            if let Some(loaded) = self.hot.get(&place.group) {
                loaded.window.insert(node, item);
                loaded.grown += 1;
                loaded.items += 1;
                loaded.oldest_ms = loaded.oldest_ms.min(item.time_ms);
            }
            if !node.prompt {
                let due_ms = item.time_ms.saturating_add(self.limits.settle_ms * node.depth);
                self.set_timer(&rows::Timer { due_ms, group: place.group, value: [0; 16] });
            }
        }
        if node.prompt {
            self.fire_prompt(place, node, item)?;
        }
        self.thin(place, node, item)?;
        self.trim(place, node)?;
        self.hot.measure(&place.group);
        if !known {
            self.hold_quota(place, item.time_ms)?;
        }
        Ok(known)
    }

    /// Writes a new group's row; true where it is new.
    fn meet(&mut self, place: &Place, node: &Node) -> bool {
        if self.shared {
            self.meet_shared(&place.group, rows::group_row(&node.state, place.scope, place.tuple));
            return false;
        }
        if self.index.knows(&place.group) {
            return false;
        }
        self.rows.put(Table::Groups, &place.group, rows::group_row(&node.state, place.scope, place.tuple));
        true
    }

    /// Items before this can't be part of a window that fires.
    fn horizon(&self, node: &Node) -> i64 {
        match self.mode {
            Mode::Replay => i64::MIN,
            Mode::Live { .. } => {
                let kept_ms = node.timespan_ms + self.limits.lateness_ms + self.limits.settle_ms * node.depth;
                self.frontier_ms.saturating_sub(kept_ms)
            }
        }
    }
}

fn place<'a>(node: &Node, index: usize, account: &'a str, tuple: &'a [u8]) -> Place<'a> {
    let scope = match node.scope {
        Scope::Organization => ORGANIZATION,
        Scope::Account => account,
    };
    Place { node: index, group: digest(&[&node.state, scope.as_bytes(), tuple]), scope, tuple }
}

fn number_of(tuple: &[u8]) -> Option<i128> {
    number::parse(read_values(tuple).first()?.as_deref()?)
}

/// Every combination of the fields' values, at most `limit`. A field without a value is a null where `nulls` are values of
/// their own; else there is no combination. No field at all: one empty tuple.
fn tuples(entry: &Entry, fields: std::ops::Range<usize>, limit: usize, nulls: bool) -> (Vec<Vec<u8>>, bool) {
    let mut tuples = vec![Vec::new()];
    let mut cut = false;
    for field in fields {
        let values = entry.field(field);
        if values.len() == 0 {
            if !nulls {
                return (Vec::new(), cut);
            }
            tuples.iter_mut().for_each(|t| push_value(t, None));
            continue;
        }
        if values.len() == 1 {
            values.for_each(|value| tuples.iter_mut().for_each(|t| push_value(t, Some(value))));
            continue;
        }
        let mut next = Vec::new();
        'all: for tuple in &tuples {
            for value in values.clone() {
                if next.len() == limit {
                    cut = true;
                    break 'all;
                }
                let mut longer = tuple.clone();
                push_value(&mut longer, Some(value));
                next.push(longer);
            }
        }
        tuples = next;
    }
    tuples.sort_unstable();
    tuples.dedup();
    (tuples, cut)
}

#[cfg(test)]
mod tests;
