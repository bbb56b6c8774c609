//! Which rules an event matches.
//!
//! In: `event::Event`. Out: `Match`es, borrowed. Invariant: the answer is that of evaluating every rule of the event's log source on
//! a full parse; routing only leaves out rules that cannot match, and parses only where some rule can. Nothing is allocated per
//! event once the buffers have grown (`tests/alloc.rs`).

mod compile;
mod cost;
mod expression;
mod index;
mod latest;
mod need;
mod predicate;
mod text;

pub use compile::CompileError;
pub use cost::SAMPLE as COST_SAMPLE;

use std::time::Duration;

use crate::event::{AccountId, Body, Event, FieldId, Schema, Slots, derived, json};
use crate::rule::ast::{Rule, Span};
use compile::{CompiledRule, Node, PRINCIPAL_KIND};
use cost::Costs;
use expression::Expressions;
use index::{Index, Survivors};
use need::Keys;
use predicate::Subject;

/// Fields that every alert tells, whether a rule names them or not.
pub const EVIDENCE_FIELDS: [&str; 13] = [
    "eventID",
    "eventTime",
    "eventSource",
    "eventName",
    "awsRegion",
    "recipientAccountId",
    "sharedEventID",
    "addendum.originalEventID",
    "userIdentity.accountId",
    "userIdentity.arn",
    "userIdentity.type",
    "sourceIPAddress",
    "db.event",
];

/// Immutable, shared by all workers.
#[derive(Debug)]
pub struct Engine {
    schema: Schema,
    rules: Vec<CompiledRule>,
    keys: Keys,
}

/// One rule that one event matched.
#[derive(Clone, Copy)]
pub struct Match<'a> {
    /// Index into the rules that the engine was made of.
    pub rule: usize,
    pub event: &'a Event<'a>,
    /// What the spans in `slots` point into.
    pub text: &'a [u8],
    pub slots: &'a Slots,
}

impl<'a> Match<'a> {
    /// The first value of a field.
    pub fn first(&self, field: FieldId) -> Option<&'a [u8]> {
        self.slots.first(self.text, field)
    }

    /// All values of a field that have a text.
    pub fn all(&self, field: FieldId) -> impl Iterator<Item = &'a [u8]> {
        let (slots, text) = (self.slots, self.text);
        slots.get(field).filter_map(move |v| slots.text(text, v))
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Unmatched,
    /// How many rules.
    Matched(usize),
    /// Not well-formed; nothing was matched.
    Malformed {
        at: usize,
    },
}

/// A worker's own buffers.
#[derive(Debug, Default)]
pub struct Scratch {
    text: Vec<u8>,
    slots: Slots,
    pad: Scratchpad,
    index: Index,
    survivors: Survivors,
    costs: Costs,
}

impl Scratch {
    /// Rules, by index, and what they have cost since the last call, captures of their matches included. Estimates from one event
    /// in `COST_SAMPLE`; rules that none of the sampled events reached are left out.
    pub fn take_costs(&mut self) -> Vec<(u32, Duration)> {
        self.costs.take()
    }
}

/// Room for folding, flattening and looking into array members.
#[derive(Debug, Default)]
struct Scratchpad {
    fold: Vec<u8>,
    other: Vec<u8>,
    compact: Vec<u8>,
    leaf: Vec<u8>,
    nested: Vec<Slots>,
    policy: derived::Scratch,
}

/// A block over the members of an array's objects, with a schema of its own.
#[derive(Debug)]
struct Nested {
    schema: Schema,
    root: Node,
}

impl Nested {
    fn holds(&self, object: &[u8], pad: &mut Scratchpad) -> bool {
        let mut slots = pad.nested.pop().unwrap_or_default();
        let filled = json::fill(object, &self.schema, &mut slots).is_ok();
        let held = filled && self.root.holds(Subject { text: object, slots: &slots }, pad);
        pad.nested.push(slots);
        held
    }
}

/// Of a set that `Schema` can't hold.
pub const TOO_MANY_FIELDS: &str = "with this rule the set names more fields than the engine reads (8,000): divide it over two processes";

impl Engine {
    /// # Errors
    /// The rule's index and what can't be compiled, for every such rule.
    pub fn new(rules: &[Rule]) -> Result<Self, Vec<CompileError>> {
        let mut schema = Schema::new();
        for name in EVIDENCE_FIELDS {
            schema.add(name);
        }
        let mut expressions = Expressions::default();
        let mut keys = Keys::default();
        let mut errors = Vec::new();
        let mut compiled = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            match compile::rule(rule, &mut schema, &mut expressions, &mut keys) {
                Ok(rule) => compiled.push(rule),
                Err((span, message)) => errors.push(CompileError { rule: index, span, message }),
            }
            if schema.is_full() {
                errors.push(CompileError { rule: index, span: Span::default(), message: TOO_MANY_FIELDS.to_owned() });
                break;
            }
        }
        if errors.is_empty() { Ok(Self { schema, rules: compiled, keys }) } else { Err(errors) }
    }

    /// Makes a field readable in the matches of `rule`, whether the rule tests it or not.
    pub fn capture(&mut self, rule: usize, name: &str) -> FieldId {
        let (field, mask) = compile::add_field(&mut self.schema, name);
        self.rules[rule].derived |= mask;
        field
    }

    /// Accounts that no event names as foreign.
    pub fn own(&mut self, accounts: &[AccountId]) {
        self.schema.own_accounts = accounts.to_vec();
    }

    pub fn field(&self, name: &str) -> Option<FieldId> {
        self.schema.id(name)
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Calls `found` for each rule that the event matches, in the rules' order.
    pub fn judge(&self, event: &Event<'_>, scratch: &mut Scratch, mut found: impl FnMut(Match<'_>)) -> Outcome {
        let Scratch { text: buffer, slots, pad, index, survivors, costs } = scratch;
        if !index.survivors((&self.rules, &self.keys), event, pad, survivors) {
            return Outcome::Unmatched;
        }
        let text = match self.read(event, buffer, slots) {
            Ok(text) => text,
            Err(json::Malformed { at }) => return Outcome::Malformed { at },
        };
        let wanted = survivors.rules.iter().fold(0, |mask, rule| mask | self.rules[*rule as usize].derived);
        if wanted != 0 {
            derived::fill(&self.schema, event, text, slots, wanted, &mut pad.policy);
            index.learn(survivors, self.schema.id(PRINCIPAL_KIND).and_then(|kind| slots.first(text, kind)));
        }
        let mut matched = 0;
        let mut watch = costs.watch(self.rules.len());
        for &rule in &survivors.rules {
            if self.rules[rule as usize].root.holds(Subject { text, slots }, pad) {
                matched += 1;
                found(Match { rule: rule as usize, event, text, slots });
            }
            if let Some(watch) = &mut watch {
                costs.add(rule, watch);
            }
        }
        if matched == 0 { Outcome::Unmatched } else { Outcome::Matched(matched) }
    }

    /// The event's text as the spans see it: unescaped, and valid UTF-8.
    fn read<'t>(&self, event: &Event<'t>, buffer: &'t mut Vec<u8>, slots: &mut Slots) -> Result<&'t [u8], json::Malformed> {
        buffer.clear();
        match event.body {
            Body::Plain(text) if is_utf8(text) => {
                json::fill(text, &self.schema, slots)?;
                return Ok(text);
            }
            Body::Plain(text) => repair(text, buffer),
            Body::Escaped(text) => {
                json::unescape(text, buffer);
                if !is_utf8(buffer) {
                    let broken = std::mem::take(buffer);
                    repair(&broken, buffer);
                }
            }
            Body::Fields { text, fields } => {
                self.read_fields(fields, slots);
                return Ok(text);
            }
        }
        json::fill(buffer, &self.schema, slots)?;
        Ok(buffer)
    }

    fn read_fields(&self, fields: &[(&'static str, &[u8])], slots: &mut Slots) {
        slots.begin(self.schema.len());
        for (name, value) in fields {
            if let Some(field) = self.schema.id(name) {
                slots.push_text(field, value);
            }
        }
    }
}

/// Most events are ASCII, which is faster to see.
fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

/// Appends `text` with U+FFFD for what isn't UTF-8.
fn repair(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}
