//! What an event must have for a rule to match it, looked for in its bytes before it is read.
//!
//! In: a rule's tree, an event's text. Out: could the rule's keys and their values be there? Invariant: no is certain. A key is
//! looked for once for an event, however many rules need it.

use std::collections::HashMap;
use std::sync::Arc;

use memchr::memmem::Finder;

use super::Scratchpad;
use super::compile::Node;
use super::predicate::Predicate;
use crate::event::scan::{self, Level};
use crate::event::{Known, Routing, Schema};

/// A caller of another account than the event's.
const FOREIGN_CALLER: &str = "derived.foreign_account.userIdentity.accountId";
/// The key that tells the event's own account.
const OWN_ACCOUNT: &str = "recipientAccountId";

/// Groups of keys that are looked for, and keys in a group, at most: a look takes a tenth of a parse.
const MAX_NEEDS: usize = 2;

/// The keys that the rules of an engine need.
#[derive(Debug, Default)]
pub(super) struct Keys {
    finders: Vec<Finder<'static>>,
    numbers: HashMap<String, u32>,
}

impl Keys {
    fn number(&mut self, key: &str) -> u32 {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = self.finders.len() as u32;
        self.finders.push(Finder::new(key).into_owned());
        self.numbers.insert(key.to_owned(), number);
        number
    }
}

/// What was found in one event, by the keys' numbers.
#[derive(Debug, Default)]
pub(super) struct Looks {
    epoch: u32,
    found: Vec<(u32, Known)>,
}

/// JSON text with no key that has letters spelled as `\u….`, and what was found in it.
pub(super) struct Text<'a> {
    body: &'a [u8],
    level: Level,
    routing: &'a Routing,
    keys: &'a Keys,
    looks: &'a mut Looks,
}

impl<'a> Text<'a> {
    pub fn new(body: &'a [u8], level: Level, routing: &'a Routing, keys: &'a Keys, looks: &'a mut Looks) -> Self {
        looks.epoch = looks.epoch.wrapping_add(1);
        if looks.epoch == 0 || looks.found.len() != keys.finders.len() {
            looks.found.clear();
            looks.found.resize(keys.finders.len(), (0, Known::Unknown));
            looks.epoch = 1;
        }
        Self { body, level, routing, keys, looks }
    }

    fn value(&mut self, key: u32) -> Known {
        let (epoch, known) = &mut self.looks.found[key as usize];
        if *epoch != self.looks.epoch {
            (*epoch, *known) = (self.looks.epoch, scan::only_value(self.body, self.level, &self.keys.finders[key as usize]));
        }
        *known
    }
}

/// Of each group, one must be there.
#[derive(Debug)]
pub(super) struct Needs(Box<[Box<[Need]>]>);

impl Needs {
    pub fn of(root: &Node, schema: &Schema, keys: &mut Keys) -> Self {
        let mut needs = Vec::new();
        root.needs(schema, &mut needs);
        needs.retain(|group| group.len() <= MAX_NEEDS);
        // The longest are the rarest.
        needs.sort_by_key(|group| std::cmp::Reverse(shortest(group)));
        needs.truncate(MAX_NEEDS);
        let mut need =
            |(key, predicate): (String, Arc<Predicate>)| Need { key: keys.number(&key), is_foreign: predicate.key(schema) != Some(&key), predicate };
        Self(needs.into_iter().map(|group| group.into_iter().map(&mut need).collect()).collect())
    }

    /// Could the keys of `text` and their values suffice?
    pub fn could_hold(&self, text: &mut Text<'_>, pad: &mut Scratchpad) -> bool {
        self.0.iter().all(|group| group.iter().any(|need| need.could_hold(text, pad)))
    }
}

/// A test that fails where its field has no value.
#[derive(Debug)]
struct Need {
    key: u32,
    predicate: Arc<Predicate>,
    /// The key is the event's own account's, and the test one for a caller of another.
    is_foreign: bool,
}

impl Need {
    fn could_hold(&self, text: &mut Text<'_>, pad: &mut Scratchpad) -> bool {
        let value = match text.value(self.key) {
            Known::Missing => return self.is_foreign,
            known => known.text(text.body).filter(|text| text.is_ascii()),
        };
        match value {
            None => true,
            Some(own) if self.is_foreign => text.routing.identity_account.text(text.body) != Some(own),
            Some(value) => self.predicate.on_known(Some(value), pad) != Some(false),
        }
    }
}

impl Node {
    /// Appends groups of tests such that an event for which the node holds has a value for one test of each group.
    fn needs(&self, schema: &Schema, groups: &mut Vec<Vec<(String, Arc<Predicate>)>>) {
        match self {
            Node::Test(predicate) => groups.extend(need(predicate, schema).map(|need| vec![need])),
            Node::Routed(..) | Node::Not(_) => {}
            Node::All(nodes) => nodes.iter().for_each(|node| node.needs(schema, groups)),
            Node::Any(nodes) => {
                let one = |node: &Node| {
                    let mut own = Vec::new();
                    node.needs(schema, &mut own);
                    own.into_iter().max_by_key(|group| shortest(group))
                };
                let needs: Option<Vec<_>> = nodes.iter().map(one).collect();
                groups.extend(needs.filter(|needs| !needs.is_empty()).map(|needs| needs.concat()));
            }
        }
    }
}

fn need(predicate: &Arc<Predicate>, schema: &Schema) -> Option<(String, Arc<Predicate>)> {
    let is_foreign = predicate.field.is_some_and(|field| schema.name(field) == FOREIGN_CALLER) && predicate.fails_without_value();
    let key = if is_foreign { OWN_ACCOUNT } else { predicate.key(schema)? };
    Some((key.to_owned(), Arc::clone(predicate)))
}

fn shortest(group: &[(String, Arc<Predicate>)]) -> Option<usize> {
    group.iter().map(|(key, _)| key.len()).min()
}
