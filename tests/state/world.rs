//! Random rule sets, events and deliveries from a seed.
//!
//! In: a random number generator. Out: cases. Invariant: lateness stays within what the program promises for the case's kinds.
#![allow(dead_code)]

use trailwarden::rule::ast::{
    Alias, Comparison, Correlation, CorrelationKind, Expression, Extension, Level, LogSource, Meta, Rule, Scope, Span, Spanned, State,
};

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len() as u64) as usize]
    }

    pub fn one<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// An event that some rules match.
#[derive(Debug, Clone)]
pub struct Event {
    pub identity: [u8; 16],
    pub time_ms: i64,
    pub account: &'static str,
    /// `g`, `h`, `v`, `n`: no value is null.
    pub fields: Vec<(&'static str, Vec<&'static str>)>,
    /// Indexes of base rules.
    pub rules: Vec<usize>,
}

impl Event {
    pub fn field(&self, name: &str) -> &[&'static str] {
        self.fields.iter().find(|f| f.0 == name).map_or(&[], |f| &f.1)
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    pub event: usize,
    pub shard: usize,
    pub arrival_ms: i64,
}

#[derive(Debug, Clone)]
pub struct Case {
    pub replay: bool,
    pub rules: Vec<Rule>,
    pub correlations: Vec<Correlation>,
    pub events: Vec<Event>,
    pub deliveries: Vec<Delivery>,
    pub shards: usize,
    /// First start of the program.
    pub start_ms: i64,
    pub crashes: bool,
    /// So little that windows are read again from the store all the time.
    pub tight: bool,
    pub drive: Rng,
}

pub const SETTLE_MS: i64 = 300_000;
pub const LATENESS_MS: i64 = 3_600_000;
const T0: i64 = 1_700_000_000_000 / 3_600_000 * 3_600_000;

pub fn at<T>(value: T) -> Spanned<T> {
    Spanned { value, span: Span::default() }
}

pub fn meta(id: &str) -> Meta {
    Meta {
        id: Some(at(id.into())),
        name: Some(at(format!("name_{id}"))),
        title: at(format!("Title of {id}")),
        status: None,
        level: Level::High,
        tags: vec![],
        description: String::new(),
        author: String::new(),
        date: None,
        modified: None,
        references: vec![],
        false_positives: vec![],
        related: vec![],
        ext: Extension::default(),
        file: "case".into(),
        span: Span::default(),
    }
}

pub fn rule(id: &str) -> Rule {
    Rule { meta: meta(id), logsource: LogSource::default(), selections: vec![], conditions: vec![] }
}

pub fn correlation(id: &str, kind: CorrelationKind, rules: &[&str], group_by: &[&str], timespan_ms: u64) -> Correlation {
    let list = |items: &[&str]| items.iter().map(|i| at((*i).to_owned())).collect();
    Correlation {
        meta: meta(id),
        kind,
        rules: list(rules),
        group_by: list(group_by),
        aliases: vec![],
        timespan_ms,
        bounds: vec![],
        expression: None,
        generate: false,
    }
}

const SPANS_MS: [u64; 7] = [1_000, 10_000, 60_000, 600_000, 1_800_000, 3_600_000, 7_200_000];

fn groups(rng: &mut Rng) -> Vec<&'static str> {
    rng.one::<&[&'static str]>(&[&[], &["g"], &["g"], &["h"], &["g", "h"]]).to_vec()
}

fn bounds(rng: &mut Rng, low: f64, high: f64) -> Vec<(Comparison, f64)> {
    use Comparison::{Eq, Gt, Gte, Lt, Lte, Neq};
    let number = |rng: &mut Rng| low + (rng.below(((high - low) * 2.0) as u64 + 1) as f64) / 2.0;
    match rng.below(10) {
        0..=4 => vec![(Gte, number(rng).ceil())],
        5 => vec![(Gt, number(rng))],
        6 => vec![(Gte, number(rng)), (Lte, number(rng))],
        7 => vec![(rng.one(&[Lt, Lte]), number(rng))],
        8 => vec![(Eq, number(rng).ceil())],
        _ => vec![(Neq, number(rng).ceil())],
    }
}

fn expression(rng: &mut Rng, rules: usize, depth: u64, negate: bool) -> Expression {
    match rng.below(if depth == 0 { 1 } else { 4 }) {
        0 => Expression::Rule(rng.below(rules as u64) as usize),
        1 if negate => Expression::Not(Box::new(expression(rng, rules, depth - 1, negate))),
        2 => Expression::Or((0..2).map(|_| expression(rng, rules, depth - 1, negate)).collect()),
        _ => Expression::And((0..2).map(|_| expression(rng, rules, depth - 1, negate)).collect()),
    }
}

fn base_correlation(rng: &mut Rng, id: &str, names: &[&str], group_by: &[&str]) -> Correlation {
    let rules: Vec<&str> = (0..1 + rng.below(3)).map(|_| rng.pick(names)).collect();
    let n = || at("n".to_owned());
    let kind = match rng.below(8) {
        0 => CorrelationKind::EventCount,
        1 => CorrelationKind::ValueCount { fields: rng.one::<&[&str]>(&[&["v"], &["v"], &["v", "n"]]).iter().map(|f| at((*f).into())).collect() },
        2 => CorrelationKind::Temporal,
        3 | 4 => CorrelationKind::TemporalOrdered,
        5 => CorrelationKind::ValueSum { field: n() },
        6 => CorrelationKind::ValueAvg { field: n() },
        _ => CorrelationKind::ValuePercentile { field: n(), percentile: rng.one(&[1.0, 50.0, 90.0, 95.0, 100.0]) },
    };
    finish(rng, correlation(id, kind, &rules, group_by, 0))
}

/// Fills in span, bounds and expression.
fn finish(rng: &mut Rng, mut c: Correlation) -> Correlation {
    c.timespan_ms = rng.one(&SPANS_MS);
    c.generate = rng.chance(20);
    match &c.kind {
        CorrelationKind::EventCount | CorrelationKind::ValueCount { .. } => c.bounds = bounds(rng, 1.0, 4.0),
        CorrelationKind::Temporal if rng.chance(40) => {
            let negate = rng.chance(40);
            c.expression = Some(at(expression(rng, c.rules.len(), 2, negate)));
        }
        CorrelationKind::Temporal if rng.chance(40) => c.bounds = bounds(rng, 1.0, 3.0),
        CorrelationKind::TemporalOrdered if rng.chance(30) => c.expression = Some(at(expression(rng, c.rules.len(), 2, false))),
        CorrelationKind::Temporal | CorrelationKind::TemporalOrdered => {}
        CorrelationKind::ValueSum { .. } => c.bounds = bounds(rng, 0.0, 20.0),
        _ => c.bounds = bounds(rng, -1.0, 9.0),
    }
    c
}

fn with_aliases(rng: &mut Rng, mut c: Correlation) -> Correlation {
    if rng.chance(25) {
        c.group_by = vec![at("who".to_owned())];
        let named = |rule: &Spanned<String>, field: &str| (at(rule.value.clone()), at(field.to_owned()));
        // Two fields for one rule: the first counts.
        c.aliases = vec![Alias { name: at("who".into()), fields: c.rules.iter().map(|r| named(r, rng.one(&["g", "h"]))).collect() }];
    }
    c
}

fn state_rule(rng: &mut Rng, id: &str) -> Rule {
    let list = |items: Vec<&str>| items.into_iter().map(|i| at(i.to_owned())).collect::<Vec<_>>();
    let group_by = list(groups(rng));
    let span = rng.one(&SPANS_MS);
    let state = match rng.below(3) {
        0 => {
            let fields = list(rng.one::<&[&str]>(&[&["v"], &["v"], &["v", "h"]]).to_vec());
            State::NewValue { fields, group_by, memory_ms: span, learning_ms: rng.one(&[0, 60_000, 900_000]) }
        }
        1 => State::ValueDrop { field: at("n".into()), group_by, timespan_ms: span },
        _ => State::Absence { group_by, timespan_ms: span },
    };
    let mut made = rule(id);
    made.meta.ext.state = Some(at(state));
    made
}

/// Group-by names that a finding of `name` has.
fn finding_groups(name: &str, rules: &[Rule], correlations: &[Correlation]) -> Option<Vec<String>> {
    let texts = |fields: &[Spanned<String>]| fields.iter().map(|f| f.value.clone()).collect();
    if let Some(c) = correlations.iter().find(|c| c.meta.id.as_ref().unwrap().value == name) {
        return Some(texts(&c.group_by));
    }
    let rule = rules.iter().find(|r| r.meta.id.as_ref().unwrap().value == name)?;
    match &rule.meta.ext.state.as_ref()?.value {
        State::NewValue { group_by, .. } | State::ValueDrop { group_by, .. } | State::Absence { group_by, .. } => Some(texts(group_by)),
    }
}

fn chain(rng: &mut Rng, id: &str, rules: &[Rule], correlations: &[Correlation], plain: &[&str]) -> Correlation {
    let mut names: Vec<String> = correlations.iter().map(|c| c.meta.id.as_ref().unwrap().value.clone()).collect();
    names.extend(rules.iter().filter(|r| r.meta.ext.state.is_some()).map(|r| r.meta.id.as_ref().unwrap().value.clone()));
    let first = names[rng.below(names.len() as u64) as usize].clone();
    let mut group_by = finding_groups(&first, rules, correlations).unwrap();
    if rng.chance(50) {
        group_by.pop();
    }
    let fits = |name: &String| finding_groups(name, rules, correlations).is_some_and(|g| group_by.iter().all(|n| g.contains(n)));
    let mut children = vec![first];
    if rng.chance(50)
        && let Some(second) = names.iter().find(|n| fits(n) && **n != children[0])
    {
        children.push(second.clone());
    }
    // A plain rule has no field `who`.
    if rng.chance(40) && !group_by.iter().any(|g| g == "who") {
        children.push(rng.pick(plain).to_owned());
    }
    let kind = match rng.below(5) {
        0 | 1 => CorrelationKind::EventCount,
        2 if !group_by.is_empty() => CorrelationKind::ValueCount { fields: vec![at(group_by[0].clone())] },
        3 => CorrelationKind::Temporal,
        _ => CorrelationKind::TemporalOrdered,
    };
    let children: Vec<&str> = children.iter().map(String::as_str).collect();
    let group_by: Vec<&str> = group_by.iter().map(String::as_str).collect();
    let mut made = finish(rng, correlation(id, kind, &children, &group_by, 0));
    made.meta.ext.scope = Scope::Account;
    made
}

impl Case {
    pub fn new(rng: &mut Rng) -> Self {
        let plain = ["r0", "r1", "r2"];
        let mut rules: Vec<Rule> = plain.iter().map(|id| rule(id)).collect();
        for n in 0..rng.below(3) {
            rules.push(state_rule(rng, &format!("s{n}")));
        }
        let mut correlations = Vec::new();
        for n in 0..1 + rng.below(3) {
            let group_by = groups(rng);
            let made = base_correlation(rng, &format!("c{n}"), &plain, &group_by);
            correlations.push(with_aliases(rng, made));
        }
        for n in 0..rng.below(3) {
            let made = chain(rng, &format!("d{n}"), &rules, &correlations, &plain);
            correlations.push(made);
        }
        if rng.chance(20) {
            rules.iter_mut().for_each(|r| r.meta.ext.scope = Scope::Organization);
            correlations.iter_mut().for_each(|c| c.meta.ext.scope = Scope::Organization);
        }
        // Dense ones reach the thinning of fired cells.
        let count = if rng.chance(7) { 150 + rng.below(250) } else { 1 + rng.below(40) };
        Self::of(rng, rules, correlations, count)
    }

    /// Events and deliveries for these rules.
    pub fn of(rng: &mut Rng, rules: Vec<Rule>, correlations: Vec<Correlation>, count: u64) -> Self {
        let events = events(rng, rules.len(), count);
        let mut case = Self {
            replay: rng.chance(30),
            rules,
            correlations,
            events,
            deliveries: vec![],
            shards: 1 + rng.below(8) as usize,
            start_ms: 0,
            crashes: rng.chance(70),
            tight: rng.chance(40),
            drive: Rng(rng.next()),
        };
        case.start_ms = case.events.iter().map(|e| e.time_ms).min().unwrap() - rng.one(&[0, 30_000, 1_000_000]);
        case.deliver(rng);
        case
    }

    /// Settled kinds and `new_value` hold for events late by `settle` at most.
    fn strict(&self) -> bool {
        let lower = |c: &Correlation| c.bounds.iter().all(|b| matches!(b.0, Comparison::Gt | Comparison::Gte));
        let settled = |c: &Correlation| {
            !lower(c)
                || matches!(c.kind, CorrelationKind::ValueAvg { .. } | CorrelationKind::ValuePercentile { .. })
                || format!("{:?}", c.expression).contains("Not")
        };
        self.correlations.iter().any(settled)
            || self.rules.iter().any(|r| matches!(r.meta.ext.state.as_ref().map(|s| &s.value), Some(State::NewValue { .. })))
    }

    fn deliver(&mut self, rng: &mut Rng) {
        let most = if self.strict() { SETTLE_MS } else { LATENESS_MS };
        for (index, event) in self.events.iter().enumerate() {
            for _ in 0..(1 + rng.below(9)).saturating_sub(4).max(1) {
                let late = rng.one(&[0, most / 100, most / 3, most]);
                let arrival_ms = event.time_ms + rng.below(late as u64 + 1) as i64;
                self.deliveries.push(Delivery { event: index, shard: rng.below(self.shards as u64) as usize, arrival_ms });
            }
        }
        self.deliveries.sort_by_key(|d| d.arrival_ms);
    }

    pub fn without(&self, event: usize) -> Self {
        let mut case = self.clone();
        case.events.remove(event);
        case.deliveries.retain(|d| d.event != event);
        case.deliveries.iter_mut().filter(|d| d.event > event).for_each(|d| d.event -= 1);
        case
    }
}

fn events(rng: &mut Rng, rules: usize, count: u64) -> Vec<Event> {
    let spread = rng.one(&[5_000, 120_000, 1_800_000, 7_200_000, 30_000_000]);
    let start = T0 + rng.one(&[0, 1_800_000, 3_599_000]);
    let pool = rng.chance(10);
    let mut events = Vec::new();
    for n in 0..count {
        let mut identity = [0; 16];
        // Rarely one identity has two times, as findings of children always may.
        identity[..8].copy_from_slice(&(if pool { rng.below(6) } else { n + 1 }).to_be_bytes());
        let time_ms = start + rng.below(spread) as i64;
        let fields = vec![
            ("g", rng.one::<&[&str]>(&[&["a"], &["a"], &["a"], &["b"], &[], &["a", "b"], &[""]]).to_vec()),
            ("h", rng.one::<&[&str]>(&[&["x"], &["x"], &["y"], &[]]).to_vec()),
            ("v", rng.one::<&[&str]>(&[&["1"], &["2"], &["3"], &["4"], &[], &["1", "5"], &["1", "1"]]).to_vec()),
            ("n", rng.one::<&[&str]>(&[&["7"], &["3"], &["0"], &["-2"], &["2.5"], &["x"], &[], &["1", "9"]]).to_vec()),
        ];
        let mut matched: Vec<usize> = (0..rules).filter(|_| rng.chance(45)).collect();
        if matched.is_empty() {
            matched.push(rng.below(rules as u64) as usize);
        }
        events.push(Event {
            identity,
            time_ms: if rng.chance(85) { time_ms / 1000 * 1000 } else { time_ms },
            account: rng.one(&["111111111111", "111111111111", "111111111111", "222222222222"]),
            fields,
            rules: matched,
        });
    }
    events
}

/// A case as a person wants to read it.
impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |items: &[Spanned<String>]| items.iter().map(|i| i.value.as_str()).collect::<Vec<_>>().join(",");
        writeln!(f, "replay {} crashes {} shards {} start {} (times from {T0})", self.replay, self.crashes, self.shards, self.start_ms - T0)?;
        for r in self.rules.iter() {
            writeln!(
                f,
                "rule {} {:?} {}",
                r.meta.title.value,
                r.meta.ext.scope,
                format!("{:?}", r.meta.ext.state).replace("span: Span { start: 0, end: 0 }", "")
            )?;
        }
        for c in &self.correlations {
            let aliases = c.aliases.iter().flat_map(|a| &a.fields).map(|(r, f)| format!("{}:{}", r.value, f.value)).collect::<Vec<_>>();
            let expression = c.expression.as_ref().map(|e| &e.value);
            writeln!(
                f,
                "{} {:?} of {} by {} {aliases:?} in {} ms {:?} {expression:?} generate {}",
                c.meta.title.value,
                c.kind,
                list(&c.rules),
                list(&c.group_by),
                c.timespan_ms,
                c.bounds,
                c.generate
            )?;
        }
        for (i, e) in self.events.iter().enumerate() {
            let arrivals: Vec<_> = self.deliveries.iter().filter(|d| d.event == i).map(|d| (d.shard, d.arrival_ms - T0)).collect();
            writeln!(f, "event {i} id {} t {} {} rules {:?} {:?} arrives {arrivals:?}", e.identity[7], e.time_ms - T0, e.account, e.rules, e.fields)?;
        }
        Ok(())
    }
}
