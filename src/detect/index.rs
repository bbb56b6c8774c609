//! Which rules can match, from the log source and the routing values alone.
//!
//! In: an event's log source and `Routing`. Out: the rules that three-valued evaluation doesn't rule out. Invariant: a rule left out
//! is false for every event with these values.

use std::collections::HashMap;
use std::ops::Range;

use super::Scratchpad;
use super::compile::{ADDRESS_ROUTE, CompiledRule, Gate, KIND, KIND_ROUTE, KnownValues, MEMO_FIELDS, READ_ONLY, READ_ONLY_ROUTE, SOURCE, Told};
use super::latest::{Combination, Latest, same};
use super::need::{Keys, Looks, Text};
use crate::event::scan::{self, Level};
use crate::event::{Body, Event, Known, LogSource, derived};

/// Remembered combinations of routing values; more empty the memo. Its keys are chosen by whoever calls AWS, hence also a keyed hash.
const MEMO_ENTRIES: usize = 1 << 14;
/// Rules in all lists together; more empty the memo as well.
const MEMO_RULES: usize = 1 << 19;
/// Bytes of the keys and rules of remembered verdicts; more empty them.
const VERDICT_BYTES: usize = 8 << 20;
/// From this weight on a verdict is found faster than made.
const VERDICTS_FROM: u32 = 20;
/// Remembered log sources.
const GROUPS: usize = 64;
/// A routing value longer than this isn't worth remembering.
const VALUE_BYTES: usize = 250;
/// Values with more combinations than lists are worth keeping for. What they leave of a list is remembered by itself.
const LATE_ROUTES: u16 = !((1 << MEMO_FIELDS) - 1);

#[derive(Debug, Default)]
pub(super) struct Index {
    groups: Vec<Group>,
    /// The group of the last event.
    last: usize,
    key: Vec<u8>,
    kinds: Kinds,
    block: Vec<u8>,
    left: Vec<u32>,
    looks: Looks,
}

/// An engine's rules, and the keys that they need.
type Rules<'a> = (&'a [CompiledRule], &'a Keys);

/// `derived.principal.kind` of callers that were read, by all that it is made of.
#[derive(Debug, Default)]
struct Kinds {
    kinds: HashMap<Box<[u8]>, Box<[u8]>, foldhash::fast::RandomState>,
    key_bytes: usize,
}

#[derive(Debug)]
struct Group {
    product: Box<str>,
    service: Box<str>,
    category: Box<str>,
    /// All that fit the log source.
    rules: Box<[u32]>,
    memo: Memo,
}

/// The rules that some values leave open, by the first `MEMO_FIELDS` of them. Most values share a list with others.
#[derive(Debug, Default)]
struct Memo {
    latest: Latest,
    places: HashMap<Box<[u8]>, Place, foldhash::fast::RandomState>,
    lists: Vec<Open>,
    /// By the rules and the identities of their gates.
    same: HashMap<Box<[u64]>, u32, foldhash::fast::RandomState>,
    /// In all lists together.
    rules: usize,
    verdicts: Verdicts,
}

/// What `MEMO_FIELDS` values lead to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// 0 is the list of no rules.
    pub list: u32,
    /// Its own for each combination of values.
    pub serial: u32,
}

/// The rules of a list that the late values leave open, by the values that the list asks for. Who calls whom from where with what
/// recurs, so that few events have their values tested.
#[derive(Debug, Default)]
struct Verdicts {
    ranges: HashMap<Box<[u8]>, Range<usize>, foldhash::fast::RandomState>,
    rules: Vec<u32>,
    /// Of all keys.
    key_bytes: usize,
}

/// What some routing values leave open.
#[derive(Debug)]
struct Open {
    rules: Box<[OpenRule]>,
    /// The routes that these rules test.
    routes: u16,
    /// What tests of late values cost, by `CompiledRule::late_weight`.
    weight: u32,
}

#[derive(Debug)]
struct OpenRule {
    rule: u32,
    /// No late value matters to it.
    settled: bool,
    /// Looked at before the whole rule is.
    gates: Box<[Gate]>,
}

/// Rules to be evaluated, in order.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    pub rules: Vec<u32>,
    /// A caller whose kind is to be learned from the parse, if not empty.
    caller: Vec<u8>,
}

impl Index {
    /// Fills `survivors`; false if there are none.
    pub fn survivors(&mut self, of: Rules<'_>, event: &Event<'_>, pad: &mut Scratchpad, survivors: &mut Survivors) -> bool {
        survivors.rules.clear();
        survivors.caller.clear();
        let (rules, _) = of;
        let group = self.group(rules, &event.logsource);
        let Group { rules: all, memo, .. } = &mut self.groups[group];
        if all.is_empty() {
            return false;
        }
        let (Body::Plain(body) | Body::Escaped(body)) = event.body else {
            survivors.rules.extend_from_slice(all);
            return true;
        };
        let combination = Combination::of(body, &event.routing);
        let known = KnownValues::of(body, &event.routing);
        let place = match combination.as_ref().and_then(|combination| memo.latest.find(combination)) {
            Some(place) => place,
            None => {
                let Some(place) = memo.place_of(&known, rules, all, &mut self.key, pad) else {
                    survivors.rules.extend_from_slice(all);
                    return true;
                };
                combination.iter().for_each(|combination| memo.latest.keep(combination, place));
                place
            }
        };
        place.list != 0 && self.narrow(of, event, (group, place), &known, pad, survivors)
    }

    /// Fills `survivors` from the list at `at`, with what the other values leave of it. Apart, so that the common way stays short.
    #[inline(never)]
    fn narrow(
        &mut self,
        (rules, keys): Rules<'_>,
        event: &Event<'_>,
        at: (usize, Place),
        known: &KnownValues<'_>,
        pad: &mut Scratchpad,
        survivors: &mut Survivors,
    ) -> bool {
        let (group, place) = at;
        let memo = &mut self.groups[group].memo;
        let open = &memo.lists[place.list as usize];
        let mut keyed = false;
        if open.routes & LATE_ROUTES == 0 {
            survivors.rules.extend(open.rules.iter().map(|open| open.rule));
        } else {
            keyed = open.weight >= VERDICTS_FROM && late_key(known, place, open.routes, &mut self.key);
            let mut judge = |left: &mut Vec<u32>| {
                let source = if open.routes & SOURCE == 0 { [None; 2] } else { source(known, &mut self.block) };
                open.judge(rules, &KnownValues { source, ..*known }, pad, left);
            };
            if keyed {
                memo.verdicts.recall(&self.key, judge, &mut survivors.rules);
            } else {
                judge(&mut survivors.rules);
            }
        }
        if survivors.rules.is_empty() {
            return false;
        }
        let asks = |rule: &u32| rules[*rule as usize].routes & (READ_ONLY | KIND);
        let asked = survivors.rules.iter().fold(0, |asked, rule| asked | asks(rule));
        if asked != 0 {
            let read_only = if asked & READ_ONLY == 0 { Known::Unknown } else { read_only(event) };
            let kind = if asked & KIND == 0 { None } else { self.kinds.recall(known, &mut survivors.caller) };
            let source = if open.routes & SOURCE == 0 { [None; 2] } else { source(known, &mut self.block) };
            let known = KnownValues { read_only, kind, source, ..*known };
            let stays = |rule: &u32| asks(rule) == 0 || rules[*rule as usize].root.on_known(&known, pad) != Some(false);
            if keyed {
                // Behind the values of the first verdict these two make the key of another.
                push(&mut self.key, known.get(KIND_ROUTE));
                push(&mut self.key, known.get(READ_ONLY_ROUTE));
                std::mem::swap(&mut self.left, &mut survivors.rules);
                survivors.rules.clear();
                memo.verdicts.recall(&self.key, |left| left.extend(self.left.iter().copied().filter(stays)), &mut survivors.rules);
            } else {
                survivors.rules.retain(stays);
            }
        }
        // One rule that finds its keys is enough for a parse, and then the others cost little.
        let level = if matches!(event.body, Body::Escaped(_)) { Level::Escaped } else { Level::Plain };
        let mut text = Text::new(known.body, level, &event.routing, keys, &mut self.looks);
        survivors.rules.iter().any(|rule| rules[*rule as usize].needs.could_hold(&mut text, pad))
    }

    /// After a parse: the kind of the caller of `survivors`.
    pub fn learn(&mut self, survivors: &Survivors, kind: Option<&[u8]>) {
        if let (Some(kind), false) = (kind, survivors.caller.is_empty()) {
            self.kinds.learn(&survivors.caller, kind);
        }
    }

    #[inline]
    fn group(&mut self, rules: &[CompiledRule], logsource: &LogSource<'_>) -> usize {
        let LogSource { product, service, category } = *logsource;
        let words = [product, service, category];
        let fits = |g: &Group| [&g.product, &g.service, &g.category].iter().zip(words).all(|(own, word)| same(own.as_bytes(), word.as_bytes()));
        if !self.groups.get(self.last).is_some_and(fits) {
            self.last = self.groups.iter().position(fits).unwrap_or_else(|| self.new_group(rules, words));
        }
        self.last
    }

    #[cold]
    fn new_group(&mut self, rules: &[CompiledRule], words: [&str; 3]) -> usize {
        let [product, service, category] = words;
        let fits =
            |rule: &CompiledRule| rule.logsource.iter().zip([product, service, category]).all(|(want, is)| want.as_deref().is_none_or(|w| w == is));
        let rules = (0u32..).zip(rules).filter(|(_, rule)| fits(rule)).map(|(index, _)| index).collect();
        if self.groups.len() >= GROUPS {
            self.groups.clear();
        }
        let [product, service, category] = [product, service, category].map(Box::from);
        self.groups.push(Group { product, service, category, rules, memo: Memo::default() });
        self.groups.len() - 1
    }
}

impl Memo {
    /// `None` where source or name is unknown, or a value too long to be remembered.
    fn place_of(&mut self, known: &KnownValues<'_>, rules: &[CompiledRule], all: &[u32], key: &mut Vec<u8>, pad: &mut Scratchpad) -> Option<Place> {
        let values: [Told<'_>; MEMO_FIELDS] = std::array::from_fn(|route| known.get(route));
        let usable = values.iter().all(|value| value.is_none_or(|text| text.is_none_or(|text| text.len() <= VALUE_BYTES)));
        if !usable || values[0].is_none() || values[1].is_none() {
            return None;
        }
        if self.places.len() >= MEMO_ENTRIES || self.rules >= MEMO_RULES {
            *self = Self::default();
        }
        key.clear();
        values.into_iter().for_each(|value| push(key, value));
        Some(match self.places.get(key.as_slice()) {
            Some(place) => *place,
            None => self.find(key, rules, all, &KnownValues { fields: MEMO_FIELDS, ..*known }, pad),
        })
    }

    /// The rules among `all` that these values leave open, found for the first time. `key` stands for them.
    #[cold]
    fn find(&mut self, key: &[u8], rules: &[CompiledRule], all: &[u32], known: &KnownValues<'_>, pad: &mut Scratchpad) -> Place {
        let open = |rule: &u32| rules[*rule as usize].root.on_known(known, pad) != Some(false);
        let open: Vec<u32> = all.iter().copied().filter(open).collect();
        let place = Place { list: self.place(&open, rules, known, pad), serial: self.places.len() as u32 };
        self.places.insert(key.into(), place);
        place
    }

    /// The list of these rules, each with what these values leave to be looked at.
    fn place(&mut self, open: &[u32], rules: &[CompiledRule], known: &KnownValues<'_>, pad: &mut Scratchpad) -> u32 {
        let mut key = Vec::new();
        let mut list = Vec::with_capacity(open.len());
        let mut routes = 0;
        for &rule in open {
            let CompiledRule { root, routes: own, .. } = &rules[rule as usize];
            let mut gates = Vec::new();
            root.gates(true, known, pad, &mut gates);
            routes |= own;
            key.push(u64::from(rule));
            key.extend(gates.iter().map(Gate::identity));
            list.push(OpenRule { rule, settled: own & LATE_ROUTES == 0, gates: gates.into() });
        }
        if self.lists.is_empty() {
            self.lists.push(Open { rules: Box::default(), routes: 0, weight: 0 });
            self.same.insert(Box::default(), 0);
        }
        let next = self.lists.len() as u32;
        *self.same.entry(key.into()).or_insert_with(|| {
            self.rules += list.len();
            let weight = open.iter().map(|rule| rules[*rule as usize].late_weight).sum();
            self.lists.push(Open { rules: list.into(), routes, weight });
            next
        })
    }
}

impl Open {
    /// Appends the rules that the values leave open.
    fn judge(&self, rules: &[CompiledRule], known: &KnownValues<'_>, pad: &mut Scratchpad, left: &mut Vec<u32>) {
        for OpenRule { rule, settled, gates } in &self.rules {
            let possible =
                *settled || gates.iter().all(|gate| gate.is_open(known, pad)) && rules[*rule as usize].root.on_known(known, pad) != Some(false);
            if possible {
                left.push(*rule);
            }
        }
    }
}

impl Verdicts {
    /// Appends what `key` stands for to `left`; `judge` does so where it isn't known.
    fn recall(&mut self, key: &[u8], judge: impl FnOnce(&mut Vec<u32>), left: &mut Vec<u32>) {
        if let Some(range) = self.ranges.get(key) {
            left.extend_from_slice(&self.rules[range.clone()]);
            return;
        }
        if self.key_bytes + self.rules.len() * size_of::<u32>() > VERDICT_BYTES {
            *self = Self::default();
        }
        let begin = self.rules.len();
        judge(&mut self.rules);
        left.extend_from_slice(&self.rules[begin..]);
        self.key_bytes += key.len();
        self.ranges.insert(key.into(), begin..self.rules.len());
    }
}

impl Kinds {
    /// The caller's kind, if its identity is all in one place and was read before; else what to learn it by is left in `caller`.
    fn recall(&self, known: &KnownValues<'_>, caller: &mut Vec<u8>) -> Told<'_> {
        let routing = known.routing;
        let identity = routing.identity.text(known.body)?;
        if [routing.from_console, routing.service_event] != [Known::Missing; 2] {
            return None;
        }
        for value in [routing.user_agent, routing.source_address] {
            push(caller, Some(Some(value.text(known.body).filter(|text| text.len() <= VALUE_BYTES)?)));
        }
        caller.extend_from_slice(identity);
        let kind = self.kinds.get(caller.as_slice())?;
        caller.clear();
        Some(Some(kind))
    }

    fn learn(&mut self, caller: &[u8], kind: &[u8]) {
        if self.key_bytes > VERDICT_BYTES {
            *self = Self::default();
        }
        self.key_bytes += caller.len();
        self.kinds.insert(caller.into(), kind.into());
    }
}

/// `derived.source.…`, if the address is known. `block`: room for it.
fn source<'a>(known: &KnownValues<'a>, block: &'a mut Vec<u8>) -> [Told<'a>; 2] {
    let Some(address) = known.get(ADDRESS_ROUTE) else { return [None; 2] };
    derived::network_block(address.unwrap_or_default(), block);
    [Some(address.map(|address| derived::network_class(address).as_bytes())), Some((!block.is_empty()).then_some(block.as_slice()))]
}

/// The key of a verdict: the late values that `routes` ask for. False where they aren't worth remembering.
fn late_key(known: &KnownValues<'_>, place: Place, routes: u16, key: &mut Vec<u8>) -> bool {
    key.clear();
    key.extend_from_slice(&place.serial.to_le_bytes());
    (MEMO_FIELDS..READ_ONLY_ROUTE).filter(|route| routes >> route & 1 == 1).all(|route| {
        let value = known.get(route);
        let short = value.is_none_or(|text| text.is_none_or(|text| text.len() <= VALUE_BYTES));
        if short {
            push(key, value);
        }
        short
    })
}

/// A value's part of a key. The length makes the key unambiguous whatever bytes the values hold.
#[inline]
fn push(key: &mut Vec<u8>, value: Option<Option<&[u8]>>) {
    match value {
        None => key.push(0),
        Some(None) => key.push(1),
        Some(Some(text)) => {
            key.push(2 + text.len() as u8);
            key.extend_from_slice(text);
        }
    }
}

fn read_only(event: &Event<'_>) -> Known {
    match event.body {
        Body::Plain(body) => scan::read_only(body, Level::Plain),
        Body::Escaped(body) => scan::read_only(body, Level::Escaped),
        Body::Fields { .. } => Known::Unknown,
    }
}
