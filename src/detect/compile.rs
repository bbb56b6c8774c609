//! From a rule's syntax tree to what is run.
//!
//! In: `rule::ast`. Out: `CompiledRule` and the fields it needs in the schema. Invariant: a compiled rule means what the tree says;
//! the one thing that can fail is a regular expression too large for its bound.

use std::sync::Arc;

use super::Nested;
use super::expression::{Expressions, Flags};
use super::need::{Keys, Needs};
use super::predicate::{Matcher, Matchers, Predicate, Subject};
use super::{
    Scratchpad,
    text::{PatternSet, TextMatcher},
};
use crate::event::{Known, Routing, Schema, derived};
use crate::rule::ast::{Block, Condition, Item, LogSource, Rule, Selection, Span, Spanned, Target, Test};

/// From this many plain words on, a set is faster than one by one.
const WORDS_FROM: usize = 4;

#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    /// Index of the rule.
    pub rule: usize,
    pub span: Span,
    pub message: String,
}

type Failure = (Span, String);

#[derive(Debug)]
pub(super) struct CompiledRule {
    pub logsource: [Option<Box<str>>; 3],
    pub root: Node,
    /// Bits of the derived fields it names.
    pub derived: u32,
    /// Bits of the `ROUTED_FIELDS` that it tests.
    pub routes: u16,
    /// What its tests of values beyond the first `MEMO_FIELDS` cost that are known before `readOnly` and the caller's kind are; 1 is a
    /// comparison of texts.
    pub late_weight: u32,
    pub needs: Needs,
}

#[derive(Debug)]
pub(super) enum Node {
    Test(Arc<Predicate>),
    /// The predicate of a field that events are routed by.
    Routed(usize, Arc<Predicate>),
    Not(Box<Node>),
    All(Box<[Node]>),
    Any(Box<[Node]>),
}

/// The fields that events are routed by.
pub(super) const ROUTED_FIELDS: [&str; 14] = [
    "eventSource",
    "eventName",
    "userIdentity.type",
    "errorCode",
    "userIdentity.inScopeOf.issuerType",
    "sessionCredentialFromConsole",
    "userAgent",
    "sourceIPAddress",
    "userIdentity.arn",
    "userIdentity.accessKeyId",
    "readOnly",
    PRINCIPAL_KIND,
    "derived.source.network",
    "derived.source.block",
];
pub(super) const PRINCIPAL_KIND: &str = "derived.principal.kind";
/// So many of them, from the first on, decide most rules, and few combinations of their values occur.
pub(super) const MEMO_FIELDS: usize = 6;
/// `sourceIPAddress`.
pub(super) const ADDRESS_ROUTE: usize = 7;
/// `readOnly`, which is looked for when a rule that is left asks for it.
pub(super) const READ_ONLY_ROUTE: usize = 10;
/// `derived.principal.kind`, which is remembered of callers that were read once.
pub(super) const KIND_ROUTE: usize = 11;
/// The first of `derived.source.…`, two that are made of `sourceIPAddress`.
const SOURCE_ROUTE: usize = 12;
/// Of each the bit, as in `CompiledRule::routes`.
const ADDRESS: u16 = 1 << ADDRESS_ROUTE;
pub(super) const READ_ONLY: u16 = 1 << READ_ONLY_ROUTE;
pub(super) const KIND: u16 = 1 << KIND_ROUTE;
pub(super) const SOURCE: u16 = 3 << SOURCE_ROUTE;

/// An event's routing values.
#[derive(Clone, Copy)]
pub(super) struct KnownValues<'a> {
    pub body: &'a [u8],
    pub routing: &'a Routing,
    pub read_only: Known,
    /// `derived.principal.kind`.
    pub kind: Told<'a>,
    /// `derived.source.network` and `.block`.
    pub source: [Told<'a>; 2],
    /// Of the fields from here on nothing is told.
    pub fields: usize,
}

/// The first `MEMO_FIELDS` of the `ROUTED_FIELDS`.
#[inline]
pub(super) fn early(routing: &Routing) -> [&Known; MEMO_FIELDS] {
    let r = routing;
    [&r.event_source, &r.event_name, &r.identity_type, &r.error_code, &r.issuer_type, &r.from_console]
}

/// `None` unknown, `Some(None)` missing.
pub(super) type Told<'a> = Option<Option<&'a [u8]>>;

impl<'a> KnownValues<'a> {
    /// `readOnly` and what is derived aren't among them yet.
    #[inline]
    pub fn of(body: &'a [u8], routing: &'a Routing) -> Self {
        Self { body, routing, read_only: Known::Unknown, kind: None, source: [None; 2], fields: ROUTED_FIELDS.len() }
    }

    /// `None` unknown, `Some(None)` missing. Text that isn't ASCII is left to the full parse, which repairs it first.
    #[inline]
    pub fn get(&self, route: usize) -> Told<'a> {
        if route >= self.fields {
            return None;
        }
        let r = self.routing;
        let known = match route {
            0..MEMO_FIELDS => early(r)[route],
            6 => &r.user_agent,
            ADDRESS_ROUTE => &r.source_address,
            8 => &r.identity_arn,
            9 => &r.access_key,
            READ_ONLY_ROUTE => &self.read_only,
            KIND_ROUTE => return self.kind,
            _ => return self.source[route - SOURCE_ROUTE],
        };
        match known {
            Known::Unknown => None,
            Known::Missing => Some(None),
            known => known.text(self.body).filter(|t| t.is_ascii()).map(Some),
        }
    }
}

impl Node {
    pub fn holds(&self, subject: Subject<'_>, pad: &mut Scratchpad) -> bool {
        match self {
            Node::Test(predicate) => predicate.holds(subject, pad),
            Node::Routed(_, predicate) => predicate.holds(subject, pad),
            Node::Not(node) => !node.holds(subject, pad),
            Node::All(nodes) => nodes.iter().all(|n| n.holds(subject, pad)),
            Node::Any(nodes) => nodes.iter().any(|n| n.holds(subject, pad)),
        }
    }

    /// Three-valued: `None` where it depends on what isn't known.
    pub fn on_known(&self, known: &KnownValues<'_>, pad: &mut Scratchpad) -> Option<bool> {
        match self {
            Node::Test(_) => None,
            Node::Routed(route, predicate) => predicate.on_known(known.get(*route)?, pad),
            Node::Not(node) => node.on_known(known, pad).map(|held| !held),
            Node::All(nodes) => settle(nodes, known, pad, false),
            Node::Any(nodes) => settle(nodes, known, pad, true),
        }
    }
}

/// A test of one routing value without which a rule can't match.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    route: usize,
    predicate: Arc<Predicate>,
    wanted: bool,
}

impl Gate {
    /// False where the value rules the rule out.
    #[inline]
    pub fn is_open(&self, known: &KnownValues<'_>, pad: &mut Scratchpad) -> bool {
        let Some(value) = known.get(self.route) else { return true };
        self.predicate.on_known(value, pad) != Some(!self.wanted)
    }

    /// Equal for the same test of the same rule.
    pub fn identity(&self) -> u64 {
        Arc::as_ptr(&self.predicate).addr() as u64 ^ u64::from(self.wanted)
    }
}

impl Node {
    /// Appends what must hold of values beyond `known` for the node to be `wanted`. Not all of it, only what is a matter of one value.
    pub fn gates(&self, wanted: bool, known: &KnownValues<'_>, pad: &mut Scratchpad, gates: &mut Vec<Gate>) {
        if self.on_known(known, pad).is_some() {
            return;
        }
        match self {
            Node::Test(_) => {}
            Node::Routed(route, predicate) => gates.push(Gate { route: *route, predicate: Arc::clone(predicate), wanted }),
            Node::Not(node) => node.gates(!wanted, known, pad, gates),
            Node::All(nodes) | Node::Any(nodes) if matches!(self, Node::All(_)) == wanted => {
                nodes.iter().for_each(|node| node.gates(wanted, known, pad, gates));
            }
            Node::All(nodes) | Node::Any(nodes) => {
                // One of them suffices, so only a single one that is left is needed.
                let mut left = nodes.iter().filter(|node| node.on_known(known, pad).is_none()).collect::<Vec<_>>().into_iter();
                if let (Some(node), None) = (left.next(), left.next()) {
                    node.gates(wanted, known, pad, gates);
                }
            }
        }
    }

    fn late_weight(&self) -> u32 {
        match self {
            Node::Routed(READ_ONLY_ROUTE | KIND_ROUTE, _) => 0,
            Node::Routed(route, predicate) if *route >= MEMO_FIELDS => predicate.weight(),
            Node::Test(_) | Node::Routed(..) => 0,
            Node::Not(node) => node.late_weight(),
            Node::All(nodes) | Node::Any(nodes) => nodes.iter().map(Node::late_weight).sum(),
        }
    }

    fn routes(&self) -> u16 {
        match self {
            Node::Test(_) => 0,
            Node::Routed(route, _) => 1 << route,
            Node::Not(node) => node.routes(),
            Node::All(nodes) | Node::Any(nodes) => nodes.iter().fold(0, |routes, node| routes | node.routes()),
        }
    }
}

/// And / or: the first node that is `decides` settles it, else any unknown leaves it open.
fn settle(nodes: &[Node], known: &KnownValues<'_>, pad: &mut Scratchpad, decides: bool) -> Option<bool> {
    let mut result = Some(!decides);
    for node in nodes {
        match node.on_known(known, pad) {
            Some(held) if held == decides => return Some(decides),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

pub(super) fn rule(rule: &Rule, schema: &mut Schema, expressions: &mut Expressions, keys: &mut Keys) -> Result<CompiledRule, Failure> {
    let mut compiler = Compiler { schema: &mut *schema, expressions, derived: 0 };
    let selections = rule.selections.iter();
    let mut roots = Vec::with_capacity(rule.conditions.len());
    for condition in &rule.conditions {
        roots.push(compiler.condition(&condition.value, selections.as_slice())?);
    }
    let root = if roots.len() == 1 { roots.remove(0) } else { Node::Any(roots.into()) };
    let derived = compiler.derived;
    let needs = Needs::of(&root, schema, keys);
    let mut routes = root.routes();
    if routes & SOURCE != 0 {
        routes |= ADDRESS;
    }
    let late_weight = root.late_weight();
    Ok(CompiledRule { logsource: words(&rule.logsource), root, derived, routes, late_weight, needs })
}

fn words(logsource: &LogSource) -> [Option<Box<str>>; 3] {
    [&logsource.product, &logsource.service, &logsource.category].map(|w| w.as_ref().map(|w| w.value.to_lowercase().into()))
}

/// Adds a field and, for a derived one, those it is made of.
pub(super) fn add_field(schema: &mut Schema, name: &str) -> (crate::event::FieldId, u32) {
    let mask = derived::mask(name);
    derived::sources(mask).for_each(|source| {
        schema.add(source);
    });
    (schema.add(name), mask)
}

struct Compiler<'s> {
    schema: &'s mut Schema,
    expressions: &'s mut Expressions,
    derived: u32,
}

impl Compiler<'_> {
    fn condition(&mut self, condition: &Condition, selections: &[Selection]) -> Result<Node, Failure> {
        let list = |c: &mut Self, parts: &[Condition]| parts.iter().map(|p| c.condition(p, selections)).collect::<Result<Vec<_>, _>>();
        Ok(match condition {
            Condition::Selection(index) => self.block(&selections[*index].body)?,
            Condition::Not(inner) => Node::Not(Box::new(self.condition(inner, selections)?)),
            Condition::And(parts) => Node::All(list(self, parts)?.into()),
            Condition::Or(parts) => Node::Any(list(self, parts)?.into()),
        })
    }

    fn block(&mut self, block: &Block) -> Result<Node, Failure> {
        Ok(match block {
            Block::All(items) => {
                let mut nodes = items.iter().map(|i| self.item(i)).collect::<Result<Vec<_>, _>>()?;
                // What routing can decide goes first, and of that what the memo doesn't know.
                nodes.sort_by_key(|n| if let Node::Routed(route, _) = n { ROUTED_FIELDS.len() - route } else { ROUTED_FIELDS.len() + 1 });
                if nodes.len() == 1 { nodes.remove(0) } else { Node::All(nodes.into()) }
            }
            Block::Any(blocks) => Node::Any(blocks.iter().map(|b| self.block(b)).collect::<Result<Vec<_>, _>>()?.into()),
        })
    }

    fn item(&mut self, item: &Item) -> Result<Node, Failure> {
        let name = match &item.target {
            Target::Field(name) => Some(name.value.as_str()),
            Target::Keyword => None,
        };
        let field = name.map(|name| {
            let (field, mask) = add_field(self.schema, name);
            self.derived |= mask;
            field
        });
        let matchers = item.tests.iter().map(|t| self.matcher(t)).collect::<Result<Vec<_>, _>>()?;
        if matchers.iter().all(|m| matches!(m, Matcher::Never)) && !matchers.is_empty() {
            // A list without entries: no event need be read for it.
            return Ok(if item.negated { Node::All(Box::default()) } else { Node::Any(Box::default()) });
        }
        let predicate = Predicate { field, matchers: gather(matchers, item.all), all: item.all, negated: item.negated };
        let route = name.and_then(|name| ROUTED_FIELDS.iter().position(|r| *r == name));
        Ok(match route {
            Some(route) => Node::Routed(route, Arc::new(predicate)),
            None => Node::Test(Arc::new(predicate)),
        })
    }

    fn matcher(&mut self, test: &Spanned<Test>) -> Result<Matcher, Failure> {
        Ok(match &test.value {
            Test::Text { pattern, cased } => Matcher::Text(TextMatcher::new(pattern, *cased)),
            Test::Number(lexeme) => Matcher::Number(lexeme.as_str().into()),
            Test::Bool(value) => Matcher::Bool(*value),
            Test::Null => Matcher::Null,
            Test::Exists(wanted) => Matcher::Exists(*wanted),
            Test::Regex { source, ignore_case, multi_line, dot_all } => {
                let flags = Flags { ignore_case: *ignore_case, multi_line: *multi_line, dot_all: *dot_all };
                let expression =
                    self.expressions.get(source, flags).map_err(|e| (test.span, format!("this regular expression can't be used: {e}")))?;
                Matcher::Regex(expression)
            }
            Test::Compare { op, number, .. } => Matcher::Compare { op: *op, number: *number },
            Test::Cidr(net) => Matcher::Cidr(*net),
            Test::FieldRef { field, how, cased } => {
                let (field, mask) = add_field(self.schema, field);
                self.derived |= mask;
                Matcher::FieldRef { field, how: *how, cased: *cased }
            }
            Test::TimePart { part, op, value } => Matcher::Time { part: *part, op: *op, value: *value },
            Test::Unexpanded { .. } => Matcher::Never,
            Test::Element { every, block } => {
                let mut schema = Schema::new();
                let root = Compiler { schema: &mut schema, expressions: self.expressions, derived: 0 }.block(block)?;
                if schema.is_full() {
                    return Err((test.span, super::TOO_MANY_FIELDS.to_owned()));
                }
                Matcher::Element { every: *every, nested: Box::new(Nested { schema, root }) }
            }
        })
    }
}

fn gather(matchers: Vec<Matcher>, all: bool) -> Matchers {
    if all || matchers.len() < 2 {
        return Matchers::List(matchers);
    }
    let word = |m: &Matcher| match m {
        Matcher::Text(text) => text.folded_literal().map(Box::from),
        _ => None,
    };
    if matchers.len() >= WORDS_FROM
        && let Some(words) = matchers.iter().map(word).collect::<Option<_>>()
    {
        return Matchers::Words(words);
    }
    let pattern = |m: &Matcher| match m {
        Matcher::Text(text) if text.folds() => Some(text.clone()),
        _ => None,
    };
    match matchers.iter().map(pattern).collect() {
        Some(patterns) => Matchers::Patterns(PatternSet::new(patterns)),
        None => Matchers::List(matchers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_stand_where_their_numbers_say() {
        let named = [(ADDRESS_ROUTE, "sourceIPAddress"), (READ_ONLY_ROUTE, "readOnly"), (KIND_ROUTE, PRINCIPAL_KIND)];
        named.into_iter().for_each(|(route, name)| assert_eq!(ROUTED_FIELDS[route], name));
        assert_eq!(ROUTED_FIELDS[SOURCE_ROUTE..], ["derived.source.network", "derived.source.block"]);
    }
}
