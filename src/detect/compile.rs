//! From a rule's syntax tree to what is run.
//!
//! In: `rule::ast`. Out: `CompiledRule` and the fields it needs in the schema. Invariant: a compiled rule means what the tree says;
//! the one thing that can fail is a regular expression too large for its bound.

use regex::bytes::RegexBuilder;

use super::Nested;
use super::predicate::{Matcher, Matchers, Predicate, Subject};
use super::{Scratchpad, text::TextMatcher};
use crate::event::{Schema, derived};
use crate::rule::ast::{Block, Condition, Item, LogSource, Rule, Selection, Span, Spanned, Target, Test};

/// A regular expression's compiled size in bytes, at most.
const REGEX_SIZE_LIMIT: usize = 1 << 20;
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
}

#[derive(Debug)]
pub(super) enum Node {
    Test(Box<Predicate>),
    /// The predicate of a field that events are routed by.
    Routed(usize, Box<Predicate>),
    Not(Box<Node>),
    All(Box<[Node]>),
    Any(Box<[Node]>),
}

/// The routing values: `None` unknown, `Some(None)` missing.
pub(super) type KnownValues<'a> = [Option<Option<&'a [u8]>>; ROUTED_FIELDS.len()];

pub(super) const ROUTED_FIELDS: [&str; 5] = ["eventSource", "eventName", "userIdentity.type", "userAgent", "errorCode"];

impl Node {
    pub fn holds(&self, subject: Subject<'_>, pad: &mut Scratchpad) -> bool {
        match self {
            Node::Test(predicate) | Node::Routed(_, predicate) => predicate.holds(subject, pad),
            Node::Not(node) => !node.holds(subject, pad),
            Node::All(nodes) => nodes.iter().all(|n| n.holds(subject, pad)),
            Node::Any(nodes) => nodes.iter().any(|n| n.holds(subject, pad)),
        }
    }

    /// Three-valued: `None` where it depends on what isn't known.
    pub fn on_known(&self, known: &KnownValues<'_>, pad: &mut Scratchpad) -> Option<bool> {
        match self {
            Node::Test(_) => None,
            Node::Routed(route, predicate) => predicate.on_known(known[*route]?, pad),
            Node::Not(node) => node.on_known(known, pad).map(|held| !held),
            Node::All(nodes) => settle(nodes, known, pad, false),
            Node::Any(nodes) => settle(nodes, known, pad, true),
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

pub(super) fn rule(rule: &Rule, schema: &mut Schema) -> Result<CompiledRule, Failure> {
    let mut compiler = Compiler { schema, derived: 0 };
    let selections = rule.selections.iter();
    let mut roots = Vec::with_capacity(rule.conditions.len());
    for condition in &rule.conditions {
        roots.push(compiler.condition(&condition.value, selections.as_slice())?);
    }
    let root = if roots.len() == 1 { roots.remove(0) } else { Node::Any(roots.into()) };
    let derived = compiler.derived;
    Ok(CompiledRule { logsource: words(&rule.logsource), root, derived })
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
                // What routing can decide goes first.
                nodes.sort_by_key(|n| !matches!(n, Node::Routed(..)));
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
        let predicate = Box::new(Predicate { field, matchers: gather(matchers, item.all), all: item.all, negated: item.negated });
        let route = name.and_then(|name| ROUTED_FIELDS.iter().position(|r| *r == name));
        Ok(match route {
            Some(route) => Node::Routed(route, predicate),
            None => Node::Test(predicate),
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
                let regex = RegexBuilder::new(source)
                    .case_insensitive(*ignore_case)
                    .multi_line(*multi_line)
                    .dot_matches_new_line(*dot_all)
                    .size_limit(REGEX_SIZE_LIMIT)
                    .build();
                Matcher::Regex(Box::new(regex.map_err(|e| (test.span, format!("this regular expression can't be used: {e}")))?))
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
                let root = Compiler { schema: &mut schema, derived: 0 }.block(block)?;
                Matcher::Element { every: *every, nested: Box::new(Nested { schema, root }) }
            }
        })
    }
}

fn gather(matchers: Vec<Matcher>, all: bool) -> Matchers {
    let word = |m: &Matcher| match m {
        Matcher::Text(text) => text.folded_literal().map(Box::from),
        _ => None,
    };
    if all || matchers.len() < WORDS_FROM {
        return Matchers::List(matchers);
    }
    match matchers.iter().map(word).collect::<Option<_>>() {
        Some(words) => Matchers::Words(words),
        None => Matchers::List(matchers),
    }
}
