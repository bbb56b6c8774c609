//! Which rules can match, from the log source and the routing values alone.
//!
//! In: an event's log source and `Routing`. Out: the rules that three-valued evaluation doesn't rule out. Invariant: a rule left out
//! is false for every event with these values.

use std::collections::HashMap;

use super::Scratchpad;
use super::compile::{CompiledRule, KnownValues};
use crate::event::{Body, Event, Known, LogSource};

/// Remembered combinations of routing values; more empty the memo. Its keys are chosen by whoever calls AWS, hence also a keyed hash.
const MEMO_ENTRIES: usize = 1 << 14;
/// Remembered log sources.
const GROUPS: usize = 64;
/// A routing value longer than this isn't worth remembering.
const VALUE_BYTES: usize = 128;

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
    memo: HashMap<Box<[u8]>, Box<[u32]>, foldhash::fast::RandomState>,
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
        let Some(known) = known(event) else {
            survivors.rules.extend_from_slice(&self.groups[group].rules);
            return !survivors.rules.is_empty();
        };
        self.key.clear();
        for value in &known[..3] {
            match value {
                None => self.key.push(0),
                Some(None) => self.key.push(1),
                Some(Some(text)) => {
                    // The length makes the key unambiguous whatever bytes the values hold.
                    self.key.push(2 + text.len() as u8);
                    self.key.extend_from_slice(text);
                }
            }
        }
        let Group { rules: all, memo, .. } = &mut self.groups[group];
        let remembered = match memo.get(self.key.as_slice()) {
            Some(remembered) => remembered,
            None => {
                if memo.len() >= MEMO_ENTRIES {
                    memo.clear();
                }
                let mut first = known;
                first[3..].fill(None);
                let open = all.iter().copied().filter(|r| rules[*r as usize].root.on_known(&first, pad) != Some(false)).collect();
                memo.entry(self.key.as_slice().into()).or_insert(open)
            }
        };
        survivors.rules.extend(remembered.iter().copied().filter(|r| rules[*r as usize].root.on_known(&known, pad) != Some(false)));
        !survivors.rules.is_empty()
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
        let memo = HashMap::default();
        self.groups.push(Group { product: product.into(), service: service.into(), category: category.into(), rules, memo });
        self.groups.len() - 1
    }
}

/// The routing values, if source and name are known. Text that isn't ASCII is left to the full parse, which repairs it first.
fn known<'a>(event: &Event<'a>) -> Option<KnownValues<'a>> {
    let (Body::Plain(body) | Body::Escaped(body)) = event.body else { return None };
    let value = |known: &Known| match known {
        Known::Unknown => None,
        Known::Missing => Some(None),
        Known::Text { .. } => known.text(body).filter(|t| t.is_ascii()).map(Some),
    };
    let routing = &event.routing;
    let short = |known: &Known| value(known).filter(|v| v.is_none_or(|t| t.len() <= VALUE_BYTES));
    let (source, name) = (short(&routing.event_source)?, short(&routing.event_name)?);
    Some([Some(source), Some(name), short(&routing.identity_type), value(&routing.user_agent), value(&routing.error_code)])
}
