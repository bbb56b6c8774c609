//! One rule taken apart into lines that the engine judges each by itself.
//!
//! In: a rule. Out: for an event, which lines hold and what values they saw. Invariant: every verdict is the engine's own; only
//! and, or and not over them are worked out here.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::alert::redact;
use crate::detect::{CompileError, Engine, Match, Outcome, Scratch};
use crate::event::{AccountId, Event, ValueKind};
use crate::rule::ast::{Block, Condition, Item, Rule, Selection, Span, Spanned, Target, Test};

/// Values of one field that are shown.
const MAX_VALUES: usize = 5;
/// Letters of one value that are shown.
const MAX_LETTERS: usize = 120;

/// What to identify an event by.
const SHOWN: [&str; 3] = ["eventTime", "eventName", "eventID"];

pub struct Probe {
    engine: Engine,
    selections: Vec<Shape>,
    conditions: Vec<Condition>,
    fields: Vec<String>,
    lines: usize,
    scratch: Scratch,
}

/// A selection's structure; leaves are numbers of lines.
pub enum Shape {
    All(Vec<Shape>),
    Any(Vec<Shape>),
    Line { number: usize, span: Span, fields: Vec<String> },
}

/// What one event did to each part of the rule.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub matched: bool,
    held: HashSet<usize>,
    values: HashMap<String, Vec<String>>,
    /// `eventTime`, `eventName`, `eventID`, as far as there are any.
    pub label: String,
}

impl Probe {
    /// # Errors
    /// A rule that can't be compiled.
    pub fn new(rule: &Rule, own_accounts: &[AccountId]) -> Result<Self, Vec<CompileError>> {
        let mut rules = vec![rule.clone()];
        let selections: Vec<Shape> = rule.selections.iter().map(|selection| shape(&selection.body, rule, &mut rules)).collect();
        let lines = rules.len();
        // The last rule holds for every event of the log source: it shows the values when all lines have been judged.
        let never = Test::Unexpanded { name: String::new() };
        let item = Item {
            target: Target::Field(Spanned { value: "eventName".into(), span: Span::default() }),
            tests: vec![Spanned { value: never, span: Span::default() }],
            all: false,
            negated: true,
            span: Span::default(),
        };
        rules.push(single(rule, item));
        let fields: BTreeSet<String> = selections.iter().flat_map(all_fields).collect();
        let fields: Vec<String> = fields.into_iter().collect();
        let mut engine = Engine::new(&rules)?;
        engine.own(own_accounts);
        fields.iter().map(String::as_str).chain(SHOWN).for_each(|name| {
            engine.capture(lines, name);
        });
        let conditions = rule.conditions.iter().map(|condition| condition.value.clone()).collect();
        Ok(Self { engine, selections, conditions, fields, lines, scratch: Scratch::default() })
    }

    /// `None`: not of the rule's log source, or not well-formed.
    pub fn judge(&mut self, event: &Event<'_>) -> Option<Verdict> {
        let Self { engine, scratch, fields, lines, .. } = self;
        let mut verdict = Verdict { matched: false, held: HashSet::new(), values: HashMap::new(), label: String::new() };
        let mut seen = false;
        let outcome = engine.judge(event, scratch, |found| match found.rule {
            0 => verdict.matched = true,
            last if last == *lines => {
                seen = true;
                verdict.values = fields.iter().map(|name| (name.clone(), values(engine, &found, name))).collect();
                let label = SHOWN.iter().filter_map(|name| Some(String::from_utf8_lossy(found.first(engine.field(name)?)?).into_owned()));
                verdict.label = label.collect::<Vec<_>>().join("  ");
            }
            line => {
                verdict.held.insert(line);
            }
        });
        (seen && !matches!(outcome, Outcome::Malformed { .. })).then_some(verdict)
    }

    pub fn selection(&self, index: usize) -> &Shape {
        &self.selections[index]
    }

    /// Lines that hold outside of filters: how near an event came.
    pub fn score(&self, verdict: &Verdict) -> usize {
        let mut positive = BTreeSet::new();
        self.conditions.iter().for_each(|condition| wanted(condition, &mut positive));
        positive.iter().map(|index| held_lines(&self.selections[*index], verdict)).sum()
    }

    pub fn holds(&self, condition: &Condition, verdict: &Verdict) -> bool {
        match condition {
            Condition::Selection(index) => verdict.holds(&self.selections[*index]),
            Condition::Not(inner) => !self.holds(inner, verdict),
            Condition::And(parts) => parts.iter().all(|part| self.holds(part, verdict)),
            Condition::Or(parts) => parts.iter().any(|part| self.holds(part, verdict)),
        }
    }
}

impl Verdict {
    pub fn holds(&self, shape: &Shape) -> bool {
        match shape {
            Shape::All(parts) => parts.iter().all(|part| self.holds(part)),
            Shape::Any(parts) => parts.iter().any(|part| self.holds(part)),
            Shape::Line { number, .. } => self.held.contains(number),
        }
    }

    /// The values of a field, for people.
    pub fn values(&self, field: &str) -> String {
        match self.values.get(field).map(Vec::as_slice) {
            None | Some([]) => "missing".into(),
            Some(values) => values.join(", "),
        }
    }
}

fn shape(block: &Block, rule: &Rule, rules: &mut Vec<Rule>) -> Shape {
    match block {
        Block::Any(blocks) => Shape::Any(blocks.iter().map(|block| shape(block, rule, rules)).collect()),
        Block::All(items) => {
            let line = |item: &Item| {
                let line = Shape::Line { number: rules.len(), span: item.span, fields: fields(item) };
                rules.push(single(rule, item.clone()));
                line
            };
            Shape::All(items.iter().map(line).collect())
        }
    }
}

/// A rule of the same log source that is nothing but this line.
fn single(rule: &Rule, item: Item) -> Rule {
    let name = Spanned { value: "line".to_owned(), span: item.span };
    let selection = Selection { name, file: rule.meta.file.clone(), body: Block::All(vec![item]) };
    let condition = Spanned { value: Condition::Selection(0), span: Span::default() };
    Rule { meta: rule.meta.clone(), logsource: rule.logsource.clone(), selections: vec![selection], conditions: vec![condition] }
}

/// The fields that a line looks at.
fn fields(item: &Item) -> Vec<String> {
    let Target::Field(field) = &item.target else { return Vec::new() };
    let others = item.tests.iter().filter_map(|test| match &test.value {
        Test::FieldRef { field, .. } => Some(field.clone()),
        _ => None,
    });
    [field.value.clone()].into_iter().chain(others).collect()
}

fn all_fields(shape: &Shape) -> Vec<String> {
    match shape {
        Shape::All(parts) | Shape::Any(parts) => parts.iter().flat_map(all_fields).collect(),
        Shape::Line { fields, .. } => fields.clone(),
    }
}

fn wanted(condition: &Condition, positive: &mut BTreeSet<usize>) {
    match condition {
        Condition::Selection(index) => {
            positive.insert(*index);
        }
        Condition::Not(_) => {}
        Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| wanted(part, positive)),
    }
}

fn held_lines(shape: &Shape, verdict: &Verdict) -> usize {
    match shape {
        Shape::All(parts) => parts.iter().map(|part| held_lines(part, verdict)).sum(),
        Shape::Any(parts) => parts.iter().map(|part| held_lines(part, verdict)).max().unwrap_or(0),
        Shape::Line { .. } => usize::from(verdict.holds(shape)),
    }
}

fn values(engine: &Engine, found: &Match<'_>, name: &str) -> Vec<String> {
    let Some(field) = engine.field(name) else { return Vec::new() };
    let mut values = found.slots.get(field);
    let shown = values.by_ref().take(MAX_VALUES).map(|value| match (value.kind, found.slots.text(found.text, value)) {
        (ValueKind::Null, _) => "null".to_owned(),
        (ValueKind::EmptyArray, _) => "[]".to_owned(),
        (ValueKind::Text | ValueKind::Unescaped, Some(text)) => format!("\"{}\"", short(text)),
        (_, Some(text)) => short(text),
        (_, None) => String::new(),
    });
    let mut shown: Vec<String> = shown.collect();
    let more = values.count();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown
}

fn short(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text = redact::redact(&text);
    let cut: String = text.chars().take(MAX_LETTERS).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}
