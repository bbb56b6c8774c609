//! Which rules can match, from the log source and the routing values alone.
//!
//! In: an event's log source and `Routing`. Out: the rules that three-valued evaluation doesn't rule out. Invariant: a rule left out
//! is false for every event with these values.

use std::collections::HashMap;

use super::Scratchpad;
use super::compile::{CompiledRule, KnownValues, MEMO_FIELDS, ROUTED_FIELDS};
use crate::event::{Body, Event, LogSource};

/// Remembered combinations of routing values; more empty the memo. Its keys are chosen by whoever calls AWS, hence also a keyed hash.
const MEMO_ENTRIES: usize = 1 << 14;
/// Remembered log sources.
const GROUPS: usize = 64;
/// A routing value longer than this isn't worth remembering.
const VALUE_BYTES: usize = 250;
/// Values that are too many to be remembered: tests on them are made anew.
const LATE_ROUTES: u8 = !((1 << MEMO_FIELDS) - 1);

#[derive(Debug, Default)]
pub(super) struct Index {
    groups: Vec<Group>,
    key: Vec<u8>,
}

#[derive(Debug)]
struct Group {
    product: Box<str>,
    service: Box<str>,
    category: Box<str>,
    rules: Box<[u32]>,
    /// By the first `MEMO_FIELDS` values.
    memo: Memo,
}

#[derive(Debug, Default)]
struct Memo {
    places: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    open: Vec<Open>,
}

/// What some routing values leave open.
#[derive(Debug)]
struct Open {
    rules: Box<[u32]>,
    /// The routes that these rules test.
    routes: u8,
}

/// Rules to be evaluated, in order.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    pub rules: Vec<u32>,
}

impl Index {
    /// Fills `survivors`; false if there are none.
    pub fn survivors(&mut self, rules: &[CompiledRule], event: &Event<'_>, pad: &mut Scratchpad, survivors: &mut Survivors) -> bool {
        survivors.rules.clear();
        let group = self.group(rules, &event.logsource);
        let Group { rules: all, memo, .. } = &mut self.groups[group];
        if all.is_empty() {
            return false;
        }
        let Some(known) = known(event) else {
            survivors.rules.extend_from_slice(all);
            return true;
        };
        if memo.open.len() >= MEMO_ENTRIES {
            memo.clear();
        }
        self.key.clear();
        (0..MEMO_FIELDS).for_each(|route| push(&mut self.key, known.get(route)));
        let open = memo.recall(&self.key, rules, all, &KnownValues { fields: MEMO_FIELDS, ..known }, pad);
        // What depends on remembered values only has been decided.
        let settled = open.routes & LATE_ROUTES == 0;
        let possible = |rule: &CompiledRule, pad: &mut Scratchpad| rule.routes & LATE_ROUTES == 0 || rule.root.on_known(&known, pad) != Some(false);
        survivors.rules.extend(open.rules.iter().copied().filter(|r| settled || possible(&rules[*r as usize], pad)));
        // One rule that finds its keys is enough for a parse, and then the others cost little.
        survivors.rules.iter().any(|r| rules[*r as usize].finds_its_keys(known.body))
    }

    fn group(&mut self, rules: &[CompiledRule], logsource: &LogSource<'_>) -> usize {
        let LogSource { product, service, category } = *logsource;
        let same = |g: &Group| *g.product == *product && *g.service == *service && *g.category == *category;
        if let Some(at) = self.groups.iter().position(same) {
            return at;
        }
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
    /// The rules among `all` that these values leave open. `key` stands for them.
    fn recall(&mut self, key: &[u8], rules: &[CompiledRule], all: &[u32], known: &KnownValues<'_>, pad: &mut Scratchpad) -> &Open {
        let place = match self.places.get(key) {
            Some(place) => *place,
            None => {
                let place = self.open.len() as u32;
                let open: Box<[u32]> = all.iter().copied().filter(|r| rules[*r as usize].root.on_known(known, pad) != Some(false)).collect();
                let routes = open.iter().fold(0, |routes, r| routes | rules[*r as usize].routes);
                self.open.push(Open { rules: open, routes });
                self.places.insert(key.into(), place);
                place
            }
        };
        &self.open[place as usize]
    }

    fn clear(&mut self) {
        self.places.clear();
        self.open.clear();
    }
}

/// A value's part of a key. The length makes the key unambiguous whatever bytes the values hold.
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

/// The routing values, if source and name are known and those that are remembered are short.
fn known<'a>(event: &'a Event<'a>) -> Option<KnownValues<'a>> {
    let (Body::Plain(body) | Body::Escaped(body)) = event.body else { return None };
    let known = KnownValues { body, routing: &event.routing, fields: ROUTED_FIELDS.len() };
    let mut values = (0..MEMO_FIELDS).map(|route| known.get(route));
    let usable = values.all(|value| value.is_none_or(|text| text.is_none_or(|text| text.len() <= VALUE_BYTES)));
    (usable && known.get(0).is_some() && known.get(1).is_some()).then_some(known)
}
