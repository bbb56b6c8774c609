//! What the property test can't see: incidents, late alerts, expiry, quotas, learning across restarts, words.

use std::{ops::ControlFlow, sync::Arc};

use super::*;
use crate::{
    alert::Level,
    correlate::plan::tests::{at, correlation, rule},
    rule::ast::{Comparison, Correlation, CorrelationKind, Rule, State},
    store::MemoryStore,
};

const HOUR: i64 = 3_600_000;
const T0: i64 = 1_700_000_000_000 / HOUR * HOUR;

/// A keeper over one rule set, and how matches get into it.
struct Bench {
    plan: Arc<Plan>,
    store: Arc<MemoryStore>,
    limits: Limits,
    keeper: Keeper,
    events: u64,
}

impl Bench {
    fn new(rules: &[Rule], correlations: &[Correlation], limits: Limits) -> Self {
        let plan = Arc::new(Plan::compile(rules, correlations).unwrap());
        let store = Arc::new(MemoryStore::new());
        let keeper = Keeper::open(plan.clone(), store.clone(), Mode::Live { start_ms: T0 }, limits, true).unwrap();
        Self { plan, store, limits, keeper, events: 0 }
    }

    fn restart(&mut self) {
        let mode = Mode::Live { start_ms: T0 + 100 * HOUR };
        self.keeper = Keeper::open(self.plan.clone(), self.store.clone(), mode, self.limits, true).unwrap();
    }

    /// A match of rule 0, `group` and `value` as its fields; true if it was known.
    fn see(&mut self, time_ms: i64, group: &str, value: &str) -> bool {
        self.events += 1;
        self.see_as(self.events, time_ms, group, value)
    }

    fn see_as(&mut self, event: u64, time_ms: i64, group: &str, value: &str) -> bool {
        let mut known = Vec::new();
        self.keeper.offer(&seen(&self.plan, event, time_ms, group, value), &mut known).unwrap();
        known[0]
    }

    fn commit(&mut self, frontier_ms: i64) -> Vec<Alert> {
        self.keeper.advance(frontier_ms).unwrap();
        self.keeper.commit(&[]).unwrap()
    }
}

/// A match of rule 0.
fn seen(plan: &Plan, event: u64, time_ms: i64, group: &str, value: &str) -> Inputs {
    let feed = &plan.feeds(0)[0];
    let mut inputs = Inputs::default();
    let id = format!("event {event}");
    inputs.push(Head {
        feed: feed.id,
        time_ms,
        arrival_ms: time_ms,
        identity: digest(&[id.as_bytes()]),
        account: "111122223333",
        region: "eu-west-1",
        event_id: &id,
        source: "rds.amazonaws.com",
        name: "DeleteDBSnapshot",
        summary: "one line",
    });
    feed.group_by.iter().for_each(|_| inputs.field([group]));
    feed.values.iter().for_each(|_| inputs.field([value]));
    inputs
}

fn count(least: f64) -> Correlation {
    let mut c = correlation("c", CorrelationKind::EventCount, &["a"], &["g"]);
    c.bounds = vec![(Comparison::Gte, least)];
    c
}

fn stateful(state: State) -> Rule {
    let mut made = rule("a");
    made.meta.ext.state = Some(at(state));
    made
}

#[test]
fn a_burst_across_hours_is_one_incident() {
    let mut bench = Bench::new(&[rule("a")], &[count(2.0)], Limits::default());
    let mut told = Vec::new();
    // Hours 0, 1 and 2 without a break, then hour 5.
    for minute in (0..180).step_by(10).chain([310, 311]) {
        bench.see(T0 + minute * 60_000, "g", "");
        bench.see(T0 + minute * 60_000 + 1, "g", "");
        told.extend(bench.commit(T0 + minute * 60_000));
    }
    let ids: Vec<_> = told.iter().map(|a| &a.id).collect();
    let incidents: Vec<_> = told.iter().map(|a| &a.incident).collect();
    assert_eq!(incidents, [ids[0], ids[0], ids[0], ids[3]]);
    assert_eq!((bench.keeper.counts().incidents, bench.store.outbox_len().unwrap()), (2, 4));
}

#[test]
fn an_alert_tells_its_evidence() {
    let mut c = count(3.0);
    c.meta.ext.summary = Some(at("{count} deletions by {g}, {unknown}".into()));
    let mut bench = Bench::new(&[rule("a")], &[c], Limits::default());
    for n in 0..3 {
        bench.see(T0 + n * 1000, "mallory", "");
    }
    let alerts = bench.commit(T0 + 3000);
    let alert = &alerts[0];
    assert_eq!((alert.summary.as_str(), alert.count), ("3 deletions by mallory, {unknown}", 3));
    assert_eq!((alert.account.as_str(), alert.region.as_str(), alert.time_ms), ("111122223333", "eu-west-1", T0 + 2000));
    assert_eq!(alert.events.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["event 1", "event 2", "event 3"]);
    assert_eq!(alert.group, [("g".to_owned(), "mallory".to_owned())]);
    assert_eq!(bench.store.outbox_list(9).unwrap()[0].1, *alert);
    assert_eq!(bench.commit(T0 + HOUR), []);
}

#[test]
fn repeats_are_known() {
    let mut bench = Bench::new(&[rule("a")], &[count(9.0)], Limits::default());
    assert!(!bench.see_as(1, T0, "g", "") && bench.see_as(1, T0, "g", "") && !bench.see_as(1, T0, "h", ""));
    bench.commit(T0);
    bench.restart();
    assert!(bench.see_as(1, T0, "g", ""));
    assert_eq!((bench.keeper.held().groups, bench.keeper.held().items), (2, 2));
}

#[test]
fn what_comes_after_its_judgement_is_late() {
    let mut c = correlation("c", CorrelationKind::EventCount, &["a"], &["g"]);
    c.bounds = vec![(Comparison::Lt, 2.0)];
    let mut bench = Bench::new(&[rule("a")], &[c], Limits::default());
    bench.see(T0, "g", "");
    assert_eq!(bench.commit(T0 + 299_999), [], "not settled yet");
    assert_eq!(bench.commit(T0 + 300_000).iter().map(|a| a.late).collect::<Vec<_>>(), [false]);
    bench.see(T0 - HOUR / 2, "g", "");
    assert_eq!(bench.commit(T0 + 300_000).iter().map(|a| a.late).collect::<Vec<_>>(), [true]);
}

#[test]
fn evidence_expires_behind_the_frontier() {
    let mut bench = Bench::new(&[rule("a")], &[count(2.0)], Limits::default());
    bench.see(T0, "g", "");
    bench.commit(T0 + HOUR + 60_000);
    assert_eq!(bench.keeper.held().groups, 1, "an event as late as is allowed can still need it");
    bench.commit(T0 + 2 * HOUR);
    assert_eq!((bench.keeper.held().groups, bench.keeper.held().items), (0, 0));
    assert!(!bench.see(T0, "g", ""));
    assert_eq!((bench.keeper.counts().expired, bench.commit(T0 + 2 * HOUR).len()), (1, 0));
}

#[test]
fn a_full_quota_is_told_and_spares_the_odd_size() {
    let limits = Limits { quota_items: 200, ..Limits::default() };
    let mut bench = Bench::new(&[rule("a")], &[count(5.0)], limits);
    (0..4).for_each(|n| {
        bench.see(T0 + n, "attacker", "");
    });
    for n in 0..1000 {
        bench.see(T0 + 10 + n, &format!("junk {n}"), "");
    }
    bench.see(T0 + 2000, "attacker", "");
    let alerts = bench.commit(T0 + 2000);
    let told: Vec<_> = alerts.iter().map(|a| (a.rule.id.as_str(), a.rule.level)).collect();
    assert_eq!(told, [("trailwarden-state-quota", Level::High), ("c", Level::High)], "{alerts:?}");
    assert!(bench.keeper.counts().evicted >= 800 && bench.keeper.held().items <= 200);
    assert!(alerts[0].summary.contains("its quota of 200 items is full"));
    let meters = bench.keeper.take_meters();
    let [(rule, meter)] = &meters[..] else { panic!("one correlation worked: {meters:?}") };
    let counts = bench.keeper.counts();
    assert_eq!((rule.as_str(), meter.lost, meter.matches), ("c", counts.evicted, counts.evidence));
    assert!(!meter.cost.is_zero());
    assert_eq!(bench.keeper.take_meters(), [], "told once");
}

#[test]
fn learning_ends_once() {
    let new =
        State::NewValue { fields: vec![at("v".into())], group_by: vec![at("g".into())], memory_ms: 90 * 24 * 3_600_000, learning_ms: 3_600_000 };
    let mut bench = Bench::new(&[stateful(new)], &[], Limits::default());
    bench.see(T0 + 1000, "g", "old");
    assert_eq!(bench.commit(T0 + HOUR / 2), []);
    bench.restart();
    bench.see(T0 + HOUR + 1000, "g", "old");
    bench.see(T0 + HOUR + 2000, "g", "new");
    assert_eq!(bench.commit(T0 + HOUR + 2000), [], "an event of the learning time may still come");
    let alerts = bench.commit(T0 + HOUR + 302_000);
    assert_eq!(alerts.iter().map(|a| (a.summary.as_str(), a.group[1].1.as_str())).collect::<Vec<_>>(), [("one line", "new")]);
    bench.see(T0 + 2 * HOUR, "g", "newer");
    assert_eq!(bench.commit(T0 + 2 * HOUR).len(), 1, "at once from then on");
}

#[test]
fn a_lagging_shard_may_still_join_a_value_to_what_was_learnt() {
    let new = State::NewValue { fields: vec![at("v".into())], group_by: vec![at("g".into())], memory_ms: 3_600_000, learning_ms: 3_600_000 };
    let mut bench = Bench::new(&[stateful(new)], &[], Limits::default());
    bench.see(T0 + HOUR / 2, "g", "daily");
    assert_eq!(bench.commit(T0 + HOUR + 301_000), []);
    // One shard is hours ahead of the frontier; what lies between is read later.
    bench.see(T0 + 3 * HOUR, "g", "daily");
    assert_eq!(bench.commit(T0 + HOUR + 301_000), []);
    for minute in [85, 140] {
        bench.see(T0 + minute * 60_000, "g", "daily");
    }
    assert_eq!(bench.commit(T0 + 4 * HOUR), []);
}

#[test]
fn a_silent_group_is_told_and_resolved_across_a_restart() {
    let mut bench = Bench::new(&[stateful(State::Absence { group_by: vec![], timespan_ms: 600_000 })], &[], Limits::default());
    bench.see(T0, "", "");
    bench.see(T0 + 60_000, "", "");
    assert_eq!(bench.commit(T0 + 660_000), []);
    bench.restart();
    let silent = bench.commit(T0 + 660_001);
    assert_eq!(silent.iter().map(|a| (a.time_ms, a.resolved)).collect::<Vec<_>>(), [(T0 + 60_000, false)]);
    assert_eq!(bench.commit(T0 + HOUR), [], "told once");
    bench.see(T0 + HOUR, "", "");
    let over = bench.commit(T0 + HOUR);
    assert_eq!(over.iter().map(|a| (&a.incident, a.resolved)).collect::<Vec<_>>(), [(&silent[0].incident, true)]);
    assert_eq!(bench.commit(T0 + HOUR + 600_001).len(), 1, "and again");
}

#[test]
fn an_edited_threshold_keeps_the_evidence() {
    let mut bench = Bench::new(&[rule("a")], &[count(5.0)], Limits::default());
    bench.see(T0, "g", "");
    bench.see(T0 + 1, "g", "");
    bench.commit(T0);
    for (least, span, expected) in [(3.0, 60_000, 1), (3.0, 61_000, 0)] {
        let mut edited = count(least);
        edited.timespan_ms = span;
        bench.plan = Arc::new(Plan::compile(&[rule("a")], &[edited]).unwrap());
        bench.restart();
        bench.see(T0 + 2, "g", "");
        assert_eq!(bench.keeper.commit(&[]).unwrap().len(), expected, "timespan {span}");
    }
}

#[test]
fn a_fired_cell_keeps_little() {
    let mut bench = Bench::new(&[rule("a")], &[count(3.0)], Limits::default());
    for n in 0..2000 {
        bench.see(T0 + n, "g", "");
    }
    assert_eq!(bench.commit(T0 + 2000).len(), 1);
    assert!(bench.keeper.held().items < 150, "{}", bench.keeper.held().items);
    let looked = groups(&*bench.store, 10).unwrap();
    assert_eq!((looked.len(), looked[0].items, looked[0].newest_ms), (1, bench.keeper.held().items, T0 + 1999));
}

#[test]
fn a_single_events_finding_is_told_once_and_grouped() {
    let mut bench = Bench::new(&[rule("a")], &[], Limits::default());
    let mut single = |identity: u8, group: &str, time_ms| {
        let mut alert = crate::store::tests::alert(0, Level::High, time_ms);
        alert.group = if group.is_empty() { vec![] } else { vec![("g".into(), group.into())] };
        let known = bench.keeper.alert(Single { alert, identity: [identity; 16], organization: false }).unwrap();
        (known, bench.keeper.commit(&[]).unwrap().first().map(|a| (a.id.clone(), a.incident.clone())))
    };
    let first = single(1, "", T0).1.unwrap();
    assert_eq!(first.0, first.1);
    assert_eq!(single(1, "", T0), (true, None));
    let grouped = single(2, "x", T0).1.unwrap();
    assert_eq!(single(3, "x", T0 + HOUR).1.unwrap().1, grouped.0);
    let other = single(4, "y", T0).1.unwrap();
    assert_eq!(other.0, other.1);
}

/// A fleet's store keeps rows until its own expiry takes them: nothing may hang on that.
#[test]
fn shared_rows_past_their_keeping_count_for_nothing() {
    let bench = Bench::new(&[rule("a")], &[count(2.0)], Limits::default());
    let mut shared = SharedKeeper::open(bench.plan.clone(), bench.store.clone(), T0, bench.limits).unwrap();
    let single = |shared: &mut SharedKeeper| {
        let alert = crate::store::tests::alert(0, Level::High, T0);
        let known = shared.alert(Single { alert, identity: [1; 16], organization: false }).unwrap();
        (known, shared.commit(&[], &[]).unwrap().len())
    };
    assert_eq!([single(&mut shared), single(&mut shared)], [(false, 1), (true, 0)]);
    shared.lead_to(T0 + 23 * HOUR).unwrap();
    assert_eq!(single(&mut shared), (true, 0));
    shared.lead_to(T0 + 25 * HOUR).unwrap();
    assert_eq!(single(&mut shared), (false, 1), "the row is there still, but past its keeping");
}

#[test]
fn a_shared_group_is_bounded_and_its_loss_told() {
    let limits = Limits { quota_items: 50, ..Limits::default() };
    let bench = Bench::new(&[rule("a")], &[count(1000.0)], limits);
    let mut shared = SharedKeeper::open(bench.plan.clone(), bench.store.clone(), T0, limits).unwrap();
    for n in 0..200 {
        shared.offer(&seen(&bench.plan, n, T0 + n as i64, "g", ""), &mut Vec::new()).unwrap();
    }
    let alerts = shared.commit(&[], &[]).unwrap();
    assert_eq!(alerts.iter().map(|a| a.rule.id.as_str()).collect::<Vec<_>>(), ["trailwarden-state-quota"]);
    let mut items = 0;
    let visit = &mut |_: &[u8], _: &[u8]| {
        items += 1;
        ControlFlow::Continue(())
    };
    bench.store.scan(Table::Evidence, &[], &[], visit).unwrap();
    assert!(items <= 50 && shared.counts().evicted == 200 - items, "{items} items, {} evicted", shared.counts().evicted);
}

/// A new rule comes to one worker before the leader has it.
#[test]
fn a_leader_leaves_the_timers_of_rules_that_it_does_not_know() {
    let mut few = count(3.0);
    few.bounds = vec![(Comparison::Lt, 3.0)];
    let bench = Bench::new(&[rule("a")], &[few], Limits::default());
    let mut other = correlation("d", CorrelationKind::EventCount, &["a"], &["h"]);
    other.bounds = vec![(Comparison::Gte, 5.0)];
    let old = Arc::new(Plan::compile(&[rule("a")], &[other]).unwrap());
    let open = |plan: &Arc<Plan>| SharedKeeper::open(plan.clone(), bench.store.clone(), T0, bench.limits).unwrap();
    let (mut new, mut leader) = (open(&bench.plan), open(&old));
    let timers = || {
        let mut count = 0;
        let visit = &mut |_: &[u8], _: &[u8]| {
            count += 1;
            ControlFlow::Continue(())
        };
        bench.store.scan(Table::Timers, &[], &[], visit).unwrap();
        count
    };
    new.offer(&seen(&bench.plan, 1, T0, "g", ""), &mut Vec::new()).unwrap();
    new.commit(&[], &[]).unwrap();
    for minutes in [30, 31] {
        leader.lead_to(T0 + minutes * 60_000).unwrap();
        assert_eq!((timers(), leader.commit(&[], &[]).unwrap().len()), (1, 0));
    }
    new.lead_to(T0 + 40 * 60_000).unwrap();
    assert_eq!((timers(), new.commit(&[], &[]).unwrap().len()), (0, 1));
    new.offer(&seen(&bench.plan, 2, T0 + HOUR, "g", ""), &mut Vec::new()).unwrap();
    new.commit(&[], &[]).unwrap();
    leader.lead_to(T0 + 4 * HOUR).unwrap();
    assert_eq!(timers(), 0, "not for ever");
}
