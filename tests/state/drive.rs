//! Feeds a case to the keeper as shards, interleavings and crashes would.
//!
//! In: a case and where its store lives. Out: the ids that came out, and every breach seen on the way. Invariant: a crash loses
//! what was not committed, and each shard is read again from its committed position.
#![allow(dead_code)]

use std::{collections::BTreeMap, sync::Arc};

use trailwarden::{
    alert::{Alert, RuleInfo},
    correlate::{Feed, Head, Inputs, Plan},
    position::{Position, SequenceNumber, ShardId},
    rule::ast::{Rule, Scope},
    store::{
        Store,
        keeper::{Keeper, Limits, Mode, Single},
    },
};

use crate::world::{Case, Event};

/// Where a case keeps its state.
pub trait Stores {
    fn empty(&mut self) -> Arc<dyn Store>;
    /// After a crash: every handle of before is gone.
    fn reopen(&mut self) -> Arc<dyn Store>;
}

#[derive(Default)]
pub struct Found {
    /// Alert id → what it is.
    pub ids: BTreeMap<String, String>,
    pub faults: Vec<String>,
    incidents: BTreeMap<String, String>,
    committed: BTreeMap<String, u32>,
}

impl Found {
    fn take(&mut self, alerts: &[Alert], committed: bool) {
        for alert in alerts.iter().filter(|a| !a.resolved) {
            let about = format!("{} {:?} {} in {}", alert.rule.id, alert.group, alert.account, alert.incident);
            self.ids.insert(alert.id.clone(), about);
            if let Some(other) = self.incidents.insert(alert.id.clone(), alert.incident.clone())
                && other != alert.incident
            {
                self.faults.push(format!("{} is in incidents {other} and {}", alert.id, alert.incident));
            }
            if committed {
                *self.committed.entry(alert.id.clone()).or_default() += 1;
            }
        }
    }
}

/// Well behind every delivery and what it sets in motion.
pub fn end_ms(case: &Case) -> i64 {
    case.deliveries.iter().map(|d| d.arrival_ms).max().unwrap_or(0) + 40_000_000
}

pub fn plan(case: &Case) -> Arc<Plan> {
    Arc::new(Plan::compile(&case.rules, &case.correlations).unwrap_or_else(|faults| panic!("{faults:?}")))
}

pub fn info(rule: &Rule) -> Arc<RuleInfo> {
    Arc::new(RuleInfo {
        id: rule.meta.id.as_ref().unwrap().value.clone(),
        title: rule.meta.title.value.clone(),
        level: rule.meta.level,
        tags: vec![],
        description: String::new(),
        false_positives: vec![],
        next: None,
        resolve_after_ms: None,
    })
}

pub fn push(inputs: &mut Inputs, feed: &Feed, event: &Event, arrival_ms: i64) {
    inputs.push(Head {
        feed: feed.id,
        time_ms: event.time_ms,
        arrival_ms,
        identity: event.identity,
        account: event.account,
        region: "eu-west-1",
        event_id: "event",
        source: "rds.amazonaws.com",
        name: "Call",
        summary: "",
    });
    for field in feed.group_by.iter().chain(&feed.values) {
        inputs.field(event.field(field).iter().copied());
    }
}

pub fn single(rule: &Rule, event: &Event) -> Single {
    let alert = Alert {
        id: String::new(),
        incident: String::new(),
        time_ms: event.time_ms,
        rule: info(rule),
        account: event.account.into(),
        region: String::new(),
        group: vec![],
        summary: String::new(),
        events: vec![],
        count: 1,
        late: false,
        resolved: false,
        arrived_ms: 0,
    };
    Single { alert, identity: event.identity, organization: rule.meta.ext.scope == Scope::Organization }
}

/// Everything that one delivery of an event leads to.
pub fn offer(keeper: &mut Keeper, case: &Case, plan: &Plan, event: &Event, arrival_ms: i64) {
    let mut inputs = Inputs::default();
    for rule in &event.rules {
        plan.feeds(*rule).iter().for_each(|feed| push(&mut inputs, feed, event, if case.replay { event.time_ms } else { arrival_ms }));
    }
    let mut known = Vec::new();
    keeper.offer(&inputs, &mut known).unwrap();
    assert_eq!(known.len(), inputs.len());
    for rule in event.rules.iter().filter(|r| plan.alerts(**r)) {
        keeper.alert(single(&case.rules[*rule], event)).unwrap();
    }
}

fn limits(case: &Case) -> Limits {
    let defaults = Limits::default();
    Limits { budget_bytes: if case.tight { 60_000 } else { defaults.budget_bytes }, ..defaults }
}

pub fn run(case: &Case, stores: &mut dyn Stores) -> Found {
    let mut found = Found::default();
    let store = stores.empty();
    if case.replay {
        replay(case, store, &mut found)
    } else {
        live(case, stores, store, &mut found)
    }
    for (id, times) in &found.committed {
        if *times > 1 {
            let about = found.ids.get(id).cloned().unwrap_or_default();
            found.faults.push(format!("{id} was issued {times} times: {about}"));
        }
    }
    found
}

fn replay(case: &Case, store: Arc<dyn Store>, found: &mut Found) {
    let mut rng = case.drive.clone();
    let plan = plan(case);
    let mut order: Vec<usize> = (0..case.deliveries.len()).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i as u64 + 1) as usize);
    }
    let mut keeper = Keeper::open(plan.clone(), store, Mode::Replay, limits(case), true).unwrap();
    for at in order {
        let delivery = case.deliveries[at];
        offer(&mut keeper, case, &plan, &case.events[delivery.event], delivery.arrival_ms);
        if rng.chance(20) {
            found.take(&keeper.commit(&[]).unwrap(), true);
        }
    }
    keeper.finish(case.events.iter().map(|e| e.time_ms).max().unwrap_or(0)).unwrap();
    found.take(&keeper.commit(&[]).unwrap(), true);
}

pub struct Reader<'a> {
    pub shards: Vec<Vec<(&'a Event, i64)>>,
    pub at: Vec<usize>,
}

impl<'a> Reader<'a> {
    pub fn new(case: &'a Case) -> Self {
        let mut reader = Self { shards: vec![vec![]; case.shards], at: vec![0; case.shards] };
        for delivery in &case.deliveries {
            reader.shards[delivery.shard].push((&case.events[delivery.event], delivery.arrival_ms));
        }
        reader
    }

    /// Minimum over shards of the arrival time up to which they have been read; a shard that is read to its end doesn't count.
    pub fn frontier(&self, end_ms: i64) -> i64 {
        let through = |(shard, at): (&Vec<(&Event, i64)>, &usize)| match (shard.get(*at), at.checked_sub(1)) {
            (None, _) => end_ms,
            (Some(_), None) => i64::MIN,
            (Some(_), Some(last)) => shard[last].1 - 1,
        };
        self.shards.iter().zip(&self.at).map(through).min().unwrap_or(end_ms)
    }

    pub fn positions(&self) -> Vec<(ShardId, Position)> {
        let position = |at: usize| Position::After { sequence: SequenceNumber::new(&at.to_string()), sub_sequence: 0 };
        self.at.iter().enumerate().map(|(i, at)| (ShardId(i.to_string().into()), position(*at))).collect()
    }

    pub fn resume(&mut self, store: &dyn Store) {
        self.at.iter_mut().for_each(|at| *at = 0);
        for (shard, position) in store.positions().unwrap() {
            let Position::After { sequence, .. } = position else { panic!("{position:?}") };
            self.at[shard.0.parse::<usize>().unwrap()] = sequence.as_str().parse().unwrap();
        }
    }
}

fn live(case: &Case, stores: &mut dyn Stores, store: Arc<dyn Store>, found: &mut Found) {
    let mut rng = case.drive.clone();
    let plan = plan(case);
    let mode = Mode::Live { start_ms: case.start_ms };
    let open = |store| Keeper::open(plan.clone(), store, mode, limits(case), true).unwrap();
    let mut reader = Reader::new(case);
    let mut keeper = open(store);
    // How far a caught-up consumer's clock has come.
    let now_ms = case.deliveries.iter().map(|d| d.arrival_ms).max().unwrap_or(0);
    let mut crashes = if case.crashes { 4 } else { 0 };
    loop {
        let open_shards: Vec<usize> = (0..case.shards).filter(|s| reader.at[*s] < reader.shards[*s].len()).collect();
        if open_shards.is_empty() {
            break;
        }
        let shard = rng.one(&open_shards);
        for _ in 0..1 + rng.below(3) {
            if let Some((event, arrival_ms)) = reader.shards[shard].get(reader.at[shard]) {
                offer(&mut keeper, case, &plan, event, *arrival_ms);
                reader.at[shard] += 1;
            }
        }
        if rng.chance(50) {
            keeper.advance(reader.frontier(now_ms)).unwrap();
        }
        if rng.chance(30) {
            found.take(&keeper.commit(&reader.positions()).unwrap(), true);
        }
        if crashes > 0 && rng.chance(15) {
            crashes -= 1;
            drop(keeper);
            let store = stores.reopen();
            reader.resume(&*store);
            keeper = open(store);
        }
    }
    // Time goes on without events, in steps or in one leap.
    let end_ms = end_ms(case);
    for step in 0..rng.below(4) as i64 {
        keeper.advance(now_ms + step * 1_000_000).unwrap();
        found.take(&keeper.commit(&reader.positions()).unwrap(), true);
    }
    keeper.advance(end_ms).unwrap();
    found.take(&keeper.commit(&reader.positions()).unwrap(), true);
    drop(keeper);
    let store = stores.reopen();
    let told: Vec<Alert> = store.outbox_list(usize::MAX).unwrap().into_iter().map(|(_, alert)| alert).collect();
    if told.iter().filter(|a| !a.resolved).count() != found.ids.len() {
        found.faults.push(format!("{} alerts in the outbox, {} were returned", told.len(), found.ids.len()));
    }
    found.take(&told, false);
}
